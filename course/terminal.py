"""`make run` and `make batch`: notebook 00 in a terminal.

make hands the choices on as environment variables, so that no shell takes their quotes apart.
"""

import json
import os
import shutil
import sys

from course.workspace import COURSE_FOLDER, CourseError, open_work_folder, whole_file

STOPPED = "\nStopped. All that is complete is kept: give the same command again, and it goes on from there."


class Screen:
    """A file for what notebook 00 prints: in a terminal, progress (which begins with "\\r") stays in one place.

    Elsewhere each progress is a line of its own.
    """

    def __init__(self, file):
        self.file, self.height = file, 0

    def write(self, text):
        """Write text; progress that stands above it goes."""
        is_progress, lines = text.startswith("\r"), text.lstrip("\r").splitlines(keepends=True)
        if self.file.isatty():
            if self.height:
                self.file.write(f"\x1b[{self.height}A\x1b[J")  # up to its first line, and clear all below
            if is_progress:  # no line may be longer than the terminal is wide: the height would be another
                columns = shutil.get_terminal_size().columns
                lines = [line.rstrip("\n")[: columns - 1] + "\n" for line in lines]
            self.height = len(lines) if is_progress else 0
        self.file.write("".join(lines))

    def flush(self):
        """Show what was written."""
        self.file.flush()


def read_choices(environment):
    """Return the parameters of notebook 00 that environment variables name, such as DATASET; an empty one is none.

    Raises CourseError where SEED is no whole number or GRID no JSON object.
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


def run_notebook_00(choices, screen):
    """Execute notebook 00; its copy becomes runs/00_run_all.ipynb of the work folder if it gets to its end."""
    import papermill

    folder = open_work_folder() / "runs"
    folder.mkdir(exist_ok=True)
    with whole_file(folder / "00_run_all.ipynb") as executed:
        papermill.execute_notebook(
            COURSE_FOLDER / "notebooks" / "00_run_all.ipynb",
            executed,
            choices,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=screen,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no warning of its unencrypted connection
        )


def main():
    """Run notebook 00 with the choices of the environment; return the status of the process."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    try:
        run_notebook_00(read_choices(os.environ), Screen(sys.stdout))
        return 0
    except CourseError as error:
        sentence = str(error)
    except PapermillExecutionError as error:
        sentence = {"CourseError": error.evalue, "KeyboardInterrupt": STOPPED}.get(error.ename, str(error))
    except (KeyboardInterrupt, DeadKernelError):  # at Ctrl-C papermill ends the kernel
        sentence = STOPPED
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
