"""Read a patient's scan from NIfTI, DICOM or pictures, turn it to the network's orientation, and back.

A scan is an array of voxels with an *affine*, the 4 x 4 matrix that says where in the patient each voxel lies: it maps
the three indices of a voxel to millimetres towards the patient's right, front and head ("RAS", as in NIfTI).
"""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course.dicom import read_series
from course.geometry import OPPOSITE, picture_geometry
from course.greys import greys_of
from course.layout import MASK_WORDS, WEAK_MASK_WORDS
from course.matching import bare_names
from course.nifti import read_grid, read_labels, read_values
from course.notes import sentences_about, told_sentences
from course.pictures import PICTURES, UNREAD, VOLUMES, Pair, file_suffix, is_dicom, is_stray, read_picture
from course.sources import unpack
from course.store import read_slice
from course.volumes import picture_axes, stacked
from course.workspace import CourseError, end_of_path, listed, one_sentence, whole_file

if TYPE_CHECKING:
    import nibabel

NUMBERED = re.compile(r"(.*?)(?<!\d)(?<!^-)(?<![\W_]-)(\d+)(\D*)")  # a name's last number, if no minus precedes it
READ_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TO_SAVE = "save volumes as NIfTI (SimpleITK can do it) and pictures as PNG"
SAVED_HERE = b"found by the U-Net course"  # in the header of saved files
UPRIGHT = picture_axes(("R", "A", "S"))  # to the back, right and head, as the import turns a volume with these axes


