"""How a patient's pictures lie in the body: their spacing, and the sides that rows, columns and slices run to."""

import json
import math
import os
from pathlib import Path

from course.workspace import CourseError, end_of_path

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}

# Rows run to the feet, columns to the breastbone, slices to the patient's right: so the heart data lie, as the aorta,
# stomach and liver in them show. The headers of their volumes say otherwise: right, front and head for the volume.
SAGITTAL = ("I", "A", "R")


def geometry_of(spacing: list | tuple | None, axes: list | tuple | None) -> dict:
    """Return one patient's entry in `geometry` of a description.

    spacing: mm between rows, columns and slices, or None. axes: the side of the patient's body (R right, L left,
    A front, P back, S head, I feet) to which the numbers of rows, columns and slices grow, or None.
    """
    return {"spacing": spacing and [float(step) for step in spacing], "axes": axes and list(axes)}


def picture_geometry(
    pairs: list, folder: Path, spacing: list | None = None, axes: tuple | None = None
) -> dict[str, dict]:
    """Return {patient: `geometry_of`} for pairs of pictures: from `spacing` and `axes`, or the file `geometry.json`.

    The file lies in the dataset's `folder`, or between it and the pictures. It holds "spacing" and "axes" for all
    patients, or for some in "patients": {patient: {"spacing", "axes"}}.
    Raises CourseError for a spacing or a file that is wrong, and where both give a spacing.
    """
    patients = list(dict.fromkeys(pair.patient for pair in pairs))
    if spacing is not None:
        _check(spacing, axes, f"spacing={spacing!r}")
    path = geometry_file([file for pair in pairs for file in (pair.image, pair.mask)], folder)
    if path is None:
        return {patient: geometry_of(spacing, axes) for patient in patients}
    described = _read(path)
    own = described.pop("patients", {})
    strange = sorted(set(own) - set(patients))
    if strange:
        raise CourseError(f"{end_of_path(path)} describes {strange[0]!r}, who is no patient of this dataset.")
    geometry = {}
    for patient in patients:
        entry = {"spacing": None, "axes": None, **described, **own.get(patient, {})}
        if spacing is not None and entry["spacing"] is not None:
            raise CourseError(f"{end_of_path(path)} and spacing={spacing!r} both give a spacing: leave one out.")
        geometry[patient] = geometry_of(entry["spacing"] or spacing, entry["axes"] or axes)
    return geometry


def geometry_file(files: list[Path], folder: Path) -> Path | None:
    """Return the geometry.json nearest above all files, not above the dataset's folder, or None."""
    place = Path(os.path.commonpath([file.parent for file in files]))
    places = [place, *(above for above in place.parents if above.is_relative_to(folder))]
    return next((place / "geometry.json" for place in places if (place / "geometry.json").is_file()), None)


def _read(path):
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CourseError(f"{end_of_path(path)} is not readable as JSON ({error}): mend it or take it away.") from error
    own = described.get("patients", {}) if isinstance(described, dict) else None
    if not isinstance(own, dict):
        raise CourseError(
            f'{end_of_path(path)} must hold {{"spacing": [row, column, slice], "axes": ["I", "A", "R"]}}, for all or, '
            'in "patients", for each of them.'
        )
    for name, entry in [("", described), *own.items()]:
        where = f"{end_of_path(path)}, {name}" if name else end_of_path(path)
        known = {"spacing", "axes"} | ({"patients"} if not name else set())
        if not isinstance(entry, dict) or not set(entry) <= known:
            raise CourseError(f"{where}: spacing and axes are expected there, and nothing else.")
        _check(entry.get("spacing"), entry.get("axes"), where)
    return described


def _check(spacing, axes, where):
    if spacing is not None and not (
        isinstance(spacing, (list, tuple))
        and len(spacing) == 3
        and all(isinstance(step, (int, float)) and not isinstance(step, bool) for step in spacing)
        and all(math.isfinite(step) and step > 0 for step in spacing)
    ):
        raise CourseError(f"{where}: a spacing is three numbers above 0, the mm between rows, columns and slices.")
    if axes is not None and not (
        isinstance(axes, (list, tuple))
        and len(axes) == 3
        and all(axis in OPPOSITE for axis in axes)
        and len({min(axis, OPPOSITE[axis]) for axis in axes}) == 3
    ):
        raise CourseError(
            f"{where}: axes are three letters, one of R and L, one of A and P, one of S and I, "
            "for the side of the body that rows, columns and slices run to."
        )


def common_spacing(geometry: dict[str, dict]) -> list[float] | None:
    """Return the spacing that all patients share (to a thousandth of it), or None."""
    first, *others = [entry["spacing"] for entry in geometry.values()]
    if first is None or any(other is None for other in others):
        return None
    alike = all(math.isclose(a, b, rel_tol=1e-3) for other in others for a, b in zip(first, other))
    return first if alike else None


def merged(entries: list[tuple[str, dict]]) -> dict[str, dict]:
    """Return {patient: `geometry_of`} of tuples (patient, `geometry_of`); what one patient has in two ways is None."""
    geometry = {}
    for patient, entry in entries:
        first = geometry.setdefault(patient, dict(entry))
        first["spacing"] = common_spacing({"first": first, "this": entry})
        first["axes"] = first["axes"] if first["axes"] == entry["axes"] else None
    return geometry


def uneven_sentences(geometry: dict[str, dict]) -> list[str]:
    """Return a sentence each where the patients' spacings or axes differ."""
    sentences = []
    (first, one), *others = geometry.items()
    if common_spacing(geometry) is None:
        for patient, entry in others:
            if common_spacing({first: one, patient: entry}) is None and entry["spacing"] != one["spacing"]:
                described = f"{first} {_in_mm(one['spacing'])}, {patient} {_in_mm(entry['spacing'])}"
                sentences.append(f"The spacing differs from patient to patient: {described}.")
                break
    for patient, entry in others:
        if entry["axes"] != one["axes"]:
            described = f"{first} {_sides(one['axes'])}, {patient} {_sides(entry['axes'])}"
            sentences.append(
                f"The pictures of the patients run to different sides: {described} (rows, columns, slices)."
            )
            break
    return sentences


def _in_mm(spacing):
    return " x ".join(f"{step:g}" for step in spacing) + " mm" if spacing else "unknown"


def _sides(axes):
    return " ".join(axes) if axes else "unknown"
