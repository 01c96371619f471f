"""`make segment`: a scan in, a mask in its place, a page and a row of a table out; nothing is done twice."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import nbformat
import nibabel
import numpy as np
import pytest
from nbclient.exceptions import CellTimeoutError, DeadKernelError

import helpers
from course import batch
from course.scan import patient_scan, save_volume, scan_name
from course.workspace import COURSE_FOLDER
from tools import segment


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A work folder in which 01 to 05 have run in profile smoke."""
    folder = tmp_path_factory.mktemp("run")
    given = {"profile": "smoke", "recipe": "report", "dataset": "sample"}
    for name, known in batch.notebook_parameters().items():
        chosen = {key: value for key, value in given.items() if key in known}
        batch.run_notebook(name, folder, work_dir=str(folder), **chosen)
    return folder


@pytest.fixture()
def scan(run_dir, tmp_path):
    """The patient of valid as a NIfTI file, with the true mask beside it."""
    description = helpers.read_json(run_dir / "dataset.json", "01")
    patient = description["subsets"]["valid"][0]["patient"]
    scan, truth = patient_scan(description, run_dir, "valid", patient)
    (tmp_path / "scans").mkdir()
    save_volume(scan.values, scan, tmp_path / "scans" / "one.nii.gz")
    save_volume(truth, scan, tmp_path / "truth.nii.gz")
    return tmp_path / "scans" / "one.nii.gz"


