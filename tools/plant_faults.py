"""Plant the faults of tools/faults.toml, one at a time, in a copy of the course, and check that each is noticed.

This is `make faults`. A fault counts as noticed only if the named test, or a compared cell of the named notebook, fails
by an assertion or a comparison. First, all that is named must pass without a fault. Words on the command line choose
the faults in which they occur.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from xml.etree import ElementTree

from course.batch import NOTEBOOKS
from course.workspace import COURSE_FOLDER
from tools.common import copy_course
from tools.store_notebooks import course_settings

BY_COMPARISON = ("AssertionError", "assert ", "DID NOT RAISE", "Notebook cell output mismatch", "Cell outputs differ")


def read_faults() -> list[dict[str, str]]:
    """Return the table of faults, a list of dicts: what, file, text, replacement, noticed_by."""
    return tomllib.loads((COURSE_FOLDER / "tools" / "faults.toml").read_text(encoding="utf-8"))["fault"]


def plant(copy: Path, fault: dict[str, str]) -> None:
    """Put a fault into the copy of the course. Raises SystemExit if its text does not occur exactly once."""
    path, text, replacement = copy / fault["file"], fault["text"], fault["replacement"]
    if path.suffix == ".ipynb":  # its cells are stored as JSON
        text, replacement = (json.dumps(part, ensure_ascii=False)[1:-1] for part in (text, replacement))
    source = path.read_text(encoding="utf-8")
    if source.count(text) != 1:
        raise SystemExit(
            f"{fault['file']} holds {text!r} {source.count(text)} times, not once: correct tools/faults.toml."
        )
    path.write_text(source.replace(text, replacement), encoding="utf-8")


def run(copy: Path, names: list[str], work_dir: Path | None = None) -> list[tuple[str, str]]:
    """Run tests, or notebooks in `work_dir`, of a copy; return (name, text of the exception) of those that failed."""
    report = copy / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *names]
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", PYTHONDONTWRITEBYTECODE="1")
    if work_dir:
        command += ["--nbval", "--noconftest"]
        environment.update(UNET_WORK_DIR=str(work_dir), UNET_PROFILE=course_settings()["notebook_profile"])
    finished = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        raise SystemExit(f"pytest did not run {names}:\n{finished.stdout}\n{finished.stderr}")
    failed = [
        (case.get("name"), f"{problem.get('message')}\n{problem.text}")
        for case in ElementTree.parse(report).iter("testcase")
        for problem in [*case.iter("failure"), *case.iter("error")]
    ]
    report.unlink()
    return failed


def check(fault: dict[str, str], work_dir: Path) -> str:
    """Plant a fault and return why it does not count as noticed; an empty string if it does.

    work_dir: a work folder in which the lessons have run, if a notebook is to notice it.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = copy_course(Path(name) / "copy")
        plant(copy, fault)
        by_notebook = fault["noticed_by"].endswith(".ipynb")
        own_work_dir = shutil.copytree(work_dir, Path(name) / "work") if by_notebook else None
        failed = run(copy, [fault["noticed_by"]], own_work_dir)
    if any(mark in text for _, text in failed for mark in BY_COMPARISON):
        return ""
    return f"failed otherwise: {failed[0][1].strip().splitlines()[0]}" if failed else "nothing failed"


def main(words: list[str]) -> int:
    """Check the faults that the words choose, or all if there are no words; return how many were not noticed."""
    faults = [fault for fault in read_faults() if all(word in " ".join(fault.values()) for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        copy, work_dir = copy_course(Path(name) / "sound"), Path(name) / "work"
        work_dir.mkdir()
        tests = sorted({fault["noticed_by"] for fault in faults if "::" in fault["noticed_by"]})
        failed = run(copy, tests) if tests else []
        if any(fault["noticed_by"].endswith(".ipynb") for fault in faults):
            failed += run(copy, [f"notebooks/{lesson}.ipynb" for lesson in NOTEBOOKS], work_dir)
        if failed:
            raise SystemExit(f"Without any fault these fail: {', '.join(name for name, _ in failed)}.")
        for number, fault in enumerate(faults, start=1):
            reason = check(fault, work_dir)
            missed += bool(reason)
            outcome = "NOT noticed" if reason else "noticed"
            print(f"{number:3} {outcome}: {fault['what']}{reason and f' ({reason})'}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults were noticed.")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
