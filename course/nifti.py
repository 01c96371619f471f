"""NIfTI volumes: where their voxels lie, and which values they hold."""

import gzip
import itertools
import json
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course.geometry import directions, is_slanted
from course.workspace import CourseError, end_of_path, listed, one_sentence

if TYPE_CHECKING:
    import nibabel

MAX_VOXELS = 2**28  # of one volume: 512 x 512 x 1024
MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}  # a header may give another unit
HUGE = 100  # mm; no real voxel is longer
NEARLY = 1e-3  # values this close to a whole number count as whole
MANY_LABELS = 16  # more values than this are not a list of structures


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie."""

    shape: tuple[int, int, int]
    affine: np.ndarray  # (4, 4), from voxel numbers to mm towards the patient's right, front and head
    spacing: tuple[float, float, float] | None  # in mm along each axis; None: the header does not say
    axes: tuple[str, str, str] | None  # the sides of the body that the axes run to, such as ("R", "A", "S")
    told: tuple[str, ...] = ()  # keys of `course.notes.TOLD`
    header: "nibabel.Nifti1Header | None" = None  # as read

    def turn_to(self, other: "Grid") -> np.ndarray | None:
        """Return the swaps and flips after which the axes run as nearly as possible like those of another grid.

        They are an orientation of nibabel, (3, 2), or None if there are none or a header does not say how axes run.
        """
        from nibabel.orientations import io_orientation

        relative = np.eye(4)
        if self.axes and other.axes:
            relative[:3, :3] = directions(other.affine).T @ directions(self.affine)
        turn = io_orientation(relative)
        return None if np.array_equal(turn, io_orientation(np.eye(4))) else turn

    def turned(self, turn: np.ndarray) -> "Grid":
        """Return the grid with the swaps and flips that `turn_to` returned."""
        from nibabel import aff2axcodes
        from nibabel.orientations import inv_ornt_aff

        order = np.argsort(turn[:, 0])
        affine = self.affine @ inv_ornt_aff(turn, self.shape)
        shape, spacing = (tuple(of_axis[axis] for axis in order) for of_axis in (self.shape, self.spacing))
        return replace(self, shape=shape, affine=affine, spacing=spacing, axes=aff2axcodes(affine))

    def distance_to(self, other: "Grid") -> float:
        """Return the largest distance between the same voxel in two grids of one shape, in voxels of this grid.

        If one of them does not say how it lies in the body, only their spacings are compared.
        """
        if not self.spacing or not other.spacing:
            return 0.0
        ours, theirs = self.affine, other.affine
        if not self.axes or not other.axes:
            ours, theirs = (np.diag([*grid.spacing, 1.0]) for grid in (self, other))
        corners = np.array([[*corner, 1] for corner in itertools.product(*((0, length - 1) for length in self.shape))])
        return float(np.abs(np.linalg.solve(ours, theirs @ corners.T) - corners.T).max())

    @property
    def says_nothing(self) -> bool:
        """Tell whether the header is one that programs write which know no spacing or position.

        That is the identity, or ITK's, whose first two axes run to the left and to the back.
        """
        return not self.spacing or (
            np.allclose(self.spacing, 1) and (self.axes is None or np.allclose(np.abs(self.affine), np.eye(4)))
        )


def turn_values(values: np.ndarray, turn: np.ndarray | None) -> np.ndarray:
    """Return an array with the swaps and flips that `Grid.turn_to` returned."""
    from nibabel.orientations import apply_orientation

    return values if turn is None else apply_orientation(values, turn)


@contextmanager
def _opened(path):
    """Give an opened volume, its shape (a 2-D one gets a third axis of length 1) and its stream.

    Compression by gzip is recognised by the content, since the name may be wrong. Raises CourseError as `read_grid`.
    """
    import nibabel

    with one_sentence(f"{end_of_path(path)} is damaged or not NIfTI", "copy it again"), open(path, "rb") as stored:
        stream = gzip.GzipFile(fileobj=stored) if stored.peek(2)[:2] == b"\x1f\x8b" else stored
        start = stream.read(nibabel.Nifti2Header.sizeof_hdr)
        kinds = [
            kind for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image) if kind.header_class.may_contain_header(start)
        ]
        if not kinds:
            raise ValueError("it does not begin like a NIfTI file")
        stream.seek(0)
        volume = kinds[0].from_stream(stream)
        shape = volume.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        shape = (*shape, 1) if len(shape) == 2 else shape
        if len(shape) != 3:
            raise CourseError(
                f"{end_of_path(path)} has {len(shape)} axes {shape}, but this course reads 3-D volumes of one "
                "channel. Save the channel or time point that you want as a 3-D file."
            )
        if not 0 < np.prod(shape, dtype=np.int64) <= MAX_VOXELS:
            raise CourseError(
                f"{end_of_path(path)} claims the size {shape}, but volumes have 1 to {MAX_VOXELS:,} voxels: "
                "check its header."
            )
        dtype = volume.get_data_dtype()
        if dtype.kind not in "iufb":
            raise CourseError(f"{end_of_path(path)} holds {dtype} values: save it with one grey value for each voxel.")
        yield volume, shape, stream


def read_grid(path: Path) -> Grid:
    """Read the grid of a 3-D NIfTI volume from its header alone.

    The spacing is that of the affine or, if the affine has unit lengths and pixdim does not, that of pixdim.
    Raises CourseError for a file that is not NIfTI or is damaged, does not have three axes (or two, as a single slice),
    has more than MAX_VOXELS voxels, or values that are not real numbers.
    """
    from nibabel import aff2axcodes
    from nibabel.affines import voxel_sizes

    with _opened(path) as (volume, shape, _):
        header = volume.header
        unit = MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
        affine, pixdim = volume.affine * [[unit], [unit], [unit], [1]], np.abs(header["pixdim"][1:4]) * unit
        with volume.file_map["image"].get_prepare_fileobj("rb") as file:  # as stored: nibabel turns 0 into 1
            stored = type(header).from_fileobj(file, check=False)["pixdim"][1 : 1 + min(3, len(volume.shape))]
        is_coded = [int(header[code]) > 0 for code in ("sform_code", "qform_code")]
        is_placed, is_known = any(is_coded), (is_coded[0], (stored != 0).all())
        axes = aff2axcodes(affine) if is_placed else (None,)
        told = ("two_ways",) if all(is_coded) and _axes_of_qform(header) != axes else ()
    spacing = voxel_sizes(affine) if is_placed else pixdim
    known, known_pixdim = ((np.isfinite(steps) & (steps > 0)).all() for steps in (spacing, pixdim))
    known, known_pixdim = known and any(is_known), known_pixdim and is_known[1]
    if known and known_pixdim and not np.allclose(spacing, pixdim, rtol=1e-3):
        doubt = "spacing_of_affine"
        if np.allclose(spacing, unit):
            affine = affine @ np.diag([*(pixdim / spacing), 1])
            spacing, doubt = pixdim, "spacing_of_pixdim"
        told += (doubt,)
    if known and max(spacing) > HUGE:
        told += ("huge_voxels",)
    if known and is_placed and is_slanted(affine):
        told += ("slanted",)
    return Grid(
        shape=shape,
        affine=affine,
        spacing=tuple(float(step) for step in spacing) if known else None,
        axes=axes if known and None not in axes else None,
        told=told if known else ("no_spacing",),
        header=header,
    )


def _axes_of_qform(header):
    """Return the sides of the body that the axes run to by a header's qform, or None if it is not a rotation."""
    from nibabel import aff2axcodes
    from nibabel.spatialimages import HeaderDataError

    with suppress(HeaderDataError, ValueError):
        return aff2axcodes(header.get_qform())


