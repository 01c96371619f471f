"""`make run` and `make batch` in a terminal: what they take, what they show, and how they end."""

import io
import json
import logging
import os
import subprocess

import papermill
import pytest
from nbclient.exceptions import CellExecutionError, DeadKernelError

from course import terminal
from course.workspace import COURSE_FOLDER, CourseError


class Terminal(io.StringIO):
    """A terminal of 20 columns; `seen` is what it shows."""

    def isatty(self):
        return True

    def seen(self):
        lines = [""]
        for number, part in enumerate(self.getvalue().replace("\x1b[J", "").split("\x1b[")):
            if number:
                up, part = part.split("A", 1)
                lines = [*lines[: -1 - int(up)], ""]
            first, *others = part.split("\n")
            lines = [*lines[:-1], lines[-1] + first, *others]
        return "\n".join(lines)


def test_progress_stays_in_place_and_is_cleared_when_something_else_is_printed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    screen = terminal.Screen(out)
    screen.write("beginning\n")
    screen.write("\rone: waiting\ntwo: waiting\n")
    assert out.seen() == "beginning\none: waiting\ntwo: waiting\n"
    screen.write("\rone: much longer than a line may be\n")
    assert out.seen() == "beginning\none: much longer th\n"
    screen.write("run  outcome, which may be as long as it likes\n")
    screen.write("one  complete\n")
    assert out.seen() == "beginning\nrun  outcome, which may be as long as it likes\none  complete\n"


def test_each_line_of_progress_is_in_a_file_once():
    out = io.StringIO()
    screen = terminal.Screen(out)
    for text in ("\rone: 01\ntwo: 01\n", "\rone: 02\ntwo: 01\n", "\rone: 02\n", "one: 02\n", "\rone: 02\n"):
        screen.write(text)
    assert out.getvalue() == "one: 01\ntwo: 01\none: 02\none: 02\none: 02\n"


def test_choices_come_from_the_environment_and_an_empty_one_is_none():
    texts = {"DATASET": "007", "RECIPE": "best", "SCHEDULER": "tcp://here:1", "PROFILE": "", "HOME": "/home"}
    choices = {"dataset": "007", "recipe": "best", "scheduler": "tcp://here:1", "seed": 3, "grid": {"fold": [0, 1]}}
    assert terminal.read_choices({**texts, "SEED": "3", "GRID": '{"fold": [0, 1]}'}) == choices
    assert terminal.read_choices({}) == {}


@pytest.mark.parametrize(
    ("name", "value"), [("SEED", "x"), ("SEED", "1.5"), ("SEED", "true"), ("GRID", "{sead"), ("GRID", "[0]")]
)
def test_a_choice_that_cannot_be_read_is_refused_in_one_sentence(name, value):
    with pytest.raises(CourseError) as caught:
        terminal.read_choices({name: value})
    example = {"SEED": "SEED=1", "GRID": """GRID='{"seed": [0, 1, 2]}'"""}[name]
    assert str(caught.value) == f"{name} is {value}: write it as in {example}."


