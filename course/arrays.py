"""The arrays in `npy/`: how they are made, recorded, found again and read. 02 teaches how a slice is prepared.

`arrays.json` holds `made_from` (the hashes `dataset` and `code`, and `settings`: `image_size` and who is `left_out`),
`slices` (for each subset its entries of `dataset.json`, in the order of the rows), `files` (for each its `bytes` and
`fingerprint`) and, if the arrays of another work folder are used, `folder`: where they lie.
"""

import functools
import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from course import workspace
from course.folds import left_out_twins
from course.pictures import SUBSETS
from course.store import check_unchanged, read_description
from course.workspace import (
    CourseError,
    check_made_from,
    fingerprint,
    is_on_drive,
    progress_bar,
    read_json,
    stored_json,
    whole_file,
    writable_folder,
    write_json,
)

ARRAYS = {"X": "float32", "y": "uint8", "share": "uint8"}


def dataset_fingerprint(description: dict) -> str:
    """Return a hash of what arrays depend on: the pixels, their patients and subsets, and the masks' values."""
    return fingerprint([description[name] for name in ("fingerprint", "subsets", "mask_values")])


def rows_of_patients(slices: list[dict]) -> dict[str, list[int]]:
    """Return for each patient the rows of the arrays that hold its slices; slices: entries of arrays.json."""
    rows_of = {}
    for row, pair in enumerate(slices):
        rows_of.setdefault(pair["patient"], []).append(row)
    return rows_of


def make_arrays(
    description: dict,
    work_dir: Path,
    image_size: int,
    leave_out: list[str],
    prepare: Callable[[str, dict], tuple[np.ndarray, np.ndarray, np.ndarray]],
    code: str,
    progress: bool,
) -> dict:
    """Find or write the arrays of a dataset; return the content of arrays.json. See `helpers.prepare_arrays`.

    prepare: a function of a subset and one of its entries in dataset.json that returns X, y and share of this slice,
    each (image_size, image_size). code: a hash of that function's code.
    """
    check_unchanged(description)
    made_from = {
        "dataset": dataset_fingerprint(description),
        "code": fingerprint(code, ARRAYS),
        "settings": {"image_size": image_size, "left_out": sorted(leave_out)},
    }
    folder = work_dir / "npy"
    for place in (folder, Path(description.get("taken_from", work_dir)) / "npy"):
        record = _find_arrays(place, made_from)
        if record is not None:
            if place != folder:
                record.setdefault("folder", str(place))  # or the folder that this record itself refers to
                write_json(folder / "arrays.json", record)
            return record
    slices = {
        subset: [pair for pair in pairs if not (subset == "train" and pair["patient"] in leave_out)]
        for subset, pairs in description["subsets"].items()
    }
    for subset, pairs in slices.items():
        if not pairs:
            raise CourseError(f"No {subset} slices are left: leave out fewer patients.")
    writable_folder(folder)
    (folder / "arrays.json").unlink(missing_ok=True)  # from here on the arrays are no longer what the record says
    record = {"made_from": made_from, "slices": slices, "files": {}}
    for subset in SUBSETS:
        _write_subset(folder, subset, slices[subset], image_size, prepare, progress)
        for kind in ARRAYS:
            path = folder / f"{subset}_{kind}.npy"
            record["files"][path.name] = {"bytes": path.stat().st_size, "fingerprint": fingerprint(path)}
    write_json(folder / "arrays.json", record)
    return record


def _find_arrays(folder, made_from):
    """Return the record of the arrays in a folder if they are complete and made from `made_from`; else None."""
    record = stored_json(folder / "arrays.json")
    if record.get("made_from") != made_from:
        return None
    if "folder" in record:  # the arrays of another work folder, which may have replaced them since
        return record if _find_arrays(Path(record["folder"]), made_from) else None
    return record if all(_is_recorded(record, folder, name) for name in record["files"]) else None


def _is_recorded(record, folder, name):
    """Return whether a file is the one that was recorded; on Drive, which is slow, only its length is compared."""
    path, recorded = folder / name, record["files"][name]
    if not path.exists() or path.stat().st_size != recorded["bytes"]:
        return False
    return is_on_drive(path) or _fingerprint_of(path, path.stat().st_mtime_ns) == recorded["fingerprint"]


