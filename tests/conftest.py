"""Fixtures that the tests share: the real data if they are there, a small work folder, small notebooks."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest

import helpers


@pytest.fixture(scope="session")
def heart():
    """The folder of the real data, named by HEART_DATASET; without it the test is skipped."""
    folder = os.environ.get("HEART_DATASET")
    if not folder:
        pytest.skip("HEART_DATASET does not name a folder with the real data")
    assert Path(folder, "train", "images").is_dir(), f"HEART_DATASET is {folder}, which is not a dataset"
    return Path(folder)


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """A work folder in which 01 has run with the smoke profile: read it, never write to it."""
    work_dir = tmp_path_factory.mktemp("small") / "data"
    work_dir.mkdir()
    settings = helpers.new_settings("sample", "smoke", "report", 0)
    helpers.write_json(work_dir / "settings.json", settings)
    helpers.import_dataset("sample", work_dir, seed=0, sample=settings["sample"], progress=False)
    return work_dir


@pytest.fixture()
def work_dir(small_dataset, tmp_path):
    """A copy of `small_dataset` that a test may change."""
    return Path(shutil.copytree(small_dataset, tmp_path / "data"))


@pytest.fixture()
def write_notebook():
    """A function that writes a notebook of code cells; the first holds the parameters."""

    def write_notebook(path, *sources):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)

    return write_notebook
