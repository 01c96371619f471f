"""The import of volumes: where their voxels lie, along which axis they are sliced, and what their labels mean."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from PIL import Image

from course.geometry import common_spacing, geometry_of, merged
from course.importing import import_dataset
from course.nifti import read_grid, read_labels, read_values
from course.store import pair_paths
from course.volumes import common_slice_axis, read_headers, slice_axis
from course.workspace import CourseError

SHAPE = (6, 8, 5)
VALUES = np.arange(240, dtype=np.int16).reshape(SHAPE)  # the largest is 239: every voxel has its own grey value
LABEL = np.zeros(SHAPE, np.uint8)
LABEL[1:3, 2:7, 1:4] = 1
LABEL[3:5, 2:4, 1:3] = 1  # every flip or swap of axes changes it


def save(path, values, affine=None, unit=None, **fields):
    """Save a volume; further fields of the header are written as given, without nibabel's checks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = nibabel.Nifti1Image(values, np.eye(4) if affine is None else np.array(affine, float))
    if unit:
        volume.header.set_xyzt_units(unit)
    nibabel.save(volume, path)
    content = path.read_bytes()
    header = nibabel.Nifti1Header(content[:348])
    for name, value in fields.items():
        if np.ndim(value):
            header[name][: len(value)] = value
        else:
            header[name] = value
    path.write_bytes(header.binaryblock + content[348:])
    return path


UNPLACED = {"sform_code": 0, "qform_code": 0}


def make(folder, values=VALUES, label=LABEL, first=1, affine=None, **options):
    """A dataset of four volumes; the first ones have these values, labels and affine, the others 1 x 1 x 2 mm."""
    plain = np.diag([1, 1, 2, 1])
    for case in range(4):
        own = case < first
        image = values if own else np.random.default_rng(case).integers(0, 200, SHAPE).astype(np.int16)
        where = {"affine": plain if affine is None else affine, **options} if own else {"affine": plain}
        save(folder / "images" / f"c{case}.nii", image, **where)
        save(folder / "masks" / f"c{case}.nii", label if own else LABEL, **where)
    return folder


def imported(folder, work_dir, patient="c0", **options):
    """Return the description, and images and masks of a patient: two arrays (slice, row, column)."""
    description = import_dataset(folder, work_dir, progress=False, **options)
    pairs = [(subset, pair) for subset, pairs in description["subsets"].items() for pair in pairs]
    paths = [pair_paths(description, work_dir, s, pair["name"]) for s, pair in pairs if pair["patient"] == patient]
    images, masks = ([np.asarray(Image.open(path).convert("L")) for path in of_kind] for of_kind in zip(*paths))
    return description, np.stack(images), np.stack(masks)


def expected_slices(values, along):
    """The slices along an axis as pictures, pixel by pixel: rows run against the later of the two other axes."""
    columns, rows = (axis for axis in range(3) if axis != along)
    found = np.empty([values.shape[axis] for axis in (along, rows, columns)], values.dtype)
    for place in np.ndindex(found.shape):
        voxel = {along: place[0], rows: values.shape[rows] - 1 - place[1], columns: place[2]}
        found[place] = values[voxel[0], voxel[1], voxel[2]]
    return found


def greys(values, white=239):
    return np.rint(np.minimum(values, white) * (255 / white))


def check_slices(images, masks, along=2, values=VALUES, label=LABEL):
    """Assert that the pictures of a volume are its slices along an axis."""
    assert np.array_equal(images, greys(expected_slices(values, along)))
    assert np.array_equal(masks, expected_slices(label, along) * 255)


