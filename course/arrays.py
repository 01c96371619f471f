"""The arrays in `npy/`: whether they are those of the dataset, and how they are read."""

import shutil
from pathlib import Path

import numpy as np

from course.workspace import COLAB_FOLDER, CourseError, fingerprint, read_json, whole_file

ARRAYS = {"X": np.float32, "y": np.uint8, "share": np.uint8}


def _is_on_drive(path):
    return path.is_relative_to(COLAB_FOLDER / "drive")


def _origin(description):
    return {"dataset": description["fingerprint"], "slices": fingerprint(description["subsets"])}


def _is_as_recorded(folder, record, name):
    path = Path(record.get("folder", folder)) / name
    return path.exists() and path.stat().st_size == record["files"][name]["bytes"]


def load_arrays(work_dir, subset, kinds=("X", "y")):
    """Return arrays of a subset, [X, y], as read-only memory maps: only the rows that are used are read from disk.

    kinds: which of X (float32, 0 to 1), y (uint8, 0 and 1) and share (uint8, 0 to 255), each of shape (N, S, S, 1).
    Where the work folder is on Google Drive the files are copied to the local disk first: Drive is too slow
    to train from, and drops out in the middle.
    Raises CourseError if 02 has not run since 01 brought this dataset, or if a file is missing or of another length
    than 02 recorded.
    """
    record = read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")
    description = read_json(work_dir / "dataset.json", "01_dataset_upload")
    if any(record["made_from"][name] != value for name, value in _origin(description).items()):
        raise CourseError(
            "The arrays are those of another dataset than 01_dataset_upload brought last: run 02_preprocessing again."
        )
    arrays = []
    for kind in kinds:
        name = f"{subset}_{kind}.npy"
        path = Path(record.get("folder", work_dir / "npy")) / name
        if not _is_as_recorded(path.parent, record, name):
            raise CourseError(f"{name} in {path.parent} is missing or not whole: run 02_preprocessing again.")
        if _is_on_drive(path):
            # Arrays of other content keep their own place
            copy = COLAB_FOLDER / "npy" / record["files"][name]["fingerprint"] / name
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(copy) as part:
                    shutil.copyfile(path, part)
            path = copy
        arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
    return arrays
