"""The course runs from any folder, in any language, and writes nothing into its own folder."""

import os
import shutil
import subprocess
import sys

import pytest

from course.workspace import COURSE_FOLDER

WITHOUT = shutil.ignore_patterns(".*", "data", "tests", "tools", "__pycache__")


@pytest.fixture()
def course(tmp_path):
    """A copy of the course in a folder with a space and letters beyond ASCII."""
    return shutil.copytree(COURSE_FOLDER, tmp_path / "mein Kürs ♥" / "left atrium", ignore=WITHOUT)


def files(folder):
    """The files in a folder, with times and sizes."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.mark.slow
def test_notebooks_run_in_a_folder_of_any_name_and_leave_it_unchanged(course, tmp_path):
    before = files(course)
    odd = {"COLUMNS": "40", "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "0"}
    chosen = {"UNET_WORK_DIR": str(tmp_path / "wörk folder"), "UNET_PROFILE": "smoke"}
    environment = {**os.environ, **odd, **chosen}
    papermill = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar"]
    for name in ("01_dataset_upload.ipynb", "02_preprocessing.ipynb"):
        command = [*papermill, "--cwd", course / "notebooks", course / "notebooks" / name, tmp_path / name]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "wörk folder" / "npy" / "arrays.json").exists()
    assert files(course) == before
