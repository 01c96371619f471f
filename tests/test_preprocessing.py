"""A slice as 02 prepares it, and the arrays of a whole dataset. Their record is tested in test_arrays."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import helpers
from course.workspace import COURSE_FOLDER


def disc(height, width, row, column, radius):
    rows, columns = np.mgrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def centre(mask):
    return np.array([(np.mean(where) + 0.5) / size for where, size in zip(np.nonzero(mask), mask.shape)])


@pytest.mark.parametrize("size", [96, 128, 160, 192, 256, 320, 384])
@pytest.mark.parametrize("shape", [(320, 320), (300, 200)])
def test_a_resized_mask_keeps_its_place_and_area(size, shape):
    mask = disc(*shape, 0.43 * shape[0], 0.37 * shape[1], 30)
    small = helpers.resize_mask(mask, size)
    assert small.dtype == bool and small.shape == (size, size)
    assert np.abs(centre(small) - centre(mask)).max() * size < 0.15
    assert small.mean() == pytest.approx(mask.mean(), rel=0.02)


def test_a_mask_pixel_is_set_if_at_least_half_of_its_area_is():
    mask = np.array([[1, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]], bool)
    assert np.allclose(helpers.mask_share(mask, 2), [[0.5, 0.75], [0.25, 0.25]])
    assert np.array_equal(helpers.resize_mask(mask, 2), [[True, True], [False, False]])
    assert helpers.mask_share(~mask & mask, 3).tolist() == [[0] * 3] * 3


def test_a_shrunk_image_is_antialiased():
    stripes = np.tile(np.array([[0, 255]], np.uint8), (64, 32))
    small = helpers.resize_image(stripes, 16)
    assert small.dtype == np.uint8 and 120 <= small[:, 2:-2].min() <= small[:, 2:-2].max() <= 135


def test_a_prepared_slice_is_scaled_once_and_its_share_is_rounded():
    image = np.full((4, 4), 255, np.uint8)
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    X, y, share = helpers.prepare_slice(image, mask, 2)
    assert X.dtype == np.float32 and np.array_equal(X, np.ones((2, 2)))
    assert y.tolist() == [[True, False], [False, False]]
    assert share.tolist() == [[191, 64], [64, 0]]  # 3/4 and 1/4 of 255


def test_pictures_become_grey_and_masks_are_cut_at_the_middle_of_their_values(tmp_path):
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "mask.png")
    assert helpers.read_mask(tmp_path / "mask.png").tolist() == [[False, False, True, True]]
    assert helpers.read_mask(tmp_path / "mask.png", (0, 127)).tolist() == [[False, True, True, True]]
    Image.fromarray(np.full((2, 3, 3), [255, 0, 0], np.uint8)).save(tmp_path / "red.png")
    assert helpers.read_image(tmp_path / "red.png").tolist() == [[76] * 3] * 2  # 0.299 of 255


def test_arrays_hold_each_pair_in_order(work_dir):
    description = helpers.read_json(work_dir / "dataset.json", "01")
    record = helpers.prepare_arrays(description, work_dir, 64, progress=False)
    for subset in helpers.SUBSETS:
        X, y = helpers.load_arrays(work_dir, subset)
        pairs = description["subsets"][subset]
        assert X.shape == y.shape == (len(pairs), 64, 64, 1)
        assert X.dtype == np.float32 and y.dtype == np.uint8
        assert [pair["name"] for pair in record["slices"][subset]] == [pair["name"] for pair in pairs]
        for index, pair in enumerate(pairs):
            image, mask = helpers.pair_paths(description, work_dir, subset, pair["name"])
            with Image.open(image) as picture:
                expected = np.asarray(picture.convert("L").resize((64, 64), Image.Resampling.HAMMING)) / 255
            assert np.allclose(X[index, ..., 0], expected, atol=1e-6)
            assert np.array_equal(y[index, ..., 0], helpers.resize_mask(helpers.read_mask(mask), 64))
        assert y.any() and set(np.unique(y)) == {0, 1}
        [share] = helpers.load_arrays(work_dir, subset, ["share"])
        assert share.dtype == np.uint8 and share.shape == y.shape
        assert np.array_equal(share >= 127.5, y == 1) and ((share > 0) & (share < 255)).any()


def test_a_twin_across_subsets_is_left_out_of_train_only():
    twins = [["train", "la_005"], ["valid", "b"]], [["train", "a"], ["train", "b"]], [["valid", "c"], ["test", "d"]]
    assert helpers.left_out_twins({"twins": [{"patients": patients} for patients in twins]}) == ["la_005"]


def test_the_first_two_notebooks_never_import_tensorflow(work_dir):
    code = (
        "import sys, json, pathlib; sys.path.insert(0, sys.argv[1]); import helpers\n"
        "work_dir = pathlib.Path(sys.argv[2]); d = json.loads((work_dir / 'dataset.json').read_text())\n"
        "sample = helpers.new_settings('sample', 'smoke', 'report', 0)['sample']\n"
        "helpers.import_dataset('sample', work_dir, sample=sample, progress=False)\n"
        "helpers.prepare_arrays(d, work_dir, 16, progress=False); helpers.plot_pairs(d, work_dir)\n"
        "sys.exit(any(name.split('.')[0] in ('tensorflow', 'keras') for name in sys.modules))"
    )
    command = [sys.executable, "-c", code, str(COURSE_FOLDER), str(work_dir)]
    assert subprocess.run(command, check=False, env={**os.environ, "MPLBACKEND": "agg"}).returncode == 0
