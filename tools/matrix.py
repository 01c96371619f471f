"""Run the suite with every Python, at both ends of every range, in adverse circumstances, and as in Google Colab.

This is `make matrix`. The environments are made once, in matrix/ of the work folder, and used again while their
requirements are the same. Words on the command line choose environments, the variable TESTS what pytest runs:

    make matrix ONLY="3.12 colab-gpu" TESTS="tests/test_settings.py notebooks/01_dataset_upload.ipynb"

A table with the last result of each environment is printed and written to matrix/table.md.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from course.batch import NOTEBOOKS
from course.workspace import COURSE_FOLDER, CourseError, open_work_folder, write_json
from tools.common import copy_course, machine, markdown_table

COLAB = COURSE_FOLDER / "tools" / "colab"
ENVIRONMENTS = {  # name: Python
    "3.11-lowest": "3.11",
    "3.11": "3.11",
    "3.12": "3.12",
    "3.13": "3.13",
    "adverse": "3.12",
    "colab-gpu": "3.13",
    "colab-no-gpu": "3.13",
}
SHOWN = ["tensorflow", "keras", "numpy", "matplotlib", "pillow", "scipy", "distributed", "ipython", "pytest"]


def requirements(name: str) -> str:
    """Return what an environment holds, as the text of a requirements file."""
    if name.startswith("colab-"):
        return (COLAB / f"{name.removeprefix('colab-')}.txt").read_text(encoding="utf-8")
    files = (COURSE_FOLDER / "requirements.txt", COURSE_FOLDER / "tests" / "requirements.txt")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    if name == "adverse":
        return f"{text}pytest-randomly\n"
    return text.replace(">=", "==") if name.endswith("-lowest") else text


def find_python(version: str) -> str:
    """Return the path of an interpreter of that version ("3.12"): this one, one on PATH, or one of pyenv.

    Raises CourseError if there is none.
    """
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    asks = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in (sys.executable, shutil.which(f"python{version}"), *installed):
        if candidate:
            answer = subprocess.run([candidate, "-c", asks], capture_output=True, text=True, check=False)
            if answer.stdout.strip() == version:
                return str(candidate)
    raise CourseError(f"there is no Python {version} here")


def make_environment(name: str, folder: Path) -> Path:
    """Make an environment in folder/name if it is missing or its requirements have changed; return its Python.

    Raises CourseError.
    """
    home, text = folder / name, requirements(name)
    python, made_from = home / "bin" / "python", home / "made-from.txt"
    if made_from.exists() and made_from.read_text(encoding="utf-8") == text:
        return python
    base = find_python(ENVIRONMENTS[name])
    print(f"{name}: making the environment", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([base, "-m", "venv", home], check=True)
    wanted = home / "wanted.txt"
    wanted.write_text(text, encoding="utf-8")
    command = [python, "-m", "pip", "install", "--quiet", "-r", wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CourseError(f"not installable: {done.stderr.strip().splitlines()[-1]}")
    wanted.rename(made_from)
    return python


def versions(python: Path) -> dict[str, str]:
    """Return {package: version} of an environment; Python itself is in it as "python"."""
    answer = json.loads(subprocess.run([python, "-m", "pip", "inspect"], capture_output=True, check=True).stdout)
    packages = [package["metadata"] for package in answer["installed"]]
    found = {package["name"].lower(): package["version"] for package in packages}
    return {"python": answer["environment"]["python_full_version"], **found}


def count_cases(reports: list[Path]) -> dict[str, int]:
    """Count the tests "passed", "failed", "skipped" in pytest's XML reports; a missing report counts as a failure."""
    missing = [report for report in reports if not report.exists()]
    cases = [case for report in reports if report.exists() for case in ElementTree.parse(report).iter("testcase")]
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - failed - skipped, "failed": failed + len(missing), "skipped": skipped}


def run_suite(python: Path, log_file: Path, tests: list[str]) -> dict[str, int]:
    """Run pytest with that Python over `tests`, a list (empty: everything); return what `count_cases` does."""
    with tempfile.TemporaryDirectory() as folder, open(log_file, "w", encoding="utf-8") as log:
        report = Path(folder) / "report.xml"
        command = [python, "-m", "pytest", "--nbval", "-rfE", f"--junitxml={report}", *tests]
        subprocess.run(command, cwd=COURSE_FOLDER, stdout=log, stderr=subprocess.STDOUT, check=False)
        return count_cases([report])


def run_adverse(python: Path, log_file: Path) -> dict[str, int]:
    """Run the suite in adverse circumstances, which `adverse.sh` names; return what `count_cases` does."""
    with tempfile.TemporaryDirectory() as folder, open(log_file, "w", encoding="utf-8") as log:
        course = copy_course(Path(folder) / "mein Kürs ♥" / "left atrium")
        environment = {**os.environ, "COURSE": str(course), "PYTHON": str(python), "REPORTS": folder}
        command = ["unshare", "--mount", "--net", "sh", str(COURSE_FOLDER / "tools" / "adverse.sh")]
        subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
        return count_cases([Path(folder) / f"{part}.xml" for part in ("notebooks", "tests")])


