"""Where converted data are kept: built in a temporary folder, then moved into place, as one archive on Drive."""

import filecmp
import os
import re
import shutil
import tarfile
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from course import workspace
from course.pictures import SUBSETS, is_stray, read_picture
from course.workspace import (
    FULL_DISK,
    CourseError,
    fingerprint,
    full_disk_told,
    is_on_drive,
    read_json,
    remove_leftovers,
    whole_file,
    writable_folder,
)

IMPORTED = re.compile(r"imported-[0-9a-f]{12}(\.tar)?")  # the names of what imports converted, folders and archives
_unpacking = threading.Lock()


def import_copies(work_dir: Path) -> list[Path]:
    """Return what imports converted, without what a user keeps beside it in `work_dir/dataset`."""
    return [place for place in (work_dir / "dataset").glob("imported-*") if IMPORTED.fullmatch(place.name)]


@contextmanager
def building_folder(work_dir: Path):
    """Give a folder to build in, inside `work_dir` or, if that is on Drive, on the local disk; remove it afterwards.

    Leftovers of killed imports are removed first, see `remove_leftovers`. Disk errors become a CourseError.
    """
    place = workspace.COLAB_FOLDER if is_on_drive(work_dir) else work_dir
    try:
        is_new = not work_dir.exists()
        writable_folder(work_dir)
        remove_leftovers(place.glob("dataset.importing-*"))
        building = Path(tempfile.mkdtemp(prefix="dataset.importing-", dir=place))
        try:
            yield building
        finally:
            shutil.rmtree(building, ignore_errors=True)  # a file that another program holds is removed next time
            if is_new and not any(work_dir.iterdir()):
                work_dir.rmdir()
    except OSError as error:
        with full_disk_told(work_dir if str(error.filename or work_dir).startswith(str(work_dir)) else place):
            if error.errno in FULL_DISK:
                raise
        where = f" ({Path(os.fsdecode(error.filename)).name[:100]})" if error.filename else ""
        raise CourseError(f"A file cannot be read or written: {error.strerror or error}{where}.") from error


def find_place(work_dir: Path, dataset: str) -> Path:
    """Return the path below `work_dir/dataset` for a converted dataset: a folder, or an archive on Drive.

    dataset: its fingerprint, which becomes part of the name, so that earlier data are kept. An archive is used on Drive
    because thousands of small files are slow there.
    """
    return work_dir / "dataset" / f"imported-{dataset[:12]}{'.tar' if is_on_drive(work_dir) else ''}"


def put_in_place(root: Path, place: Path) -> None:
    """Move a converted dataset to the path from `find_place`; if that is an archive, its files go to the local disk.

    A place that already holds the same files is left untouched; one with altered files is replaced.
    """
    place.parent.mkdir(exist_ok=True)
    folder = place
    if place.suffix == ".tar":
        packed, folder = _pack(root), _unpacked(place)
        folder.parent.mkdir(exist_ok=True)
        if not place.exists() or not filecmp.cmp(packed, place, shallow=False):
            with whole_file(place) as part:
                shutil.copyfile(packed, part)
    if folder.exists() and not _same_files(root, folder):
        os.replace(folder, root.parent / "altered")
    if not folder.exists():
        os.replace(root, folder)


def _pack(root):
    """Write a folder's files to a tar archive beside it, byte for byte the same for the same files; return its path."""

    def anonymous(entry):
        """Return an entry without its time and owner."""
        return entry.replace(mtime=0, uid=0, gid=0, uname="", gname="", deep=False)

    archive = root.parent / "dataset.tar"
    with tarfile.open(archive, "w") as packed:
        for path in sorted(root.iterdir()):
            packed.add(path, path.name, filter=anonymous)
    return archive


