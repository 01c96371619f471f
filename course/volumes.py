"""NIfTI volumes are written as pairs of pictures: in one orientation, along one axis, with one structure."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mode

import numpy as np
from PIL import Image

from course.geometry import OPPOSITE, SAGITTAL, geometry_of, merged
from course.greys import GreyRange, are_crowded, to_greys
from course.labels import chosen_sentences, ignored_hint
from course.matching import Layout
from course.nifti import (
    MANY_LABELS,
    Grid,
    foreground_values,
    read_grid,
    read_label_names,
    read_labels,
    read_values,
    turn_values,
)
from course.notes import told_sentences
from course.patients import HEART_SUBSETS, PATIENT_PATTERN, check_volumes, group_people, pairs_of_pictures
from course.pictures import Pair
from course.sources import HEART_SLICES
from course.workspace import CourseError, end_of_path, listed, parallel

THICK = 1.2  # slices follow the axis whose spacing is more than this many times that of the others
EVEN = 1.01  # below this ratio, the last axis' spacing does not show that slices follow it
SHORT = 2  # slices may follow another axis than the last if that is this many times shorter


@dataclass(frozen=True)
class LabelledVolume:
    """An image volume and its labels, as their headers describe them; for the turns see `Grid.turn_to`."""

    image: Path
    label: Path
    grid: Grid  # of both, as they are to be written
    told: tuple[str, ...]  # keys of `course.notes.TOLD`
    label_turn: np.ndarray | None  # from the labels as stored to the image as stored
    turn: np.ndarray | None = None  # from the image as stored to `grid`


def read_headers(image: Path, label: Path) -> LabelledVolume:
    """Read the headers of a volume and of its labels, and check that both lie on the same grid.

    Labels in another orientation are fine if they fit once they are turned, and so are labels whose header says
    nothing. Raises CourseError if the shapes differ, or if labels lie more than half a voxel from the image.
    """
    grid, labels, told, lying = read_grid(image), read_grid(label), [], ""
    stored = labels.shape
    if labels.says_nothing and not grid.says_nothing:
        labels, told = replace(grid, shape=stored), ["labels_unplaced"]
    turn = labels.turn_to(grid)
    if turn is not None:
        labels, told = labels.turned(turn), ["labels_turned"]
        lying = f" ({labels.shape} once turned to its orientation)"
    if labels.shape != grid.shape:
        raise CourseError(
            f"{image.name} has the shape {grid.shape} but its labels {stored}{lying}: both must lie on the same grid."
        )
    apart = grid.distance_to(labels)
    if apart > 0.5:
        raise CourseError(
            f"The labels of {end_of_path(image)} lie up to {apart:.3g} voxels away from it, by the spacing, origin and "
            "direction in the two headers. Resample the labels onto the grid of the image or, if they fit it voxel by "
            "voxel, give them its header."
        )
    if apart > 0.01:
        told.append("labels_aside")
    return LabelledVolume(image, label, grid, (*grid.told, *told), turn)


def in_one_orientation(volumes: list[LabelledVolume]) -> list[LabelledVolume]:
    """Return the volumes, turned like the first whose axes run to the same sides of the body as those of most."""
    placed = {volume.grid.axes: volume.grid for volume in reversed(volumes) if volume.grid.axes}
    if not placed:
        return volumes
    most_common = mode(volume.grid.axes for volume in volumes if volume.grid.axes)
    return [_turned_like(volume, placed[most_common]) for volume in volumes]


def _turned_like(volume, grid):
    """Return a volume with its axes swapped and flipped to run as nearly as possible like those of a grid."""
    if not volume.grid.axes:
        return replace(volume, told=(*volume.told, "no_axes"))
    turn = volume.grid.turn_to(grid)
    if turn is None:
        return volume
    return replace(volume, grid=volume.grid.turned(turn), turn=turn, told=(*volume.told, "turned"))


def slice_axis(grid: Grid) -> int | None:
    """Return the axis that a volume's slices follow: the one of length 1, or with the thickest voxels, or None."""
    single = [axis for axis, length in enumerate(grid.shape) if length == 1]
    if len(single) == 1:
        return single[0]
    if not grid.spacing:
        return None
    _, next_to, thickest = sorted(grid.spacing)
    return grid.spacing.index(thickest) if thickest > THICK * next_to else None


def common_slice_axis(volumes: list[LabelledVolume]) -> int:
    """Return the axis that slices follow in all volumes: each one's `slice_axis`, or the last if most have none.

    Raises CourseError if it differs between volumes.
    """
    first, axes = {}, [slice_axis(volume.grid) for volume in volumes]
    others = 2 if 2 * axes.count(None) > len(axes) else None  # most are about isotropic
    for volume, axis in zip(volumes, axes):
        axis = others if axis is None else axis
        if axis is not None:
            first.setdefault(axis, volume.image)
    if len(first) > 1:
        (axis, one), (other_axis, other) = list(first.items())[:2]
        raise CourseError(
            f"Slices follow the axis along which voxels are thickest (the last if none is): in {end_of_path(one)} axis "
            f"{axis + 1}, but in {end_of_path(other)} axis {other_axis + 1}. Their pictures would show different "
            "planes: give volumes with slices of the same plane, or exclude the others."
        )
    return next(iter(first), 2)


