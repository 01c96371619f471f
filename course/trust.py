"""How far to trust a network on a scan: what it learned from, and how the scan differs.

A network predicts a mask for any picture, but it has only learned to do so for pictures like its training data.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from course.arrays import load_arrays, read_arrays_record, rows_of_patients
from course.geometry import spacings
from course.planes import area_average
from course.store import read_description
from course.workspace import CourseError

SIDE = 32  # pixels on a side of the typical picture
MARGIN = 0.05  # by which the likeness may fall below that of the least typical training patient
UNLIKELY = 20  # ratio to the training's spacing from which one of the two must be in another unit
ROOM = 1.5  # factor by which a scan's figure may lie outside the range of training


def typical_picture(volume: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of a volume's slices, reduced to SIDE x SIDE, flat, with mean 0 and norm 1.

    volume: (slices, height, width). A volume of a single grey value gives zeros.
    """
    quarter = len(volume) // 4
    middle = volume[quarter : len(volume) - quarter].astype(np.float32).mean(axis=0)
    small = area_average(area_average(middle, SIDE, axis=0), SIDE, axis=1).ravel()
    small -= small.mean()
    return small / max(np.linalg.norm(small), 1e-6)


def likeness(picture: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Return the correlation, from -1 to 1, of a typical picture with the mean of others."""
    mean = np.mean(others, axis=0)
    return float(picture @ mean / max(np.linalg.norm(mean), 1e-6))


def describe_training(volumes: Iterable[tuple[str, np.ndarray]], millilitres: dict[str, float]) -> dict:
    """Describe what a network learned from, as a dict for JSON, with which `differences` compares a scan.

    volumes: for each training patient its name and pictures, (slices, height, width) in [0, 1]. millilitres: the
    volume of each patient's atrium. The least likeness is that of one patient to the mean of all others.
    """
    pictures, brightness = {}, []
    for patient, volume in volumes:
        pictures[patient] = typical_picture(volume)
        if volume.any():
            brightness.append(float(np.median(volume[volume > 0])))
    brightness = brightness or [0.0]
    alike = []
    for patient, picture in pictures.items():
        others = [other for name, other in pictures.items() if name != patient]
        alike.append(likeness(picture, others or [picture]))
    return {
        "patients": len(pictures),
        "typical_picture": np.round(np.mean(list(pictures.values()), axis=0), 4).tolist(),
        "least_likeness": min(alike),
        "brightness": [min(brightness), max(brightness)],
        "millilitres": [min(millilitres.values()), max(millilitres.values())],
    }


def learned_from(work_dir: Path) -> dict:
    """Return what the network of a work folder learned from, measured on its train arrays.

    `axes` (see `course.geometry`) and `spacing` ([row, column, slice] in mm), None if unknown, and `size` ([height,
    width] in pixels) are those of the train patient with the median field of view. `spacing_range` (None if unknown),
    `notes` (a sentence if fields of view differ in size) and what `describe_training` returns cover all of them.
    Raises CourseError if the arrays of 02 are not there.
    """
    description = read_description(work_dir)
    slices = read_arrays_record(work_dir)["slices"]["train"]
    X, y = load_arrays(work_dir, "train")
    rows_of = rows_of_patients(slices)
    volumes = ((patient, X[rows, ..., 0]) for patient, rows in rows_of.items())  # one at a time in memory
    known = {patient: spacing for patient, spacing in spacings(description).items() if spacing and patient in rows_of}
    millilitres, fields = {}, {}
    for patient, spacing in known.items():
        fields[patient] = np.multiply(slices[rows_of[patient][0]]["size"], spacing[:2])  # height and width in mm
        voxel = np.prod(fields[patient]) / X.shape[1] ** 2 * spacing[2]
        millilitres[patient] = float(y[rows_of[patient]].sum() * voxel / 1000)
    by_size = sorted(fields, key=lambda patient: fields[patient].prod()) or [*rows_of]
    median = by_size[(len(by_size) - 1) // 2]
    return {
        **description["geometry"][median],
        "size": slices[rows_of[median][0]]["size"],
        "spacing_range": [limit([*known.values()], axis=0).tolist() for limit in (np.min, np.max)] if known else None,
        "notes": _on_fields(fields, median),
        **describe_training(volumes, millilitres or dict.fromkeys(rows_of, 0.0)),
    }


def _on_fields(fields, median):
    """Return a list with a sentence if the fields of view, {patient: [height, width] in mm}, differ by over 10 %."""
    low, high = (limit(list(fields.values()) or [[1, 1]], axis=0) for limit in (np.min, np.max))
    if (high <= 1.1 * low).all():
        return []
    smallest, largest, taken = (" x ".join(f"{side:.0f}" for side in field) for field in (low, high, fields[median]))
    return [
        f"The training pictures show {smallest} to {largest} mm, but only the middle {taken} mm of a scan are used, as "
        f"for {median}. What lies outside is not found, and 05, which uses whole pictures, may find another mask."
    ]


TURNS = {
    "upside down": lambda volume: volume[:, ::-1],
    "mirrored": lambda volume: volume[:, :, ::-1],
    "turned by 180 degrees": lambda volume: volume[:, ::-1, ::-1],
    "turned by 90 degrees": lambda volume: np.rot90(volume, axes=(1, 2)),
    "turned by 270 degrees": lambda volume: np.rot90(volume, -1, axes=(1, 2)),
}


def _is_far(value, low, high):
    """Tell whether a figure lies outside the range of training by more than the factor ROOM."""
    return not low / ROOM <= value <= high * ROOM


def check_scale(spacing: Sequence[float], learned: dict) -> None:
    """Raise CourseError if a scan's voxels are so much smaller or larger than in training that a unit must be wrong."""
    for name, ours, theirs in zip(("row", "column", "slice"), spacing, learned["spacing"]):
        if not 1 / UNLIKELY < ours / theirs < UNLIKELY:
            raise CourseError(
                f"The {name} spacing of the scan is {ours:g} mm, but in training it was {theirs:g} mm, so one of the "
                "two is wrong. Correct the spacing of the scan (for a volume, in its header) or that of the dataset."
            )


def differences(volume: np.ndarray, spacing: Sequence[float] | None, learned: dict) -> list[str]:
    """Return sentences on how a scan differs from what the network learned from.

    volume: the scan's pictures as the network gets them, (slices, height, width) in [0, 1]. spacing: the scan's own.
    """
    told, typical, least = [], np.array(learned["typical_picture"]), learned["least_likeness"]
    alike = likeness(typical_picture(volume), [typical])
    if alike < least - MARGIN:
        told.append(
            f"It does not look like the pictures that the network learned from (likeness {alike:.2f}, theirs is at "
            f"least {least:.2f}). Do not trust the mask."
        )
    turned = {name: likeness(typical_picture(turn(volume)), [typical]) for name, turn in TURNS.items()}
    best = max(turned, key=turned.get)
    if turned[best] > max(alike, least - MARGIN):
        told.append(f"It seems to be {best} (likeness {turned[best]:.2f} with that undone, {alike:.2f} as it is).")
    low, high = learned["brightness"]
    if not volume.any():
        told.append("It is completely black.")
    elif _is_far(median := np.median(volume[volume > 0]), low, high):
        told.append(f"Its median brightness is {median:.2f}; in training it was {low:.2f} to {high:.2f}.")
    if spacing and learned["spacing"]:
        for name, ours, *theirs in zip(("row", "column", "slice"), spacing, *learned["spacing_range"]):
            if _is_far(ours, *theirs):
                between = " to ".join(dict.fromkeys(f"{step:.2f}" for step in theirs))
                told.append(f"Its {name} spacing is {ours:.2f} mm; in training it was {between} mm.")
    return told


def volume_difference(millilitres: float, learned: dict) -> list[str]:
    """Return a sentence if the volume found lies far outside those of the training patients, else an empty list."""
    low, high = learned["millilitres"]
    told = f"The atrium found has {millilitres:.1f} ml; the atria in training had {low:.1f} to {high:.1f} ml."
    return [told] if _is_far(millilitres, low, high) else []
