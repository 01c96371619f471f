"""Settings of the regression run: `pytest --nbval` over the notebooks, then the tests."""

import os
import tempfile
import tomllib

import pytest

from course.machine import keep_freed_memory
from course.workspace import COURSE_FOLDER

SETTINGS = tomllib.loads((COURSE_FOLDER / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]


def pytest_configure(config):
    """Give the whole run a fresh work folder, so that nobody's data/ is touched; it is removed at the end."""
    folder = tempfile.TemporaryDirectory(prefix="unet-course-")
    config.add_cleanup(folder.cleanup)
    os.environ["UNET_WORK_DIR"] = os.path.join(folder.name, "data")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    keep_freed_memory()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # TensorFlow's log lines differ from machine to machine


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """If processes share the suite (`-n`), give each whole files, and all notebooks, in their order, to one."""
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
    os.environ["UNET_PROFILE"] = "smoke" if is_batch else SETTINGS["notebook_profile"]
