"""Arrays of a made-up dataset without files: their values, their record, when they are reused and when refused."""

import types
from pathlib import Path

import numpy as np
import pytest

from course import arrays, workspace
from course.workspace import CourseError, fingerprint, read_json, write_json


def entries(patient, count):
    return [{"name": f"{patient}_{number}", "patient": patient, "slice": number} for number in range(count)]


SUBSETS = {
    "train": entries("a", 1) + entries("b", 1),
    "valid": entries("c", 2),
    "test": entries("d", 2) + entries("a", 1),
}
DESCRIPTION = {
    "subsets": SUBSETS,
    "twins": [{"patients": [["train", "b"], ["test", "d"]]}],
    "fingerprint": "1234",
    "geometry": {},
    "mask_values": [0, 255],
}
VALUES = {"a": 1, "b": 2, "c": 3, "d": 4, "faint": 0.5}


def make(work_dir, description=DESCRIPTION, leave_out=(), size=2, code="code"):
    """Make arrays of pictures that differ by patient and slice; return the record and the slices that were prepared."""
    asked = []

    def prepare(subset, entry):
        asked.append((subset, entry["name"]))
        X = np.array([[VALUES[entry["patient"]], entry["slice"]], [0.25, 0]], np.float32)
        X = np.pad(X, (0, size - 2))
        return X, X > 0.5, 255 * (X > 0.5)

    work_dir.mkdir(exist_ok=True)
    write_json(work_dir / "dataset.json", description)
    record = arrays.make_arrays(description, work_dir, size, list(leave_out), prepare, code, progress=False)
    return record, asked


def test_every_row_holds_its_slice_and_the_record_says_what_was_made(tmp_path):
    record, asked = make(tmp_path)
    assert sorted(asked) == sorted((s, entry["name"]) for s, found in SUBSETS.items() for entry in found)
    X, y = arrays.load_arrays(tmp_path, "test")
    assert (X.dtype, y.dtype, X.shape, y.shape) == (np.float32, np.uint8, (3, 2, 2, 1), (3, 2, 2, 1))
    assert X[..., 0].tolist() == [[[4, 0], [0.25, 0]], [[4, 1], [0.25, 0]], [[1, 0], [0.25, 0]]]
    assert y[..., 0].tolist() == [[[1, 0], [0, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 0]]]
    share, again = arrays.load_arrays(tmp_path, "test", ("share", "X"))
    assert np.array_equal(share, 255 * y) and share.dtype == np.uint8 and np.array_equal(again, X)
    assert not X.flags.writeable
    assert record == read_json(tmp_path / "npy" / "arrays.json", "02") and record["slices"] == SUBSETS
    assert record["made_from"]["settings"] == {"image_size": 2, "left_out": []}
    files = {path.name: path for path in (tmp_path / "npy").glob("*.npy")}
    assert set(files) == {f"{subset}_{kind}.npy" for subset in SUBSETS for kind in ("X", "y", "share")}
    assert record["files"].keys() == files.keys()
    for name, path in files.items():
        assert record["files"][name] == {"bytes": path.stat().st_size, "fingerprint": fingerprint(path)}


def test_hundreds_of_slices_are_prepared_once_each_and_keep_their_order(tmp_path):
    subsets = {**SUBSETS, "train": entries("a", 600)}
    _, asked = make(tmp_path, {**DESCRIPTION, "subsets": subsets})
    assert len(asked) == len(set(asked)) == 600 + 2 + 3
    [X] = arrays.load_arrays(tmp_path, "train", ["X"])
    assert X[:, 0, 1, 0].tolist() == list(range(600))


def test_patients_are_left_out_of_train_only(tmp_path):
    record, _ = make(tmp_path, leave_out=["a"])
    assert [entry["name"] for entry in record["slices"]["train"]] == ["b_0"]
    assert len(arrays.load_arrays(tmp_path, "train")[0]) == 1
    assert record["slices"]["test"] == SUBSETS["test"]
    assert record["made_from"]["settings"]["left_out"] == ["a"]
    with pytest.raises(CourseError, match="^No train slices are left: leave out fewer patients.$"):
        make(tmp_path, leave_out=["b", "a"])
    assert read_json(tmp_path / "npy" / "arrays.json", "02") == record  # nothing was lost


def test_arrays_are_made_again_only_when_needed(tmp_path):
    record, _ = make(tmp_path)
    assert make(tmp_path) == (record, [])
    subsets = {**SUBSETS, "train": entries("b", 2)}
    for change in (
        {"code": "other"},
        {"leave_out": ["b"]},
        {"size": 3},
        {"description": {**DESCRIPTION, "fingerprint": "5"}},
        {"description": {**DESCRIPTION, "mask_values": [0, 1]}},
        {"description": {**DESCRIPTION, "subsets": subsets}},
    ):
        make(tmp_path)
        changed, asked = make(tmp_path, **change)
        assert len(asked) == (6 if "leave_out" in change else 7)
        assert make(tmp_path, **change) == (changed, [])


def test_renaming_or_moving_a_dataset_does_not_change_its_arrays(tmp_path):
    record, _ = make(tmp_path)
    places = ("name", "source", "root", "taken_from", "stored_in")
    for name in (*places, "as_imported", "notes", "audit", "folds", "spacing", "geometry"):
        assert make(tmp_path, {**DESCRIPTION, name: "other"}) == (record, []), name


