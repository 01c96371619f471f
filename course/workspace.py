"""Files that stay whole, sentences instead of tracebacks, and the work folder, which the notebooks share."""

import csv
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

COURSE_FOLDER = Path(__file__).resolve().parents[1]
COLAB_FOLDER = Path("/content")  # Google Colab's local disk, which is lost with its machine; Drive is mounted in it
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)  # what an OSError says when there is no room left


class CourseError(ValueError):
    """A mistake that one sentence explains: what is wrong, where, and what to do about it.

    Jupyter shows the sentence alone, without a traceback.
    """

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


@contextmanager
def one_sentence(what: str, advice: str) -> Iterator[None]:
    """Turn any error in a block into one sentence: the libraries that read files have no error class in common.

    Raises CourseError: what, the reason in brackets, advice. A CourseError raised in the block passes unchanged.
    """
    try:
        yield
    except CourseError:
        raise
    except Exception as error:
        raise CourseError(f"{what} ({' '.join(str(error).split())}): {advice}.") from error


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove files and folders that are more than an hour old: killed processes have left them.

    Younger ones stay: another process may be at work on them.
    """
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):  # its process has just finished it, or has it open
            if time.time() - path.stat().st_mtime > 3600:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)  # a file that another program has open goes next time
                else:
                    path.unlink()


def writable_folder(folder: Path) -> Path:
    """Return `folder`, made if it is missing.

    Raises CourseError if it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "it is read-only"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise CourseError(
            f"{folder} cannot be made or written to ({reason}). Choose another folder: "
            "with OUT for make segment, else with work_dir or UNET_WORK_DIR."
        )
    return folder


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Raise CourseError, naming `folder`, if the disk becomes full in a block. Other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise CourseError(
            f"The disk of {folder} is full. Free some space, or choose another work folder. "
            "Earlier data there are untouched."
        ) from error


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; it becomes `path` when the block ends, and is deleted if the block fails.

    So `path` holds either all that was written or what it held before, even if the process is killed.
    The temporary name keeps the end of the name, for writers that look at it. A missing folder is made.
    Raises CourseError if the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    writable_folder(path.parent)
    remove_leftovers(path.parent.glob(".writing-*"))
    temporary = path.with_name(f".writing-{uuid.uuid4().hex}-{path.name[-20:]}")
    try:
        with full_disk_told(path.parent):
            yield temporary
            _replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _replace(temporary, path):
    """Move a file to its place; Windows refuses while a program has the old file open, so try a few times."""
    for wait in (0.05, 0.2, 1, None):
        try:
            return os.replace(temporary, path)
        except PermissionError:
            if wait is None:
                raise CourseError(
                    f"{path} is open: restart the kernels of all notebooks that use it, and run this one again."
                ) from None
            time.sleep(wait)