def run_in_colab(python: Path, exchange: Path, name: str, parameters: dict) -> str:
    """Run a notebook on a Colab machine of its own; return why it has not passed, or an empty string."""
    shutil.copy(exchange / "drive" / "MyDrive" / "left-atrium-course" / "notebooks" / f"{name}.ipynb", exchange)
    result_file = exchange / "result" / "result.json"
    result_file.unlink(missing_ok=True)
    ours = ("PYTHON", "UNET_WORK", "VIRTUAL_ENV", "MPL")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    environment = {"UNET_PROFILE": "smoke", **environment, "EXCHANGE": str(exchange), "PYTHON": str(python)}
    command = ["unshare", "--mount", "sh", str(COLAB / "machine.sh"), f"{name}.ipynb", json.dumps(parameters)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not result_file.exists():
        return f"did not start: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
    result = json.loads(result_file.read_text(encoding="utf-8"))
    return result["error"] or (f"set-up changed {', '.join(sorted(result['changed']))}" if result["changed"] else "")


def run_colab(python: Path, log_file: Path) -> dict[str, int]:
    """Run all notebooks as Colab does: each on a fresh machine; they share only the Drive, which holds the course.

    Then 01 runs again with an uploaded zip and a new work folder. Returns a dict like `run_suite`.
    """
    with tempfile.TemporaryDirectory() as folder:
        exchange = Path(folder)
        shutil.copytree(COLAB, exchange / "stand-in")
        for name in ("drive/MyDrive", "machine", "result", "upload"):
            (exchange / name).mkdir(parents=True)
        drive = exchange / "drive" / "MyDrive"
        copy_course(drive / "left-atrium-course")
        outcomes = {name: run_in_colab(python, exchange, name, {}) for name in [*NOTEBOOKS, "00_run_all"]}
        work_dir = drive / "left-atrium-course-data"
        for packed in (work_dir / "dataset").glob("*.tar"):  # as one file, since it lies on the Drive
            shutil.unpack_archive(packed, exchange / "mine", filter="data")
            with zipfile.ZipFile(exchange / "upload" / "mine.zip", "w", strict_timestamps=False) as mine:  # of 1970
                for path in (exchange / "mine").rglob("*"):
                    mine.write(path, path.relative_to(exchange / "mine"))
            shutil.rmtree(work_dir)
            outcomes["01 with an upload"] = run_in_colab(python, exchange, "01_dataset_upload", {"dataset": "upload"})
    log_file.write_text("".join(f"{name}: {why or 'passed'}\n" for name, why in outcomes.items()), encoding="utf-8")
    failed = sum(map(bool, outcomes.values()))
    return {"passed": len(outcomes) - failed, "failed": failed, "skipped": 0}


def check(name: str, folder: Path, tests: list[str]) -> dict:
    """Make an environment, run its checks, and return its row: a dict."""
    run, what = partial(run_suite, tests=tests), " ".join(tests) or "everything"
    if name == "adverse":
        run, what = run_adverse, "everything, in adverse circumstances"
    if name.startswith("colab-"):
        run, what = run_colab, "notebooks 00 to 05, an upload"
    row, began = {"date": time.strftime("%Y-%m-%d"), "what": what}, time.monotonic()
    try:
        if run in (run_adverse, run_colab) and (os.name != "posix" or os.geteuid() or not shutil.which("unshare")):
            raise CourseError("it runs in mounts of its own, which needs Linux and root")
        python = make_environment(name, folder)
        row["versions"], began = versions(python), time.monotonic()
        row |= run(python, folder / f"{name}.log")
    except CourseError as why:
        row["why"] = str(why)
    row["minutes"] = (time.monotonic() - began) / 60
    write_json(folder / f"{name}.json", row)
    return row


def table(rows: dict[str, dict]) -> str:
    """Return the table of {name: row}, with a description of this machine."""
    lines = []
    for name, row in rows.items():
        found = row.get("versions", {})
        counts = [row[key] for key in ("passed", "failed", "skipped")] if "passed" in row else [row["why"], "", ""]
        shown = [found.get(package, "") for package in ("python", *SHOWN)]
        lines.append([name, row["date"], *shown, row["what"], *counts, f"{row['minutes']:.0f}"])
    header = ["environment", "date", "Python", *SHOWN, "what ran", "passed", "failed", "skipped", "minutes"]
    return f"On {machine()}.\n\n{markdown_table(header, lines)}\n"


def main(words: list[str]) -> int:
    """Check the environments that the words name, or all if there are no words; return how many did not pass."""
    unknown = set(words) - set(ENVIRONMENTS)
    if unknown:
        raise SystemExit(f"Unknown environment {', '.join(sorted(unknown))}: choose from {', '.join(ENVIRONMENTS)}.")
    folder = open_work_folder() / "matrix"
    folder.mkdir(exist_ok=True)
    tests, bad = os.environ.get("TESTS", "").split(), 0
    for name in words or ENVIRONMENTS:
        row = check(name, folder, tests)
        bad += row.get("failed", 1) > 0 or row.get("passed", 0) == 0
        outcome = row.get("why") or "{passed} passed, {failed} failed, {skipped} skipped".format(**row)
        print(f"{name}: {outcome}", flush=True)
    kept = {name: folder / f"{name}.json" for name in ENVIRONMENTS if (folder / f"{name}.json").exists()}
    text = table({name: json.loads(path.read_text(encoding="utf-8")) for name, path in kept.items()})
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return bad


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
