"""The import: what it reads, what it leaves in the work folder, and that nothing is ever left half written."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from course import importing, workspace
from course.audit import dataset_counts
from course.importing import import_dataset
from course.pictures import SUBSETS
from course.store import dataset_root
from course.workspace import COURSE_FOLDER, CourseError

COURSE = COURSE_FOLDER
SIZE = 40
PLACES = {"p1": "train", "p2": "train", "p3": "valid", "p4": "test"}


def picture(seed):
    """A picture whose maximum is 255, so that scaling by the maximum does not change it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE + 4)).astype(np.uint8)
    pixels[0, 0] = 255
    return pixels


def mask(seed):
    """A mask of 0 and 1 with a disc whose place depends on the seed."""
    rows, columns = np.mgrid[:SIZE, : SIZE + 4]
    row, column = np.random.default_rng(seed).integers(14, 26, 2)
    return ((rows - row) ** 2 + (columns - column) ** 2 < 64).astype(np.uint8)


TRUTH = {
    f"{patient}_{index:03d}": (picture(10 * number + index), mask(10 * number + index))
    for number, patient in enumerate(PLACES)
    for index in range(3)
}


def saved(change=lambda values: values, **options):
    """Return a function (pixels, path) that saves `change(pixels)` with these options of Pillow."""

    def save(values, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        made = change(values)
        (made if isinstance(made, Image.Image) else Image.fromarray(made)).save(path, **options)

    return save


def white(values):
    return values * np.uint8(255)


save_plain, save_white = saved(), saved(white)


def write(folder, place="{subset}/{kind}/{name}.png", save_image=save_plain, save_mask=save_white):
    """Write TRUTH below `folder`; `place` says where, the functions (pixels, path) how."""
    for name, pixels in TRUTH.items():
        for kind, values, save in zip(("images", "masks"), pixels, (save_image, save_mask)):
            subset, patient, index = PLACES[name[:2]], *name.split("_")
            ending = "_mask" if kind == "masks" else ""
            parts = {"subset": subset, "kind": kind, "name": name, "patient": patient, "index": index, "ending": ending}
            save(values, folder / place.format(**parts))
    return folder


def written(description, work_dir):
    """Return {name: (image, mask as 0 and 1)} and assert that all files are in canonical form."""
    root, pixels = dataset_root(description, work_dir), {}
    for subset in SUBSETS:
        for pair in description["subsets"][subset]:
            image, drawn = (Image.open(root / subset / kind / f"{pair['name']}.png") for kind in ("images", "masks"))
            assert image.mode in ("L", "RGB", "RGBA") and drawn.mode in ("L", "RGB", "RGBA")
            assert list(image.size) == list(drawn.size) == pair["size"][::-1]
            values = np.asarray(drawn.convert("L"))
            assert set(np.unique(values)) <= set(description["mask_values"])
            pixels[pair["name"]] = np.asarray(image.convert("L")), (values == description["mask_values"][1]).astype(int)
    return pixels


def hold_truth(description, work_dir, tolerance=0):
    pixels = written(description, work_dir)
    assert set(pixels) == set(TRUTH)
    for name, (image, drawn) in TRUTH.items():
        assert np.abs(pixels[name][0].astype(int) - image).max() <= tolerance
        assert (pixels[name][1] == drawn).all()


def places(description):
    return {pair["patient"]: subset for subset in SUBSETS for pair in description["subsets"][subset]}


def take(dataset, work_dir, **options):
    return import_dataset(dataset, work_dir, progress=False, **options)


@pytest.fixture()
def dataset(tmp_path):
    return write(tmp_path / "my dataset é")


@pytest.fixture()
def work_dir(tmp_path):
    return tmp_path / "work folder ü"


# --- what it reads --------------------------------------------------------------------------------------


def test_a_canonical_folder_is_used_in_place(dataset, work_dir):
    description = take(dataset, work_dir)
    assert os.listdir(work_dir) == ["dataset.json"]
    assert description["root"] == str(dataset.resolve())
    assert description["mask_values"] == [0, 255]
    assert description["subsets"]["test"][1] == {"name": "p4_001", "patient": "p4", "slice": 1, "size": [40, 44]}
    assert description["notes"] == [] and description["twins"] == [] and description["excluded"] == []
    assert json.loads((work_dir / "dataset.json").read_text(encoding="utf-8")) == description
    hold_truth(description, work_dir)


def pack_zip(folder, path):
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.write(file, file.relative_to(folder.parent).as_posix())
            packed.writestr(f"__MACOSX/{file.relative_to(folder.parent).parent.as_posix()}/._{file.name}", b"Mac OS X")
    return path


@pytest.fixture()
def packed(dataset, tmp_path):
    return pack_zip(dataset, tmp_path / "data.zip")


def pack_tar(folder, path):
    with tarfile.open(path, "w:gz") as packed:
        packed.add(folder, "./outer/inner")
    return path


@pytest.mark.parametrize("pack, name", [(pack_zip, "data.zip"), (pack_tar, "data.tar.gz")])
def test_an_archive_is_unpacked_into_the_work_folder(pack, name, dataset, work_dir, tmp_path):
    description = take(pack(dataset, tmp_path / name), work_dir)
    assert description["root"].startswith("dataset/")
    assert sorted(os.listdir(work_dir)) == ["dataset", "dataset.json"]
    assert description["fingerprint"] == take(dataset, tmp_path / "other")["fingerprint"]
    hold_truth(description, work_dir)


def test_names_with_accents_in_a_macos_zip_are_read_as_in_its_folder(dataset, work_dir, tmp_path, monkeypatch):
    """macOS writes decomposed UTF-8 without setting the flag for it."""
    for path in sorted(dataset.rglob("p1_*.png")):
        path.rename(path.with_name(path.name.replace("p1_", "pu\u0308_")))
    monkeypatch.setattr(zipfile.ZipInfo, "_encodeFilenameFlags", lambda entry: (entry.filename.encode(), 0))
    packed = pack_zip(dataset, tmp_path / "data.zip")
    assert take(packed, work_dir)["fingerprint"] == take(dataset, tmp_path / "other")["fingerprint"]


def test_a_numpy_integer_can_be_the_seed(dataset, work_dir, tmp_path):
    description = take(dataset, work_dir, seed=np.int64(3))
    assert description["folds"] == take(dataset, tmp_path / "other", seed=3)["folds"]


def in_mode(mode):
    return lambda values: Image.fromarray(values).convert(mode)


WAYS = {
    "val": {"place": "{subset}/{kind}/{name}.png", "rename": ("valid", "Val")},
    "upper case": {"place": "{subset}/{kind}/{name}.PNG", "rename": ("train", "TRAIN")},
    "kind above subset": {"place": "{kind}/{subset}/{name}.png"},
    "a folder for each patient": {"place": "{subset}/{kind}/{patient}/{index}.png"},
    "patients between subset and kind": {"place": "{subset}/{patient}/{kind}/{name}.png"},
    "numbered files, patients between subset and kind": {"place": "{subset}/{patient}/{kind}/{index}.png"},
    "numbered files, patients below a folder of their own": {"place": "{subset}/scans/{patient}/{index}{ending}.png"},
    "masks by their ending": {"place": "{subset}/{name}{ending}.png"},
    "masks by folder and ending": {"place": "{subset}/{kind}/{name}{ending}.png"},
    "masks of 0 and 1": {"save_mask": save_plain},
    "masks of one bit": {"save_mask": saved(lambda values: Image.fromarray(values > 0))},
    "masks in two colours": {"save_mask": saved(lambda values: np.uint8([(10, 0, 90), (250, 40, 0)])[values])},
    "masks of 16 bit": {"save_mask": saved(lambda values: values * np.uint16(65535))},
    "blurred masks": {"place": "{subset}/{kind}/{name}.jpg", "save_mask": saved(white, quality=60), "tolerance": 255},
    "GIF": {"place": "{subset}/{kind}/{name}.gif"},
    "TIFF": {"place": "{subset}/{kind}/{name}.tiff"},
    "JPEG images": {"save_image": saved(format="JPEG", quality=95), "tolerance": 60},
    "RGB": {"save_image": saved(in_mode("RGB")), "save_mask": saved(lambda values: in_mode("RGB")(white(values)))},
    "RGBA": {"save_image": saved(in_mode("RGBA")), "save_mask": saved(lambda values: in_mode("RGBA")(white(values)))},
    "grey with alpha": {"save_image": saved(in_mode("LA"))},
    "images with a palette": {"save_image": saved(in_mode("P"))},
    "images of 16 bit": {"save_image": saved(lambda values: values * np.uint16(257))},
    "images of 32 bit": {"place": "{subset}/{kind}/{name}.tif", "save_image": saved(lambda image: image * np.int32(9))},
}


@pytest.mark.parametrize("way", WAYS)
def test_pictures_are_read_however_they_are_stored(way, tmp_path, work_dir):
    options = {**WAYS[way]}
    tolerance, rename = options.pop("tolerance", 0), options.pop("rename", None)
    folder = write(tmp_path / "source", **options)
    if rename:
        (folder / rename[0]).rename(folder / rename[1])
    description = take(folder, work_dir)
    assert places(description) == PLACES
    hold_truth(description, work_dir, tolerance)


def test_a_top_folder_named_training_alone_is_not_a_subset(tmp_path, work_dir):
    """Everything lies below training/, so it is not a subset, and the patients are split at random."""
    description = take(write(tmp_path / "source", "training/heart/{kind}/{name}.png"), work_dir)
    assert set(places(description)) == set(PLACES) and any("split at random" in note for note in description["notes"])


def test_several_label_values_can_be_chosen(tmp_path, work_dir):
    corner = np.pad(np.ones((3, 3), np.uint8), [(0, SIZE - 3), (0, SIZE + 1)])
    folder = write(tmp_path / "source", save_mask=saved(lambda values: 2 * values + corner))
    hold_truth(take(folder, work_dir, foreground=2), work_dir)
    both = written(take(folder, work_dir, foreground=[1, 2]), work_dir)
    assert both["p1_000"][1].sum() == TRUTH["p1_000"][1].sum() + 9


def test_stray_files_are_passed_over(dataset, work_dir):
    before = take(dataset, work_dir)
    for name in (
        ".DS_Store",
        "train/images/._p1_000.png",
        "train/images/Thumbs.db",
        "train/images/.ipynb_checkpoints/p1_000-checkpoint.png",
        "test/masks/desktop.ini",
        "__MACOSX/train/images/p9_000.png",
        "train/images/@eaDir/p1_000.png/SYNOPHOTO_THUMB_M.jpg",
        "readme.txt",
    ):
        (dataset / name).parent.mkdir(parents=True, exist_ok=True)
        (dataset / name).write_bytes(b"stray")
    assert take(dataset, work_dir) == before


@pytest.mark.parametrize("is_packed", [False, True])
def test_data_of_an_unsupported_type_are_reported(is_packed, dataset, work_dir, tmp_path):
    of_data = "train/images/p5.webp", "train/images/p6", "train/masks/p7.svs", "valid/p6.MHA", "train/more.tar.7z"
    for name in (*of_data, "valid/notes.pdf"):
        (dataset / name).write_bytes(b"data\0")
    (dataset / "LICENSE").write_text("as you like")
    description = take(pack_zip(dataset, tmp_path / "data.zip") if is_packed else dataset, work_dir)
    [note] = description["notes"]
    assert (
        "p5.webp (and 4 more) was passed over: this course does not read .7z, .mha, .svs, .webp, files without an ext"
        in note
    )
    hold_truth(description, work_dir)


def test_a_circular_link_is_not_followed_for_ever(dataset, work_dir):
    (dataset / "train" / "again").symlink_to(dataset, target_is_directory=True)
    hold_truth(take(dataset, work_dir), work_dir)


def test_a_link_does_not_hide_the_folder_it_points_to(dataset, work_dir):
    for subset, kind in (("train", "images"), ("train", "masks"), ("test", "images")):
        (dataset / subset / f"a_link_{len(kind)}").symlink_to(dataset / subset / kind, target_is_directory=True)
    hold_truth(take(dataset, work_dir), work_dir)


# --- patients and subsets -------------------------------------------------------------------------------


def without_subsets(folder, patients, slices=2):
    for number in range(patients):
        for index in range(slices):
            save_plain(picture(100 * number + index), folder / "images" / f"p{number:02d}_{index:03d}.png")
            save_white(mask(number), folder / "masks" / f"p{number:02d}_{index:03d}.png")
    return folder


@pytest.mark.parametrize("patients, expected", [(3, (1, 1, 1)), (4, (2, 1, 1)), (20, (10, 5, 5)), (33, (17, 8, 8))])
def test_without_subsets_patients_are_split_in_the_reports_proportions(patients, expected, tmp_path, work_dir):
    description = take(without_subsets(tmp_path / "source", patients, 1), work_dir)
    assert tuple(list(places(description).values()).count(subset) for subset in SUBSETS) == expected
    assert sum(map(len, description["subsets"].values())) == patients
    assert "split at random (seed 0)" in description["notes"][0]


@pytest.mark.parametrize("place", ["p{patient}/{kind}/{index:03d}.png", "all/p{patient}/{index:03d}{ending}.png"])
def test_numbered_files_in_a_folder_for_each_patient_are_split_by_patient(place, tmp_path, work_dir):
    """The numbers run on from patient to patient, so each file name is unique."""
    for number in range(15):
        for kind, ending, values in (("images", "", picture(number)), ("masks", "_mask", white(mask(number)))):
            path = place.format(patient=number // 3, kind=kind, ending=ending, index=number)
            save_plain(values, tmp_path / "source" / path)
    description = take(tmp_path / "source", work_dir)
    assert set(places(description)) == {"p0", "p1", "p2", "p3", "p4"}
    slices = [pair["slice"] for pairs in description["subsets"].values() for pair in pairs if pair["patient"] == "p4"]
    assert slices == [12, 13, 14]


def test_the_split_depends_only_on_the_seed(tmp_path, work_dir):
    folder = without_subsets(tmp_path / "source", 12)
    first, again, other = (places(take(folder, work_dir, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_one_scan_under_two_names_is_not_split_apart(tmp_path, work_dir):
    folder = without_subsets(tmp_path / "source", 9)
    for index in range(2):
        shutil.copy(folder / "images" / f"p03_00{index}.png", folder / "images" / f"p08_00{index}.png")
    for seed in range(6):
        description = take(folder, work_dir, seed=seed)
        assert places(description)["p03"] == places(description)["p08"]
        assert len(description["twins"]) == 1


def test_slices_are_in_numeric_order(tmp_path, work_dir):
    folder = without_subsets(tmp_path / "source", 3, 1)
    for kind in ("images", "masks"):
        for index in (2, 10, 1):
            shutil.copy(folder / kind / "p00_000.png", folder / kind / f"p00_{index}.png")
    description = take(folder, work_dir)
    slices = [pair["slice"] for pairs in description["subsets"].values() for pair in pairs if pair["patient"] == "p00"]
    assert slices == [0, 1, 2, 10]


def test_the_user_can_give_the_pattern_of_patient_names(tmp_path, work_dir):
    folder = write(tmp_path / "source", "{subset}/{kind}/{index}of{patient}.png")
    description = take(folder, work_dir, patient_pattern=r"(?P<slice>\d+)of(?P<patient>.+)")
    assert places(description) == PLACES
    assert description["subsets"]["valid"][2] == {"name": "002ofp3", "patient": "p3", "slice": 2, "size": [40, 44]}


@pytest.mark.parametrize("pattern", [None, r"scan(?P<patient>\d)_.*"])
def test_names_without_a_patient_make_each_file_a_patient_and_are_reported(pattern, dataset, work_dir):
    description = take(dataset, work_dir, patient_pattern=pattern)
    assert set(places(description)) == set(TRUTH)
    assert {pair["slice"] for pairs in description["subsets"].values() for pair in pairs} == {None}
    assert "(and 11 more) does not name its patient" in description["notes"][0]


def test_numbered_files_of_the_same_name_in_two_subsets_are_different_patients(tmp_path, work_dir):
    folder = write(tmp_path / "source", "{subset}/{kind}/{index}.png")
    description = take(folder, work_dir)
    assert "train/001" in places(description) and "test/001" in places(description)


def test_exclusions_are_left_out_recorded_and_change_the_fingerprint(dataset, work_dir):
    whole = take(dataset, work_dir)
    description = take(dataset, work_dir, exclude=["p2", "p1_001"])
    assert [pair["name"] for pair in description["subsets"]["train"]] == ["p1_000", "p1_002"]
    assert description["excluded"] == ["p1_001", "p2"]
    assert description["fingerprint"] != whole["fingerprint"]
    assert (dataset / "train" / "images" / "p2_000.png").exists()


def test_names_are_equal_however_their_accents_are_encoded(tmp_path, work_dir):
    folder = write(tmp_path / "source", "{subset}/{kind}/\u00e9{name}.png")
    description = take(folder, work_dir, exclude="e\u0301p2", patient_pattern="(?P<patient>e\u0301p\\d)_.*")
    assert description["excluded"] == ["\u00e9p2"] and set(places(description)) == {"\u00e9p1", "\u00e9p3", "\u00e9p4"}


def test_a_bad_file_can_be_excluded(dataset, work_dir):
    (dataset / "train" / "images" / "p2_000.png").write_text("not a picture")
    (dataset / "train" / "masks" / "p2_001.png").unlink()
    for kind in ("images", "masks"):
        (dataset / kind).mkdir()
        shutil.copy(dataset / "train" / kind / "p1_000.png", dataset / kind / "p9_000.png")  # outside the subsets
    description = take(dataset, work_dir, exclude=["p2_000.png", "p2_001", "p9"])
    assert len(description["subsets"]["train"]) == 4


SAMPLE = {"patients": {"train": 1, "valid": 1, "test": 1}, "slices": 3, "size": 48}


def test_the_sample_depends_only_on_its_seed(work_dir):
    one = take("sample", work_dir, sample=SAMPLE)
    again = take("sample", work_dir, sample=SAMPLE)
    other = take("sample", work_dir, seed=1, sample=SAMPLE)
    assert one == again and one["audit"]["findings"] == []
    assert one["fingerprint"] != other["fingerprint"]
    assert one["spacing"] == [400 / 48, 400 / 48, 40]
    assert [len(one["subsets"][subset]) for subset in SUBSETS] == [3, 3, 3]


# --- what it leaves -------------------------------------------------------------------------------------


def test_importing_the_same_dataset_again_changes_nothing(packed, work_dir):
    first = take(packed, work_dir)
    places_before = {path: path.stat().st_mtime_ns for path in (work_dir / "dataset").rglob("*")}
    assert take(packed, work_dir) == first
    assert {path: path.stat().st_mtime_ns for path in (work_dir / "dataset").rglob("*")} == places_before


def test_an_altered_copy_is_not_taken_for_the_dataset(packed, work_dir):
    root = dataset_root(take(packed, work_dir), work_dir)
    Image.fromarray(picture(99)).save(root / "train" / "images" / "p1_000.png")
    hold_truth(take(packed, work_dir), work_dir)
    assert len(os.listdir(work_dir / "dataset")) == 1


def test_another_dataset_replaces_the_earlier_copy(packed, work_dir):
    earlier = take(packed, work_dir)
    mine = ["imported-mine", "202406151230", "202406151231.tar"]  # names similar to those of our copies
    for name in mine[:2]:
        (work_dir / "dataset" / name / "labels").mkdir(parents=True)
    (work_dir / "dataset" / mine[2]).write_bytes(b"mine")
    later = take(packed, work_dir, exclude="p2")
    assert sorted(os.listdir(work_dir / "dataset")) == sorted([Path(later["root"]).name, *mine])
    assert earlier["root"] != later["root"]


def test_a_work_folder_can_be_moved(packed, work_dir, tmp_path):
    description = take(packed, work_dir)
    work_dir.rename(tmp_path / "moved")
    hold_truth(description, tmp_path / "moved")


def test_our_own_copy_can_be_imported_again(packed, work_dir):
    root = dataset_root(take(packed, work_dir), work_dir)
    hold_truth(take(root, work_dir), work_dir)


@pytest.mark.parametrize("place", ["source", "work folder ü", "work folder ü/dataset"])
def test_a_users_folder_is_read_wherever_it_is_and_never_changed(place, tmp_path, work_dir):
    folder = write(tmp_path / place, "{subset}/{kind}/{name}.bmp")
    before = {path: path.read_bytes() for path in folder.rglob("*.bmp")}
    for _ in range(2):  # the second time our own copies are there too
        hold_truth(take(folder, work_dir), work_dir)
    assert {path: path.read_bytes() for path in folder.rglob("*.bmp")} == before


# --- killed, or out of disk space -----------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from pathlib import Path
from course import importing, workspace

work_dir, earlier, later = sys.argv[1:]
options = {"progress": False}
in_force = os.path.join(work_dir, "dataset.json")


def import_and_die(after):
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir") and work_dir in str(arguments[0]):
            count += 1
            if count == after:
                os.kill(os.getpid(), signal.SIGKILL)
            if event == "open" and str(arguments[0]) == in_force and "r" not in str(arguments[1]):
                os._exit(3)  # a kill while it is being written would leave half of it

    sys.addaudithook(hook)
    importing.import_dataset(later, work_dir, **options)
    print(count, flush=True)


before = importing.import_dataset(earlier, work_dir, **options)


def kill(after):
    # Kill an import of `later` at an event; tell whether the earlier dataset is in force, None where the import lived.
    child = os.fork()
    if child == 0:
        import_and_die(after)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    if status == 0:
        return None
    description = json.load(open(in_force, encoding="utf-8"))
    root = os.path.join(work_dir, description["root"])
    again = importing.import_dataset(root, work_dir + "-looked", **options)
    assert again["fingerprint"] == description["fingerprint"], "half-made at event %d" % after
    return description["fingerprint"] == before["fingerprint"]


after = 1
while kill(after):
    after += 7
assert after > 70, after
for moment in range(after - 7, after + 8):  # around the renames
    importing.import_dataset(earlier, work_dir, **options)
    kill(moment)
for leftover in [*Path(work_dir).glob("dataset.importing-*"), *Path(work_dir).glob(".writing-*")]:
    os.utime(leftover, (0, 0))
whole = importing.import_dataset(earlier, work_dir, **options)
assert whole == before
assert sorted(os.listdir(work_dir)) == ["dataset", "dataset.json"], os.listdir(work_dir)
assert os.listdir(os.path.join(work_dir, "dataset")) == [whole["root"].split("/")[1]]
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_an_import_killed_at_any_moment_leaves_a_whole_dataset(dataset, work_dir, tmp_path):
    earlier = pack_zip(dataset, tmp_path / "earlier.zip")
    for name in ("train/images/p1_001.png", "train/masks/p1_001.png"):
        (dataset / name).unlink()
    later = pack_zip(dataset, tmp_path / "later.zip")
    command = [sys.executable, "-c", KILLED, work_dir, earlier, later]
    outcome = subprocess.run(command, cwd=COURSE, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


def test_the_next_import_removes_what_a_killed_one_left(dataset, work_dir):
    (work_dir / "dataset.importing-abc" / "unpacked").mkdir(parents=True)
    (work_dir / "dataset.importing-abc" / "unpacked" / "a.png").write_bytes(b"half")
    os.utime(work_dir / "dataset.importing-abc", (0, 0))
    (work_dir / "dataset.importing-def").mkdir()  # another process may be at work on it
    take(dataset, work_dir)
    assert sorted(os.listdir(work_dir)) == ["dataset.importing-def", "dataset.json"]


def test_without_disk_space_the_earlier_data_stay_and_one_sentence_says_so(packed, work_dir, monkeypatch):
    description = take(packed, work_dir)
    monkeypatch.setattr(importing.os, "replace", Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(CourseError, match="The disk of .* is full.* Earlier data there are untouched"):
        take(packed, work_dir, exclude="p2")
    monkeypatch.undo()
    assert sorted(os.listdir(work_dir)) == ["dataset", "dataset.json"]
    assert json.loads((work_dir / "dataset.json").read_text(encoding="utf-8")) == description
    hold_truth(description, work_dir)


FULL = """
import json, os, sys
from course import importing, workspace

work_dir, small, large = sys.argv[1:]
before = importing.import_dataset(small, work_dir, progress=False)
try:
    importing.import_dataset(large, work_dir, progress=False)
except workspace.CourseError as error:
    print(error)
assert sorted(os.listdir(work_dir)) == ["dataset", "dataset.json"], os.listdir(work_dir)
assert json.load(open(os.path.join(work_dir, "dataset.json"), encoding="utf-8")) == before
assert importing.import_dataset(small, work_dir, progress=False) == before
"""


def may_mount():
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sample", "bmp"])
def test_a_disk_that_is_really_full_is_reported_and_the_earlier_data_stay(kind, dataset, work_dir, tmp_path):
    if not may_mount():
        pytest.skip("this machine allows no small file system of our own")
    small = pack_zip(dataset, tmp_path / "small.zip")
    large = "sample" if kind == "sample" else str(tmp_path / "large")
    if kind == "bmp":
        noise = np.random.default_rng(0).integers(0, 256, (900, 900)).astype(np.uint8)
        drawn = np.zeros((900, 900), np.uint8)
        drawn[:20] = 255
        for subset in SUBSETS:
            save_plain(noise, tmp_path / "large" / subset / "images" / f"{subset}_0.bmp")
            save_plain(drawn, tmp_path / "large" / subset / "masks" / f"{subset}_0.bmp")
    work_dir.mkdir()
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1" "$4" "$5"'
    mounted = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    command = [*mounted, work_dir, sys.executable, FULL, small, large]
    outcome = subprocess.run(command, cwd=COURSE, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "Earlier data there are untouched" in outcome.stdout


def pretend_colab(monkeypatch, uploaded):
    files = types.SimpleNamespace(upload=lambda: uploaded)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(files=files))


def test_an_upload_is_kept_in_the_work_folder(packed, monkeypatch, work_dir):
    pretend_colab(monkeypatch, {"data.zip": packed.read_bytes()})
    path = importing.upload_file(work_dir)
    assert path == work_dir / "uploaded" / "data.zip"
    hold_truth(take(path, work_dir), work_dir)
    before = (work_dir / "dataset.json").read_bytes()
    pretend_colab(monkeypatch, {"dataset.json": b"{}"})  # named like a file of the course
    assert importing.upload_file(work_dir).read_bytes() == b"{}" and (work_dir / "dataset.json").read_bytes() == before


@pytest.mark.parametrize("uploaded", [{}, {"a.zip": b"", "b.zip": b""}])
def test_uploading_no_file_or_several_is_refused(monkeypatch, work_dir, uploaded):
    pretend_colab(monkeypatch, uploaded)
    with pytest.raises(CourseError, match=f"{len(uploaded)} files were uploaded: choose only one"):
        importing.upload_file(work_dir)


def test_an_upload_outside_colab_says_what_to_do(work_dir):
    with pytest.raises(CourseError, match="Uploading works only in Colab. Here, give the path"):
        importing.upload_file(work_dir)


def test_counts_are_given_for_each_subset(dataset, work_dir):
    rows = dataset_counts(take(dataset, work_dir))
    assert rows == [("train", 6, 6, "40x44x1", 2), ("valid", 3, 3, "40x44x1", 1), ("test", 3, 3, "40x44x1", 1)]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("old")
    (tmp_path / ".writing-99999-history.csv").write_text("left by a killed process")
    os.utime(tmp_path / ".writing-99999-history.csv", (0, 0))
    (tmp_path / ".writing-99998-history.csv").write_text("being written by another process")
    with pytest.raises(ZeroDivisionError), workspace.whole_file(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    with workspace.whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == [".writing-99998-history.csv", "history.csv"]


@pytest.mark.parametrize("open_for", [2, 9])
def test_replacing_a_locked_file_is_retried_and_then_reported(tmp_path, monkeypatch, open_for):
    real, waits = os.replace, []

    def replace(source, target):
        if len(waits) < open_for:
            raise PermissionError("what Windows says of a file that is open")
        real(source, target)

    path = tmp_path / "train_X.npy"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(workspace.time, "sleep", waits.append)
    told = contextlib.nullcontext() if open_for < 9 else pytest.raises(CourseError, match="train_X.npy is open: resta")
    with told, workspace.whole_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == ("new" if open_for < 9 else "old") and os.listdir(tmp_path) == ["train_X.npy"]
    assert 0 < sum(waits) < 5


def test_a_file_can_have_the_longest_name_that_a_disk_allows(tmp_path):
    path = tmp_path / f"{'n' * 244}.weights.h5"
    with workspace.whole_file(path) as temporary:
        temporary.write_text("weights")
        assert temporary.name.endswith(".weights.h5")  # Keras checks the ending
    assert path.read_text() == "weights"


def test_numbers_are_listed_with_all_their_digits():
    assert workspace.listed([0, 130817, 16711680.0, 0.25, "a"]) == "0, 130817, 16711680, 0.25, a"


def test_import_options_are_refused_for_a_dataset_that_is_already_imported(dataset, work_dir, tmp_path):
    take(dataset, work_dir)
    expected = "Give exclude, foreground, allow_incomplete, spacing and patient_pattern where you import"
    options = {"exclude": "a", "foreground": 1, "allow_incomplete": True, "patient_pattern": None, "spacing": [1, 1, 1]}
    for name, value in options.items():
        with pytest.raises(workspace.CourseError, match=expected):
            importing.import_dataset(work_dir / "dataset.json", tmp_path / "other", **{name: value})
    assert not (tmp_path / "other").exists()
