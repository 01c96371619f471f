"""The heart data: the download from a server that misbehaves, and volumes turned into slices."""

import errno
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import tarfile
import threading
import urllib.request
from collections import Counter
from unittest.mock import Mock

import nibabel
import numpy as np
import pytest
from PIL import Image

from course import sources
from course.importing import import_dataset
from course.pictures import Pair
from course.sources import HEART_MD5, HEART_SIZE, HEART_SLICES, HEART_URL, download, fetch_heart, unpack
from course.store import dataset_root
from course.volumes import read_headers, slice_axis, write_volume
from course.workspace import CourseError

PATIENTS = {patient: slices for patients in HEART_SLICES.values() for patient, slices in patients.items()}
CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """A server on loopback that serves `content` and counts requests; the options say how it misbehaves.

    cuts: after how many bytes the next connections break. ranges: True, False, or "all", which promises a range and
    sends all. repeats: how often it sends the content.
    """

    daemon_threads = True

    def __init__(self, content, cuts=(), ranges=True, status=None, says_length=True, repeats=1):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cuts, self.ranges, self.status = content, list(cuts), ranges, status
        self.says_length, self.repeats = says_length, repeats
        self.ranges_seen, self.times_sent = [], 0

    def url(self, name="Task02_Heart.tar"):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        """Say nothing."""

    def do_GET(self):
        server = self.server
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", server.url())
            self.end_headers()
            return
        server.ranges_seen.append(self.headers.get("Range"))
        if server.status:
            self.send_error(server.status)
            return
        start = 0
        if server.ranges and self.headers.get("Range"):
            start = 0 if server.ranges == "all" else int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        body = server.content[start:]
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.close_connection = True
        try:
            for _ in range(server.repeats):
                self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
                server.times_sent += 1
        except ConnectionError:
            return  # the client has hung up


@pytest.fixture()
def serve():
    """A function that starts a Server for some bytes; all are stopped at the end."""
    servers = []

    def start(content, **options):
        servers.append(Server(content, **options))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(sources, "ATTEMPTS", 3)
    monkeypatch.setattr(sources, "WAIT", 0.001)


def get(url, path):
    return download(url, path, len(CONTENT), hashlib.md5(CONTENT).hexdigest(), progress=False)


CUT = {
    "once or twice": ([100_000, 50_000], [None, "bytes=100000-", "bytes=150000-"]),
    "many times": ([20_000] * 10, [None, *(f"bytes={20_000 * count}-" for count in range(1, 11))]),
    "never": ([], [None]),
}


