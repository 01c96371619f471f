"""Where a dataset comes from: a download, or an archive.

An archive is not trusted: no path leaves the folder, no link is made, nothing is overwritten, and the number of bytes
that come out is limited.
"""

import hashlib
import http.client
import os
import tarfile
import time
import unicodedata
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from course.pictures import DESCRIPTIONS, PICTURES, VOLUMES, file_suffix, is_stray, refuse_dicom
from course.workspace import FULL_DISK, CourseError, progress_bar

MAX_UNPACKED = 16 * 2**30  # bytes that may come out of an archive; the official heart archive holds 0.5 GB
MAX_HEADER = 2**20  # bytes of a long name in a tar archive
HEART_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task02_Heart.tar"
HEART_SIZE = 455_721_472
HEART_MD5 = "06ee59366e1e5124267b774dbd654057"
ATTEMPTS = 4  # downloads in a row that bring nothing new
WAIT = 1.0  # seconds between attempts, doubled each time
TIMEOUT = 30  # seconds without an answer from the server

# The report's split, and the number of slices of each volume: 1160, 569 and 542 in all.
HEART_SLICES = {
    "train": {
        "la_003": 130,
        "la_004": 110,
        "la_005": 120,
        "la_007": 130,
        "la_009": 100,
        "la_010": 120,
        "la_011": 120,
        "la_014": 120,
        "la_016": 90,
        "la_017": 120,
    },
    "valid": {"la_023": 110, "la_024": 120, "la_026": 120, "la_029": 109, "la_030": 110},
    "test": {"la_018": 122, "la_019": 100, "la_020": 110, "la_021": 100, "la_022": 110},
}


class _Entry(tarfile.TarInfo):
    """An entry with a header of limited size: `tarfile` reads long names and the like whole into memory."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        """Read an entry's header as `tarfile` does; raise ReadError if more than MAX_HEADER bytes belong to it."""
        entry = super().frombuf(buf, encoding, errors)
        if entry.type not in tarfile.REGULAR_TYPES and entry.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {entry.size:,} bytes")
        return entry


def _open_archive(archive):
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    try:
        return tarfile.open(archive, tarinfo=_Entry)
    except tarfile.TarError as error:
        refuse_dicom([archive])
        if file_suffix(archive.name) in PICTURES + VOLUMES:
            raise CourseError(f"{archive.name} is a single file: give the folder with all images and masks.") from error
        raise CourseError(
            f"{archive.name} is neither a zip nor a tar archive, or it is damaged: "
            "pack the folder as a zip, or give the folder itself."
        ) from error


def _members(packed):
    """Yield (name, bytes, entry) for everything but folders in an opened zip or tar archive."""
    if isinstance(packed, zipfile.ZipFile):
        for entry in packed.infolist():
            if entry.flag_bits & 1:
                name = Path(packed.filename).name
                raise CourseError(f"{name} is locked with a password: unpack it and give the folder.")
            with suppress(UnicodeError):  # macOS writes UTF-8 names without the flag
                entry.filename = entry.filename.encode("cp437").decode("utf-8")
            entry.filename = entry.filename.replace("\\", "/")
            if not entry.is_dir():
                yield entry.filename, entry.file_size, entry
        return
    packed.extraction_filter = tarfile.data_filter
    for entry in packed:
        entry.name = entry.name.replace("\\", "/")
        if not entry.isdir():
            yield entry.name, entry.size, entry
    for _ in range(64):  # padding follows the last entry, then the checksum of a compressed archive
        if not packed.fileobj.read(2**20):
            break


def is_data(parts: tuple[str, ...]) -> bool:
    """Tell whether an archive's entry may be data, a `dataset.json` or a `geometry.json`, by its folders and name."""
    is_wanted = file_suffix(parts[-1]) not in DESCRIPTIONS or parts[-1] in ("dataset.json", "geometry.json")
    return is_wanted and not any(is_stray(part) for part in parts)