@dataclass(frozen=True)
class Scan:
    """A scan as it was read."""

    name: str
    values: np.ndarray  # (i, j, k), of the file's own bit depth
    affine: np.ndarray  # (4, 4), indices to mm
    knows_space: bool  # False: the size of a voxel is unknown
    is_placed: bool = True  # False: the orientation in the patient is unknown
    is_grey: bool = False  # True: pictures of 8 bits, whose greys are used unchanged
    header: "nibabel.Nifti1Header | None" = None  # of a NIfTI file
    notes: tuple[str, ...] = ()

    @property
    def voxel_millilitres(self) -> float:
        """Volume of one voxel in millilitres: the affine's determinant, in mm^3, divided by 1000."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)

    @property
    def axes(self) -> tuple[str, str, str]:
        """The sides of the patient (R, L, A, P, S, I) that the axes of the values run to."""
        from nibabel import aff2axcodes

        return aff2axcodes(self.affine)


# --- reading ------------------------------------------------------------------------------------------------


def read_scan(path: str | Path, spacing: Sequence[float] | None = None) -> Scan:
    """Read a scan: a NIfTI volume, a folder of slices (pictures, or one DICOM series), or a zip or tar of either.

    spacing: of pictures without a geometry.json (see `course.geometry`), [row, column, slice] in mm.
    Raises CourseError if the files cannot be read as one volume, and if a spacing is given but they hold their own.
    """
    path = Path(os.path.abspath(os.path.expanduser(path)))  # "." has no name
    if not path.exists():
        raise CourseError(f"There is no scan at {path}: give a NIfTI file, a folder of slices, or a zip.")
    if path.is_file() and (file_suffix(path.name) in PICTURES or is_dicom(path)):
        if not is_dicom(path):
            read_picture(path)  # has its own messages for a damaged file, or one with several pictures
        raise CourseError(f"{path.name} is a single slice: give the folder that holds all slices of the scan.")
    if path.is_dir() or file_suffix(path.name) in (*VOLUMES, *UNREAD):
        return _read_files(path, scan_name(path), spacing)
    with tempfile.TemporaryDirectory() as folder:
        unpack(path, Path(folder) / "scan", is_wanted=lambda parts: not any(map(is_stray, parts)))
        return _read_files(Path(folder) / "scan", scan_name(path), spacing)


def scan_name(path: Path) -> str:
    """Return the name of a scan, also used for its results: that of its folder, or of its file without suffix."""
    if path.is_dir():
        return path.name
    return path.name[: len(path.name) - len(file_suffix(path.name))].removesuffix(".tar")


def _read_nifti(path: Path, name: str) -> Scan:
    grid, values = read_grid(path), read_values(path)
    # Programs that do not know the position write only the spacing; scanners never begin at exactly 0, 0, 0
    is_placed = grid.axes is not None and not np.allclose(grid.affine, np.diag(np.diag(grid.affine)))
    notes = told_sentences({path: (*grid.told, *(() if is_placed else ("no_axes",)))})
    affine = grid.affine if grid.spacing else np.eye(4)
    if np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise CourseError(f"The affine of {path.name} puts all voxels into one plane: correct its header.")
    return Scan(name, values, affine, not grid.says_nothing, is_placed, header=grid.header, notes=tuple(notes))


def read_truth(path: str | Path, scan: Scan) -> tuple[np.ndarray, list[str]]:
    """Read the true mask of a scan from a NIfTI file; return (mask, sentences). The mask is uint8, 0 and 1.

    Raises CourseError if its shape or affine differs from the scan's, or if it holds several labels.
    """
    path = Path(os.path.expanduser(path))
    truth = read_scan(path)
    if truth.values.shape != scan.values.shape or not np.allclose(truth.affine, scan.affine, atol=1e-3):
        raise CourseError(
            f"The truth {truth.name} differs from the scan {scan.name} in shape or affine: resample it onto the scan."
        )
    if file_suffix(path.name) not in VOLUMES:
        raise CourseError(f"The truth {path.name} is not a NIfTI file: save the mask as NAME.nii.gz.")
    values, present, told = read_labels(path)
    labels = [value for value in present if value]
    if len(labels) > 1:
        raise CourseError(f"The truth {truth.name} holds several labels ({listed(labels)}): save only the atrium's.")
    return (values != 0).astype(np.uint8), told_sentences({path: told})


def _read_files(place: Path, name: str, spacing: Sequence[float] | None) -> Scan:
    """Read the one scan in a file or folder."""
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    files = [file for file in files if not any(map(is_stray, file.relative_to(place.parent).parts[1:]))]
    volumes = [file for file in files if file_suffix(file.name) in VOLUMES]
    pictures = [file for file in files if file_suffix(file.name) in PICTURES]
    series = [file for file in files if file not in volumes and file not in pictures and is_dicom(file)]
    found = [kind for kind in (volumes, pictures, series) if kind]
    unread = [file for file in files if file_suffix(file.name) in UNREAD]
    if unread and not found:
        raise CourseError(f"{unread[0].name} is of a type that is not read: {TO_SAVE}.")
    if len(found) != 1:
        held = "holds " + " and ".join(f"{len(kind)} files such as {kind[0].name}" for kind in found)
        raise CourseError(
            f"{name} {held if found else 'holds no volume, no picture and no DICOM file'}: "
            "give a folder with the slices of one scan, all of one kind."
        )
    if len(volumes) > 1:
        raise CourseError(f"{name} holds {len(volumes)} volumes ({volumes[0].name} and others): give one of them.")
    if pictures:
        return _read_pictures(pictures, place, name, spacing)
    if spacing is not None:
        raise CourseError(
            f"spacing= is for pictures, and {name} holds none. Leave it out: a volume has its spacing in its header."
        )
    if volumes:
        return _read_nifti(volumes[0], name)
    values, affine, knows_space, notes = read_series(series, name)
    return Scan(name, values, affine, knows_space, notes=tuple(notes))


def _read_pictures(files: list[Path], folder: Path, name: str, spacing: Sequence[float] | None) -> Scan:
    """Stack pictures in the order of the last number in their names; geometry.json may give spacing and axes."""
    pairs = [Pair(None, file.stem, name, None, file, file) for file in files]
    geometry = picture_geometry(pairs, folder, spacing)[name]
    parts_of = {file: parts for file in files if (parts := NUMBERED.fullmatch(file.stem))}
    file_of = {int(parts[2]): file for file, parts in parts_of.items()}
    alike = {(file.parent, parts[1], parts[3]): file for file, parts in parts_of.items()}
    if len(alike) > 1:
        one, other, *_ = (end_of_path(file.relative_to(folder)) for file in alike.values())
        raise CourseError(
            f"The names of {name}'s pictures differ in more than their last number ({one}, {other}), so they may be "
            "from two scans: give the folder of one scan, or call them slice_000.png and so on."
        )
    if len(file_of) < len(files):
        raise CourseError(
            f"Not every picture of {name} has a number of its own, without a minus: call them slice_000.png and so on."
        )
    numbers = sorted(file_of)
    if missing := numbers[-1] - numbers[0] + 1 - len(numbers):
        first = next(number + 1 for number in numbers if number + 1 not in file_of)
        raise CourseError(f"{name} has no slice {first} ({missing:,} missing): give all slices of the volume.")
    spacing = geometry["spacing"]
    told = f"The pixel size of {name} is unknown: give spacing=[row, column, slice] in mm (make segment: SPACING)."
    values = _stack([read_picture(file_of[number]).pixels for number in numbers], name)
    return _scan_of_pictures(name, values, geometry["axes"], spacing, () if spacing else (told,))


def _stack(pictures: Sequence[np.ndarray], name: str) -> np.ndarray:
    """Return pictures stacked as a volume; raise CourseError if they differ in size or type."""
    kinds = sorted({f"{picture.shape} {picture.dtype}" for picture in pictures})
    if len(kinds) > 1:
        raise CourseError(
            f"The pictures of {name} differ in size or type ({kinds[0]}, {kinds[1]}), so they are not one volume: "
            "give a scan whose slices are alike."
        )
    return stacked(pictures)


def _scan_of_pictures(name, values, axes, spacing, notes=()) -> Scan:
    """Return stacked pictures as a scan; axes and spacing are of rows, columns and slices, None if unknown."""
    from nibabel import orientations

    row, column, depth = axes or UPRIGHT
    sizes = [spacing[1], spacing[0], spacing[2]] if spacing else [1.0, 1.0, 1.0]
    stored = orientations.axcodes2ornt((column, OPPOSITE[row], depth))
    affine = np.linalg.inv(orientations.inv_ornt_aff(stored, values.shape))  # to voxels counted to right, front, head
    affine[stored[:, 0].astype(int)] *= np.array(sizes)[:, None]
    is_grey = values.dtype == np.uint8
    return Scan(name, values, affine, spacing is not None, axes is not None, is_grey, notes=notes)


def patient_scan(description: dict, work_dir: Path, subset: str, patient: str) -> tuple[Scan, np.ndarray]:
    """Return a patient of the dataset as a scan, and the true mask (uint8, 0 and 1) as an array of its shape.

    Raises CourseError if the patient's pictures differ in size.
    """
    names = [pair["name"] for pair in description["subsets"][subset] if pair["patient"] == patient]
    slices = [read_slice(description, work_dir, subset, name) for name in names]
    image, truth = (_stack(pictures, patient) for pictures in zip(*slices))
    return _scan_of_pictures(patient, image, **description["geometry"][patient]), truth.astype(np.uint8)


# --- turning ------------------------------------------------------------------------------------------------


def to_pictures(scan: Scan, axes: Sequence[str]) -> tuple[np.ndarray, list[float]]:
    """Turn a scan to the network's orientation; return (pictures, spacing).

    axes: the sides of the patient (R, L, A, P, S, I) to which rows, columns and slices of the pictures run. pictures:
    (slices, height, width) in the scan's own values; spacing: [row, column, slice] in mm.
    """
    from nibabel import affines

    row, column, depth = axes
    sizes = dict(zip(scan.axes, affines.voxel_sizes(scan.affine)))
    spacing = [float(sizes[axis] if axis in sizes else sizes[OPPOSITE[axis]]) for axis in axes]
    return _turned(scan.values, scan.axes, (depth, row, column)), spacing


def from_pictures(pictures: np.ndarray, scan: Scan, axes: Sequence[str]) -> np.ndarray:
    """Turn pictures (slices, height, width) back into an array in the orientation of the scan they were made from."""
    row, column, depth = axes
    return _turned(pictures, (depth, row, column), scan.axes)


def _turned(values, axes, wanted):
    """Swap and flip the axes of an array, which run to the sides `axes` of the body, so that they run to `wanted`."""
    from nibabel import orientations

    change = orientations.ornt_transform(*map(orientations.axcodes2ornt, (axes, wanted)))
    return orientations.apply_orientation(values, change)


def scan_axes(scan: Scan, axes: Sequence[str] | None) -> tuple[tuple[str, str, str], list[str]]:
    """Return the axes to which a scan is turned, to match the training's pictures, and a list of what is guessed.

    axes: of the training's pictures, None if its dataset does not say. A scan without an orientation is treated as in
    the import: slices along the last axis, turned upright by numpy.rot90.
    """
    if not scan.is_placed:
        return picture_axes(scan.axes), []
    if axes is None:
        return UPRIGHT, [
            f"How {scan.name} should be turned for the network is a guess, because the training data give no "
            "orientation. Rows were assumed to run to the back, columns to the right, and slices to the head."
        ]
    return tuple(axes), []


def scan_greys(pictures: np.ndarray, scan: Scan) -> tuple[np.ndarray, list[str]]:
    """Return (uint8 pictures of a scan, sentences), with its values scaled to greys as the import scales a volume."""
    if scan.is_grey:
        return pictures, []
    greys, told = greys_of(pictures)
    return greys, told_sentences({Path(scan.name): told})


def centred(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop pictures (slices, height, width) to another size, or pad them with 0, around their middle.

    A second call restores the first size: what was cropped is 0, and the rest is at its old place.
    """
    resized = np.zeros((len(pictures), height, width), pictures.dtype)
    common = np.minimum(pictures.shape, resized.shape)

    def middle(stack):
        """Return the slices of the middle part of a stack that both sizes share."""
        begins = (stack.shape - common) // 2
        return tuple(map(slice, begins, begins + common))

    resized[middle(resized)] = pictures[middle(pictures)]
    return resized


