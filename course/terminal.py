"""`make run` and `make batch`: notebook 00 in a terminal, with choices from environment variables."""

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from typing import TextIO

from course.workers import execute_notebook
from course.workspace import COURSE_FOLDER, CourseError, open_work_folder, whole_file

STOPPED = "\nStopped. Everything completed so far is kept: run the same command again to continue."


class Screen:
    """A file for what notebook 00 prints, where "\\r" begins lines that show its progress.

    In a terminal these stay in one place, and go when something else is printed. Elsewhere each is written once.
    """

    def __init__(self, file: TextIO):
        self.file, self.above = file, []

    def write(self, text: str) -> None:
        """Write text, or lines of progress in place of those above."""
        is_progress, lines = text.startswith("\r"), text.removeprefix("\r").splitlines(keepends=True)
        if not self.file.isatty():
            self.file.writelines(line for line in lines if not is_progress or line not in self.above)
        else:
            if self.above:
                self.file.write(f"\x1b[{len(self.above)}A\x1b[J")  # up to the first of them, and clear what is below
            if is_progress:  # a line wider than the terminal would take two
                columns = shutil.get_terminal_size().columns
                lines = [line.rstrip("\n")[: columns - 1] + "\n" for line in lines]
            self.file.writelines(lines)
        self.above = lines if is_progress else []

    def flush(self) -> None:
        """Show what was written."""
        self.file.flush()


def read_choices(environment: Mapping[str, str]) -> dict:
    """Return the parameters of notebook 00 that environment variables set, such as DATASET; empty ones are ignored.

    Raises CourseError if SEED is not a whole number or GRID not a JSON object.
    """
    names = ("dataset", "profile", "recipe", "seed", "grid", "scheduler")
    choices = {name: environment[name.upper()] for name in names if environment.get(name.upper())}
    for name, kind, example in (("seed", int, "SEED=1"), ("grid", dict, """GRID='{"seed": [0, 1, 2]}'""")):
        if name in choices:
            try:
                value = json.loads(choices[name])
            except ValueError:
                value = None
            if type(value) is not kind:
                raise CourseError(f"{name.upper()} is {choices[name]}: write it as in {example}.")
            choices[name] = value
    return choices


def run_notebook_00(choices: dict, screen: Screen) -> None:
    """Execute notebook 00; if it finishes, its executed copy becomes runs/00_run_all.ipynb in the work folder.

    Warnings go to runs/00_run_all.log. Raises CourseError if the user has no home folder.
    """
    if os.path.expanduser("~") == "~":
        raise CourseError("This user has no home folder, and Jupyter needs one: name one, as in HOME=/tmp make run.")
    path = open_work_folder() / "runs" / "00_run_all.ipynb"
    with whole_file(path) as executed, open(path.with_suffix(".log"), "a", encoding="utf-8") as log:
        execute_notebook(COURSE_FOLDER / "notebooks" / path.name, executed, choices, log, stdout_file=screen)


def main() -> int:
    """Run notebook 00 with the choices of the environment; return the status of the process."""
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from papermill import PapermillExecutionError

    try:
        run_notebook_00(read_choices(os.environ), Screen(sys.stdout))
        return 0
    except CourseError as error:
        sentence = str(error)
    except PapermillExecutionError as error:
        sentence = {"CourseError": error.evalue, "KeyboardInterrupt": STOPPED}.get(error.ename, str(error))
    except (KeyboardInterrupt, CellExecutionError, DeadKernelError):  # Ctrl-C, as papermill reports it
        logging.getLogger("asyncio").disabled = True  # else it prints the traceback of the cell that was interrupted
        sentence = STOPPED
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show every name
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # make passes it on when it is ended: like Ctrl-C
    sys.exit(main())
