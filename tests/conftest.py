"""What the tests share: the course on the import path, the real data where they are, small finished work folders."""

import os
from pathlib import Path

import pytest

COURSE = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def heart():
    """The folder of the real data, named by HEART_DATASET; without it the test is skipped."""
    folder = os.environ.get("HEART_DATASET")
    beside = COURSE.parent / "shared" / "heart"
    assert folder or os.environ.get("CI") != "true" or not beside.is_dir(), (
        f"set HEART_DATASET={beside}: the real data are there"
    )
    if not folder:
        pytest.skip("HEART_DATASET does not name a folder with the real data")
    assert Path(folder, "train", "images").is_dir(), f"HEART_DATASET is {folder}, and that is no dataset"
    return Path(folder)


def _make_small_dataset(work_dir):
    import helpers

    settings = helpers.new_settings("sample", "smoke", "report", 0)
    helpers.write_json(work_dir / "settings.json", settings)
    return helpers.import_dataset("sample", work_dir, seed=0, sample=settings["sample"], progress=False)


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """A work folder in which 01 has run with the smoke profile: read it, never write to it."""
    work_dir = tmp_path_factory.mktemp("small") / "data"
    work_dir.mkdir()
    _make_small_dataset(work_dir)
    return work_dir


@pytest.fixture()
def work_dir(small_dataset, tmp_path):
    """A copy of `small_dataset` that a test may change."""
    import shutil

    return Path(shutil.copytree(small_dataset, tmp_path / "data"))
