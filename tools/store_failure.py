"""Run the failure that 04 shows and store it with the course: `make failure`.

Lessons 01 to 04 with the recipe `report`, the sample and the profile `quick` (3,600 pictures). What 04 keeps of the
training goes to docs/: its history as report_on_sample.csv, its answers for one valid slice as report_on_sample.npz.
"""

import shutil
import tempfile
from pathlib import Path

import papermill

from course.workspace import COURSE_FOLDER

CHOICE = {"dataset": "sample", "profile": "quick", "recipe": "report", "seed": 0}


def main():
    """Run the four lessons in a fresh folder, and copy the two files."""
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((COURSE_FOLDER / "notebooks").glob("0[1-4]_*.ipynb")):
            parameters = {"work_dir": f"{folder}/data", **(CHOICE if path.name.startswith("01") else {})}
            executed = Path(folder) / path.name
            papermill.execute_notebook(path, executed, parameters, kernel_name="python3", cwd=path.parent)
        model = Path(folder) / "data" / "model"
        shutil.copyfile(model / "history.csv", COURSE_FOLDER / "docs" / "report_on_sample.csv")
        shutil.copyfile(model / "looks.npz", COURSE_FOLDER / "docs" / "report_on_sample.npz")


if __name__ == "__main__":
    main()