@pytest.mark.slow
def test_a_scan_gets_a_mask_a_page_and_a_row_once(run_dir, scan, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    arguments = [str(scan), str(run_dir), "--out", str(out)]
    assert segment.main(arguments) == 0
    source, mask = nibabel.load(scan), nibabel.load(out / "one_mask.nii.gz")
    assert mask.shape == source.shape and np.array_equal(mask.affine, source.affine)
    record = helpers.read_json(out / "one.json", "07")
    voxel = np.prod(source.header.get_zooms()) / 1000
    assert record["millilitres"] == pytest.approx(np.asarray(mask.dataobj).sum() * voxel, rel=1e-5)
    page = (out / "one.html").read_text(encoding="utf-8")
    assert "not a medical device" in page and page.count("data:image/png") == 2 and "Exercise" not in page
    [row] = csv.DictReader((out / "scans.csv").open(encoding="utf-8"))
    assert row["name"] == "one" and float(row["millilitres"]) == record["millilitres"]
    assert sorted(path.name for path in out.iterdir()) == ["one.html", "one.json", "one_mask.nii.gz", "scans.csv"]

    refuse = Mock(side_effect=helpers.CourseError("is answered again"))
    monkeypatch.setattr(segment.papermill, "execute_notebook", refuse)
    assert segment.main(arguments) == 0
    shutil.copy(out / "one_mask.nii.gz", scan)
    assert segment.main(arguments) == 1
    printed = capsys.readouterr().out
    assert printed.count("1 of 1, one: ") == 3 and printed.count("is answered again") == 1


@pytest.mark.slow
def test_07_compares_the_mask_of_a_scan_with_the_truth(run_dir, scan, tmp_path):
    given = {"work_dir": run_dir, "scan": scan, "truth": tmp_path / "truth.nii.gz", "out": tmp_path}
    batch.run_notebook("07_your_own_scan", tmp_path, **{name: str(path) for name, path in given.items()})
    found, truth = (np.asarray(nibabel.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("one_mask", "truth"))
    overlap = 2 * (found * truth).sum() / (found.sum() + truth.sum())
    assert helpers.read_json(tmp_path / "one.json", "07")["dice"] == pytest.approx(overlap)


@pytest.mark.slow
def test_one_unreadable_scan_does_not_stop_the_others(run_dir, scan, tmp_path, capsys):
    shutil.copy(scan, scan.with_name("two.nii.gz"))
    nibabel.save(nibabel.load(scan).slicer[:, :, 3:4], scan.with_name("a_slice.nii.gz"))
    scan.write_bytes(b"no volume")
    assert segment.main([str(scan.parent), str(run_dir), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    for text in ("2 of 3, one: ", "scans/one.nii.gz is damaged", "3 of 3, two: ", " ml"):
        assert text in printed
    rows = list(csv.DictReader((tmp_path / "out" / "scans.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == ["a_slice", "one", "two"]
    assert "damaged" in rows[1]["failed"] and all(float(rows[number]["millilitres"]) >= 0 for number in (0, 2))
    assert not (tmp_path / "out" / "one_mask.nii.gz").exists()


def test_scans_with_one_name_do_not_overwrite_each_other(tmp_path, capsys, monkeypatch):
    for place in ("store/1/scan.nii", "store/2/scan.nii", "run/model/best.keras"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(place)
    run, answers, links = str(tmp_path / "run"), tmp_path / "run" / "segmented", tmp_path / "links"
    links.mkdir()
    (links / "anna.1.nii").symlink_to(tmp_path / "store" / "1" / "scan.nii")
    (links / "anna.2.nii").symlink_to(tmp_path / "store" / "2" / "scan.nii")

    def execute(_, executed, parameters, **__):
        """Stand in for 07, with nothing but the name of the scan and a volume."""
        name = scan_name(Path(parameters["scan"]))
        answer = {"name": name, "millilitres": 1.0, "knows_space": False, "notes": ["told"], "warnings": ["warned"]}
        helpers.write_json(Path(parameters["out"]) / f"{name}.json", answer)
        (Path(parameters["out"]) / f"{name}_mask.nii.gz").touch()
        nbformat.write(nbformat.v4.new_notebook(), executed)

    monkeypatch.setattr(segment.papermill, "execute_notebook", execute)
    (links / "anna.3.nrrd").touch()
    assert segment.main([str(links), run]) == 0
    printed = capsys.readouterr().out
    assert "links/anna.3.nrrd was passed over" in printed
    assert "1 of 2, anna.1: 1.0 ml, if a voxel has 1 cubic millimetre\n  - told\n  - warned\n" in printed
    (answers / "of_another_program.json").write_text("[]")
    assert segment.main([str(tmp_path / "store"), run]) == 0  # folders, 1 and 2
    (answers / "of_another_program.json").unlink()
    written = {path.name for path in answers.glob("*.json")}
    assert written == {"anna.1.json", "anna.2.json", "1.json", "2.json"}
    with open(answers / "scans.csv", newline="", encoding="utf-8") as file:
        rows = [(row["name"], row["notes"], row["warnings"]) for row in csv.DictReader(file)]
    assert rows == [(name, "told", "warned") for name in ("1", "2", "anna.1", "anna.2")]  # of both commands
    for number, failed in (("1", 0), ("2", 1), ("1", 0)):
        assert segment.main([str(tmp_path / "store" / number / "scan.nii"), run]) == failed
    assert "scan.json is the answer to" in capsys.readouterr().out
    (tmp_path / "run" / "results").mkdir()
    helpers.write_json(tmp_path / "run" / "results" / "metrics.json", {"threshold": 0.3})
    assert segment.main([str(links / "anna.1.nii"), run]) == 0
    assert "scans.csv holds the answers of several networks" in capsys.readouterr().out
    records = [helpers.read_json(path, "07") for path in answers.glob("*.json")]
    assert len({record["network"] for record in records}) == 2
    monkeypatch.setattr(segment.papermill, "execute_notebook", Mock(side_effect=helpers.CourseError("again")))
    assert segment.main([str(links / "anna.2.nii"), run]) == 1  # has another threshold
    (tmp_path / "run" / "results" / "metrics.json").unlink()
    assert segment.main([str(links / "anna.2.nii"), run]) == 0
    (answers / "anna.2_mask.nii.gz").unlink()
    assert segment.main([str(links / "anna.2.nii"), run]) == 1  # answered again
    (answers / "anna.2.json").write_text('{"Modality": "MR"}')  # as dcm2niix writes it
    assert segment.main([str(links / "anna.2.nii"), run]) == 1
    assert "anna.2.json is not an answer of 07, so it is not overwritten" in capsys.readouterr().out
    (answers / "anna.2.json").unlink()
    (answers / "2.json").write_text("{")
    assert segment.main([str(links), run]) == 1
    assert "2.json in" in (told := capsys.readouterr().out) and "is damaged: delete it" in told
    (answers / "2.json").unlink()
    monkeypatch.setattr(segment, "NOTEBOOK", tmp_path / "07.ipynb")
    (tmp_path / "07.ipynb").write_text("of a later version")
    assert segment.main([str(links), run]) == 2


@pytest.mark.parametrize("error", [DeadKernelError("Kernel died"), CellTimeoutError("too long")])
def test_a_kernel_that_dies_does_not_stop_the_other_scans(tmp_path, capsys, monkeypatch, error):
    for place in ("scans/one.nii", "scans/two.nii", "run/model/best.keras"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()

    monkeypatch.setattr(segment.papermill, "execute_notebook", Mock(side_effect=error))
    assert segment.main([str(tmp_path / "scans"), str(tmp_path / "run")]) == 2
    assert "2 of 2, two: 07 took over an hour on two, or died" in capsys.readouterr().out


def test_a_name_that_the_terminal_cannot_show_is_printed_with_escapes():
    command = [sys.executable, "-m", "tools.segment", "\u2665.nii", "run"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, cwd=COURSE_FOLDER, capture_output=True, check=False)
    assert done.returncode == 1 and rb"\u2665.nii" in done.stdout and not done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{scan}", "{folder}"], "holds no trained network"),
        (["{folder}/nothing", "{folder}"], "There is no scan"),
        (["~nobody7/scan.nii", "{folder}"], "There is no scan"),
        (["{scan}", "~nobody7/run"], "holds no trained network"),
        (["", "{run}"], "Give both SCAN and RUN: make segment SCAN="),
        (["{scan}", " "], "Give both SCAN and RUN: make segment SCAN="),
        (["{scan}", "{run}", "--out", "{scan}"], "with OUT for make segment"),
        (["{scan}", "{run}", "--out", "{folder}/theirs"], "scans.csv is not a table of answers"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(arguments, sentence, tmp_path, capsys):
    for name in ("one.nii", "two.nii", "run/model/best.keras", "theirs/scans.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    given = [part.format(scan=tmp_path / "one.nii", folder=tmp_path, run=tmp_path / "run") for part in arguments]
    assert segment.main(given) == 1
    assert sentence in capsys.readouterr().out