# --- the header -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "affine, options, spacing, axes, told",
    [
        (np.diag([2, 3, 4, 1]), {}, (2, 3, 4), ("R", "A", "S"), ()),
        (np.diag([-2, 3, 4, 1]), {}, (2, 3, 4), ("L", "A", "S"), ()),
        ([[0, 0, 4, 0], [-2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]], {}, (2, 3, 4), ("P", "S", "R"), ()),
        (np.diag([2, 3, 4, 1]), {"pixdim": (1, 1, 1, 1)}, (2, 3, 4), ("R", "A", "S"), ("spacing_of_affine",)),
        (np.diag([2, 3, 4, 1]), {"pixdim": (1, 2, 3, 4.01)}, (2, 3, 4), ("R", "A", "S"), ("spacing_of_affine",)),
        (np.diag([2, 3, 4, 1]), {"pixdim": (1, 2, 3, 4.003)}, (2, 3, 4), ("R", "A", "S"), ()),
        (np.eye(4), {"pixdim": (1, 2, 3, 4)}, (2, 3, 4), ("R", "A", "S"), ("spacing_of_pixdim",)),
        (np.diag([2, 3, 4, 1]), UNPLACED, (2, 3, 4), None, ()),
        (np.diag([2, 3, 4, 1]), {"unit": "micron"}, (0.002, 0.003, 0.004), ("R", "A", "S"), ()),
        (np.diag([0.002, 0.003, 0.004, 1]), {"unit": "meter"}, (2, 3, 4), ("R", "A", "S"), ()),
        (
            [[2, 0, 0.06, 0], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]],
            {},
            (2, 3, np.hypot(4, 0.06)),
            ("R", "A", "S"),
            (),
        ),
        ([[2, 0, 0, 0], [0, 3, -1, 0], [0, 0, 4, 0], [0, 0, 0, 1]], {}, (2, 3, 17**0.5), ("R", "A", "S"), ("slanted",)),
        (np.diag([2, 3, 4, 1]), {"unit": "meter"}, (2000, 3000, 4000), ("R", "A", "S"), ("huge_voxels",)),
        (np.diag([2, 100, 4, 1]), {}, (2, 100, 4), ("R", "A", "S"), ()),
        (np.diag([2, 3, 4, 1]), {"qform_code": 1}, (2, 3, 4), ("R", "A", "S"), ()),
        (np.diag([2, 3, 4, 1]), {"qform_code": 1, "quatern_d": 1}, (2, 3, 4), ("R", "A", "S"), ("two_ways",)),
        (np.diag([2, 3, 4, 1]), {"qform_code": 1, "quatern_d": 2}, (2, 3, 4), ("R", "A", "S"), ("two_ways",)),
        (np.diag([2, 3, 4, 1]), {"srow_z": (0, 0, 0, 0)}, None, None, ("no_spacing",)),
        (np.diag([2, 3, 4, 1]), {"pixdim": (1, 0, 0, 0)}, (2, 3, 4), ("R", "A", "S"), ()),
        (np.diag([2, 3, 4, 1]), {"pixdim": (1, 2, 3, 0), **UNPLACED}, None, None, ("no_spacing",)),
    ],
)
def test_spacing_and_orientation_are_read_from_the_header(tmp_path, affine, options, spacing, axes, told):
    grid = read_grid(save(tmp_path / "a.nii", VALUES, affine, **options))
    assert grid.spacing == (spacing if spacing is None else pytest.approx(spacing))
    assert grid.shape == SHAPE and grid.axes == axes and grid.told == told
    assert spacing is None or nibabel.affines.voxel_sizes(grid.affine) == pytest.approx(spacing)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_volume_is_read_even_if_its_name_is_wrong_about_its_compression(tmp_path, kind):
    for name, other in (("a.nii", "b.nii.gz"), ("b.nii.gz", "a.nii")):
        nibabel.save(kind(VALUES, np.diag([2, 3, 4, 1])), tmp_path / name)
        misnamed = (tmp_path / name).rename(tmp_path / other)
        assert read_grid(misnamed).spacing == (2, 3, 4) and np.array_equal(read_values(misnamed), VALUES)


