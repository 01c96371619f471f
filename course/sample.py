"""A made-up chest MRI to practise on if the real heart data cannot be downloaded.

Every patient is one three-dimensional scene of smooth shapes, cut into sagittal slices: a torso with lungs, spine and
belly, and a heart whose left atrium has to be found among chambers and vessels full of the same bright blood. Position,
build, contrast, coil shading and noise differ from patient to patient. It resembles anatomy but does not teach it.

All lengths are in millimetres. Drawing is in float32, with cosines computed in float64, so the pixels do not depend on
the machine.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from course.workspace import parallel

PATIENTS = {"train": 12, "valid": 4, "test": 4}
FIELD_OF_VIEW = 400.0  # height and width of a slice
SLAB = 120.0  # from the first slice (patient's left) to the last (right)
EDGE = 3.0  # length over which one tissue fades into the next
BEND = 10.0  # largest shift of a point when the shapes are bent
TEXTURE_WAVES = 16

# Brightness of the tissues. That of other chambers and vessels varies from patient to patient, within BLOOD.
LUNG, STOMACH, AROUND_HEART, WALL, MUSCLE, BONE = 0.05, 0.12, 0.12, 0.18, 0.22, 0.30
FAT, MYOCARDIUM, SPINAL_CANAL, SPLEEN, ATRIUM, BLOOD = 0.38, 0.42, 0.50, 0.85, 0.92, (0.90, 1.15)

# Points are (z to the patient's right, y down, x forward); those of the heart are relative to the left atrium's centre.
CHAMBERS = [  # centre, radii, thickness of the wall, its brightness
    ((-32, 26, 50), (32, 32, 38), 10, MYOCARDIUM),  # left ventricle
    ((4, 12, 66), (34, 42, 22), 4, WALL),  # right ventricle
    ((42, 16, 38), (22, 34, 27), 3, WALL),  # right atrium
]
VESSELS = [  # points on the centre line, radius
    ([(6, -8, 36), (14, -62, 34), (6, -88, 12), (-8, -84, -22), (-14, -50, -38), (-12, 250, -38)], 12),  # aorta
    ([(-8, -22, 58), (-14, -48, 30), (-8, -46, 4)], 12),  # pulmonary artery
    ([(-8, -46, 4), (52, -42, 0)], 8),  # its right branch
    ([(42, -130, 20), (44, 20, 28), (36, 100, 4)], 10),  # venae cavae
]
ATRIUM_RADII = (24, 33, 22)
VEIN_TIPS = [(-28, -14, -16), (-26, 14, -18), (28, -14, -14), (27, 16, -16)]  # pulmonary veins
VEIN_RADIUS = 7


def make_sample(
    folder: str | os.PathLike,
    seed: int = 0,
    patients: dict[str, int] = PATIENTS,
    slices: int = 20,
    size: int = 320,
    progress: bool = False,
) -> dict:
    """Draw the made-up patients and write them to `folder/SUBSET/{images,masks}/sample_PATIENT_SLICE.png`.

    patients: number of patients in each subset; patients are numbered from 1 through all subsets, slices from 0. Images
    and masks are 8-bit RGB of size x size pixels with three equal channels, masks 0 or 255. A patient's pixels depend
    only on seed, patient number, slices and size. Files of the same name are overwritten.

    Returns {"spacing": [row, column, slice]} in millimetres. Raises ValueError for a negative seed, for slices or size
    below 1, and if `patients` does not give whole numbers.
    """
    if not (isinstance(patients, dict) and all(isinstance(count, int) for count in patients.values())):
        raise ValueError(f"patients must give a number for each subset, such as {PATIENTS}, but is {patients!r}")
    if seed < 0 or slices < 1 or size < 1:
        raise ValueError(
            f"seed must be at least 0, slices and size at least 1, but they are {seed}, {slices} and {size}"
        )
    subsets = [subset for subset, count in patients.items() for _ in range(count)]

    def write_patient(patient_and_subset):
        """Draw one patient and write its pictures."""
        patient, subset = patient_and_subset
        for kind, volume in zip(("images", "masks"), draw_patient(seed, patient, slices, size)):
            target = Path(folder, subset, kind)
            target.mkdir(parents=True, exist_ok=True)
            for number, picture in enumerate(volume):
                name = f"sample_{patient:03d}_{number:03d}.png"
                Image.fromarray(picture).convert("RGB").save(target / name, compress_level=1)

    parallel(write_patient, list(enumerate(subsets, start=1)), "drawing patients", progress)
    return {"spacing": [FIELD_OF_VIEW / size, FIELD_OF_VIEW / size, SLAB / slices]}


def draw_patient(seed: int, patient: int, slices: int = 20, size: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """Return (image, mask) of one patient, both uint8 (slices, size, size); the mask holds 0 and 255."""
    rng = np.random.default_rng([seed, patient])
    grid = _voxel_grid(rng, slices, size)
    scene = np.zeros((slices, size, size), np.float32)
    heart = rng.uniform((-8, -46, -22), (8, 14, 16)).astype(np.float32)  # middle of the left atrium
    grain = _texture(rng, slices, size)
    _draw_torso(rng, scene, grid, heart, grain)
    _draw_spine(scene, grid, heart)
    atrium = _draw_heart(rng, scene, grid, heart)
    return _expose(rng, scene, grain), np.where(atrium, np.uint8(255), np.uint8(0))


def _centres(count, length):
    """Return the centres of `count` equal steps over `length` mm, relative to the middle."""
    return ((np.arange(count) + 0.5) / count - 0.5) * length


def _voxel_grid(rng, slices, size):
    """Return z, y and x of the voxels in mm from the middle of the scan: three float32 arrays (slices, size, size).

    Slow waves bend them, so that no shape drawn on them is exact.
    """
    z = _centres(slices, SLAB)[:, None, None]
    y = _centres(size, FIELD_OF_VIEW)[None, :, None]
    x = y.reshape(1, 1, size)

    def waves(along):
        """Return two waves of 70 to 160 mm along an axis, shifting from slice to slice."""
        phases = (along / rng.uniform(11, 25) + z / 40 + rng.uniform(0, 2 * np.pi) for _ in range(2))
        return sum(rng.uniform(0, BEND / 4) * np.cos(phase) for phase in phases)

    bent = z, y + waves(x) + waves(y), x + waves(y) + waves(x)
    return [np.broadcast_to(axis, (slices, size, size)).astype(np.float32) for axis in bent]


def _texture(rng, slices, size):
    """Return a smooth random field, float32 (slices, size, size), mean 0, deviation 1: in waves of 10 to 40 mm."""
    z, line = _centres(slices, SLAB), _centres(size, FIELD_OF_VIEW)
    fields = []
    for _ in range(2):
        angle, phase = rng.uniform(0, 2 * np.pi, (2, TEXTURE_WAVES))
        frequency = 2 * np.pi / rng.uniform(10, 40, TEXTURE_WAVES)
        down = np.multiply.outer(frequency * np.cos(angle), line) + phase[:, None]
        along = np.multiply.outer(frequency * np.sin(angle), line)
        waves = (np.cos(d[:, None] + a) for d, a in zip(down, along))
        fields.append((sum(waves) / np.sqrt(TEXTURE_WAVES / 2)).astype(np.float32))
    turn = z[:, None, None] / 15  # another field some 24 mm further
    return np.cos(turn).astype(np.float32) * fields[0] + np.sin(turn).astype(np.float32) * fields[1]


def _paint(scene, shape, brightness):
    """Paint the part of the scene inside a shape, with a soft edge."""
    where, depth = shape
    cover = np.clip(depth / EDGE + 0.5, 0, 1)
    scene[where] += cover * (brightness - scene[where])


def _nearby(grid, low, high):
    """Return the voxels that may lie between two corners (z, y, x) in mm, as three slices into the grid."""
    lengths = SLAB, FIELD_OF_VIEW, FIELD_OF_VIEW
    lines = (_centres(count, length) for count, length in zip(grid[0].shape, lengths))
    reach = BEND + EDGE
    return tuple(slice(*np.searchsorted(line, (a - reach, b + reach))) for line, a, b in zip(lines, low, high))


def _ellipsoid(grid, centre, radii):
    """Return a shape: the voxels around an ellipsoid, and their depth below its surface in mm (negative outside)."""
    centre, radii = np.float32(centre), np.float32(radii)
    where = _nearby(grid, centre - radii, centre + radii)
    squares = sum(((axis[where] - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii))
    return where, (1 - np.sqrt(squares)) * radii.min()


def _tube(grid, start, end, radius):
    """Return a shape, as `_ellipsoid` does: a straight tube with round ends."""
    start, end, radius = np.float32(start), np.float32(end), np.float32(radius)
    where = _nearby(grid, np.minimum(start, end) - radius, np.maximum(start, end) + radius)
    step = end - start
    offsets = [axis[where] - s for axis, s in zip(grid, start)]
    along = np.clip(sum(o * d for o, d in zip(offsets, step / (step**2).sum())), 0, 1)
    return where, radius - np.sqrt(sum((o - along * d) ** 2 for o, d in zip(offsets, step)))


def _rungs(scene, heart):
    """Return a wave from -1 to 1 down the scan, with the period of ribs and vertebrae: float32 (rows, 1)."""
    y = _centres(scene.shape[1], FIELD_OF_VIEW)[:, None]
    return np.cos(2 * np.pi / 25 * (y - heart[1])).astype(np.float32)


def _draw_torso(rng, scene, grid, heart, grain):
    """Draw chest wall, lungs and belly around a left atrium that will be centred on `heart`."""
    z, y, x = (axis - middle for axis, middle in zip(grid, heart))
    narrowing = np.minimum(grid[1], 0) ** 2 / 700  # towards the neck
    half_width = 112 * rng.uniform(0.92, 1.08) - grid[0] ** 2 / 400 - narrowing
    depth = half_width - np.abs(x - rng.uniform(0, 10) + narrowing / 3)
    lung_vessels = 0.35 * np.clip(grain - 1.1, 0, 1)
    _paint(scene, (..., depth), FAT)
    _paint(scene, (..., depth - rng.uniform(5, 12)), MUSCLE + 0.07 * _rungs(scene, heart))  # with ribs
    _paint(scene, (..., depth - rng.uniform(22, 28)), LUNG + lung_vessels)
    _paint(scene, _ellipsoid(grid, heart + (0, 0, 34), (50, 62, 60)), AROUND_HEART)

    below_diaphragm = y - rng.uniform(56, 66) - (x - 20) ** 2 / 240  # a dome
    liver = (rng.uniform(0.6, 0.8) + 0.03 * grain) * np.clip(0.75 + z / 120, 0.4, 1)  # dimmer to the left
    _paint(scene, (..., np.minimum(below_diaphragm, depth - 14)), liver)
    _paint(scene, _ellipsoid(grid, heart + (-45, 118, 35), (38, 34, 44)), STOMACH)
    _paint(scene, _ellipsoid(grid, heart + (-52, 110, -48), (28, 38, 30)), SPLEEN)


def _draw_spine(scene, grid, heart):
    """Draw vertebrae with the discs between them, and the spinal canal, behind a left atrium centred on `heart`."""
    where = _nearby(grid, heart + (-26, -300, -90), heart + (34, 300, -46))
    z, _, x = (axis[where] - middle for axis, middle in zip(grid, heart))
    column = np.minimum(16 - np.abs(x + 68), 24 - np.abs(z - 4))  # half a vertebra is 16 deep and 24 wide
    discs = np.clip(3 * _rungs(scene, heart) - 1.8, 0, 1)
    _paint(scene, (where, column + 6), WALL)
    _paint(scene, (where, column), BONE - 0.14 * discs)
    _paint(scene, _tube(grid, heart + (4, -300, -92), heart + (4, 300, -92), 7), SPINAL_CANAL)


def _draw_heart(rng, scene, grid, heart):
    """Draw chambers and vessels, the left atrium last; return the atrium's voxels, bool of the scene's shape."""
    scale, turn = rng.uniform(0.88, 1.12), rng.uniform(-0.2, 0.2)
    rotation = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])

    def place(point):
        """Return the position in the scan of a point given in the heart's own mm."""
        return heart + scale * (rotation * point).sum(axis=1)

    for centre, radii, wall, wall_brightness in CHAMBERS:
        centre = place(centre + rng.uniform(-3, 3, 3))
        radii = scale * rng.uniform(0.92, 1.08, 3) * radii
        _paint(scene, _ellipsoid(grid, centre, radii + wall), wall_brightness)
        _paint(scene, _ellipsoid(grid, centre, radii), rng.uniform(*BLOOD))
    for line, radius in VESSELS:
        points = [place(point) for point in line + rng.uniform(-3, 3, 3)]
        radius *= scale * rng.uniform(0.9, 1.1)
        for wall, brightness in ((2, WALL), (0, rng.uniform(*BLOOD))):
            for start, end in zip(points, points[1:]):
                _paint(scene, _tube(grid, start, end, radius + wall), brightness)

    radii = scale * rng.uniform(0.93, 1.07, 3) * ATRIUM_RADII
    shapes = [_ellipsoid(grid, heart, radii), _ellipsoid(grid, place(rng.uniform(-9, 9, 3)), 0.85 * radii)]
    for tip in VEIN_TIPS:
        tip = place(tip + rng.uniform(-4, 4, 3))
        shapes.append(_tube(grid, (3 * heart + tip) / 4, tip, scale * rng.uniform(0.8, 1.2) * VEIN_RADIUS))
    depth = np.full(scene.shape, -np.inf, np.float32)
    for where, shape_depth in shapes:
        depth[where] = np.maximum(depth[where], shape_depth)
    where = _nearby(grid, heart - 70, heart + 70)
    _paint(scene, (where, depth[where] + 3), WALL)
    _paint(scene, (where, depth[where]), ATRIUM)
    return depth > 0


def _expose(rng, scene, grain):
    """Return a scene as a scanner shows it, in uint8 greys: with contrast, coil shading and Rician noise."""
    line = _centres(scene.shape[1], 2.0)  # -1 to 1 over the field of view
    y, x = line[:, None], line[None, :]
    across = 0.65 + 1.2 * (x - rng.uniform(-0.15, 0.15)) ** 2  # strongest next to the coils on chest and back
    along = np.cos(1.2 * (y - rng.uniform(-0.1, 0.1))) ** 2
    tilt = 1 + rng.uniform(-0.25, 0.25) * x + rng.uniform(-0.25, 0.25) * y
    gain = rng.uniform(150, 220)  # grey value of brightness 1 without shading
    signal = scene + rng.uniform(-0.2, 0.4) * scene * (scene - 1)  # a contrast curve through 0 and 1
    signal *= 1 + 0.05 * grain
    signal *= (gain * across * along * tilt).astype(np.float32)
    noise = rng.standard_normal((2, *scene.shape), np.float32) * rng.uniform(4, 9)
    return np.rint(np.clip(np.sqrt((signal + noise[0]) ** 2 + noise[1] ** 2), 0, 255)).astype(np.uint8)
