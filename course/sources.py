"""Where a dataset comes from: a download, or a stranger's archive.

Nothing of an archive is trusted: no path leaves the folder, no link is made, nothing is overwritten, and there is a
bound on how many files and bytes come out.
"""

import hashlib
import http.client
import os
import stat
import tarfile
import time
import unicodedata
import urllib.error
import zipfile
from pathlib import Path, PurePosixPath

from course.pictures import PICTURES, VOLUMES, file_suffix, is_stray
from course.workspace import FULL_DISK, CourseError, progress_bar

# What may come out of an archive at most. The official heart archive holds 62 files and 0.5 GB.
MAX_ENTRIES = 100_000
MAX_UNPACKED = 16 * 2**30
MAX_RATIO = 200  # unpacked to packed bytes, looked at once more than FREE_RATIO have been unpacked
FREE_RATIO = 64 * 2**20
MAX_HEADER = 2**20  # bytes of a long name in a tar archive
HEART_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task02_Heart.tar"
HEART_SIZE = 455_721_472
HEART_MD5 = "06ee59366e1e5124267b774dbd654057"

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


def _zip_entries(archive):
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            link = stat.S_ISLNK(entry.external_attr >> 16)
            if entry.flag_bits & 1:
                raise CourseError(f"{archive.name} is locked with a password: unpack it and give the folder.")
            kind = "folder" if entry.is_dir() else "link" if link else "file"
            yield entry.filename, kind, entry.file_size, lambda entry=entry: packed.open(entry)


class _Entry(tarfile.TarInfo):
    """An entry whose header is no bomb: long names and the like, which `tarfile` reads whole, are short."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        entry = super().frombuf(buf, encoding, errors)
        if entry.type not in tarfile.REGULAR_TYPES and entry.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {entry.size:,} bytes")
        return entry


def _is_tar(archive):
    try:
        tarfile.open(archive, tarinfo=_Entry).close()
    except tarfile.TarError:
        return False
    return True


def _tar_entries(archive):
    with tarfile.open(archive, tarinfo=_Entry) as packed:
        for entry in packed:
            kind = "folder" if entry.isdir() else "file" if entry.isfile() else "link"
            yield entry.name, kind, entry.size, lambda entry=entry: packed.extractfile(entry)
        for _ in range(64):  # padding follows the last entry, then the checksum of a compressed archive
            if not packed.fileobj.read(2**20):
                break


def _safe_parts(name, archive):
    """Return the folders and the file name of an archive's entry; refuse a name that leaves the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:  # on Windows x/C:/y leads to a disk
        raise CourseError(
            f"{archive.name} holds the path {name!r}, which leads out of its folder, or does so on Windows: "
            "it is refused; do not use this archive, or rename the file."
        )
    return path.parts


def unpack(archive, folder, progress=None):
    """Unpack the pictures, volumes and `dataset.json` of a zip or tar archive into a new folder.

    Everything else is passed over. `progress` is called with the number of bytes after each piece written.
    Raises CourseError for a file that is no archive, is damaged or locked, holds a link or a path that leads
    out of the folder, the same name twice (also where only case or accents' encoding differ), or more than
    MAX_ENTRIES files, MAX_UNPACKED bytes or MAX_RATIO times its own size.
    """
    archive, folder = Path(archive), Path(folder)
    if zipfile.is_zipfile(archive):
        entries = _zip_entries(archive)
    elif _is_tar(archive):
        entries = _tar_entries(archive)
    else:
        raise CourseError(
            f"{archive.name} is neither a zip nor a tar archive, or it is damaged: "
            "pack the dataset's folder as a zip, or give the folder itself."
        )
    allowed = min(MAX_UNPACKED, max(FREE_RATIO, MAX_RATIO * archive.stat().st_size))
    too_large = CourseError(
        f"{archive.name} unpacks to more than {allowed / 2**20:,.0f} MB from {archive.stat().st_size / 2**20:,.1f} MB: "
        "it is refused as a bomb; if it is not one, unpack it and give the folder."
    )
    seen, declared, written, passed_over = set(), 0, 0, ""
    try:
        for count, (name, kind, size, open_entry) in enumerate(entries, 1):
            parts = _safe_parts(name, archive)
            if count > MAX_ENTRIES:
                raise CourseError(
                    f"{archive.name} holds more than {MAX_ENTRIES:,} entries, "
                    "which no dataset of this course does: it is refused."
                )
            declared += size
            if declared > allowed:
                raise too_large
            if any(is_stray(part) for part in parts) or kind == "folder":
                continue
            if kind == "link":
                raise CourseError(
                    f"{archive.name} holds the link {name!r}: links are refused; pack the files themselves."
                )
            if file_suffix(name) not in PICTURES + VOLUMES and parts[-1] != "dataset.json":
                passed_over = passed_over or parts[-1]
                continue
            key = unicodedata.normalize("NFC", "/".join(parts)).casefold()
            if key in seen:
                raise CourseError(f"{archive.name} holds {name!r} twice: keep one of them and pack it again.")
            seen.add(key)
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_entry() as source, open(target, "xb") as file:
                while piece := source.read(2**20):
                    written += file.write(piece)
                    if written > allowed:
                        raise too_large
                    if progress:
                        progress(len(piece))
    except CourseError:
        raise
    except (FileExistsError, NotADirectoryError) as error:
        raise CourseError(
            f"{archive.name} holds {name!r} below or above a file of that name: pack it again."
        ) from error
    except Exception as error:  # zipfile, tarfile and what they unpack with have no common error for damage
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CourseError(f"{archive.name} is damaged ({error}): copy or pack it again.") from error
    if not seen:
        held = (
            f", only {passed_over} and the like: unpack what it holds and give that" if passed_over else ": it is empty"
        )
        raise CourseError(f"{archive.name} holds no picture and no volume{held}.")


