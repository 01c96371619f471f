"""Converted data on a stand-in for Google Drive: one archive on Drive, the files on the machine's own disk."""

import errno
import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from course import store, workspace
from course.importing import import_dataset
from course.store import dataset_root, pair_paths
from course.workspace import CourseError


@pytest.fixture()
def colab(tmp_path, monkeypatch):
    """The stand-in: a local disk with Drive mounted in it."""
    monkeypatch.setattr(workspace, "COLAB_FOLDER", tmp_path / "content")
    work_dir = tmp_path / "content" / "drive" / "MyDrive" / "data"
    work_dir.mkdir(parents=True)
    return work_dir


@pytest.fixture()
def source(tmp_path):
    for seed in range(6):
        for kind, top in (("images", 255), ("masks", 2)):
            path = tmp_path / "source" / kind / f"p{seed}_0.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(seed).integers(0, top, (20, 30)).astype(np.uint8)
            Image.fromarray(values).save(path)
    return tmp_path / "source"


def take(dataset, work_dir, **options):
    return import_dataset(dataset, work_dir, progress=False, **options)


def below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_drive_holds_one_archive_and_the_machine_the_files(colab, source, tmp_path, monkeypatch):
    written = []
    real = os.replace
    monkeypatch.setattr(store.os, "replace", lambda one, other: (written.append(other), real(one, other)))
    description = take(source, colab)
    name = f"imported-{description['fingerprint'][:12]}"
    assert description["root"] == f"dataset/{name}.tar"
    assert below(colab) == ["dataset.json", f"dataset/{name}.tar"]
    assert dataset_root(description, colab) == tmp_path / "content" / "dataset" / name
    assert len(below(dataset_root(description, colab))) == 12
    assert {path.suffix for path in map(type(colab), written) if colab in path.parents} == {".tar", ".json"}
    elsewhere = take(source, tmp_path / "elsewhere")
    assert elsewhere["fingerprint"] == description["fingerprint"]
    assert elsewhere["root"] == f"dataset/{name}"
    assert below(tmp_path / "content" / "dataset" / name) == below(tmp_path / "elsewhere" / "dataset" / name)


def test_another_machine_unpacks_the_archive_once(colab, source, tmp_path, monkeypatch):
    description = take(source, colab)
    before = {path: path.read_bytes() for path in dataset_root(description, colab).rglob("*.png")}
    shutil.rmtree(tmp_path / "content" / "dataset")  # the machine is gone, Drive stays
    opened = []
    unpack = tarfile.open
    monkeypatch.setattr(store.tarfile, "open", lambda *arguments: (opened.append(arguments), unpack(*arguments))[1])
    for pair in description["subsets"]["train"]:
        for path in pair_paths(description, colab, "train", pair["name"]):
            assert path.read_bytes() == before[path]
    assert len(opened) == 1
    assert os.listdir(tmp_path / "content" / "dataset") == [f"imported-{description['fingerprint'][:12]}"]
    run = tmp_path / "content" / "drive" / "MyDrive" / "run"
    taken = take(colab / "dataset.json", run, fold=0)  # as the runs of a batch do
    assert dataset_root(taken, run) == dataset_root(description, colab) and len(opened) == 1


def test_the_archive_is_read_after_the_work_folder_was_moved_off_drive(colab, source, tmp_path):
    description = take(source, colab)
    moved = shutil.copytree(colab, tmp_path / "laptop")
    assert dataset_root(description, moved) == moved / "dataset" / f"imported-{description['fingerprint'][:12]}"
    assert len(below(dataset_root(description, moved))) == 12


def test_the_same_dataset_again_writes_nothing_and_another_replaces_it(colab, source):
    first = take(source, colab)
    archive = colab / first["root"]
    written = archive.stat().st_mtime_ns
    assert take(source, colab) == first and archive.stat().st_mtime_ns == written
    second = take(source, colab, exclude="p0")
    assert second["root"] != first["root"] and below(colab) == ["dataset.json", second["root"]]


def test_an_altered_archive_is_not_taken_for_the_dataset(colab, source):
    first = take(source, colab)
    (colab / first["root"]).write_bytes(b"altered")
    assert take(source, colab) == first
    with tarfile.open(colab / first["root"]) as packed:
        assert len([name for name in packed.getnames() if name.endswith(".png")]) == 12


def test_free_space_is_checked_on_the_disk_that_is_written(colab, source, tmp_path, monkeypatch):
    description = take(source, colab)
    shutil.rmtree(tmp_path / "content" / "dataset")
    size = (colab / description["root"]).stat().st_size

    def usage(path):
        free = size - 1 if "drive" not in str(path) else 2**40
        return shutil._ntuple_diskusage(2**40, 0, free)

    monkeypatch.setattr(store.shutil, "disk_usage", usage)
    with pytest.raises(
        CourseError, match=r"The dataset needs 0 MB, more than is free on the disk of .*content/dataset\. "
    ):
        dataset_root(description, colab)
    size += 1
    assert dataset_root(description, colab).is_dir()


def test_a_missing_archive_is_reported(colab, source, tmp_path):
    description = take(source, colab)
    shutil.rmtree(tmp_path / "content" / "dataset")
    (colab / description["root"]).unlink()
    with pytest.raises(CourseError, match="The files of the dataset are missing .* run 01_dataset_upload again"):
        dataset_root(description, colab)


def test_drafts_are_on_the_local_disk_and_the_disk_that_is_full_is_named(colab, tmp_path):
    with store.building_folder(tmp_path / "plain") as building:
        assert building.parent == tmp_path / "plain"
    with store.building_folder(colab) as building:
        assert building.parent == tmp_path / "content"
    for file, disk in {None: colab, colab / "dataset.json": colab, building / "a.png": tmp_path / "content"}.items():
        with pytest.raises(CourseError, match=f"The disk of {disk} is full. Free"), store.building_folder(colab):
            raise OSError(errno.ENOSPC, "No space left on device", file)


def test_a_read_only_work_folder_is_named(source, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "data")
    with pytest.raises(CourseError, match="data cannot be made or written to .*. Choose another folder"):
        take(source, tmp_path / "data")


def test_a_refusal_leaves_drive_and_the_machine_as_they_were(colab, source, tmp_path):
    take(source, colab)
    before = below(tmp_path / "content")
    with pytest.raises(CourseError, match="fold is 9"):
        take(source, colab, fold=9, exclude="p0")
    assert below(tmp_path / "content") == before
