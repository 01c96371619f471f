"""Choices are made once, checked, and travel as a file; a step whose input is missing says what to run."""

import itertools
import json
import sys
import types

import pytest

import helpers
from course import machine, recipes, workspace


def test_unknown_choices_are_refused_with_what_there_is():
    for profile, recipe, seed, expected in (
        ("huge", "best", 0, "choose one of smoke, quick, ladder, hour, full"),
        ("quick", "worst", 0, "choose one of report, small_batches, overlap, schedule, crops, best"),
        ("quick", "best", "7", "whole number"),
        ("quick", "best", -1, "whole number"),
        ("quick", "best", True, "whole number"),
    ):
        with pytest.raises(helpers.CourseError, match=expected):
            helpers.new_settings("sample", profile, recipe, seed)


def test_the_profile_is_the_one_asked_for_else_the_environments_else_the_machines(monkeypatch):
    monkeypatch.setattr(recipes, "gpu_found", lambda: True)
    monkeypatch.setenv("UNET_PROFILE", "smoke")
    assert helpers.choose_profile("hour") == ("hour", "you chose it")
    assert helpers.choose_profile()[0] == "smoke"
    monkeypatch.delenv("UNET_PROFILE")
    assert helpers.choose_profile()[0] == "full"
    monkeypatch.setattr(recipes, "gpu_found", lambda: False)
    assert helpers.choose_profile()[0] == "quick"
    with pytest.raises(helpers.CourseError, match="no profile 'fast'"):
        helpers.choose_profile("fast")


@pytest.mark.parametrize(
    ("listing", "code", "expected"), [("GPU 0: Tesla T4 (UUID: x)", 0, True), ("No devices were found", 6, False)]
)
def test_a_gpu_is_what_nvidia_smi_lists(monkeypatch, tmp_path, listing, code, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{listing}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpu_found() is expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine.gpu_found() is False
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert machine.gpu_found() is expected
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert machine.gpu_found() is False


def test_the_reports_recipe_and_the_full_profile_are_the_reports():
    made = helpers.new_settings("heart", "full", "report", 0)
    expected = {
        "image_size": 256,
        "epochs": 20,
        "batch_size": 32,
        "images_per_epoch": None,
        "learning_rate": 0.001,
        "kernel_initializer": "he_normal",
        "dropout_rate": 0.0,
        "activation": "relu",
        "loss": "binary_crossentropy",
        "monitor": "val_loss",
        "augment": False,
        "leave_out_twins": False,
    }
    assert {name: made[name] for name in expected} == expected


def test_each_rung_of_the_ladder_changes_what_it_names_and_nothing_else():
    rungs = list(recipes.LADDER)
    assert (rungs[0], rungs[-1]) == ("report", "best") and list(recipes.RECIPES) == rungs
    for before, rung in itertools.pairwise(rungs):
        changed = {name for name, value in recipes.RECIPES[rung].items() if recipes.RECIPES[before][name] != value}
        assert changed == set(recipes.LADDER[rung])


def test_an_override_is_recorded_and_none_is_not(work_dir):
    before = helpers.load_settings(work_dir)
    assert helpers.load_settings(work_dir, image_size=None, epochs=None) == before
    assert helpers.load_settings(work_dir, image_size=64)["image_size"] == 64
    assert json.loads((work_dir / "settings.json").read_text()) == {
        **before,
        "image_size": 64,
        "replaced": {"image_size": before["image_size"]},
    }


def test_none_takes_an_earlier_override_back(work_dir):
    before = helpers.load_settings(work_dir)
    helpers.load_settings(work_dir, threshold=0.3, epochs=9)
    helpers.load_settings(work_dir, threshold=0.4)
    after = helpers.load_settings(work_dir, threshold=None)
    assert (after["threshold"], after["epochs"]) == (before["threshold"], 9)
    assert helpers.load_settings(work_dir, epochs=None) == {**before, "replaced": {}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 100),
        ("image_size", 0),
        ("image_size", 64.0),
        ("image_size", "64"),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("dropout_rate", 1),
        ("epochs", 0),
        ("batch_size", 2.5),
        ("threshold", 1),
        ("threshold", True),
    ],
)
def test_an_override_that_cannot_work_is_refused_and_not_recorded(work_dir, name, value):
    before = (work_dir / "settings.json").read_bytes()
    with pytest.raises(helpers.CourseError, match=f"^{name} is "):
        helpers.load_settings(work_dir, **{name: value})
    assert (work_dir / "settings.json").read_bytes() == before