def test_a_reoriented_grid_keeps_every_voxel_in_place(tmp_path):
    affine = np.array([[0, 0, 4, 5], [-2, 0, 0, 6], [0, 3, 0, 7], [0, 0, 0, 1.0]])  # axes that run to P, S, R
    grid = read_grid(save(tmp_path / "a.nii", VALUES, affine))
    turned = grid.turned(grid.turn_to(replace(grid, affine=np.eye(4))))
    assert turned.shape == (5, 6, 8) and turned.spacing == pytest.approx((4, 2, 3)) and turned.axes == ("R", "A", "S")
    # Voxel (1, 2, 3) becomes (3, 6 - 1 - 1, 2)
    assert np.allclose(turned.affine @ [3, 4, 2, 1], affine @ [1, 2, 3, 1])


def test_voxels_of_metres_are_reported(tmp_path):
    description, *_ = imported(make(tmp_path / "source", unit="meter"), tmp_path / "data")
    assert any("images/c0.nii has voxels longer than 10 cm, by its header" in note for note in description["notes"])


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (6, 8, 1, 1)])
def test_a_flat_volume_is_one_slice(tmp_path, shape):
    path = save(tmp_path / "a.nii", VALUES[..., 0].reshape(shape))
    assert read_grid(path).shape == (6, 8, 1) and np.array_equal(read_values(path), VALUES[..., :1])


# --- image and labels -----------------------------------------------------------------------------------


def shifted(axis, millimetres, spacing=(2, 2, 2)):
    affine = np.diag([*spacing, 1.0])
    affine[axis, 3] = millimetres
    return affine


@pytest.mark.parametrize(
    "image, label, told",
    [
        (np.diag([2, 2, 2, 1]), {"affine": np.diag([2, 2, 2, 1])}, ()),
        (np.diag([2, 2, 2, 1]), {"affine": shifted(0, 0.018)}, ()),  # 0.009 voxels
        (np.diag([2, 2, 2, 1]), {"affine": shifted(0, 0.022)}, ("labels_aside",)),  # 0.011 voxels
        (np.diag([2, 2, 2, 1]), {"affine": shifted(2, -0.98)}, ("labels_aside",)),  # 0.49 voxels
        (np.diag([2, 2, 2, 1]), {"affine": shifted(2, -1.02)}, None),  # 0.51 voxels
        (np.diag([2, 2, 2, 1]), {"affine": np.diag([2, 2.1, 2, 1])}, ("labels_aside",)),  # 7 x 0.05
        (np.diag([2, 2, 2, 1]), {"affine": np.diag([2, 2.15, 2, 1])}, None),  # 7 x 0.075
        (np.diag([2, 2, 2, 1]), {"affine": np.eye(4)}, ("labels_unplaced",)),
        (np.diag([2, 2, 2, 1]), {"affine": np.eye(4), **UNPLACED}, ("labels_unplaced",)),
        (np.diag([2, 2, 2, 1]), {"affine": np.diag([2, 2, 2, 1]), **UNPLACED}, ()),
        (np.diag([2, 2, 2, 1]), {"affine": np.diag([2, 2, 3, 1]), **UNPLACED}, None),
        (np.eye(4), {"affine": np.diag([2, 2, 1, 1])}, None),
        (np.eye(4), {"affine": np.eye(4)}, ()),
        (np.diag([-2, -2, 2, 1]), {"affine": np.eye(4)}, ("labels_unplaced",)),
        (np.diag([2, 2, 2, 1]), {"affine": np.diag([-1, -1, 1, 1])}, ("labels_unplaced",)),  # ITK says nothing
    ],
)
def test_labels_off_the_grid_of_their_image_are_reported_or_refused(tmp_path, image, label, told):
    paths = save(tmp_path / "i.nii", VALUES, image), save(tmp_path / "l.nii", LABEL, **label)
    if told is None:
        with pytest.raises(CourseError, match=r"The labels of .*i\.nii lie up to [\d.]+ voxels away from it"):
            read_headers(*paths)
    else:
        volume = read_headers(*paths)
        assert volume.told == told and volume.label_turn is None