def read_values(path: Path) -> np.ndarray:
    """Read the values of a 3-D NIfTI volume, in their own dtype (float if the file scales them).

    Raises CourseError as `read_grid` does, and for values that are not finite.
    """
    with _opened(path) as (volume, shape, stream):
        values = np.asanyarray(volume.dataobj).reshape(shape)
        while stream.read(2**24):  # to the end, where gzip checks its checksum
            pass
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise CourseError(
            f"{end_of_path(path)} holds values that are not finite (NaN or infinite): repair the volume first."
        )
    return values


def read_labels(path: Path, chosen: set[float] | None = None) -> tuple[np.ndarray, list[float], tuple[str, ...]]:
    """Read a label volume; return (values, the values that occur, keys of `TOLD` that must be reported).

    Values near whole numbers are rounded. Soft labels from 0 to 1 become 1 from one half on. Labels from 0 to a larger
    number that are blurred, or of which that number was `chosen`, become that number from half of it on. Other labels
    that are not whole are rounded if labels were `chosen`, else they raise CourseError, as `read_values` does.
    """
    values = read_values(path)
    present = np.unique(values)
    largest, whole = float(present[-1]), np.floor(present + 0.5)
    far = np.abs(present - whole).max()
    is_alone = largest > MANY_LABELS and chosen in (None, {largest})  # it may be the only structure
    if 0 < far <= NEARLY:
        values, told = np.floor(values + 0.5), "rounded"
    elif len(present) <= 2 or (far == 0 and len(present) <= MANY_LABELS):
        return values, present.tolist(), ()
    elif {*whole.tolist()} <= {0.0, 1.0}:
        values, told = values >= 0.5, "soft"
    elif is_alone and ((chosen and far > 0) or _is_blurred(values, largest, far == 0)):
        values, told = np.where(values >= largest / 2, largest, 0), "soft"
    elif far == 0:
        return values, present.tolist(), ()
    elif chosen:
        values, told = np.floor(values + 0.5), "rounded"
    else:
        raise CourseError(
            f"{end_of_path(path)} holds {len(present):,} values from {present[0]:.4g} to {largest:.4g}, not only whole "
            "numbers, so interpolation has mixed its labels. Resample it by nearest neighbour, or choose the "
            "label with foreground=..., which rounds all values."
        )
    return values, np.unique(values).tolist(), (told,)


