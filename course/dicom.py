"""Read a DICOM series, as scanners write it, as one volume."""

from pathlib import Path

import numpy as np

from course.geometry import is_slanted
from course.notes import told_sentences
from course.workspace import CourseError, end_of_path, one_sentence

UNEVEN = 1.5  # if one step between slices is this many times another, slices are missing
DICOM_ADVICE = "convert the series with dcm2niix and give the NIfTI file"


def read_series(files: list[Path], name: str) -> tuple[np.ndarray, np.ndarray, bool, list[str]]:
    """Read one DICOM series: slices sorted by position, spacing and orientation from the tags.

    Returns (values, affine, whether the size of a voxel is known, notes), values and affine as in `course.scan.Scan`.
    Raises CourseError if the files are not one volume. `name`: of the series, in messages.
    """
    with one_sentence(f"{name} cannot be read as DICOM", DICOM_ADVICE):
        slices = _open_slices(files, name)
        affine, knows_space, notes = _place(slices, name)
        return _values_of(slices), affine, knows_space, notes


def _open_slices(files, name):
    """Return the slices of one series, sorted along their common normal, their pixels not decoded yet."""
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise CourseError(f"{name} is DICOM, which needs one more package: pip install pydicom.") from error
    slices, of_series = [], {}
    for file in files:
        with one_sentence(f"{end_of_path(file)} cannot be read as DICOM", DICOM_ADVICE):
            entry = dcmread(file)
        slices.append(entry)
        of_series.setdefault(str(entry.get("SeriesInstanceUID", "")), []).append((file, entry))
    if len(of_series) > 1:
        told = ", ".join(
            f"{group[0][1].get('SeriesDescription', 'without a name')} ({len(group)} files, {end_of_path(group[0][0])})"
            for group in list(of_series.values())[:3]
        )
        raise CourseError(f"{name} holds {len(of_series)} series: {told}. Give a folder with the files of one.")
    for file, entry in zip(files, slices):
        _check_slice(file, entry)
    kinds = {
        (entry.Rows, entry.Columns, *map(float, entry.PixelSpacing), entry.PhotometricInterpretation)
        for entry in slices
    }
    directions = [np.array(entry.ImageOrientationPatient, float) for entry in slices]
    if len(kinds) > 1 or np.ptp(directions, axis=0).max() > 1e-3:
        raise CourseError(
            f"The slices of {name} differ in size, spacing, direction or PhotometricInterpretation: give one kind only."
        )
    normal = np.cross(*_directions(slices[0]))
    return sorted(slices, key=lambda entry: float(np.dot(normal, np.array(entry.ImagePositionPatient, float))))


def _directions(entry):
    """Return the unit vectors along which a slice's column numbers and row numbers grow."""
    directions = np.reshape(entry.ImageOrientationPatient, (2, 3)).astype(float)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _place(slices, name):
    """Return (affine of sorted slices, whether the size of a voxel is known, notes)."""
    along_row, along_column = _directions(slices[0])
    normal = np.cross(along_row, along_column)
    positions = np.array([entry.ImagePositionPatient for entry in slices], float)
    row, column = map(float, slices[0].PixelSpacing)
    affine, knows_space = np.eye(4), True
    if len(slices) > 1:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
        notes = _notes_on_places(slices, positions, normal, name)
    else:
        thickness, told = _thickness(slices[0])
        step, knows_space, notes = normal * (thickness or 1), bool(thickness), [f"{name} is a single slice: {told}."]
    affine[:3] = np.column_stack([along_row * column, along_column * row, step, positions[0]])
    affine[:2] *= -1  # DICOM counts towards the patient's left and back
    return affine, knows_space, notes + told_sentences({Path(name): ("slanted",) if is_slanted(affine) else ()})


def _values_of(slices):
    """Return the values of sorted slices as an array (column, row, slice), in which the lowest value is black."""
    from pydicom.pixels import apply_rescale

    values = []
    for entry in slices:
        with one_sentence(f"{end_of_path(entry.filename)} cannot be read as DICOM", DICOM_ADVICE):
            values.append(apply_rescale(entry.pixel_array, entry).T)
    values = np.stack(values, axis=-1)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite (NaN or infinite)")
    if slices[0].PhotometricInterpretation == "MONOCHROME1":  # with white as the lowest value
        values = values.max() - values + values.min()
    return values


def _check_slice(file: Path, entry) -> None:
    """Raise CourseError if a DICOM file is not a single slice of grey values with a known place in the patient."""
    needed = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
    for tag, count in needed.items():
        values = np.array(entry.get(tag) or [], float).ravel()
        if len(values) != count or not np.isfinite(values).all():
            raise CourseError(
                f"{end_of_path(file)} does not give {tag} as {count} finite numbers, so its place in the patient is "
                f"unknown: {DICOM_ADVICE}."
            )
    sides = np.reshape(entry.ImageOrientationPatient, (2, 3)).astype(float)
    if min(entry.PixelSpacing) <= 0 or not np.allclose(sides @ sides.T, np.eye(2), atol=0.02):
        raise CourseError(
            f"{end_of_path(file)} has a PixelSpacing of 0, or its ImageOrientationPatient is not two directions of "
            f"length 1 at right angles: {DICOM_ADVICE}."
        )
    is_grey = entry.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    if not is_grey or (entry.get("NumberOfFrames") or 1) > 1 or (entry.get("SamplesPerPixel") or 1) > 1:
        raise CourseError(f"{end_of_path(file)} is not a single slice of grey values: {DICOM_ADVICE}.")


def _thickness(entry) -> tuple[float | None, str]:
    """Return the thickness of a single DICOM slice in mm, or None, and words on where it is known from."""
    for tag in ("SpacingBetweenSlices", "SliceThickness"):
        if (entry.get(tag) or 0) > 0:
            return float(entry.get(tag)), f"{tag} says that it is {entry.get(tag):g} mm thick"
    return None, "its header does not give its thickness, so its volume is unknown"


def _notes_on_places(slices: list, positions: np.ndarray, normal: np.ndarray, name: str) -> list[str]:
    """Return a list with a sentence if slices are not quite evenly spaced, as rounding of their positions makes them.

    positions: (slices, 3) in mm, in order. Raises CourseError if they lie far off a straight line of even steps.
    """
    steps = np.diff(positions @ normal)
    if (steps < 1e-3).any():
        two = " and ".join(end_of_path(entry.filename) for entry in slices[steps.argmin() :][:2])
        raise CourseError(
            f"{name} holds two slices at the same place ({two}), perhaps of different time points. Give the files of "
            "one time point, each slice once."
        )
    off = np.linalg.norm(positions - np.linspace(positions[0], positions[-1], len(positions)), axis=1).max()
    told = (
        f"The slices of {name} lie {steps.min():.2f} to {steps.max():.2f} mm apart, up to {off:.2f} mm away from "
        "evenly spaced places on a straight line"
    )
    if steps.max() > UNEVEN * steps.min() or off > steps.min() / 2:
        raise CourseError(f"{told}. Slices are missing or out of line: give all slices of one series.")
    return [f"{told}. They were treated as evenly spaced."] if off > 0.01 * steps.min() else []