def test_labels_in_another_orientation_are_turned_onto_their_image(tmp_path):
    folder = make(tmp_path / "source")
    from_right_to_left = [[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]  # the same places
    save(folder / "masks" / "c0.nii", LABEL[::-1], from_right_to_left)
    description, images, masks = imported(folder, tmp_path / "data")
    check_slices(images, masks)
    assert [note for note in description["notes"] if "images/c0.nii has another orientation than its labels" in note]


def test_volumes_in_different_orientations_are_brought_into_one(tmp_path):
    """The first volume has its axes swapped and flipped (S, L, P for R, A, S); its pictures look like the others'."""
    swapped = [[0, -1, 0, 5], [0, 0, -1, 7], [2, 0, 0, 0], [0, 0, 0, 1]]
    values, label = (array.transpose(2, 0, 1)[:, ::-1, ::-1] for array in (VALUES, LABEL))
    description, images, masks = imported(make(tmp_path / "source", values, label, affine=swapped), tmp_path / "data")
    check_slices(images, masks)
    for case in ("c0", "c1"):
        assert description["geometry"][case] == {"spacing": [1, 1, 2], "axes": ["P", "R", "S"]}
    assert description["spacing"] == [1, 1, 2]
    assert [note for note in description["notes"] if "c0.nii has another orientation than most" in note]


@pytest.mark.parametrize(("thick", "spacing"), [(2, [1, 1, 2]), (0, None)])
def test_a_volume_without_an_orientation_is_read_as_stored_and_reported(tmp_path, thick, spacing):
    folder = make(tmp_path / "source", pixdim=(1, 1, 1, thick), **UNPLACED)
    description, images, masks = imported(folder, tmp_path / "data")
    check_slices(images, masks)
    assert description["geometry"]["c0"] == {"spacing": spacing, "axes": None}
    assert [note for note in description["notes"] if "c0.nii does not give its orientation in the body" in note]


# --- along which axis -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, spacing, axis",
    [
        ((9, 9, 9), (1.25, 1.25, 1.37), None),  # as the heart data
        *[((9, 9, 9), (2, 3, 4), 2), ((9, 9, 9), (1, 1.21, 1), 1), ((9, 9, 9), (1, 1.19, 1), None)],
        *[((9, 9, 9), (5, 1, 5), None), ((9, 9, 9), (5, 1, 1), 0)],
        *[((1, 9, 9), (1, 1, 5), 0), ((9, 1, 9), (1, 1, 1), 1), ((1, 1, 9), (1, 1, 5), 2)],  # one slice
    ],
)
def test_slices_follow_the_thick_axis(tmp_path, shape, spacing, axis):
    grid = read_grid(save(tmp_path / "a.nii", np.zeros(shape, np.uint8), np.diag([*spacing, 1])))
    assert slice_axis(grid) == axis


def test_volumes_without_a_thick_axis_follow_the_others(tmp_path):
    affines = {"even.nii": np.eye(4), "thick.nii": np.diag([3, 1, 1, 1])}
    paths = [save(tmp_path / name, LABEL, affine) for name, affine in affines.items()]
    volumes = [read_headers(path, path) for path in paths]
    assert common_slice_axis(volumes) == 0 and common_slice_axis(volumes[:1]) == 2
    with pytest.raises(CourseError, match="thickest .*: in .* axis 3, but in .* axis 1"):
        common_slice_axis(volumes[:1] * 2 + volumes[1:])


