"""Pictures that are not square, or tiny, in the first two notebooks."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import helpers
from course.workspace import COURSE_FOLDER


def cell_with(notebook, words):
    cells = json.loads((COURSE_FOLDER / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    [source] = [text for cell in cells if words in (text := "".join(cell["source"])) and cell["cell_type"] == "code"]
    return source


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (9, 7), (64, 64)])
def test_02_measures_how_far_a_mask_moves_whatever_its_shape(shape, capsys):
    mask = np.zeros(shape, bool)
    mask[shape[0] // 3 : shape[0] // 2 + 2, shape[1] // 4 : shape[1] // 2] = True
    names = {"helpers": helpers, "np": np, "size": 16, "image": mask.astype(np.uint8) * 200, "mask": mask}
    exec(cell_with("02_preprocessing", "def centre(mask)"), names)
    expected = [[mask[row * shape[0] // 16, column * shape[1] // 16] for column in range(16)] for row in range(16)]
    assert names["nearest"].tolist() == expected

    def middle(values, axis):
        """The middle of a mask along an axis that is scaled to a length of 16."""
        there = [(index + 0.5) * 16 / values.shape[axis] for index in np.nonzero(values)[axis]]
        return sum(there) / len(there)

    printed = capsys.readouterr().out
    for way, small in (("nearest neighbour (upper left)", np.array(expected)), ("area", names["small_mask"])):
        moved = max(abs(middle(small, axis) - middle(mask, axis)) for axis in (0, 1))
        assert f"By {way} the mask moves by {moved:.2f} pixels." in printed


@pytest.mark.slow
@pytest.mark.parametrize("shape, deep", [((80, 60), False), ((60, 80), True), ((12, 10), False)])
def test_01_and_02_run_on_pictures_of_any_shape_and_on_16_bit(shape, deep, tmp_path):
    drawn = np.zeros(shape, np.uint8)
    drawn[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2 + 2] = 255
    for seed in range(4):
        image = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint16 if deep else np.uint8)
        for kind, values in (("images", image * (200 if deep else 1)), ("masks", drawn)):
            (tmp_path / "source" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "source" / kind / f"p{seed}$^$_0.png")
    for notebook, parameters in (
        ("01_dataset_upload", ["-p", "dataset", tmp_path / "source", "-p", "profile", "smoke"]),
        ("02_preprocessing", []),
    ):
        command = [sys.executable, "-m", "papermill", f"notebooks/{notebook}.ipynb", tmp_path / "executed.ipynb"]
        options = ["--cwd", "notebooks", "--no-progress-bar", "-p", "work_dir", tmp_path / "data", *parameters]
        done = subprocess.run([*command, *options], cwd=COURSE_FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    X, y = helpers.load_arrays(tmp_path / "data", "train")
    assert X.shape[1] == X.shape[2] and y.any()