def _continue_download(url, part, size, timeout, bar):
    """Ask for what `part` lacks and append it; start again where the server refuses ranges."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        continues = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if not continues:
            start = 0
        length = answer.headers.get("Content-Length")
        if length is not None and start + int(length) != size:
            raise CourseError(
                f"{url} is {start + int(length):,} bytes long where {size:,} are expected: it is "
                "not the file that this course knows; give another address or a file."
            )
        bar.update(start - bar.n)
        with open(part, "ab" if continues else "wb") as file:
            while piece := answer.read(2**18):
                bar.update(file.write(piece))
                if file.tell() > size:
                    break


def download(url, path, size, md5, *, attempts=4, wait=1.0, timeout=30, progress=True):
    """Download `url` to `path`, continuing where a broken download stopped, and return the path.

    What has arrived waits in `path` + ".part"; only a file of `size` bytes with this `md5` becomes `path`.
    `attempts` bounds the tries in a row that bring nothing new, `wait` (seconds, doubled each time) lies
    between them, `timeout` (seconds) bounds each silence of the server.
    Raises CourseError when the server cannot be reached or refuses, or the file is not the expected one.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise CourseError(f"{url} is not an http or https address.")
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    best = part.stat().st_size if part.exists() else 0
    failures, reason = 0, "the connection ended early"
    with progress_bar(progress, path.name, size, unit="B", unit_scale=True) as bar:
        while best < size:
            try:
                _continue_download(url, part, size, timeout, bar)
            except urllib.error.HTTPError as error:
                if error.code == 416:  # the server has nothing after what we have: begin again
                    part.unlink(missing_ok=True)
                elif error.code < 500 and error.code not in (408, 429):
                    raise CourseError(
                        f"{url} cannot be had: the server answers {error.code} {error.reason}."
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
            if failures == attempts:
                raise CourseError(
                    f"{url} could not be downloaded ({reason}; {best:,} of {size:,} bytes are here): "
                    "check the network and run this again, it goes on from there."
                )
            time.sleep(wait * 2 ** (failures - 1))
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if part.stat().st_size != size or found != md5:
        length = part.stat().st_size
        part.unlink()
        raise CourseError(
            f"{url} arrived damaged or is another file ({length:,} bytes, md5 {found}; expected "
            f"{size:,} bytes, md5 {md5}): it was deleted; run this again."
        )
    os.replace(part, path)
    return path


def fetch_heart(folder, url=HEART_URL, size=HEART_SIZE, md5=HEART_MD5, *, progress=True, **options):
    """Return the official heart data below `folder`: what is there already, else the downloaded archive.

    Looks for `Task02_Heart.tar`, then `Task02_Heart/`. `options` go to `download`.
    Raises CourseError where the archive can neither be found nor downloaded.
    """
    folder = Path(folder)
    for present in (folder / "Task02_Heart.tar", folder / "Task02_Heart"):
        if present.exists():
            return present
    try:
        return download(url, folder / "Task02_Heart.tar", size, md5, progress=progress, **options)
    except CourseError as error:
        raise CourseError(
            f"{str(error).removesuffix('.')}; or put Task02_Heart.tar, from another machine or medicaldecathlon.com, "
            f"into {folder}, or choose dataset='sample', which needs no network."
        ) from error
