"""Each fault of tools/faults.toml can be planted, and the test or notebook that must notice it exists."""

from course.workspace import COURSE_FOLDER
from tools import plant_faults
from tools.common import copy_course


def test_the_text_of_each_fault_is_in_its_file_once_and_its_test_exists(tmp_path):
    copy = copy_course(tmp_path / "copy")
    for fault in plant_faults.read_faults():
        path = copy / fault["file"]
        sound = path.read_text(encoding="utf-8")
        plant_faults.plant(copy, fault)  # refuses a text that is missing or occurs twice
        assert path.read_text(encoding="utf-8") != sound, fault
        path.write_text(sound, encoding="utf-8")
        file, _, test = fault["noticed_by"].partition("::")
        assert f"def {test.partition('[')[0]}(" in (COURSE_FOLDER / file).read_text(encoding="utf-8") or not test, fault