@pytest.mark.parametrize("kind", ["X", "y"])
def test_a_missing_or_altered_array_file_is_reported_and_made_again(tmp_path, kind):
    record, _ = make(tmp_path)
    path = tmp_path / "npy" / f"valid_{kind}.npy"
    whole = path.read_bytes()
    other = whole[:-1] + bytes([whole[-1] ^ 1])  # of the same length
    for damage in (lambda: path.write_bytes(whole[:-1]), lambda: path.write_bytes(other), path.unlink):
        damage()
        again, asked = make(tmp_path)
        assert again == record and len(asked) == 7 and path.read_bytes() == whole
        damage()
        assert len(arrays.load_arrays(tmp_path, "valid", ["share"])[0]) == 2
        with pytest.raises(CourseError, match=f"^valid_{kind}.npy in .*npy is missing, or is not the file that 02"):
            arrays.load_arrays(tmp_path, "valid")
        make(tmp_path)


def test_an_interrupted_preparation_leaves_no_record_and_no_partial_file(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.delitem(VALUES, "c")  # a patient of valid
    with pytest.raises(KeyError):
        make(tmp_path, size=3)
    assert not (tmp_path / "npy" / "arrays.json").exists()
    assert {path.name.partition("_")[2] for path in (tmp_path / "npy").iterdir()} == {"X.npy", "y.npy", "share.npy"}


def test_arrays_of_the_work_folder_a_dataset_was_taken_from_are_used_and_checked(tmp_path):
    make(tmp_path / "one")
    taken = {**DESCRIPTION, "taken_from": str(tmp_path / "one")}
    record, asked = make(tmp_path / "below", taken)
    assert record["folder"] == str(tmp_path / "one" / "npy") and asked == []
    [X] = arrays.load_arrays(tmp_path / "below", "valid", ["X"])
    assert str(X.filename) == str(tmp_path / "one" / "npy" / "valid_X.npy")
    third, asked = make(tmp_path / "three", {**DESCRIPTION, "taken_from": str(tmp_path / "below")})
    assert third["folder"] == str(tmp_path / "one" / "npy") and asked == []
    make(tmp_path / "one", code="other")
    with pytest.raises(CourseError, match="which this work folder uses, have been deleted or changed. Run 02"):
        arrays.load_arrays(tmp_path / "below", "valid")
    own, asked = make(tmp_path / "below", taken)
    assert "folder" not in own and len(asked) == 7


@pytest.fixture()
def drive(tmp_path, monkeypatch):
    """A folder for the course on Colab's Drive; the local disk is `tmp_path`."""
    monkeypatch.setattr(workspace, "COLAB_FOLDER", tmp_path)
    folder = tmp_path / "drive" / "MyDrive" / "course"
    folder.mkdir(parents=True)
    return folder


def test_arrays_on_drive_are_read_from_a_copy_on_the_local_disk(drive, tmp_path):
    record, _ = make(drive)
    for _ in range(2):
        [y] = arrays.load_arrays(drive, "test", ["y"])
        assert y[..., 0].tolist() == [[[1, 0], [0, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 0]]]
    kept = tmp_path / "npy" / record["files"]["test_y.npy"]["fingerprint"] / "test_y.npy"
    assert str(y.filename) == str(kept) and [*kept.parent.iterdir()] == [kept]
    kept.write_bytes(kept.read_bytes()[:-1] + b"\7")
    [y] = arrays.load_arrays(drive, "test", ["y"])
    assert y[-1, -1, -1, 0] == 7, "it was copied once"
    kept.unlink()
    [y] = arrays.load_arrays(drive, "test", ["y"])
    assert y[-1, -1, -1, 0] == 0, "and is copied again if it is gone"
    make(drive, size=3)
    [other] = arrays.load_arrays(drive, "test", ["y"])
    assert np.array_equal(other, np.load(drive / "npy" / "test_y.npy"))
    assert np.array_equal(y, other[:, :2, :2]) and Path(y.filename).exists()


def test_the_disk_needs_room_for_six_bytes_per_pixel(tmp_path, monkeypatch):
    """X takes four bytes, y and share one each. The largest subset has three slices of 2 x 2 pixels."""
    npy = tmp_path / "npy"
    free = {npy: 3 * 4 * 6 - 1}
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda place: types.SimpleNamespace(free=free[place]))
    told = f"^The arrays of test need 0 MB, more than is free on the disk of {npy}. Free"
    with pytest.raises(CourseError, match=told):
        make(tmp_path)
    assert not [*npy.glob("test_*")] and not (npy / "arrays.json").exists()
    free[npy] += 1
    make(tmp_path)


def test_a_record_of_other_settings_or_data_is_refused(tmp_path):
    settings = {"image_size": 2, "leave_out_twins": False}
    record, _ = make(tmp_path)
    assert arrays.read_arrays_record(tmp_path) == arrays.read_arrays_record(tmp_path, settings) == record
    others = {"size was 2, now 4": {"image_size": 4}, r"left_out was \[\], now \['b'\]": {"leave_out_twins": True}}
    for told, changed in others.items():
        with pytest.raises(CourseError, match=rf"^02_preprocessing ran with other settings \(.*{told}\): run 02"):
            arrays.read_arrays_record(tmp_path, {**settings, **changed})
    record, _ = make(tmp_path, leave_out=["b"])
    assert arrays.read_arrays_record(tmp_path, {**settings, "leave_out_twins": True}) == record
    write_json(tmp_path / "dataset.json", {**DESCRIPTION, "fingerprint": "other"})
    for read in (arrays.read_arrays_record, lambda folder: arrays.load_arrays(folder, "train")):
        with pytest.raises(CourseError, match="^02_preprocessing ran with another dataset: run 02"):
            read(tmp_path)


def test_a_subset_whose_masks_are_all_empty_is_refused(tmp_path):
    with pytest.raises(CourseError, match="^At 2 x 2 pixels all masks of valid are empty. Choose a larger"):
        make(tmp_path, {**DESCRIPTION, "subsets": {**SUBSETS, "valid": entries("faint", 1)}})
    assert not [*(tmp_path / "npy").glob("valid_*")]
