"""The table of faults fits the code: each text stands where it says, and what must notice it exists."""

import re

import pytest
from plant_faults import COURSE, read_faults, sources

FAULTS = read_faults()


def test_the_table_is_long_and_says_each_thing_once():
    assert len(FAULTS) >= 40
    assert len({fault["what"] for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault["what"] for fault in FAULTS])
def test_a_fault_can_be_planted_and_noticed(fault):
    assert sum(source.count(fault["text"]) for source in sources(COURSE / fault["file"])) == 1
    assert fault["text"] != fault["replacement"]
    file, _, test = fault["noticed_by"].partition("::")
    assert (COURSE / file).exists()
    if test:
        assert re.search(rf"^def {test}\(", (COURSE / file).read_text(encoding="utf-8"), re.MULTILINE)