# --- writing ------------------------------------------------------------------------------------------------


def save_volume(values: np.ndarray, scan: Scan, path: str | Path) -> None:
    """Save an array of a scan's shape as NIfTI, at the scan's place in the patient, whole or not at all.

    Raises CourseError if `path` holds a volume that was not saved here, such as a mask drawn by a person.
    """
    import nibabel

    path = Path(path)
    if path.exists():
        advice = "move it away, or choose another folder (out, or OUT of make segment)"
        with one_sentence(f"{path.name} in {path.parent} cannot be read", advice):
            if nibabel.load(path).header["descrip"] != SAVED_HERE:
                raise CourseError(f"{path.name} in {path.parent} was not saved by this course: {advice}.")
    if values.shape != scan.values.shape:
        raise ValueError(f"The volume has the shape {values.shape}, the scan {scan.values.shape}.")
    if scan.header is None:
        volume = nibabel.Nifti1Image(values, scan.affine)
        volume.set_sform(scan.affine, code="scanner")
        volume.set_qform(scan.affine, code="scanner")
    else:  # sform and qform of the header stay as they are, with their codes
        shape = scan.header.get_data_shape()  # it may have an axis more or less, of length 1
        volume = nibabel.Nifti1Image(values.reshape(shape), None, scan.header.copy(), dtype=values.dtype)
    volume.header["descrip"] = SAVED_HERE
    with whole_file(path) as part:
        nibabel.save(volume, part)


