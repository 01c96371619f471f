"""Files that stay whole, sentences instead of tracebacks, and the folder in which the notebooks pass their files on."""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

COURSE_FOLDER = Path(__file__).resolve().parents[1]
COLAB_FOLDER = Path("/content")  # in Google Colab: a local disk that is gone with its notebook; Drive is mounted in it


class CourseError(ValueError):
    """A mistake that one sentence explains: what is wrong, where, and what to do about it.

    Jupyter shows the sentence alone, without a traceback.
    """

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


def remove_leftovers(paths):
    """Remove the files and folders that are an hour old: what killed processes have left.

    The younger ones stay: another process may be at work on them.
    """
    for path in paths:
        with suppress(FileNotFoundError):  # its process has just finished it
            if time.time() - path.stat().st_mtime > 3600:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)  # a file that another program holds goes the next time
                else:
                    path.unlink()


@contextmanager
def whole_file(path):
    """Give a temporary path beside `path`; it becomes `path` when the block ends, and is gone when it fails.

    So `path` holds either all of what was written or what it held before, whenever the process is killed.
    The temporary name keeps the suffix, for writers that look at it.
    """
    path = Path(path)
    remove_leftovers(path.parent.glob(".writing-*"))
    temporary = path.with_name(f".writing-{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        try:
            os.replace(temporary, path)
        except PermissionError:  # Windows replaces no file that is open
            raise CourseError(
                f"{path} is open: restart the kernels of all notebooks that use it, and run this one again."
            ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    """Write `value` to `path` as JSON with an indent of two, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path, made_by):
    """Read a JSON file that the notebook `made_by` writes.

    Raises CourseError, naming that notebook, if the file is not there.
    """
    path = Path(path)
    if not path.exists():
        raise CourseError(f"{path.name} is not in {path.parent}: run {made_by} first.")
    return json.loads(path.read_text(encoding="utf-8"))


def fingerprint(*values):
    """Return a short hash of JSON-like values, of bytes, and of files (given as Path): equal inputs, equal hash."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Path):
            with open(value, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            digest.update(value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode())
        digest.update(b"\0")  # so that 1, 23 is not 12, 3
    return digest.hexdigest()[:16]


def in_colab():
    """True in Google Colab."""
    try:
        import google.colab  # noqa: F401
    except ImportError:
        return False
    return True


def open_work_folder(work_dir=None):
    """Return the folder in which the notebooks pass their files on, and make it where it is missing.

    Order of choice: `work_dir`, the environment variable UNET_WORK_DIR, a folder on Google Drive in Colab
    (each Colab notebook runs on a machine of its own, only Drive is shared), else `data/` of the course.
    """
    folder = work_dir or os.environ.get("UNET_WORK_DIR")
    if not folder and in_colab():
        from google.colab import drive

        drive.mount(str(COLAB_FOLDER / "drive"))
        folder = COLAB_FOLDER / "drive" / "MyDrive" / "left-atrium-course-data"
    folder = Path(folder or COURSE_FOLDER / "data").expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


FULL_DISK = (errno.ENOSPC, errno.EDQUOT)  # what an OSError says when there is no room left


def end_of_path(path):
    """Return the end of a path, enough to find the file and the same wherever the dataset lies."""
    return "/".join(Path(path).parts[-3:])


def sentence_about(paths, what, advice):
    """Return one sentence on all of `paths`, naming the first."""
    first, more = min(paths), len(paths) - 1
    return f"{end_of_path(first)}{f' (and {more:,} more)' if more else ''} {what}: {advice}"


def progress_bar(progress, label, total=None, **options):
    """Return a tqdm bar that shows itself after two seconds, and goes when it is done; `progress` false shows none."""
    from tqdm import tqdm

    return tqdm(total=total, desc=label, disable=not progress, delay=2, leave=False, **options)


def parallel(function, items, label, progress):
    """Return [function(item) for item in items], computed by a few threads; Pillow and zlib let them run."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, progress_bar(progress, label, len(items)) as bar:
        results = []
        for result in pool.map(function, items):
            results.append(result)
            bar.update()
        return results