def write_json(path: Path, value) -> None:
    """Write `value` to `path` as JSON with an indent of two, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows to `path` as CSV, whole or not at all; a row that lacks a name has an empty cell there."""
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: str | os.PathLike, made_by: str, names: Iterable[str] = ()) -> dict:
    """Return the dict in a JSON file that the notebook `made_by` writes.

    Raises CourseError, naming that notebook, if the file is missing or damaged, or lacks one of `names`.
    """
    path = Path(path)
    if not path.exists():
        raise CourseError(f"{path.name} is not in {path.parent}: run {made_by} first.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CourseError(f"{path.name} in {path.parent} is damaged: delete it, and run {made_by} again.")
    missing = sorted(set(names) - value.keys())
    if missing:
        raise CourseError(
            f"{path.name} in {path.parent} lacks {listed(missing)}. An older version of the course may have written "
            f"it: run {made_by} again."
        )
    return value


def stored_json(path: Path) -> dict:
    """Return the dict in a JSON file; an empty one if the file is missing or damaged."""
    try:
        return read_json(path, "")
    except CourseError:
        return {}


def fingerprint(*values) -> str:
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


def check_made_from(recorded: dict, now: dict, notebook: str) -> None:
    """Refuse what a notebook has written if it was made from something other than what is there now.

    recorded: what the file's record says it was made from. now: the present values of the same names: fingerprints,
    and under "settings" a dict, from which the message names up to three values that differ.
    Raises CourseError, naming the notebook to run again.
    """
    other = []
    recorded = recorded if isinstance(recorded, dict) else {}  # an earlier version of the course kept only a hash
    for name, value in now.items():
        if recorded.get(name) == value:
            continue
        told = "another dataset" if name == "dataset" else f"other {name}"
        if name == "settings":
            before = recorded.get(name) or {}
            changed = [key for key in value if before.get(key) != value[key]]
            each = [f"{key} was {before.get(key)!r}, now {value[key]!r}" for key in changed[:3]]
            more = [f"{len(changed) - 3} more"] if len(changed) > 3 else []
            told += f" ({'; '.join(each + more)})"
        other.append(told)
    if other:
        raise CourseError(f"{notebook} ran with {' and '.join(other)}: run {notebook} again.")


def in_colab() -> bool:
    """True in Google Colab."""
    try:
        import google.colab  # noqa: F401
    except ImportError:
        return False
    return True


def is_on_drive(path: Path) -> bool:
    """True if a path lies on the Google Drive that Colab has mounted."""
    return path.is_relative_to(COLAB_FOLDER / "drive")


def _mount_drive():
    """Mount Google Drive in Colab, unless it is mounted; return the folder of the user's files on it."""
    own = COLAB_FOLDER / "drive" / "MyDrive"
    if not own.is_dir():
        from google.colab import drive

        try:
            drive.mount(str(COLAB_FOLDER / "drive"))
        except Exception as error:  # Colab raises errors of several kinds, one of them of a class of its own
            raise CourseError(
                f"Google Drive was not mounted ({str(error)[:60]}): run this cell again and allow it, or set "
                f'work_dir = "{COLAB_FOLDER.as_posix()}/course-data" to go on without it. What this notebook writes is '
                "then lost with its machine, and the next notebook cannot find it."
            ) from None
    return own


def open_work_folder(work_dir: str | os.PathLike | None = None) -> Path:
    """Return the work folder, which the notebooks share, made if it is missing.

    Order of choice: `work_dir`, the environment variable UNET_WORK_DIR, a folder on Google Drive in Colab
    (each Colab notebook runs on its own machine, and only Drive is shared), else `data/` of the course.
    A folder that exists may be read-only: lessons that only read it still run.
    Raises CourseError if Colab does not mount the Drive, if the folder cannot be made or is not a path, or if it holds
    a file of another program that 01 would overwrite.
    """
    folder = work_dir or os.environ.get("UNET_WORK_DIR")
    if not folder and in_colab():
        folder = _mount_drive() / "left-atrium-course-data"
    with one_sentence(f"The work folder {folder!r} is not a path", "give the path of a folder as work_dir"):
        folder = Path(os.path.expanduser(folder or COURSE_FOLDER / "data")).resolve()
    for name, key in (("settings.json", "recipe"), ("dataset.json", "fingerprint")):
        try:
            is_ours = key in json.loads((folder / name).read_text(encoding="utf-8-sig"))
        except (OSError, TypeError, ValueError):  # missing, or damaged, which `read_json` reports
            continue
        if not is_ours:
            raise CourseError(
                f"{name} in {folder} was not written by the course: choose another work folder, or move that file away."
            )
    return folder if folder.is_dir() else writable_folder(folder)


def end_of_path(path: str | os.PathLike) -> str:
    """Return the end of a path, enough to find the file and the same wherever the dataset lies."""
    parts = Path(path).parts[-3:]
    return "/".join(part if len(part) <= 44 else f"{part[:24]}...{part[-16:]}" for part in parts)


def _digits(number):
    return f"{number:.0f}" if float(number).is_integer() else f"{number:g}"


def listed(values: Sequence[str | float]) -> str:
    """Return strings or numbers joined by commas; of more than seven the first six and the last, often an outlier."""
    texts = [value if isinstance(value, str) else _digits(value) for value in values]
    return ", ".join(texts if len(texts) <= 7 else [*texts[:6], "...", texts[-1]])


def duration(seconds: float) -> str:
    """Return a time in words: seconds below a minute and a half, minutes below an hour and a half, else hours."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    if seconds >= 90:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"


def progress_bar(progress: bool, label: str, total: int | None = None, **options):
    """Return a tqdm bar that appears after two seconds and goes when it is done; never, if `progress` is False."""
    from tqdm import tqdm

    return tqdm(total=total, desc=label, disable=not progress, delay=2, leave=False, **options)


def parallel(function: Callable, items: Sequence, label: str, progress: bool) -> list:
    """Return [function(item) for item in items], computed by a few threads: Pillow and zlib release Python's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(progress_bar(progress, label, len(items), iterable=pool.map(function, items)))
