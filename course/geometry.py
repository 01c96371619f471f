"""How a patient's pictures lie in the body: their spacing, and the sides to which rows, columns and slices run."""

import json
import math
import os
from collections.abc import Iterable
from numbers import Real
from pathlib import Path

import numpy as np

from course.notes import sentences_about
from course.workspace import CourseError, end_of_path, one_sentence

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}

# Rows run to the feet, columns to the breastbone, slices to the patient's right: the heart data lie like this, as their
# aorta, stomach and liver show. The headers of their volumes say otherwise: right, front and head for the volume.
SAGITTAL = ("I", "A", "R")


def geometry_of(spacing: list | tuple | None, axes: list | tuple | None) -> dict:
    """Return one patient's entry in the `geometry` of a description: {"spacing", "axes"}.

    spacing: mm between rows, columns and slices, or None. axes: the side of the patient's body (R right, L left, A
    front, P back, S head, I feet) to which the numbers of rows, columns and slices grow, or None.
    """
    return {"spacing": spacing and [float(step) for step in spacing], "axes": axes and list(axes)}


def picture_geometry(
    pairs: list, folder: Path, spacing: list | None = None, excluded: Iterable[str] = ()
) -> dict[str, dict]:
    """Return {patient: `geometry_of`} for pairs of pictures, from `spacing` and the file `geometry.json`.

    The file lies in the dataset's `folder`, or between it and the pictures. It holds "spacing" and "axes" for all
    patients, or for some, including excluded ones, in "patients": {patient: {"spacing", "axes"}}. Raises CourseError if
    the spacing or the file is wrong, or if both give a spacing.
    """
    patients = list(dict.fromkeys(pair.patient for pair in pairs))
    _check_spacing(spacing, f"spacing={spacing!r}")
    path = _geometry_file(pairs, folder)
    of_all, own = _read(path) if path else ({}, {})
    strange = sorted(set(own) - {*patients, *excluded})
    if strange:
        raise CourseError(
            f"{end_of_path(path)} describes {strange[0]!r}, who is not a patient of this dataset: correct the name."
        )
    geometry = {}
    for patient in patients:
        entry = {"spacing": None, "axes": None, **of_all, **own.get(patient, {})}
        if spacing is not None and entry["spacing"] is not None:
            raise CourseError(f"{end_of_path(path)} and spacing={spacing!r} both give a spacing: leave one out.")
        geometry[patient] = geometry_of(entry["spacing"] or spacing, entry["axes"])
    return geometry


def directions(affine: np.ndarray) -> np.ndarray:
    """Return the directions in which the axes of a volume run, by its affine (4, 4): three columns of length 1."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def is_slanted(affine: np.ndarray) -> bool:
    """Tell whether the axes of a volume with this affine (4, 4) are a degree or more off right angles."""
    return not np.allclose(directions(affine).T @ directions(affine), np.eye(3), atol=0.02)


def unused_sentences(found: list[Path], folder: Path, pairs: list = ()) -> list[str]:
    """Return a list with a sentence on the geometry.json files in a dataset's folder that its pairs do not use."""
    used = _geometry_file(pairs, folder) if pairs else None
    unused = [path for path in found if path != used]
    advice = "volumes have their own spacing and axes."
    if pairs:
        advice = 'only one above all images and masks is read. It may describe single patients under "patients".'
    return sentences_about(unused, "was passed over", advice)


def _geometry_file(pairs, folder):
    """Return the nearest geometry.json above all files of pairs, within the dataset's folder, or None."""
    place = Path(os.path.commonpath([file.parent for pair in pairs for file in (pair.image, pair.mask)]))
    places = [place, *(above for above in place.parents if above.is_relative_to(folder))]
    return next((place / "geometry.json" for place in places if (place / "geometry.json").is_file()), None)


