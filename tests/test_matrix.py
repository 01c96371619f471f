"""The environments of `make matrix` are what they are called.

They are both ends of the ranges, and Colab's versions, which satisfy them.
"""

import re

import matrix
import pytest
from packaging.requirements import Requirement

from course.workspace import COURSE_FOLDER


def parse(text):
    """The requirements of a text, by name."""
    found = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    return {requirement.name.lower(): requirement for requirement in found}


RANGES = parse(matrix.requirements("3.12"))


def test_the_lowest_environment_has_the_lower_end_of_every_range():
    lowest = parse(matrix.requirements("3.11-lowest"))
    assert set(lowest) == set(RANGES)
    for name, requirement in RANGES.items():
        [lower] = [limit.version for limit in requirement.specifier if limit.operator == ">="]
        assert [limit.version for limit in lowest[name].specifier if limit.operator == "=="] == [lower]


def test_a_report_that_is_missing_counts_as_a_failure(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuite><testcase/><testcase><failure/></testcase><testcase><skipped/></testcase></testsuite>"
    )
    assert matrix.count_cases([report]) == {"passed": 1, "failed": 1, "skipped": 1}
    assert matrix.count_cases([report, tmp_path / "other.xml"]) == {"passed": 1, "failed": 2, "skipped": 1}


@pytest.mark.parametrize("pins", ["tools/colab/requirements.txt", "tools/constraints.txt"])
def test_what_is_pinned_lies_in_the_ranges(pins):
    pinned = parse((COURSE_FOLDER / pins).read_text(encoding="utf-8"))
    outside = {
        name
        for name in set(pinned) & set(RANGES)
        if not RANGES[name].specifier.contains(re.sub(r"\.\*$", "", next(iter(pinned[name].specifier)).version))
    }
    assert not outside


def test_colab_lacks_what_set_up_has_to_bring():
    pinned = parse(matrix.requirements("colab"))
    assert set(RANGES) - set(pinned) == {"nbval", "papermill"}
    assert matrix.NEVER_CHANGED <= set(pinned)


def test_the_constraints_hold_every_package_of_the_ranges():
    assert set(RANGES) <= set(parse((COURSE_FOLDER / "tools/constraints.txt").read_text(encoding="utf-8")))


def test_a_python_that_is_not_here_is_said_in_the_table(monkeypatch, tmp_path):
    monkeypatch.setitem(matrix.ENVIRONMENTS, "2.0", "2.0")
    row = matrix.check("2.0", tmp_path, [])
    assert "| 2.0 | " in matrix.table({"2.0": row}) and "there is no Python 2.0 here" in matrix.table({"2.0": row})
