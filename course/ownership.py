"""Only one batch at a time writes into a folder: which one, how others see that it is alive, and what ends with it."""

import contextlib
import itertools
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from course.workspace import CourseError, full_disk_told

OWNER_FILE = "owner.txt"  # the name of the batch, then how many times it has written this file
BEAT = 5  # seconds between two numbers
PATIENCE = 20  # seconds without a new number after which a batch counts as killed
WATCH_INTERVAL = 0.5  # seconds between two looks at the file


def _read(folder):
    try:
        return Path(folder, OWNER_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def owner_of(folder: Path | str) -> str | None:
    """Return the name of the batch that writes into a folder, None if there is none, "" while the file is written."""
    text = _read(folder)
    return text if text is None else text.partition("\n")[0]


def _wait_until_free(folder):
    first, end = "", time.monotonic() + PATIENCE
    while (now := _read(folder)) is not None and time.monotonic() < end:
        if first and now and now != first:
            raise CourseError(
                f"Another batch ({now.partition(',')[0]}) is at work in {folder}: "
                "wait until it has ended, or stop it with Ctrl-C there."
            )
        first = first or now
        time.sleep(WATCH_INTERVAL)


@contextlib.contextmanager
def own(folder: Path | str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Make this process the only batch that writes into `folder`; give (its name, a function to call every second).

    The owner writes a new number into OWNER_FILE every BEAT seconds. If the number does not change for PATIENCE
    seconds, its batch was killed, and the folder is taken over. This needs no lock and compares no clocks, so it works
    on the disk of another machine and on Google Drive.

    Raises CourseError if another batch is at work in the folder, or its disk is full; the function also raises it if
    another batch has taken the folder over or the file is gone.
    """
    _wait_until_free(folder)
    batch = f"process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4().hex}"
    numbers, written = itertools.count(), 0.0

    def write():
        """Write the next number into the folder."""
        nonlocal written
        written = time.monotonic()
        with full_disk_told(folder):
            Path(folder, OWNER_FILE).write_text(f"{batch}\n{next(numbers)}", encoding="utf-8")

    def beat():
        """Write a number if it is time; raise CourseError if the folder has another owner, or none."""
        owner = owner_of(folder)
        if owner is None:
            raise CourseError(
                f"{OWNER_FILE} in {folder} was deleted while the batch was running: start the batch again."
            )
        if owner != batch:
            raise CourseError(f"Another batch has taken over {folder} and continues its runs, so this one ends.")
        if time.monotonic() - written >= BEAT:
            write()

    write()
    try:
        yield batch, beat
    finally:
        if owner_of(folder) == batch:
            with contextlib.suppress(PermissionError):  # Windows removes no file that another process is reading
                Path(folder, OWNER_FILE).unlink()


def end_with_owner(folder: Path | str, batch: str) -> None:
    """End this kernel when `batch` no longer owns the folder. Jupyter's kernel itself notices if its parent is gone."""

    def watch():
        """Wait until the folder has another owner or none, then end the process."""
        owner = batch
        while owner in (batch, ""):
            time.sleep(WATCH_INTERVAL)
            with contextlib.suppress(OSError):  # a shared disk may not answer for a moment: look again
                owner = owner_of(folder)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