def _read(path):
    """Return what a geometry.json holds for all patients, and {patient: entry} for those that it names."""
    with one_sentence(f"{end_of_path(path)} is not readable as JSON", "correct or remove it"):
        described = json.loads(path.read_text(encoding="utf-8-sig"))
    own = described.get("patients", {}) if isinstance(described, dict) else None
    if not isinstance(own, dict):
        raise CourseError(
            f'{end_of_path(path)} must hold {{"spacing": [row, column, slice], "axes": ["I", "A", "R"]}}, for all '
            'patients or, under "patients", for each of them.'
        )
    of_all = {key: value for key, value in described.items() if key != "patients"}
    for where, entry in [("", of_all), *((f", {name}", entry) for name, entry in own.items())]:
        where = end_of_path(path) + where
        if not isinstance(entry, dict) or not set(entry) <= {"spacing", "axes"}:
            raise CourseError(f"{where}: only spacing and axes are expected there.")
        _check_spacing(entry.get("spacing"), where)
        _check_axes(entry.get("axes"), where)
    return of_all, own


def _check_spacing(spacing, where: str) -> None:
    """Raise CourseError for a spacing that is neither None nor three numbers above 0; `where` begins the sentence."""
    if spacing is not None and not (
        isinstance(spacing, (list, tuple))
        and len(spacing) == 3
        and all(isinstance(step, Real) and not isinstance(step, bool) for step in spacing)
        and all(0 < step < math.inf for step in spacing)
    ):
        raise CourseError(f"{where}: a spacing is three numbers above 0, the mm between rows, columns and slices.")


def _check_axes(axes, where):
    if axes is not None and not (
        isinstance(axes, (list, tuple))
        and len(axes) == 3
        and all(sum(axis in sides for axis in axes) == 1 for sides in (("R", "L"), ("A", "P"), ("S", "I")))
    ):
        raise CourseError(
            f"{where}: axes are three letters, for the sides of the body that rows, columns and slices run to. "
            "In any order, one is R or L, one is A or P, and one is S or I."
        )


def _are_alike(spacing, other):
    """Tell whether two spacings are equal to within a thousandth, or both unknown."""
    if None in (spacing, other):
        return spacing is other
    return all(math.isclose(one, two, rel_tol=1e-3) for one, two in zip(spacing, other))


def merged(entries: Iterable[tuple[str, dict]]) -> dict[str, dict]:
    """Return {patient: `geometry_of`} from tuples (patient, `geometry_of`); values that contradict become None."""
    geometry = {}
    for patient, entry in entries:
        first = geometry.setdefault(patient, dict(entry))
        first["spacing"] = first["spacing"] if _are_alike(first["spacing"], entry["spacing"]) else None
        first["axes"] = first["axes"] if first["axes"] == entry["axes"] else None
    return geometry


def spacings(description: dict) -> dict[str, list[float] | None]:
    """Return for each patient of a description [row, column, slice] in mm, or None if it is unknown."""
    return {patient: entry["spacing"] for patient, entry in description["geometry"].items()}


def common_spacing(geometry: dict[str, dict]) -> list[float] | None:
    """Return the spacing that all patients share (to within a thousandth), or None."""
    return merged(("all", entry) for entry in geometry.values())["all"]["spacing"]


def uneven_sentences(geometry: dict[str, dict]) -> list[str]:
    """Return a list with one sentence if the patients' spacings differ, and one if their axes differ."""
    (first, one), *others = geometry.items()
    sentences = [
        f"The spacing differs from patient to patient: {first} {_in_mm(one['spacing'])}, "
        f"{patient} {_in_mm(entry['spacing'])}."
        for patient, entry in others
        if not _are_alike(one["spacing"], entry["spacing"])
    ][:1]
    sentences += [
        f"The orientation differs from patient to patient: {first} {_sides(one['axes'])}, "
        f"{patient} {_sides(entry['axes'])} (rows, columns, slices)."
        for patient, entry in others
        if entry["axes"] != one["axes"]
    ][:1]
    return sentences


def _in_mm(spacing):
    return " x ".join(f"{step:g}" for step in spacing) + " mm" if spacing else "unknown"


def _sides(axes):
    return " ".join(axes) if axes else "unknown"