@pytest.mark.parametrize(("cuts", "ranges_seen"), CUT.values(), ids=CUT)
def test_a_broken_download_resumes_where_it_stopped(cuts, ranges_seen, serve, tmp_path):
    server = serve(CONTENT, cuts=cuts)
    assert get(server.url(), tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges_seen == ranges_seen
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["Task02_Heart.tar", "moved"])
def test_a_partial_download_from_an_earlier_day_resumes_even_after_a_redirect(name, serve, tmp_path):
    server = serve(CONTENT)
    (tmp_path / "file.part").write_bytes(CONTENT[:250_000])
    assert get(server.url(name), tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges_seen == ["bytes=250000-"]


def test_a_part_file_that_is_complete_needs_no_network(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert get("http://127.0.0.1:9/", tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [False, "all"])
def test_a_server_that_refuses_ranges_is_asked_for_the_whole_file(ranges, serve, tmp_path):
    server = serve(CONTENT, ranges=ranges, cuts=[100_000])
    assert get(server.url(), tmp_path / "file").read_bytes() == CONTENT


SHORT = CONTENT[:299_000]
DAMAGED = "arrived damaged or is another file .*, so it was deleted. Run this again"
REFUSED = {  # what is served, how, the sentence, the number of requests, and what is left
    "a wrong byte": (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), {}, DAMAGED, 1, []),
    "a short file": (SHORT, {}, "is 299,000 bytes long, but 300,000 are expected", 1, []),
    "a short file of unknown length": (SHORT, {"says_length": False}, "416; 299,000 of 300,000", 4, ["file.part"]),
    "a file without end": (CONTENT, {"says_length": False, "repeats": 500}, DAMAGED, 1, []),
    "a missing address": (CONTENT, {"status": 404}, "the server answers 404", 1, []),
    "an overloaded server": (CONTENT, {"status": 503}, "could not be downloaded .the server answers 503", 3, []),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_content_is_refused_and_only_errors_that_may_pass_are_retried(case, serve, tmp_path):
    content, options, sentence, requests, left = REFUSED[case]
    server = serve(content, **options)
    with pytest.raises(CourseError, match=sentence):
        get(server.url(), tmp_path / "file")
    assert len(server.ranges_seen) == requests
    assert os.listdir(tmp_path) == left
    assert server.times_sent < 500  # an endless response is not read beyond the expected size


def test_a_file_that_is_too_short_is_refused_even_with_a_partial_download(serve, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:250_000])
    with pytest.raises(CourseError, match="is 299,000 bytes long, but 300,000 are expected"):
        get(serve(SHORT).url(), tmp_path / "file")


def test_a_full_disk_is_not_reported_as_a_broken_connection(tmp_path, monkeypatch):
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(urllib.request, "urlopen", full)
    with pytest.raises(OSError, match="No space left"):
        get("http://127.0.0.1:9/", tmp_path / "file")
    assert full.call_count == 1


def test_a_part_file_that_is_too_long_is_deleted(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    with pytest.raises(CourseError, match=DAMAGED):
        get("http://127.0.0.1:9/", tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_without_a_network_one_sentence_names_the_alternatives(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "HEART_URL", "http://127.0.0.1:9/x.tar")
    with pytest.raises(CourseError) as caught:
        fetch_heart(tmp_path, progress=False)
    assert "could not be downloaded" in str(caught.value) and "; 0 of 455,721,472 bytes" in str(caught.value)
    assert "put Task02_Heart.tar" in str(caught.value)
    assert "dataset='sample'" in str(caught.value)


def test_the_official_archive_is_the_default():
    assert HEART_URL.endswith("/Task02_Heart.tar")
    assert (HEART_SIZE, HEART_MD5) == (455_721_472, "06ee59366e1e5124267b774dbd654057")
    assert [sum(HEART_SLICES[subset].values()) for subset in ("train", "valid", "test")] == [1160, 569, 542]


def volume_bytes(values, *spacing):
    image = nibabel.Nifti1Image(values, np.diag([*spacing, 1]))
    return gzip.compress(image.to_bytes(), 1)


def volumes_of(slices, number):
    """A small image and label volume; no two patients alike."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 2000, (12, 10, slices)).astype(np.uint16)
    label = np.zeros((12, 10, slices), np.uint8)
    label[2:5, 3:7, : slices // 2] = 1
    return volume_bytes(image, 1.25, 1.25, 1.37), volume_bytes(label, 1.25, 1.25, 1.37)


def heart_archive(patients=PATIENTS):
    """The bytes of an archive like the official one."""
    described = {"name": "LeftAtrium", "labels": {"0": "background", "1": "left atrium"}}
    files = {"imagesTs/la_001.nii.gz": b"has no label", "dataset.json": json.dumps(described).encode()}
    for number, (patient, slices) in enumerate(patients.items()):
        for folder, content in zip(("imagesTr", "labelsTr"), volumes_of(slices, number)):
            files[f"{folder}/{patient}.nii.gz"] = content
            files[f"{folder}/._{patient}.nii.gz"] = b"Mac OS X"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(f"Task02_Heart/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def slices_of_patients(description):
    subsets = description["subsets"]
    return {subset: dict(Counter(pair["patient"] for pair in subsets[subset])) for subset in subsets}


@pytest.mark.slow
def test_the_heart_data_come_from_the_server_in_the_reports_split(serve, tmp_path, monkeypatch):
    archive = heart_archive()
    server = serve(archive, cuts=[100_000])
    monkeypatch.setattr(sources, "HEART_URL", server.url())
    monkeypatch.setattr(sources, "HEART_SIZE", len(archive))
    monkeypatch.setattr(sources, "HEART_MD5", hashlib.md5(archive).hexdigest())
    description = import_dataset("heart", tmp_path, progress=False)
    assert slices_of_patients(description) == HEART_SLICES
    assert description["spacing"] == [1.25, 1.25, 1.37]
    assert description["geometry"]["la_030"] == {"spacing": [1.25, 1.25, 1.37], "axes": ["I", "A", "R"]}
    assert description["notes"] == []
    assert description["name"] == description["source"] == "heart"
    root = dataset_root(description, tmp_path)
    assert len(list(root.rglob("*.png"))) == 2 * 2271
    assert sorted(os.listdir(tmp_path)) == ["Task02_Heart.tar", "dataset", "dataset.json"]
    with Image.open(root / "train" / "images" / "la_003_077.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (12, 10))
    assert fetch_heart(tmp_path) == tmp_path / "Task02_Heart.tar"
    assert len(server.ranges_seen) == 2  # the archive is not fetched again


FEW = {"la_003": 130, "la_018": 122, "la_030": 110}
FEW_IN_SUBSETS = {"train": {"la_003": 130}, "valid": {"la_030": 110}, "test": {"la_018": 122}}


def write_archive(path, patients):
    path.write_bytes(heart_archive(patients))
    return path


def test_the_users_own_archive_is_used(tmp_path):
    path = write_archive(tmp_path / "Mein Herz.tar", FEW)
    options = {"allow_incomplete": True, "progress": False}
    by_source = import_dataset("heart", tmp_path / "one", heart_source=path, **options)
    by_path = import_dataset(path, tmp_path / "two", **options)
    assert slices_of_patients(by_path) == slices_of_patients(by_source) == FEW_IN_SUBSETS
    assert by_source["fingerprint"] == by_path["fingerprint"]
    assert by_source["root"] == by_path["root"]
    [note] = by_source["notes"]  # nothing about imagesTs, which has no labels
    assert "incomplete, as allowed" in note


def test_an_unpacked_folder_in_the_work_folder_is_used(tmp_path):
    unpack(write_archive(tmp_path / "heart.tar", FEW), tmp_path)
    (tmp_path / "Task02_Heart" / "imagesTr" / "._la_003.nii.gz").write_bytes(b"Mac OS X")
    description = import_dataset("heart", tmp_path, allow_incomplete=True, progress=False)
    assert slices_of_patients(description) == FEW_IN_SUBSETS


WITHOUT_TWO = {patient: 3 for patient in PATIENTS if patient not in ("la_004", "la_030")}


@pytest.mark.parametrize(
    ("patients", "options", "sentence"),
    [
        (WITHOUT_TWO, {"exclude": "la_009"}, r"2 of 20 patients are missing \(la_004, la_030\)"),
        (
            {"la_009": 2, "la_016": 2},
            {"allow_incomplete": True},
            r"\(la_009, la_016\) .*, so valid and test would be empty",
        ),
        ({**PATIENTS, "la_029": 108}, {}, "la_029 has 108 slices, but 109 in the report"),
    ],
)
def test_incomplete_heart_data_are_refused(patients, options, sentence, tmp_path):
    path = write_archive(tmp_path / "heart.tar", patients)
    with pytest.raises(CourseError, match=sentence):
        import_dataset("heart", tmp_path, heart_source=path, progress=False, **options)


def write_task(folder, labels=(1,), names=None, title="Organ"):
    """A decathlon task of four small volumes with the given label values."""
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 900, (8, 6, 5)).astype(np.int16)
        label = np.zeros((8, 6, 5), np.uint8)
        for row, value in enumerate(labels):
            label[1 + 2 * row, 1:4, 1:4] = value
        for kind, content in (("imagesTr", values), ("labelsTr", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"case_{number}.nii.gz").write_bytes(volume_bytes(content, 2, 3, 4))
    (folder / "dataset.json").write_text(json.dumps({"name": title, "labels": names or {"0": "background"}}))
    return folder


@pytest.mark.parametrize("title", ["Organ", "LeftAtrium"])  # with other patients than the heart data
def test_volumes_of_another_task_are_split_by_patient_with_their_spacing(title, tmp_path):
    description = import_dataset(write_task(tmp_path / "Task00", title=title), tmp_path / "data", progress=False)
    assert [len(found) for found in slices_of_patients(description).values()] == [2, 1, 1]
    assert description["spacing"] == [3, 2, 4]  # after the turn, rows run along the second axis
    assert description["subsets"]["test"][0]["size"] == [6, 8]
    assert description["notes"][0] == "Each volume was taken as a patient of its own."


def test_another_task_is_not_taken_for_heart_even_with_the_same_patient_names(tmp_path):
    task, names = write_task(tmp_path / "Task00", title="Organ"), ["la_003", "la_004", "la_005", "la_007"]
    for number, name in enumerate(names):
        for kind in ("imagesTr", "labelsTr"):
            (task / kind / f"case_{number}.nii.gz").rename(task / kind / f"{name}.nii.gz")
    description = import_dataset(task, tmp_path / "data", progress=False)
    assert sorted(set().union(*slices_of_patients(description).values())) == names


@pytest.mark.parametrize(("chosen", "rows"), [("wall", [3]), (2, [3]), (["wall"], [3]), ([1, 2], [1, 3])])
def test_labels_are_chosen_by_name_or_number_and_several_are_one_foreground(tmp_path, chosen, rows):
    task = write_task(tmp_path / "Task00", labels=(1, 2), names={"0": "background", "1": "cavity", "2": "wall"})
    description = import_dataset(task, tmp_path / "data", foreground=chosen, progress=False)
    expected = np.zeros((8, 6, 5), np.uint8)
    expected[rows, 1:4, 1:4] = 255
    root = dataset_root(description, tmp_path / "data")
    for number in range(5):
        [path] = root.glob(f"*/masks/case_0_{number:03d}.png")
        assert (np.asarray(Image.open(path))[..., 0] == np.rot90(expected[..., number])).all()


@pytest.fixture()
def nifti(heart):
    """The folder of the real volumes, beside the folder of the real slices."""
    folder = heart.parent / "heart-nifti" / "Task02_Heart"
    if not folder.is_dir() and os.environ.get("CI") != "true":
        pytest.skip("beside HEART_DATASET there is no heart-nifti/Task02_Heart")
    assert folder.is_dir()
    return folder


def test_the_real_volumes_become_the_real_slices(heart, nifti, tmp_path):
    for patient, subset in (("la_009", "train"), ("la_016", "test")):
        pair = [nifti / kind / f"{patient}.nii.gz" for kind in ("imagesTr", "labelsTr")]
        names = [f"{patient}_{number:03d}" for number in range(PATIENTS[patient])]
        files = [[tmp_path / kind / f"{name}.png" for kind in ("images", "masks")] for name in names]
        slices = [Pair(subset, name, patient, number, *files[number]) for number, name in enumerate(names)]
        volume = read_headers(*pair)
        assert slice_axis(volume.grid) is None  # no axis is thick: the last one is used
        _, geometry, told = write_volume(volume, slices, None, along=2)
        assert geometry == {"spacing": [1.25, 1.25, 1.37], "axes": ["P", "R", "S"]}  # as the header claims
        assert not any(told.values())
        for name in names:
            image, mask, real_image, real_mask = (
                np.asarray(Image.open(folder / kind / f"{name}.png"))
                for folder in (tmp_path, heart / subset)
                for kind in ("images", "masks")
            )
            assert image.shape == (320, 320, 3)
            assert (mask == real_mask).all()
            assert np.abs(image.astype(int) - real_image)[32:-32, 32:-32].max() <= 1


def test_the_real_volumes_alone_are_reported_as_incomplete(nifti, tmp_path):
    with pytest.raises(CourseError, match="18 of 20 patients are missing"):
        import_dataset(nifti, tmp_path, progress=False)
    assert os.listdir(tmp_path) == []