def unpack(
    archive: Path,
    folder: Path,
    progress: Callable[[int], object] | None = None,
    is_wanted: Callable[[tuple[str, ...]], bool] = is_data,
) -> None:
    """Unpack the pictures, volumes and descriptions of a zip or tar archive into a new folder.

    `is_wanted` gets the folders and name of each file; files for which it is false are skipped. `progress` is called
    with the number of bytes of each file. Raises CourseError for a file that is not an archive, is damaged or locked,
    or holds more than MAX_UNPACKED bytes, a link, a path that leads out of the folder, or the same name twice (even if
    case or the encoding of accents differ).
    """
    seen, declared = set(), 0
    folder.mkdir(parents=True, exist_ok=True)
    with _archive_errors(archive), _open_archive(archive) as packed:
        for name, size, entry in _members(packed):
            declared += size
            if declared > MAX_UNPACKED:
                raise CourseError(
                    f"{archive.name} unpacks to more than {MAX_UNPACKED / 2**30:.3g} GB: if that is right, unpack "
                    "it and give the folder."
                )
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts or ":" in name:  # on Windows x/C:/y leads to a disk
                raise CourseError(
                    f"{archive.name} holds the path {name!r}, which leads out of its folder, at least on Windows. "
                    "Do not use this archive, or rename the file in it."
                )
            if not is_wanted(parts):
                continue
            key = unicodedata.normalize("NFC", "/".join(parts)).casefold()
            if key in seen:
                raise CourseError(f"{archive.name} holds {name!r} twice: keep one of them and pack the archive again.")
            seen.add(key)
            if isinstance(entry, tarfile.TarInfo) and not entry.isfile():
                raise CourseError(
                    f"{archive.name} holds the link {name!r}, and links are refused: pack the files themselves."
                )
            packed.extract(entry, folder)
            if progress:
                progress(size)


@contextmanager
def _archive_errors(archive):
    """Turn errors of `zipfile`, `tarfile` and their decoders, which have no common class, into one CourseError."""
    try:
        yield
    except CourseError:
        raise
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = "/".join(Path(error.filename).parts[-3:])
        raise CourseError(
            f"{archive.name} uses one name, at {name}, for a file and a folder: pack it again."
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CourseError(f"{archive.name} is damaged ({error}): copy or pack it again.") from error


def _continue_download(url, part, size, bar):
    """Request the rest of `part` and append it; start again if the server does not support ranges."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        continues = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if not continues:
            start = 0
        length = answer.headers.get("Content-Length")
        if length is not None and start + int(length) != size:
            raise CourseError(
                f"{url} is {start + int(length):,} bytes long, but {size:,} are expected, so it is "
                "not the file that this course knows. Give another address or a file."
            )
        bar.update(start - bar.n)
        with open(part, "ab" if continues else "wb") as file:
            while piece := answer.read(2**18):
                bar.update(file.write(piece))
                if file.tell() > size:
                    break


def download(url: str, path: Path, size: int, md5: str, progress: bool = True) -> Path:
    """Download `url` to `path`, continuing where an earlier download stopped, and return the path.

    Partial downloads are kept in `path` + ".part"; only a file of `size` bytes with this `md5` becomes `path`.
    Raises CourseError if the server cannot be reached or refuses, or if the file is not the expected one.
    """
    part = path.with_name(path.name + ".part")
    best = part.stat().st_size if part.exists() else 0
    failures, reason = 0, "the connection ended early"
    with progress_bar(progress, path.name, size, unit="B", unit_scale=True) as bar:
        while best < size:
            try:
                _continue_download(url, part, size, bar)
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in (408, 416, 429):  # 416: all it has is already here
                    raise CourseError(
                        f"{url} cannot be downloaded: the server answers {error.code} {error.reason}."
                    ) from error
                reason = f"the server answers {error.code}"
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in FULL_DISK:
                    raise
                reason = getattr(error, "reason", error)
            now = part.stat().st_size if part.exists() else 0
            if now > best:
                best, failures = now, 0
                continue
            failures += 1
            if failures == ATTEMPTS:
                raise CourseError(
                    f"{url} could not be downloaded ({reason}; {best:,} of {size:,} bytes are here). "
                    "Check the network and run this again: it continues from there."
                )
            time.sleep(WAIT * 2 ** (failures - 1))
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    length = part.stat().st_size
    if (length, found) != (size, md5):
        part.unlink()
        raise CourseError(
            f"{url} arrived damaged or is another file ({length:,} bytes, md5 {found}; expected "
            f"{size:,} bytes, md5 {md5}), so it was deleted. Run this again."
        )
    os.replace(part, path)
    return path


def fetch_heart(folder: Path, progress: bool = True) -> Path:
    """Return the path of the official heart data below `folder`; download the archive if they are not there.

    Looks for `Task02_Heart.tar`, then `Task02_Heart/`.
    Raises CourseError if the archive can neither be found nor downloaded.
    """
    for present in (folder / "Task02_Heart.tar", folder / "Task02_Heart"):
        if present.exists():
            return present
    try:
        return download(HEART_URL, folder / "Task02_Heart.tar", HEART_SIZE, HEART_MD5, progress)
    except CourseError as error:
        raise CourseError(
            f"{error} You can also put Task02_Heart.tar, from another machine or medicaldecathlon.com, "
            f"into {folder}, or choose dataset='sample', which needs no network."
        ) from error
