"""Plant each fault of tools/faults.toml alone in a copy of the course, and see that what must notice it fails.

This is `make faults`. A fault counts as noticed only if the named test, or a compared cell of the named notebook, fails
by an assertion or a comparison. Another exception, such as a failed import, proves nothing. Before that everything
named must pass in the copy without a fault. Words on the command line choose the faults in whose line they occur.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import nbformat
from store_notebooks import COURSE, course_settings

LESSONS = ["01_dataset_upload", "02_preprocessing", "03_model", "04_training", "05_evaluation"]
BY_COMPARISON = (
    "AssertionError",
    "assert ",
    "Failed: DID NOT RAISE",
    "Notebook cell output mismatch",
    "Cell outputs differ",
)


def read_faults():
    """Return the table of faults, a list of dicts: what, file, text, replacement, noticed_by."""
    return tomllib.loads((COURSE / "tools" / "faults.toml").read_text(encoding="utf-8"))["fault"]


def sources(path):
    """Return the text of a Python file, or of each cell of a notebook, as a list."""
    if path.suffix == ".ipynb":
        return [cell.source for cell in nbformat.read(path, as_version=4).cells]
    return [path.read_text(encoding="utf-8")]


def plant(copy, fault):
    """Put a fault into the copy of the course."""
    path = copy / fault["file"]
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.source = cell.source.replace(fault["text"], fault["replacement"])
        nbformat.write(notebook, path)
    else:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(fault["text"], fault["replacement"]), encoding="utf-8")


def run(copy, names, work_dir=None):
    """Run tests or notebooks of a copy; return the exceptions of those that failed, as lists of (name, text).

    Notebooks get `work_dir` as the work folder, tests one of their own.
    """
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


def copy_course(folder):
    """Copy what the suite needs of the course into `folder`."""
    return Path(shutil.copytree(COURSE, folder, ignore=shutil.ignore_patterns(".git", ".venv", "data", "__pycache__")))


def check(fault, folder, work_dir):
    """Plant a fault and return why it does not count as noticed; an empty text if it does."""
    copy = copy_course(folder / "copy")
    plant(copy, fault)
    by_notebook = fault["noticed_by"].endswith(".ipynb")
    own_work_dir = shutil.copytree(work_dir, folder / "work") if by_notebook else None
    failed = run(copy, [fault["noticed_by"]], own_work_dir)
    for used in (copy, own_work_dir):
        if used:
            shutil.rmtree(used)
    if not failed:
        return "nothing failed"
    if any(mark in text for _, text in failed for mark in BY_COMPARISON):
        return ""
    return f"failed otherwise: {failed[0][1].strip().splitlines()[0]}"


def main(words):
    """Check the faults that the words choose, all without words; return how many were not noticed."""
    faults = [fault for fault in read_faults() if all(word in " ".join(fault.values()) for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy, work_dir = copy_course(folder / "sound"), folder / "sound work"
        work_dir.mkdir()
        tests = sorted({fault["noticed_by"] for fault in faults if "::" in fault["noticed_by"]})
        failed = run(copy, tests) if tests else []
        if any(fault["noticed_by"].endswith(".ipynb") for fault in faults):
            failed += run(copy, [f"notebooks/{lesson}.ipynb" for lesson in LESSONS], work_dir)
        if failed:
            raise SystemExit(f"Without any fault these fail: {', '.join(name for name, _ in failed)}.")
        for number, fault in enumerate(faults, start=1):
            reason = check(fault, folder, work_dir)
            missed += bool(reason)
            outcome = "NOT noticed" if reason else "noticed"
            print(f"{number:3} {outcome}: {fault['what']}{reason and f' ({reason})'}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults were noticed.")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