def _same_files(one, other):
    files, others = ({path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (one, other))
    return files == others and all(filecmp.cmp(one / file, other / file, shallow=False) for file in files)


def forget_earlier(work_dir: Path, root: str, source: Path) -> None:
    """Remove what earlier imports converted, except `root`, which is in use, and what holds `source`."""
    for place in import_copies(work_dir):
        if place != work_dir / root and place.resolve() not in (Path(root), source, *source.parents):
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)  # a file that another program holds is removed next time
            else:
                place.unlink(missing_ok=True)


def _unpacked(archive):
    """Return the folder to which an archive is unpacked: on Colab's local disk, or beside it."""
    return (workspace.COLAB_FOLDER / "dataset" if is_on_drive(archive) else archive.parent) / archive.stem


def read_description(work_dir: str | os.PathLike) -> dict:
    """Return the content of dataset.json in a work folder: which dataset 01 has imported, and what is in it.

    Raises CourseError if 01 has not run, or in an older version of the course.
    """
    names = ("fingerprint", "geometry", "mask_values", "subsets", "twins")
    return read_json(Path(work_dir) / "dataset.json", "01_dataset_upload", names)


def dataset_root(description: dict, work_dir) -> Path:
    """Return the folder that holds `{train,valid,test}/{images,masks}/NAME.png` of a description.

    Converted files lie inside the work folder, which may be moved with them; files that were already in canonical form
    stay where the user has them. An archive on Drive is unpacked to the local disk, once on each machine.
    Raises CourseError if the archive is missing, or the disk has no room.
    """
    root = Path(work_dir) / description["root"]
    if not (root.suffix == ".tar" and IMPORTED.fullmatch(root.name)):
        return root
    folder = _unpacked(root)
    with _unpacking:
        if not folder.is_dir():
            _unpack(root, folder)
    return folder


def _unpack(archive, folder):
    if not archive.is_file():
        raise CourseError(f"The files of the dataset are missing ({archive}): run 01_dataset_upload again.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    size, free = archive.stat().st_size, shutil.disk_usage(folder.parent).free
    if free < size:
        raise CourseError(
            f"The dataset needs {size / 1e6:,.0f} MB, more than is free on the disk of {folder.parent}. "
            "Free some space."
        )
    with tempfile.TemporaryDirectory(prefix="dataset.importing-", dir=folder.parent) as part:
        with tarfile.open(archive) as packed:
            packed.extractall(Path(part, "whole"), filter="data")
        os.replace(Path(part, "whole"), folder)


def pair_paths(description: dict, work_dir, subset: str, name: str) -> tuple[Path, Path]:
    """Return the paths of the image and of the mask called `name` of a subset.

    A fold moves patients to another subset, but their files stay where they are. Raises CourseError if one is missing.
    """
    stored_in = {} if subset == "test" else description.get("stored_in", {})
    folder = dataset_root(description, work_dir) / stored_in.get(name, subset)
    paths = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
    for path in paths:
        if not path.exists():
            raise CourseError(f"{path} of the dataset is missing: put it back, or run 01_dataset_upload again.")
    return paths


def read_slice(description: dict, work_dir, subset: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (image, mask) of a slice, both (height, width): uint8, and bool, True where the structure is drawn."""
    image, mask = (read_picture(path).pixels for path in pair_paths(description, work_dir, subset, name))
    return image, mask == description["mask_values"][1]


def state_of(root: Path) -> str:
    """Return a hash of the names, sizes and modification times of all files of a dataset in canonical form."""
    files = [path for subset in SUBSETS for path in sorted(root.glob(f"{subset}/*/*.png")) if not is_stray(path.name)]
    return fingerprint([[path.name, path.stat().st_size, int(path.stat().st_mtime)] for path in files])


def check_unchanged(description: dict) -> None:
    """Raise CourseError if files that are used where the user has them have changed since their import.

    If the whole folder is gone, nothing is raised, since not every reader of a description needs the files.
    """
    root = Path(description.get("root", ""))
    if "state" in description and root.is_dir() and state_of(root) != description["state"]:
        raise CourseError(
            f"Files in {root} have been changed since their import: "
            f"run 01_dataset_upload again, with dataset={description['source']!r}."
        )
