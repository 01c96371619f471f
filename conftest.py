"""Settings of the regression run: `pytest --nbval` over the notebooks, then the tests."""

import os
import tempfile
import tomllib
from pathlib import Path

import pytest

from course.machine import keep_freed_memory

_pyproject = (Path(__file__).parent / "pyproject.toml").read_text(encoding="utf-8")
COURSE_SETTINGS = tomllib.loads(_pyproject)["tool"]["course"]
_folder = pytest.StashKey()


def pytest_configure(config):
    """Give the whole run a fresh work folder, so that nobody's data/ is touched."""
    config.stash[_folder] = tempfile.TemporaryDirectory(prefix="unet-course-")
    os.environ["UNET_WORK_DIR"] = os.path.join(config.stash[_folder].name, "data")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    keep_freed_memory()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # TensorFlow's log lines differ from machine to machine


def pytest_unconfigure(config):
    """Remove the work folder."""
    if _folder in config.stash:
        config.stash[_folder].cleanup()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where processes share the suite (`-n`), give each whole files, and the notebooks, in their order, to one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        """Keeps the tests of a file together."""

        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return "notebooks" if file.startswith("notebooks/") else file

    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Run the batch notebook in the smallest profile, the others in the one they were stored with."""
    is_batch = item.path.name == "00_run_all.ipynb"
    os.environ["UNET_PROFILE"] = "smoke" if is_batch else COURSE_SETTINGS["notebook_profile"]