def _is_blurred(values, largest, is_whole):
    """Tell whether a volume of many values shows one structure, `largest`, whose border is blurred.

    Whole numbers may also be many structures, so for these most non-zero values must be the largest itself.
    """
    if is_whole:
        return 2 * np.count_nonzero(values == largest) >= np.count_nonzero(values)
    above = np.count_nonzero(values > largest * 0.75)
    between = np.count_nonzero(values >= largest * 0.25) - above
    return between <= above / 2


def foreground_values(foreground: float | str | list | None, names: dict[str, int]) -> set[float] | None:
    """Return the numbers of the labels that are foreground, or None for "everything but the background".

    `foreground` is None, a number, a name, or a list of these; `names` maps the names to numbers.
    Raises CourseError for a name that `names` does not have.
    """
    if foreground is None:
        return None
    chosen = list(foreground) if isinstance(foreground, Iterable) and not isinstance(foreground, str) else [foreground]
    if not chosen or not all(isinstance(label, (Real, str)) for label in chosen):
        raise CourseError(f"foreground={foreground!r} names no label: give a number, a name, or a list of these.")
    for label in chosen:
        if isinstance(label, str) and label not in names:
            known = listed([f"{name!r} ({number})" for name, number in names.items()]) or "its numbers"
            raise CourseError(f"foreground={label!r} is not a label of this dataset: choose from {known}.")
    numbers = [float(names.get(label, label)) for label in chosen]
    return {int(number) if number.is_integer() else number for number in numbers}


def read_label_names(folder: Path) -> tuple[dict[str, int], str]:
    """Return the label names of a decathlon `dataset.json` as {name: number}, and the dataset's name.

    Both are empty if there is no such file. Raises CourseError if it is not JSON.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return {}, ""
    with one_sentence(f"{path.name} is not readable as JSON", "correct or remove it"):
        described = json.loads(path.read_text(encoding="utf-8-sig"))
    labels = described.get("labels") if isinstance(described, dict) else None
    if not isinstance(labels, dict):
        return {}, ""
    # {"1": "left atrium"}, or the reverse as nnU-Net writes it
    entries = [(key, value) if str(key).isdigit() else (value, key) for key, value in labels.items()]
    names = {str(name): int(number) for number, name in entries if str(number).isdigit()}
    return names, str(described.get("name", ""))