@pytest.mark.parametrize("thick", [1.5, 8])
def test_oblique_volumes_are_turned_by_the_angle_between_them(tmp_path, thick):
    """Rotated by 40 and by 50 degrees, so that the nearest axes of the body differ; then by a right angle."""
    for number, degrees in enumerate((40, 50, 40, 40)):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        affine = np.eye(4)
        affine[:3, :3] = turn * (1, 1.5, thick)
        values = VALUES if number == 0 else np.random.default_rng(number).integers(0, 200, SHAPE).astype(np.int16)
        for kind, content in (("images", values), ("masks", LABEL)):
            save(tmp_path / "source" / kind / f"c{number}.nii", content, affine)
    description, images, masks = imported(tmp_path / "source", tmp_path / "data")
    check_slices(images, masks)
    assert description["spacing"] == [1.5, 1, thick] and not any("swapped" in note for note in description["notes"])
    assert [description["geometry"][case]["axes"] for case in ("c0", "c1")] == [["P", "R", "S"], ["I", "R", "P"]]
    affine[:3, :3] = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) * (1, 1.5, thick)
    for kind in ("images", "masks"):
        save(tmp_path / "source" / kind / "c1.nii", LABEL, affine)
    if thick > 1.5:
        with pytest.raises(CourseError, match="pictures would show different planes"):
            import_dataset(tmp_path / "source", tmp_path / "data", progress=False)
    else:
        _, images, _ = imported(tmp_path / "source", tmp_path / "data", "c1")
        assert images.shape == (8, 5, 6)  # its columns became slices


@pytest.mark.parametrize("along, word", [(0, "first"), (1, "second")])
def test_thick_slices_along_another_axis_become_the_pictures(tmp_path, along, word):
    spacing = [1, 1.5, 2]
    spacing[along] = 5
    folder = make(tmp_path / "source", first=4, affine=np.diag([*spacing, 1]))
    for case in range(1, 4):
        save(folder / "images" / f"c{case}.nii", VALUES + case, np.diag([*spacing, 1]))
    description, images, masks = imported(folder, tmp_path / "data")
    check_slices(images, masks, along)
    expected = {0: ([2, 1.5, 5], ["I", "A", "R"]), 1: ([2, 1, 5], ["I", "R", "A"])}[along]
    assert description["geometry"]["c2"] == {"spacing": expected[0], "axes": expected[1]}
    told = f"along the {word} axis of the volumes, because in at least half of them the voxels are thickest"
    assert any(told in note for note in description["notes"])


def test_pictures_of_thick_slices_along_the_last_axis_have_no_note(tmp_path):
    description, images, masks = imported(make(tmp_path / "source"), tmp_path / "data")
    check_slices(images, masks)
    assert description["geometry"]["c0"] == {"spacing": [1, 1, 2], "axes": ["P", "R", "S"]}
    assert not any("axis" in note or "thick" in note for note in description["notes"])


@pytest.mark.parametrize(
    "shape, thick, told",
    [
        *[((5, 8, 20), 1, True), ((5, 8, 20), 1.009, True), ((5, 8, 20), 1.011, False), ((5, 8, 20), 0.87, True)],
        *[((10, 12, 20), 1, True), ((11, 12, 20), 1, False)],
    ],
)
def test_a_short_axis_of_cubic_voxels_raises_a_doubt(tmp_path, shape, thick, told):
    for case in range(3):
        for kind in ("images", "masks"):
            values = np.resize(VALUES % 2 + case * (kind == "images"), shape)
            save(tmp_path / "source" / kind / f"c{case}.nii", values, np.diag([1, 1, thick, 1]))
    notes = import_dataset(tmp_path / "source", tmp_path / "data", progress=False)["notes"]
    doubts = [note for note in notes if "the same size along each axis" in note]
    size = " x ".join(map(str, shape))
    assert len(doubts) == told and all(f"images/c0.nii has {size} voxels" in note for note in doubts)


def test_flat_volumes_are_pictures_whose_names_hold_the_patient(tmp_path):
    for patient in range(4):
        for number in range(2):
            name = f"p{patient}_{number:03d}.nii"
            image = np.random.default_rng(10 * patient + number).integers(0, 255, (6, 8)).astype(np.int16)
            save(tmp_path / "source" / "images" / name, image, np.diag([2, 3, 4, 1]))
            save(tmp_path / "source" / "masks" / name, LABEL[..., 1], np.diag([2, 3, 4, 1]))
    description, _, masks = imported(tmp_path / "source", tmp_path / "data", "p2")
    assert set(description["geometry"]) == {"p0", "p1", "p2", "p3"} and len(masks) == 2
    assert np.array_equal(masks[1], np.rot90(LABEL[..., 1]) * 255) and description["spacing"] == [3, 2, 4]
    assert not any("patient of its own" in note for note in description["notes"])
    alone = import_dataset(tmp_path / "source", tmp_path / "alone", patient_pattern=None, progress=False)
    assert alone["notes"][0].startswith("source/images/p0_000.nii (and 7 more) does not name its patient")
    pattern = r"(?P<patient>p\d)_(?P<slice>\d+)"
    again = import_dataset(tmp_path / "source", tmp_path / "again", patient_pattern=pattern, progress=False)
    assert again["fingerprint"] == description["fingerprint"]