@functools.cache
def _fingerprint_of(path, changed):
    """Return the fingerprint of a file, kept until `changed`, the time of its last change, differs."""
    return fingerprint(path)


def _write_subset(folder, subset, slices, image_size, prepare, progress):
    """Write X, y and share of a subset row by row, all three whole or none."""
    shape, is_empty = (len(slices), image_size, image_size, 1), True
    needed = math.prod(shape) * sum(np.dtype(kind).itemsize for kind in ARRAYS.values())
    if shutil.disk_usage(folder).free < needed:
        raise CourseError(
            f"The arrays of {subset} need {needed / 1e6:,.0f} MB, more than is free on the disk of {folder}. "
            "Free some space, or choose a smaller image_size."
        )
    with ExitStack() as stack:
        files = []
        for kind, dtype in ARRAYS.items():
            part = stack.enter_context(whole_file(folder / f"{subset}_{kind}.npy"))
            files.append(stack.enter_context(open(part, "wb")))
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(files[-1], header)
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        bar = stack.enter_context(progress_bar(progress, subset, len(slices)))
        for start in range(0, len(slices), 256):  # a few at a time: the queue stays short
            for pictures in pool.map(lambda pair: prepare(subset, pair), slices[start : start + 256]):
                for file, dtype, picture in zip(files, ARRAYS.values(), pictures):
                    file.write(np.asarray(picture, dtype).tobytes())
                is_empty &= not pictures[1].any()
                bar.update()
        if is_empty:
            raise CourseError(
                f"At {image_size} x {image_size} pixels all masks of {subset} are empty. "
                f"Choose a larger image_size, or other patients for {subset}."
            )


def read_arrays_record(work_dir: Path, settings: dict | None = None) -> dict:
    """Return the content of arrays.json: what the arrays were made from, their files, and the slices in their order.

    Raises CourseError if 02 has not run, or ran on another dataset than that of dataset.json, or with other settings
    than `settings`, if given, or if the arrays lie in another work folder and have been replaced there.
    """
    record = read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")
    description = read_description(work_dir)
    now = {"dataset": dataset_fingerprint(description)}
    if settings:
        left_out = left_out_twins(description) if settings["leave_out_twins"] else []
        now["settings"] = {"image_size": settings["image_size"], "left_out": left_out}
    check_made_from(record.get("made_from"), now, "02_preprocessing")
    if "folder" in record and _find_arrays(Path(record["folder"]), record["made_from"]) is None:
        raise CourseError(
            f"The arrays in {record['folder']}, which this work folder uses, have been deleted or changed. "
            "Run 02_preprocessing again."
        )
    return record


def train_patients(work_dir: Path) -> list[str]:
    """Return the names of the patients whose slices are in the train arrays, sorted; CourseError if 02 has not run."""
    slices = read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")["slices"]["train"]
    return sorted({pair["patient"] for pair in slices})


def load_arrays(work_dir: Path, subset: str, kinds: tuple[str, ...] = ("X", "y")) -> list[np.ndarray]:
    """Return arrays of a subset, [X, y], as read-only memory maps: only the rows that are used are read from disk.

    kinds: which of X (float32, 0 to 1), y (uint8, 0 and 1) and share (uint8, 0 to 255), each of shape (N, S, S, 1).
    If the work folder is on Google Drive, the files are copied to the local disk first: Drive is too slow
    to train from, and drops out in mid-training.
    Raises CourseError if 02 has not run since 01 imported this dataset, or if a file is missing or not the one that 02
    recorded.
    """
    record = read_arrays_record(work_dir)
    arrays = []
    for kind in kinds:
        name = f"{subset}_{kind}.npy"
        path = Path(record.get("folder", work_dir / "npy")) / name
        if not _is_recorded(record, path.parent, name):
            raise CourseError(
                f"{name} in {path.parent} is missing, or is not the file that 02_preprocessing wrote. "
                "Run 02_preprocessing again."
            )
        if is_on_drive(path):
            # Under its fingerprint, so that arrays with other content are not taken for these
            copy = workspace.COLAB_FOLDER / "npy" / record["files"][name]["fingerprint"] / name
            if not copy.exists():
                with whole_file(copy) as part:
                    shutil.copyfile(path, part)
            path = copy
        arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
    return arrays