def _holds_answers(folder):
    """Tell whether all volumes in a folder are masks and probabilities saved by 07."""
    names = [file.name for file in folder.glob("*.nii.gz")] if folder.is_dir() else []
    return bool(names) and all(name.endswith(("_mask.nii.gz", "_probability.nii.gz")) for name in names)


def find_scans(folder: str | Path) -> tuple[list[Path], list[str]]:
    """Return the scans in a folder, sorted, or the folder itself if it is one, and sentences on what is passed over.

    Scans are NIfTI volumes, archives, and folders of slices. Masks of other scans, by their names, and folders with
    earlier results are passed over.
    Raises CourseError if there is no scan, if two have one `scan_name`, and if slices lie beside scans.
    """
    folder = Path(os.path.abspath(os.path.expanduser(folder)))
    if folder.is_file():
        return [folder], []
    entries = sorted(entry for entry in folder.iterdir() if not is_stray(entry.name)) if folder.is_dir() else []
    if not entries:
        raise CourseError(f"There is no scan in {folder}: give a NIfTI file, a folder of slices, or a zip.")
    scan_of, slices, unread, answers = {}, [], [], []
    for entry in entries:
        if _holds_answers(entry):
            answers.append(entry)
        elif entry.is_dir() or entry.name.lower().endswith((*VOLUMES, *READ_ARCHIVES)):
            other = scan_of.setdefault(scan_name(entry).casefold(), entry)
            if other is not entry:
                raise CourseError(f"{other.name} and {entry.name} would get the same output name: rename one of them.")
        elif file_suffix(entry.name) in PICTURES or is_dicom(entry):
            slices.append(entry)
        elif file_suffix(entry.name) in UNREAD:
            unread.append(entry)
    if scan_of and slices:
        raise CourseError(
            f"{folder} holds slices such as {slices[0].name} beside scans such as {[*scan_of.values()][0].name}: "
            "move the slices into a folder of their own."
        )
    words = MASK_WORDS | WEAK_MASK_WORDS
    masks = [scan_of[name] for name in scan_of if name in words or not scan_of.keys().isdisjoint(bare_names(name))]
    scans = [scan for scan in scan_of.values() if scan not in masks]
    passed = [
        (answers, "its volumes are masks that were found in other scans."),
        (unread, f"files of its type are not read; {TO_SAVE}."),
        (masks, "its name says that it is a mask. If it is a scan, give it alone."),
    ]
    notes = [note for paths, why in passed if scans for note in sentences_about(paths, "was passed over", why)]
    return scans or [*scan_of.values()] or [folder], notes