def failed(name, value):
    return papermill.PapermillExecutionError(4, 4, "1 / 0", name, value, ["Traceback: 1 / 0"])


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (None, 0, ""),
        (failed("CourseError", "There is no recipe 'x'."), 1, "There is no recipe 'x'.\n"),
        (failed("KeyboardInterrupt", ""), 1, f"{terminal.STOPPED}\n"),
        (KeyboardInterrupt(), 1, f"{terminal.STOPPED}\n"),
        (CellExecutionError("...", "KeyboardInterrupt", ""), 1, f"{terminal.STOPPED}\n"),
        (DeadKernelError("Kernel died"), 1, f"{terminal.STOPPED}\n"),
        (failed("ZeroDivisionError", "division by zero"), 1, None),
    ],
)
def test_notebook_00_is_run_and_its_copy_kept_only_after_success(tmp_path, monkeypatch, capfd, error, status, printed):
    def execute_notebook(source, executed, parameters, **options):
        assert source == COURSE_FOLDER / "notebooks" / "00_run_all.ipynb" and source.exists()
        assert parameters == {"recipe": "best", "seed": 2}
        assert (options["kernel_name"], options["progress_bar"]) == ("python3", False)
        options["stdout_file"].write("all is well\n")
        options["stderr_file"].write("a warning of the notebook\n")
        options["stderr_file"].flush()
        os.write(2, b"a warning of its kernel\n")
        executed.write_text("new")
        if error:
            raise error

    for name in ("DATASET", "PROFILE", "GRID", "SCHEDULER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNET_WORK_DIR", str(tmp_path))
    monkeypatch.setenv("RECIPE", "best")
    monkeypatch.setenv("SEED", "2")
    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", False)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "00_run_all.ipynb").write_text("old")
    assert terminal.main() == status
    assert sorted(os.listdir(tmp_path / "runs")) == ["00_run_all.ipynb", "00_run_all.log"]
    log = (tmp_path / "runs" / "00_run_all.log").read_text()
    assert log == "a warning of the notebook\na warning of its kernel\n"
    assert (tmp_path / "runs" / "00_run_all.ipynb").read_text() == ("old" if error else "new")
    shown = capfd.readouterr()
    assert shown.out == "all is well\n"
    if printed is None:
        assert "Traceback: 1 / 0" in shown.err  # a fault of the course: everything that helps to find it
    else:
        assert shown.err == printed


@pytest.mark.parametrize(("work_dir", "refused"), [("file", "file"), ("read-only", "read-only/runs")])
def test_an_unwritable_work_folder_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys, work_dir, refused):
    (tmp_path / "file").touch()
    (tmp_path / "read-only" / "runs").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("UNET_WORK_DIR", str(tmp_path / work_dir))
    assert terminal.main() == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path / refused} cannot be made or written to (")


def test_a_user_without_a_home_is_told_what_to_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNET_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert terminal.main() == 1 and not (tmp_path / "work").exists()
    assert capsys.readouterr().err.startswith("This user has no home folder, and Jupyter needs one: name one, as in ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run"], {}),
        (["run", "DATASET=a 'b' \"c\"", "PROFILE=hour"], {"DATASET": "a 'b' \"c\"", "PROFILE": "hour"}),
        (["batch"], {"PROFILE": "smoke", "GRID": {"recipe": ["report", "best"], "fold": [0, 1, 2]}}),
        (["batch", 'GRID={"seed": [0, 1]}', "PROFILE=quick"], {"PROFILE": "quick", "GRID": {"seed": [0, 1]}}),
        (["batch", "SEED=2", "SCHEDULER=tcp://a:1", "RECIPE=report", "GRID={}"], None),
    ],
)
def test_make_passes_the_choices_on(tmp_path, arguments, expected):
    names = ("DATASET", "PROFILE", "RECIPE", "SEED", "GRID", "SCHEDULER")
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$@"\nfor name in $NAMES; do printenv $name | sed "s/^/$name=/"; done\n')
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in (*names, "MAKEFLAGS")}
    done = subprocess.run(
        ["make", "--silent", "--old-file=.venv/installed", f"BIN={tmp_path}", *arguments],
        cwd=COURSE_FOLDER,
        env={**environment, "NAMES": " ".join(names)},
        capture_output=True,
        text=True,
        check=True,
    )
    command, *lines = done.stdout.splitlines()
    given = dict(line.split("=", 1) for line in lines)
    given = {name: json.loads(value) if name == "GRID" else value for name, value in given.items() if value}
    if expected is None:
        expected = {"PROFILE": "smoke", "SEED": "2", "SCHEDULER": "tcp://a:1", "RECIPE": "report", "GRID": {}}
    assert command == "-m course.terminal" and given == expected
