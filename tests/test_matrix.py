"""The environments of `make matrix` are what their names say.

They are both ends of the ranges, and Colab's versions, which lie within them.
"""

import json
import re

import pytest
from packaging.requirements import Requirement

from course.machine import LESSON_PACKAGES
from course.workspace import COURSE_FOLDER
from tools import matrix


def parse(text):
    """The requirements of a text, by name."""
    found = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    return {requirement.name.lower(): requirement for requirement in found}


RANGES = parse(matrix.requirements("3.12"))


def test_the_lowest_environment_has_the_lower_end_of_every_range():
    lowest = parse(matrix.requirements("3.11-lowest"))
    assert set(lowest) == set(RANGES) and {"tensorflow", "nbval", "scikit-learn", "pydicom"} <= set(RANGES)
    for name, requirement in RANGES.items():
        [lower] = [limit.version for limit in requirement.specifier if limit.operator == ">="]
        assert [limit.version for limit in lowest[name].specifier if limit.operator == "=="] == [lower]


def test_a_missing_report_counts_as_a_failure(tmp_path):
    report = tmp_path / "report.xml"
    cases = "<testcase/><testcase><failure/></testcase><testcase><skipped/></testcase>"
    report.write_text(f"<testsuite>{cases}</testsuite>")
    assert matrix.count_cases([report]) == {"passed": 1, "failed": 1, "skipped": 1}
    assert matrix.count_cases([report, tmp_path / "other.xml"]) == {"passed": 1, "failed": 2, "skipped": 1}


@pytest.mark.parametrize("pins", ["tools/colab/gpu.txt", "tools/colab/no-gpu.txt", "tools/constraints.txt"])
def test_pinned_versions_lie_in_the_ranges(pins):
    pinned = parse((COURSE_FOLDER / pins).read_text(encoding="utf-8"))
    outside = {
        name
        for name in set(pinned) & set(RANGES)
        if not RANGES[name].specifier.contains(re.sub(r"\.\*$", "", next(iter(pinned[name].specifier)).version))
    }
    assert not outside


@pytest.mark.parametrize(("image", "missing"), [("gpu", set()), ("no-gpu", {"distributed"})])
def test_each_image_of_colab_lacks_what_only_00_needs(image, missing):
    pinned = parse(matrix.requirements(f"colab-{image}"))
    of_the_course = parse((COURSE_FOLDER / "requirements.txt").read_text(encoding="utf-8"))
    assert set(of_the_course) - set(pinned) == {"nbval", "papermill"} | missing
    assert set(LESSON_PACKAGES) <= set(pinned) and "dask" in pinned


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"error": None, "changed": {}}, ""),
        ({"error": None, "changed": {"tqdm": ["4.66", "4.67"], "dask": ["1", "2"]}}, "set-up changed dask, tqdm"),
        ({"error": "CourseError: no", "changed": {}}, "CourseError: no"),
    ],
)
def test_a_notebook_in_colab_passes_if_it_finishes_and_no_version_changes(monkeypatch, tmp_path, result, expected):
    notebooks = tmp_path / "drive" / "MyDrive" / "left-atrium-course" / "notebooks"
    notebooks.mkdir(parents=True)
    (notebooks / "01.ipynb").write_text("{}")
    (tmp_path / "result").mkdir()

    def run(command, **options):
        (tmp_path / "result" / "result.json").write_text(json.dumps(result))

    monkeypatch.setattr(matrix.subprocess, "run", run)
    assert matrix.run_in_colab("python", tmp_path, "01", {}) == expected


def test_the_constraints_hold_every_package_of_the_ranges():
    assert set(RANGES) <= set(parse((COURSE_FOLDER / "tools/constraints.txt").read_text(encoding="utf-8")))


def test_a_missing_python_is_shown_in_the_table(monkeypatch, tmp_path):
    monkeypatch.setitem(matrix.ENVIRONMENTS, "2.0", "2.0")
    table = matrix.table({"2.0": matrix.check("2.0", tmp_path, [])})
    assert "| 2.0 | " in table and "there is no Python 2.0 here" in table