# --- greys and labels -----------------------------------------------------------------------------------


BRIGHT = np.where(VALUES, VALUES, 30000).astype(np.int16)
CT = (VALUES * 10 - 1000).astype(np.int16)  # -1000 to 1390
SOFT = LABEL * 0.6
SOFT[0, 0, 0], SOFT[1, 2, 1] = 0.5, 0.49
MANY = np.resize(np.arange(1, 41, dtype=np.uint8), SHAPE)  # as many structures
IGNORED = LABEL.copy()
IGNORED[5] = 255


@pytest.mark.parametrize(
    ("image", "drawn", "options", "values", "label", "told"),
    [
        (BRIGHT, LABEL, {}, BRIGHT, LABEL, "images/c0.nii holds a few values far brighter"),
        (CT, LABEL, {}, VALUES, LABEL, "images/c0.nii holds negative values: the smallest value became black"),
        (VALUES, SOFT, {}, VALUES, SOFT >= 0.5, "masks/c0.nii holds a soft label: values of at least half the"),
        (VALUES, IGNORED, {"foreground": 1}, VALUES, LABEL, "you chose 1 as the structure. The background is 0, 255."),
        (VALUES, 1 - LABEL, {"foreground": 0}, VALUES, LABEL, ""),
    ],
)
def test_changes_to_greys_and_labels_are_reported(tmp_path, image, drawn, options, values, label, told):
    folder = make(tmp_path / "source", image, drawn)
    description, images, masks = imported(folder, tmp_path / "data", **options)
    check_slices(images, masks, values=values, label=label)
    assert not told or [note for note in description["notes"] if told in note]


@pytest.mark.parametrize("share", [0.017, 0.3])
def test_a_marker_that_leaves_few_greys_to_the_rest_is_reported(tmp_path, share):
    marked = np.where(VALUES < share * VALUES.size, 30000, VALUES)
    notes = import_dataset(make(tmp_path / "source", marked), tmp_path / "data", progress=False)["notes"]
    assert [note for note in notes if note.startswith("source/images/c0.nii holds values far from all others")]


TINY = np.where(LABEL, np.float32(0.9999), np.float32(0.0002))


@pytest.mark.parametrize(
    "values, chosen, expected, present, told",
    [
        (LABEL, None, LABEL, [0, 1], ()),
        (LABEL * np.uint8(7), {7}, LABEL * 7, [0, 7], ()),
        (TINY, None, LABEL, [0, 1], ("rounded",)),
        (SOFT, None, SOFT >= 0.5, [0, 1], ("soft",)),
        (SOFT * 2 - 0.2, {1}, np.floor(SOFT * 2 + 0.3), [0, 1], ("soft",)),
        (LABEL * 0.0039, None, LABEL * 0.0039, [0, 0.0039], ()),  # two values are two labels, whatever they are
        (LABEL * 1.5 + SOFT, {1}, np.floor(LABEL * 1.5 + SOFT + 0.5), [0, 1, 2], ("rounded",)),
        (LABEL * 1.5 + SOFT, None, None, None, None),
        (MANY, None, MANY, range(1, 41), ()),
        (IGNORED, None, IGNORED, [0, 1, 255], ()),  # a few whole numbers are labels, not the blur of the largest
    ],
)
def test_labels_become_whole_numbers(tmp_path, values, chosen, expected, present, told):
    path = save(tmp_path / "l.nii", values)
    if expected is None:
        with pytest.raises(CourseError, match=r"l\.nii holds 4 values from 0 to 2\.1, not only whole numbers"):
            read_labels(path, chosen)
    else:
        found, held, key = read_labels(path, chosen)
        assert np.array_equal(found, expected) and held == pytest.approx(list(present)) and key == told