def test_a_missing_input_names_the_notebook_to_run_first(work_dir, tmp_path):
    empty = tmp_path / "empty"
    for step, expected in (
        (lambda: helpers.load_settings(empty), "settings.json is not in .*: run 01_dataset_upload first"),
        (lambda: helpers.load_arrays(empty, "train"), "arrays.json is not in .*: run 02_preprocessing first"),
        (lambda: helpers.read_history(empty), "history.csv is not in .*: run 04_training first"),
        (lambda: helpers.load_trained_model(empty), "settings.json is not in .*: run 01_dataset_upload first"),
        (lambda: helpers.load_untrained_model(work_dir), "untrained.json is not in .*: run 03_model first"),
        (lambda: helpers.load_trained_model(work_dir), "training.json is not in .*: run 04_training first"),
    ):
        with pytest.raises(helpers.CourseError, match=expected):
            step()


def test_the_work_folder_is_the_one_asked_for_else_the_environments_else_data(monkeypatch, tmp_path):
    monkeypatch.setenv("UNET_WORK_DIR", str(tmp_path / "from environment"))
    assert helpers.open_work_folder(tmp_path / "asked for") == (tmp_path / "asked for").resolve()
    assert helpers.open_work_folder() == (tmp_path / "from environment").resolve()
    assert (tmp_path / "from environment").is_dir()
    monkeypatch.delenv("UNET_WORK_DIR")
    monkeypatch.setattr(workspace, "COURSE_FOLDER", tmp_path / "course")
    assert helpers.open_work_folder() == (tmp_path / "course" / "data").resolve()


def test_in_colab_the_work_folder_is_on_drive(monkeypatch, tmp_path):
    assert not workspace.in_colab() and workspace.COLAB_FOLDER.as_posix() == "/content"
    mounted = []
    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(workspace, "COLAB_FOLDER", tmp_path)
    assert workspace.in_colab()
    assert helpers.open_work_folder(tmp_path / "asked for").name == "asked for" and not mounted
    monkeypatch.delenv("UNET_WORK_DIR")
    assert helpers.open_work_folder() == (tmp_path / "drive" / "MyDrive" / "left-atrium-course-data").resolve()
    assert mounted == [str(tmp_path / "drive")]


def test_equal_inputs_have_equal_fingerprints(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = workspace.fingerprint({"a": 1, "b": [2]}, path)
    assert first == workspace.fingerprint({"b": [2], "a": 1}, path)
    assert first != workspace.fingerprint({"a": 1, "b": [3]}, path)
    assert workspace.fingerprint(1, 23) != workspace.fingerprint(12, 3)
    assert workspace.fingerprint(b"weights") != workspace.fingerprint(b"other weights")
    path.write_bytes(b"two")
    assert first != workspace.fingerprint({"a": 1, "b": [2]}, path)


def test_set_up_installs_only_what_is_missing(monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text("# packages\nnumpy>=2.0,<3\npillow>=11\n\nsurely-missing>=1,<2\n")
    calls = []
    monkeypatch.setattr(machine, "COURSE_FOLDER", tmp_path)
    monkeypatch.setattr(machine.subprocess, "run", lambda command, check: calls.append(command))
    helpers.set_up()
    assert [command[-1] for command in calls] == ["surely-missing>=1,<2"] and "--upgrade" not in calls[0]


def test_importing_helpers_loads_nothing_heavy():
    import subprocess
    import sys

    heavy = ("tensorflow", "keras", "matplotlib", "nibabel", "scipy", "sklearn", "tqdm")
    code = f"import sys, helpers; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workspace.COURSE_FOLDER, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
