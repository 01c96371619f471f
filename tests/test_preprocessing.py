"""The arrays are what 02 says they are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import helpers
from course import arrays, planes, workspace
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


def test_a_mask_pixel_is_set_from_half_its_area_on():
    mask = np.array([[1, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]], bool)
    assert np.array_equal(helpers.resize_mask(mask, 2), [[True, True], [False, False]])


def test_area_average_weighs_parts_of_pixels():
    values = np.array([[3.0, 6.0, 0.0]])
    assert np.allclose(planes.area_average(values, 2, axis=1), [[(3 + 0.5 * 6) / 1.5, (0.5 * 6 + 0) / 1.5]])
    assert np.allclose(planes.area_average(values.T, 2, axis=0), [[4], [2]])


def test_the_share_of_a_pixel_is_that_of_its_area():
    mask = np.array([[1, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]], bool)
    assert np.allclose(helpers.mask_share(mask, 2), [[0.5, 0.75], [0.25, 0.25]])


def test_a_shrunk_image_is_antialiased():
    stripes = np.tile(np.array([[0, 255]], np.uint8), (64, 32))
    small = helpers.resize_image(stripes, 16)
    assert small.dtype == np.uint8 and 120 <= small[:, 2:-2].min() <= small[:, 2:-2].max() <= 135


def test_arrays_hold_each_pair_in_order(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
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


def test_values_are_divided_by_255_once(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    pair = description["subsets"]["train"][0]
    image_path, _ = helpers.pair_paths(description, work_dir, "train", pair["name"])
    Image.fromarray(np.full((320, 320, 3), 255, np.uint8)).save(image_path)
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    assert (helpers.load_arrays(work_dir, "train")[0][0] == 1).all()


def test_a_second_run_redoes_nothing_and_a_changed_input_does(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    files = sorted((work_dir / "npy").iterdir())
    before = {path: path.stat().st_mtime_ns for path in files}
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    helpers.prepare_arrays(description, work_dir, 24, progress=False)
    assert helpers.load_arrays(work_dir, "valid")[0].shape[1] == 24


def test_arrays_that_lost_their_end_are_made_again(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    path = work_dir / "npy" / "valid_X.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-100])
    with pytest.raises(helpers.CourseError, match="run 02_preprocessing again"):
        helpers.load_arrays(work_dir, "valid")


def test_arrays_on_drive_are_written_and_read_through_the_local_disk(work_dir, tmp_path, monkeypatch):
    description = json.loads((work_dir / "dataset.json").read_text())
    drive = tmp_path / "drive" / "MyDrive" / "course"
    drive.mkdir(parents=True)
    for name in ("dataset", "dataset.json"):
        (work_dir / name).rename(drive / name)
    monkeypatch.setattr(workspace, "COLAB_FOLDER", tmp_path)
    mapped, original = [], np.lib.format.open_memmap
    monkeypatch.setattr(np.lib.format, "open_memmap", lambda path, **how: mapped.append(path) or original(path, **how))
    record = helpers.prepare_arrays(description, drive, 32, progress=False)
    assert len(mapped) == 9 and not any(path.is_relative_to(tmp_path / "drive") for path in mapped)
    assert not list(tmp_path.glob("tmp*"))  # what was written locally is gone
    [first] = helpers.load_arrays(drive, "valid", ["y"])
    recorded = record["files"]["valid_y.npy"]["fingerprint"]
    assert Path(first.filename) == tmp_path / "npy" / recorded / "valid_y.npy"
    values = np.load(drive / "npy" / "valid_y.npy")
    assert helpers.load_arrays(drive, "valid", ["y"])[0].filename == first.filename  # copied once
    helpers.prepare_arrays(description, drive, 24, progress=False)
    [second] = helpers.load_arrays(drive, "valid", ["y"])
    assert np.array_equal(second, np.load(drive / "npy" / "valid_y.npy")) and np.array_equal(first, values)


@pytest.mark.parametrize("full", ["machine", "machine/drive/MyDrive/course"])
def test_for_arrays_on_drive_both_disks_need_room(full, work_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "COLAB_FOLDER", tmp_path / "machine")
    (tmp_path / "machine" / "drive" / "MyDrive").mkdir(parents=True)
    drive = work_dir.rename(tmp_path / "machine" / "drive" / "MyDrive" / "course")
    free = {tmp_path / "machine": 2**40, drive / "npy": 2**40, tmp_path / full / ("npy" if "drive" in full else ""): 99}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path]))
    with pytest.raises(helpers.CourseError, match=f"more than the disk of .*{full}.* has left"):
        helpers.prepare_arrays(json.loads((drive / "dataset.json").read_text()), drive, 32, progress=False)


def test_arrays_are_made_again_where_patients_or_code_have_changed(work_dir, monkeypatch):
    description = json.loads((work_dir / "dataset.json").read_text())
    first = helpers.prepare_arrays(description, work_dir, 32, progress=False)
    assert helpers.prepare_arrays(description, work_dir, 32, progress=False) == first
    for pair in description["subsets"]["train"]:
        pair["patient"] = pair["name"]
    second = helpers.prepare_arrays(description, work_dir, 32, progress=False)
    assert second["slices"]["train"][0]["patient"] == description["subsets"]["train"][0]["name"]

    original = helpers.read_mask
    monkeypatch.setattr(helpers, "read_mask", lambda *given: np.flipud(original(*given)))
    third = helpers.prepare_arrays(description, work_dir, 32, progress=False)
    assert third["made_from"]["code"] != second["made_from"]["code"]
    assert third["files"]["train_y.npy"] != second["files"]["train_y.npy"]
    assert third["files"]["train_X.npy"] == second["files"]["train_X.npy"]


@pytest.mark.parametrize(
    "name", ["name", "source", "root", "taken_from", "stored_in", "notes", "audit", "folds", "spacing", "geometry"]
)
def test_what_a_dataset_is_called_and_where_it_lies_does_not_change_its_arrays(name):
    assert arrays.dataset_fingerprint({"fingerprint": "x", name: "one"}) == arrays.dataset_fingerprint(
        {"fingerprint": "x", name: "other"}
    )


@pytest.mark.parametrize("name", ["fingerprint", "subsets", "mask_values", "something new"])
def test_what_a_dataset_holds_does_change_its_arrays(name):
    assert arrays.dataset_fingerprint({name: [1]}) != arrays.dataset_fingerprint({name: [2]})


def test_arrays_are_found_through_a_work_folder_that_has_none_of_its_own(work_dir, tmp_path):
    description = helpers.read_json(work_dir / "dataset.json", "01")
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    before = work_dir
    for name in ("second", "third"):
        description = helpers.import_dataset(before / "dataset.json", tmp_path / name)
        helpers.prepare_arrays(description, tmp_path / name, 16, progress=False)
        before = tmp_path / name
    [y] = helpers.load_arrays(before, "valid", ["y"])
    assert Path(y.filename) == work_dir / "npy" / "valid_y.npy"


def test_an_interrupted_preparation_leaves_no_record(work_dir, monkeypatch):
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    monkeypatch.setattr(helpers, "read_mask", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        helpers.prepare_arrays(description, work_dir, 24, progress=False)
    assert not (work_dir / "npy" / "arrays.json").exists()
    assert all(path.suffix == ".npy" and ".part" not in path.name for path in (work_dir / "npy").iterdir())


def test_left_out_patients_are_not_in_train(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    patient = description["subsets"]["train"][0]["patient"]
    record = helpers.prepare_arrays(description, work_dir, 16, [patient], progress=False)
    kept = {pair["patient"] for pair in record["slices"]["train"]}
    assert patient not in kept and kept and record["made_from"]["settings"]["left_out"] == [patient]
    assert len(helpers.load_arrays(work_dir, "train")[0]) == len(record["slices"]["train"])


def test_a_twin_across_subsets_is_left_out_on_the_train_side_only():
    twins = [
        {"patients": [["train", "la_005"], ["valid", "la_026"]]},
        {"patients": [["train", "a"], ["train", "b"]]},
        {"patients": [["valid", "c"], ["test", "d"]]},
    ]
    assert helpers.left_out_twins({"twins": twins}) == ["la_005"]


def test_leaving_out_all_patients_is_refused(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    everybody = {pair["patient"] for pair in description["subsets"]["train"]}
    with pytest.raises(helpers.CourseError, match="No train slices are left"):
        helpers.prepare_arrays(description, work_dir, 16, everybody, progress=False)


def test_masks_that_vanish_at_the_networks_size_are_refused(work_dir, monkeypatch):
    description = json.loads((work_dir / "dataset.json").read_text())
    monkeypatch.setattr(helpers, "mask_share", lambda mask, size: np.full((size, size), 0.4, np.float32))
    with pytest.raises(helpers.CourseError, match="No mask of train holds a pixel at 16 x 16 pixels: choose a larger"):
        helpers.prepare_arrays(description, work_dir, 16, progress=False)
    assert not list((work_dir / "npy").iterdir())


def test_arrays_of_another_dataset_are_refused(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    helpers.load_arrays(work_dir, "train")
    helpers.write_json(work_dir / "dataset.json", {**description, "fingerprint": "another"})
    with pytest.raises(helpers.CourseError, match="^02_preprocessing ran with another dataset: run 02_preprocessing"):
        helpers.load_arrays(work_dir, "train")


def test_arrays_are_never_unpickled(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    record = helpers.prepare_arrays(description, work_dir, 16, progress=False)
    path = work_dir / "npy" / "train_X.npy"
    with open(path, "wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    record["files"]["train_X.npy"]["bytes"] = path.stat().st_size
    helpers.write_json(work_dir / "npy" / "arrays.json", record)
    with pytest.raises(ValueError, match="(?i)pickle|python objects"):
        helpers.load_arrays(work_dir, "train")


def test_the_first_two_notebooks_never_import_tensorflow(work_dir):
    code = (
        "import sys, json, pathlib; sys.path.insert(0, sys.argv[1]); import helpers\n"
        "work_dir = pathlib.Path(sys.argv[2]); d = json.loads((work_dir / 'dataset.json').read_text())\n"
        "sample = helpers.new_settings('sample', 'smoke', 'report', 0)['sample']\n"
        "helpers.import_dataset('sample', work_dir, sample=sample, progress=False)\n"
        "helpers.prepare_arrays(d, work_dir, 16, progress=False); helpers.plot_pairs(d, work_dir)\n"
        "sys.exit(any(name.split('.')[0] in ('tensorflow', 'keras') for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(COURSE_FOLDER), str(work_dir)],
        check=False,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0


def test_arrays_that_do_not_fit_on_the_disk_are_told_before_they_are_written(work_dir, monkeypatch):
    description = helpers.read_json(work_dir / "dataset.json", "01")
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100_000})())
    with pytest.raises(helpers.CourseError, match=r"The arrays of train take 1 MB, more than the disk of .* has left"):
        helpers.prepare_arrays(description, work_dir, 64, progress=False)
    assert list((work_dir / "npy").iterdir()) == []


def test_a_prepared_slice_is_scaled_once_and_its_share_is_rounded():
    image = np.full((4, 4), 255, np.uint8)
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    X, y, share = helpers.prepare_slice(image, mask, 2)
    assert X.dtype == np.float32 and np.array_equal(X, np.ones((2, 2)))
    assert y.tolist() == [[True, False], [False, False]] and share.tolist() == [
        [191, 64],
        [64, 0],
    ]  # 3/4 and 1/4 of 255


def test_a_mask_pixel_counts_from_128_on(tmp_path):
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "mask.png")
    assert helpers.read_mask(tmp_path / "mask.png").tolist() == [[False, False, True, True]]