def blurred(dtype, between, above=60):
    """A volume of `above` voxels of 255, `between` voxels from a quarter to three quarters of it, and 0 elsewhere."""
    values = np.zeros(SHAPE, dtype)
    values.flat[:above] = 255
    values.flat[above : above + between] = np.linspace(64, 191, between)
    return values


@pytest.mark.parametrize(
    "values, is_soft",
    [
        (blurred(np.float32, 30), True),  # half as many between as above
        (blurred(np.float32, 31), False),
        (blurred(np.uint8, 60), True),  # whole numbers: as many as are the largest itself
        (blurred(np.uint8, 61), False),
    ],
)
def test_a_blurred_label_of_a_large_number_is_cut_at_half_of_it(tmp_path, values, is_soft):
    path = save(tmp_path / "l.nii", values)
    is_whole = values.dtype == np.uint8
    for chosen in (None, {255}):
        if is_soft or (chosen and not is_whole):
            found, held, told = read_labels(path, chosen)
            assert np.array_equal(found, np.where(values >= 127.5, 255, 0)) and (held, told) == ([0, 255], ("soft",))
        elif is_whole:
            assert np.array_equal(read_labels(path, chosen)[0], values)
        else:
            with pytest.raises(CourseError, match="not only whole numbers"):
                read_labels(path, chosen)
    assert read_labels(path, {100})[2] == (() if is_whole else ("rounded",))


# --- the geometry of a dataset --------------------------------------------------------------------------


def test_spacings_within_a_thousandth_count_as_equal():
    one, near, far = ({"spacing": [1, 2, step], "axes": None} for step in (3, 3.0029, 3.0031))
    assert common_spacing({"a": one, "b": near}) == [1, 2, 3] and common_spacing({"a": one, "b": far}) is None
    assert common_spacing({"a": one, "b": {"spacing": None, "axes": None}}) is None


def test_geometry_on_which_a_patients_files_disagree_is_unknown():
    entries = [geometry_of([1, 1, 2], "IAR"), geometry_of([1, 1, 3], "IAR"), geometry_of([1, 1, 2], "IAL")]
    assert merged([("p", entries[0]), ("p", entries[1]), ("q", entries[0])]) == {
        "p": {"spacing": None, "axes": ["I", "A", "R"]},
        "q": {"spacing": [1, 1, 2], "axes": ["I", "A", "R"]},
    }
    assert merged([("p", entries[0]), ("p", entries[2])])["p"] == {"spacing": [1, 1, 2], "axes": None}


def test_a_geometry_file_beside_volumes_is_reported_as_passed_over(tmp_path):
    folder = make(tmp_path / "source")
    for place in (folder, folder / "images"):
        (place / "geometry.json").write_text(json.dumps({"spacing": [9, 9, 9]}))
    description, *_ = imported(folder, tmp_path / "data")
    assert description["spacing"] == [1, 1, 2]
    told = "source/geometry.json (and 1 more) was passed over: volumes have their own spacing and axes."
    assert any(note.endswith(told) for note in description["notes"])


def test_a_spacing_is_recorded_to_six_digits(tmp_path):
    folder = make(tmp_path / "source", affine=np.diag([1 / 3, 2 / 3, 1.2345678, 1]))
    description, *_ = imported(folder, tmp_path / "data")
    assert description["geometry"]["c0"]["spacing"] == [0.666667, 0.333333, 1.23457] and description["spacing"] is None
    told = "The spacing differs from patient to patient: c0 0.666667 x 0.333333 x 1.23457 mm, c1 1 x 1 x 2 mm."
    assert told in description["notes"]