def picture_axes(axes: tuple[str, str, str], along: int = 2) -> tuple[str, str, str]:
    """Return the sides of the body that rows, columns and slices run to, for slices that follow the axis `along`."""
    columns, rows = (axis for number, axis in enumerate(axes) if number != along)
    return OPPOSITE[rows], columns, axes[along]  # numpy.rot90 reverses the rows


def upright(values: np.ndarray, along: int) -> np.ndarray:
    """Return the slices of a volume along an axis, each turned by `rot90`: an array (slice, row, column)."""
    return np.rot90(np.moveaxis(values, along, 0), axes=(1, 2))


def stacked(pictures: np.ndarray | list[np.ndarray]) -> np.ndarray:
    """Return the volume whose `upright` slices along its last axis are these pictures (slice, row, column)."""
    return np.moveaxis(np.rot90(pictures, -1, axes=(1, 2)), 0, -1)


def write_volume(
    volume: LabelledVolume, slices: list[Pair], foreground: set | None, along: int
) -> tuple[list[float], dict, dict[Path, tuple[str, ...]]]:
    """Write a volume and its labels as 8-bit RGB PNG files, at the paths of the pairs in `slices`.

    foreground: label numbers, or None for all except 0. along: the axis that slices follow. Greys are scaled by the
    `GreyRange.window` of the whole volume; masks are 0 or 255.
    Returns (the values of the label volume, `geometry_of`, {path: keys of `course.notes.TOLD`}).
    """
    grid, values = volume.grid, turn_values(read_values(volume.image), volume.turn)
    labels, present, label_told = read_labels(volume.label, foreground)
    structure = turn_values(np.isin(labels, list(foreground or {*present} - {0})), volume.label_turn)
    structure = turn_values(structure, volume.turn)
    black, white, told = GreyRange.of(values).window()
    if are_crowded(np.clip(values, black, white)):
        told = (*told, "crowded")
    for path in (slices[0].image, slices[0].mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    for pair, picture, drawn in zip(slices, upright(values, along), upright(structure, along)):
        for path, greys in ((pair.image, to_greys(picture, black, white)), (pair.mask, drawn * np.uint8(255))):
            Image.fromarray(greys).convert("RGB").save(path, compress_level=3)
    columns, rows = (axis for axis in range(3) if axis != along)
    geometry = geometry_of(
        grid.spacing and [float(f"{grid.spacing[axis]:.6g}") for axis in (rows, columns, along)],
        grid.axes and picture_axes(grid.axes, along),
    )
    return present, geometry, {volume.image: (*volume.told, *told), volume.label: label_told}


def pairs_of_volumes(
    layout: Layout,
    is_heart: bool,
    patient_pattern: str | None,
    exclude: tuple,
    foreground: int | str | list | None,
    allow_incomplete: bool,
    folder: Path,
    progress: bool,
) -> tuple[list[Pair], dict[str, str], dict[str, dict], list[str]]:
    """Write the slices of volumes below `folder`; return (pairs, {patient: person}, {patient: `geometry_of`}, notes).

    The arguments are those of `import_dataset`; the heart data are also recognised by the names of task and patients.
    Each volume is a patient, but volumes of a single slice are pictures, whose names give their patients.
    Raises CourseError if files do not fit together, and if the structure has to be chosen.
    """
    label_names, task = read_label_names(layout.paths[0].parent.parent)
    is_heart = is_heart or (task == "LeftAtrium" and {name for _, name in layout.images} <= set(HEART_SUBSETS))
    notes = check_volumes(layout, is_heart, exclude, allow_incomplete)
    chosen = foreground_values(foreground, label_names)
    keys = list(layout.images)
    files = [(path, layout.masks[key][0]) for key, path in layout.images.items()]
    volumes = parallel(lambda pair: read_headers(*pair), files, "headers of volumes", progress)
    volumes = in_one_orientation(volumes)
    along = common_slice_axis(volumes)
    depths = [volume.grid.shape[along] for volume in volumes]
    is_flat = set(depths) == {1}
    if not is_flat and patient_pattern not in (PATIENT_PATTERN, None):
        raise CourseError(
            "patient_pattern is for pictures, and each volume is taken as a patient of its own: leave it out. If a "
            "patient has several volumes, put them all into train, all into valid or all into test."
        )
    if is_heart:
        _check_heart_slices(dict(zip(keys, depths)))
    slices = _slices_of_volumes(keys, depths, is_flat, patient_pattern is None, folder)
    work = list(zip(volumes, slices))
    written = parallel(lambda one: write_volume(*one, chosen, along), work, "slices of volumes", progress)
    labels, geometries, told = zip(*written)
    notes += _check_labels(dict(zip([label for _, label in files], labels)), foreground, chosen, label_names)
    notes += told_sentences({path: keys for of_volume in told for path, keys in of_volume.items()})
    notes += _sentences_on_slices(volumes, along)
    pairs = [pair for of_volume in slices for pair in of_volume]
    patients = [of_volume[0].patient for of_volume in slices]
    people, of_people = {}, []
    if is_flat:
        named, people, of_people = pairs_of_pictures(layout, patient_pattern, ())  # so notes name the user's files
        pairs = [replace(one, image=pair.image, mask=pair.mask) for one, pair in zip(named, pairs)]
        patients = [pair.patient for pair in pairs]
    elif not is_heart:
        notes.append("Each volume was taken as a patient of its own.")
        people, of_people = group_people(pairs, are_volumes=True) if patient_pattern else ({}, [])
    geometry = merged(zip(patients, geometries))
    if is_heart:  # their orientation is known
        geometry = {patient: {**entry, "axes": list(SAGITTAL)} for patient, entry in geometry.items()}
    return pairs, people, geometry, notes + of_people


def _slices_of_volumes(keys, depths, is_flat, by_subset, folder):
    """Return for each volume the pairs of its slices, to be written below `folder`; keys: its (subset, name).

    Each is a patient; by_subset: one name in several subsets means several patients. is_flat: all are single slices.
    """
    repeated, slices = Counter(name for _, name in keys), []
    for (subset, name), depth in zip(keys, depths):
        patient = f"{subset}/{name}" if by_subset and repeated[name] > 1 else name
        names = [name] if is_flat else [f"{name}_{number:03d}" for number in range(depth)]
        images, masks = (folder / (subset or "all") / kind for kind in ("images", "masks"))
        slices.append(
            [
                Pair(subset, own, patient, number, images / f"{own}.png", masks / f"{own}.png")
                for number, own in enumerate(names)
            ]
        )
    return slices


def _check_heart_slices(depths):
    """Raise CourseError if {(subset, patient): number of slices} of the heart data differ from the report's."""
    for (subset, patient), depth in depths.items():
        if depth != HEART_SLICES[subset][patient]:
            raise CourseError(
                f"{patient} has {depth} slices, but {HEART_SLICES[subset][patient]} in the report, so the heart data "
                "are incomplete. Get them again, or exclude this patient."
            )


def _check_labels(labels, foreground, chosen, label_names):
    """Raise CourseError if label volumes leave the structure open, or do not hold it; return notes on the choice.

    labels: {path: the values that the label volume holds}.
    """
    present = {value for values in labels.values() for value in values}
    held = listed(sorted(present))
    structures = sorted(present - {0})
    if chosen is None and len(structures) > 1:
        held = listed(structures)
        known = listed([f"{number} {name!r}" for name, number in label_names.items()])
        if len(structures) > MANY_LABELS:
            more = " (if it is one structure with a blurred edge, save its labels with two values)"
        elif any(len({*values} - {0}) > 1 for values in labels.values()):
            more = ignored_hint(structures)
        else:
            more = ". No volume holds two of them, so they may all be one structure"
        example = max(labels, key=lambda path: len(labels[path]))
        raise CourseError(
            f"The labels hold more than one structure ({held}{known and f'; the names are {known}'}). Choose "
            f"the structure with foreground=..., by name or number{more}. "
            f"{end_of_path(example)} holds {listed(labels[example])}."
        )
    missing = listed(sorted((chosen or set()) - present))
    if missing:
        raise CourseError(f"foreground={foreground!r}: no label volume holds {missing}. Choose from {held}.")
    if (chosen or {*structures}) & present in (set(), present):
        raise CourseError(
            f"The label volumes hold only {held} (soft labels count from one half on), so the structure would be all "
            "of their voxels or none. Give labels in which it is drawn on a background of another value."
        )
    return chosen_sentences(chosen, sorted(present))


def _sentences_on_slices(volumes, along):
    """Return a list with a sentence on the axis that slices follow, if it is not obvious."""
    if along != 2:
        return [
            f"Slices were taken along the {('first', 'second')[along]} axis of the volumes, because in at least half "
            "of them the voxels are thickest along it, or there is only one slice."
        ]
    for volume in volumes:
        grid = volume.grid
        is_even = not grid.spacing or grid.spacing[2] < EVEN * max(grid.spacing[:2])
        if is_even and grid.shape[2] >= SHORT * min(grid.shape[:2]):
            return [
                f"{end_of_path(volume.image)} has {' x '.join(map(str, grid.shape))} voxels of about the same size "
                "along each axis, so slices were taken along the last axis. If they follow another axis, save the "
                "volume with its real spacing."
            ]
    return []
