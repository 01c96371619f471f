"""Choices are made once, checked, and passed on as a file; a step whose input is missing says what to run."""

import errno
import itertools
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import helpers
from course import machine, recipes, workspace


def test_unknown_choices_are_refused_with_a_list_of_the_known_ones():
    for profile, recipe, seed, expected in (
        ("huge", "best", 0, "choose one of smoke, quick, ladder, hour, full"),
        ("quick", "worst", 0, "choose one of report, small_batches, crops, overlap, schedule, best, with_"),
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


def nvidia_smi(monkeypatch, tmp_path, gpus, code=0):
    """Put a program nvidia-smi on the path that lists GPUs, pairs of a name and a compute capability."""
    listing = "".join(f"GPU {number}: {name} (UUID: x)\n" for number, (name, _) in enumerate(gpus))
    table = "".join(f"{name}, {capability}\n" for name, capability in gpus)
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --list-gpus ] && printf "%s" "{listing or "No devices were found"}"\n'
        f'[ "$*" = "--query-gpu=name,compute_cap --format=csv,noheader" ] && printf "%s" "{table}"\nexit {code}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


T4, A100 = ("Tesla T4", "7.5"), ("NVIDIA A100-SXM4-40GB", "8.0")
P100, H200 = ("Tesla P100", "6.0"), ("NVIDIA H200", "9.0")


@pytest.mark.parametrize(("gpus", "code", "expected"), [([T4], 0, True), ([], 6, False), ([T4], 6, False)])
def test_a_gpu_is_what_nvidia_smi_lists(monkeypatch, tmp_path, gpus, code, expected):
    nvidia_smi(monkeypatch, tmp_path, gpus, code)
    assert machine.gpu_found() is expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine.gpu_found() is False and machine.visible_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert machine.gpu_found() is expected
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert machine.gpu_found() is False


def test_windows_has_no_gpu_for_tensorflow(monkeypatch, tmp_path):
    nvidia_smi(monkeypatch, tmp_path, [T4])
    monkeypatch.delenv("UNET_PROFILE", raising=False)
    assert helpers.choose_profile() == ("full", "nvidia-smi lists a GPU")
    monkeypatch.setattr(machine.platform, "system", lambda: "Windows")
    assert machine.gpu_found() is False and machine.visible_gpus() == []
    assert helpers.choose_profile() == ("quick", "there is no GPU here")


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        ([T4], None, "mixed_float16"),
        ([("Tesla V100-SXM2-16GB", "7.0")], None, "mixed_float16"),
        ([P100], None, "float32"),
        ([A100], None, "mixed_bfloat16"),
        ([("NVIDIA B200", "10.0")], None, "mixed_bfloat16"),
        ([A100, T4], None, "mixed_float16"),  # the weakest of those in use
        ([A100, T4], "0", "mixed_bfloat16"),
        ([A100, T4, P100], "0,1", "mixed_float16"),
        ([A100, T4], "GPU-12ab", "mixed_float16"),
    ],
)
def test_the_arithmetic_follows_the_compute_capability(monkeypatch, tmp_path, gpus, visible, expected):
    nvidia_smi(monkeypatch, tmp_path, gpus)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert helpers.choose_precision("auto") == expected
    assert helpers.choose_precision("float32") == "float32"


def test_the_device_is_named(monkeypatch, tmp_path):
    nvidia_smi(monkeypatch, tmp_path, [A100, T4])
    assert helpers.device_name() == "NVIDIA A100-SXM4-40GB and Tesla T4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert helpers.device_name() == "Tesla T4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    assert helpers.device_name() == "1 CPU core, no GPU"
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert helpers.device_name() == "8 CPU cores, no GPU"


def test_the_time_is_estimated_from_the_cards_peak_or_the_cores(monkeypatch, tmp_path):
    nvidia_smi(monkeypatch, tmp_path, [T4])
    assert machine.estimate_seconds(65e12, 1000, "mixed_float16") == pytest.approx(1000 * 0.008 + 10)
    nvidia_smi(monkeypatch, tmp_path, [A100])
    assert machine.estimate_seconds(312e12, 0, "mixed_bfloat16") == pytest.approx(10)
    nvidia_smi(monkeypatch, tmp_path, [H200])
    assert machine.estimate_seconds(98.9e12, 0, "mixed_bfloat16") == pytest.approx(1)
    nvidia_smi(monkeypatch, tmp_path, [("Some card", "8.0")])
    assert machine.estimate_seconds(1e12, 10, "mixed_bfloat16") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")
    for flags, arithmetic, operations in (
        ({"avx2", "avx512f"}, "float32", 160e9),
        ({"avx2"}, "float32", 70e9),
        ({"avx2", "avx512f", "avx512_bf16"}, "mixed_bfloat16", 260e9),
        ({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}, "mixed_bfloat16", 520e9),
        ({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}, "float32", 160e9),
        (set(), "float32", 70e9),  # if it is not known what the CPU can do
    ):
        monkeypatch.setattr(machine, "cpu_flags", lambda flags=flags: flags)
        assert machine.estimate_seconds(operations, 10, arithmetic) == pytest.approx(10 * 0.02 + 1)


def test_the_plan_says_device_work_and_time(work_dir, monkeypatch):
    with pytest.raises(helpers.CourseError, match="run 03_model first"):
        helpers.training_plan(work_dir, {}, 1)
    (work_dir / "model").mkdir()
    helpers.write_json(work_dir / "model" / "untrained.json", {"arithmetic": "mixed_float16"})
    settings = helpers.new_settings("heart", "full", "best", 0)
    asked = []
    monkeypatch.setattr(recipes, "device_name", lambda: "Tesla T4")
    monkeypatch.setattr(recipes, "estimate_seconds", lambda *given: asked.append(given) or 310)
    assert helpers.training_plan(work_dir, settings, 1040) == (  # 5 pictures per slice in an epoch
        "Device: Tesla T4. Arithmetic: mixed_float16. 26,000 steps of 4 pictures of 152 x 152 pixels: "
        "about 5 minutes, by an estimate."
    )
    assert asked == [(pytest.approx(26000 * 4 * 152 * 152 * 0.834e6), 26000, "mixed_float16")]
    times = iter([3601, 130])
    monkeypatch.setattr(recipes, "estimate_seconds", lambda *given: asked.append(given) or next(times))
    assert helpers.training_plan(work_dir, settings, 1040).endswith(
        ": about 60 minutes, by an estimate. Shorter: profile 'quick', chosen in 01, takes about 2 minutes."
    )
    assert asked[2:] == [(pytest.approx(10 * 360 * 56 * 56 * 0.834e6), 900, "mixed_float16")]
    monkeypatch.setattr(recipes, "estimate_seconds", lambda *given: None)
    assert helpers.training_plan(work_dir, settings, 1040).endswith(": there is no estimate of the time for this card.")


def test_a_duration_is_written_in_words():
    words = {1: "1 second", 2: "2 seconds", 89.4: "89 seconds", 90: "2 minutes", 5399: "90 minutes", 5400: "1.5 hours"}
    assert {seconds: workspace.duration(seconds) for seconds in words} == words


def test_the_report_in_full_has_the_settings_of_the_report_of_2022():
    made = helpers.new_settings("heart", "full", "report", 5)
    assert {name: value for name, value in made.items() if name != "sample"} == {
        **{"dataset": "heart", "profile": "full", "recipe": "report", "seed": 5},
        **{"image_size": 256, "epochs": 20, "images_per_epoch": None, "repeats": 1, "batch_size": 32, "patience": 10},
        **{"kernel_initializer": "he_normal", "dropout_rate": 0.0, "activation": "relu", "precision": "auto"},
        **{"loss": "binary_crossentropy", "learning_rate": 0.001, "learning_rate_schedule": "constant"},
        **{"batch_normalization_momentum": 0.99, "output_bias": 0.0, "monitor": "val_loss"},
        **{"augment": False, "crop_share": 1.0, "foreground_share": None, "leave_out_twins": False, "planes": 1},
        **{"soft_masks": False, "threshold": 0.5, "largest_component": False},
    }


def changed(before, recipe):
    """Return the names of the settings in which two recipes differ."""
    return {name for name, value in recipes.RECIPES[recipe].items() if recipes.RECIPES[before][name] != value}


def test_each_rung_of_the_ladder_changes_what_it_names_and_nothing_else():
    rungs = list(recipes.LADDER)
    assert (rungs[0], rungs[-1]) == ("report", "best") and list(recipes.RECIPES) == [*rungs, *recipes.ABLATION]
    for before, rung in itertools.pairwise(rungs):
        assert changed(before, rung) == set(recipes.LADDER[rung])


def test_each_recipe_of_the_ablation_undoes_one_thing_of_best():
    for recipe, change in recipes.ABLATION.items():
        [(name, value)] = change.items()
        below = recipes.RECIPES["overlap" if name == "loss" else "report"]
        assert changed("best", recipe) == {name} and value == below[name]


def test_an_override_is_recorded_and_none_is_not(work_dir):
    before = helpers.load_settings(work_dir)
    assert helpers.load_settings(work_dir, image_size=None, epochs=None) == before
    assert helpers.load_settings(work_dir, image_size=64)["image_size"] == 64
    changed = {"image_size": 64, "replaced": {"image_size": before["image_size"]}}
    assert json.loads((work_dir / "settings.json").read_text()) == before | changed


def test_none_undoes_an_earlier_override(work_dir):
    before = helpers.load_settings(work_dir)
    helpers.load_settings(work_dir, threshold=0.3, epochs=9)
    helpers.load_settings(work_dir, threshold=0.4)
    after = helpers.load_settings(work_dir, threshold=None)
    assert (after["threshold"], after["epochs"]) == (before["threshold"], 9)
    assert helpers.load_settings(work_dir, epochs=None) == {**before, "replaced": {}}


@pytest.mark.parametrize(("name", "value"), [("image_size", 100), ("learning_rate", "fast"), ("threshold", True)])
def test_an_invalid_override_is_refused_and_not_recorded(work_dir, name, value):
    before = (work_dir / "settings.json").read_bytes()
    with pytest.raises(helpers.CourseError, match=f"^{name} is "):
        helpers.load_settings(work_dir, **{name: value})
    assert (work_dir / "settings.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", '{"image_size"', "[]", "null"])
def test_a_damaged_record_is_reported_with_advice_that_works(work_dir, text):
    helpers.prepare_arrays(helpers.read_json(work_dir / "dataset.json", "01"), work_dir, 32, progress=False)
    for name, notebook, read in (
        ("npy/arrays.json", "02_preprocessing", lambda: helpers.load_arrays(work_dir, "train")),
        ("dataset.json", "01_dataset_upload", lambda: helpers.load_arrays(work_dir, "train")),
        ("settings.json", "01_dataset_upload", lambda: helpers.load_settings(work_dir)),
    ):
        whole = (work_dir / name).read_bytes()
        (work_dir / name).write_text(text)
        with pytest.raises(helpers.CourseError, match=f"is damaged: delete it, and run {notebook} again"):
            read()
        (work_dir / name).write_bytes(whole)
        read()
    (work_dir / "npy" / "arrays.json").write_text('{"slices": {}}')  # of another program, or of an older course
    with pytest.raises(helpers.CourseError, match="02_preprocessing ran with another dataset: run 02"):
        helpers.load_arrays(work_dir, "train")
    (work_dir / "npy" / "arrays.json").write_text(text)
    helpers.prepare_arrays(helpers.read_json(work_dir / "dataset.json", "01"), work_dir, 32, progress=False)
    helpers.load_arrays(work_dir, "train")


def test_a_full_disk_is_reported_and_the_earlier_file_stays(work_dir):
    before = sorted(work_dir.iterdir()), (work_dir / "settings.json").read_bytes()
    full = pytest.raises(helpers.CourseError, match="The disk of .* is full. Free .* Earlier data there are untouched")
    with full, helpers.whole_file(work_dir / "settings.json") as part:
        part.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (sorted(work_dir.iterdir()), (work_dir / "settings.json").read_bytes()) == before


def test_settings_of_an_older_course_or_edited_by_hand_are_refused(work_dir):
    settings = helpers.load_settings(work_dir)
    older = {name: value for name, value in settings.items() if name not in ("planes", "soft_masks")}
    helpers.write_json(work_dir / "settings.json", older)
    with pytest.raises(helpers.CourseError, match="lacks planes, soft_masks. .* run 01_dataset_upload again"):
        helpers.load_settings(work_dir, epochs=3)
    helpers.write_json(work_dir / "settings.json", {**settings, "epochs": "20"})
    with pytest.raises(helpers.CourseError, match="^epochs is '20': choose a whole number"):
        helpers.load_settings(work_dir, epochs=3)


def test_a_dataset_of_an_older_course_is_refused(work_dir):
    description = helpers.read_description(work_dir)
    assert len(description["subsets"]["train"]) > 0
    del description["geometry"]
    helpers.write_json(work_dir / "dataset.json", description)
    with pytest.raises(helpers.CourseError, match="dataset.json in .* lacks geometry. .* run 01_dataset_upload again"):
        helpers.read_description(work_dir)


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


@pytest.mark.parametrize("work_dir", [5, "a\0b"])  # papermill makes a number of `-p work_dir 5`
def test_a_work_folder_that_is_not_a_path_is_refused(work_dir):
    with pytest.raises(helpers.CourseError, match="The work folder .* is not a path .*: give the path of a folder"):
        helpers.open_work_folder(work_dir)


def test_the_work_folder_is_the_one_asked_for_else_the_environments_else_data(monkeypatch, tmp_path):
    monkeypatch.setenv("UNET_WORK_DIR", str(tmp_path / "from environment"))
    assert helpers.open_work_folder(tmp_path / "asked for") == (tmp_path / "asked for").resolve()
    assert helpers.open_work_folder() == (tmp_path / "from environment").resolve()
    assert (tmp_path / "from environment").is_dir()
    monkeypatch.delenv("UNET_WORK_DIR")
    monkeypatch.setattr(workspace, "COURSE_FOLDER", tmp_path / "course")
    assert helpers.open_work_folder() == (tmp_path / "course" / "data").resolve()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_work_folder_that_cannot_be_made_is_refused_in_one_sentence(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(helpers.CourseError) as caught:
        helpers.open_work_folder(tmp_path / place)
    begin, end = f"{tmp_path.resolve() / place} cannot be made or written to (", "else with work_dir or UNET_WORK_DIR."
    assert str(caught.value).startswith(begin) and str(caught.value).endswith(end)


@pytest.mark.parametrize("name", ["settings.json", "dataset.json"])
def test_a_work_folder_with_a_file_of_another_program_is_refused(work_dir, name):
    assert helpers.open_work_folder(work_dir) == work_dir.resolve()
    theirs = '{"name": "LeftAtrium", "labels": {"1": "left atrium"}}'  # as the decathlon's own dataset.json
    (work_dir / name).write_text(theirs)
    with pytest.raises(helpers.CourseError, match=f"{name} in .* was not written by the course: choose another work"):
        helpers.open_work_folder(work_dir)
    assert (work_dir / name).read_text() == theirs
    (work_dir / name).write_text(theirs[:9])  # damaged: the lesson that reads it says so
    assert helpers.open_work_folder(work_dir) == work_dir.resolve()


def test_a_read_only_work_folder_is_opened_but_not_written_to(monkeypatch, tmp_path):
    folder = tmp_path.resolve() / "new"
    helpers.write_json(folder / "settings.json", {"recipe": "best"})
    assert workspace.writable_folder(folder / "npy") == folder / "npy" and (folder / "npy").is_dir()
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (folder, os.W_OK))
    assert helpers.open_work_folder(folder) == folder
    for write in (workspace.writable_folder, lambda folder: helpers.write_json(folder / "settings.json", {})):
        with pytest.raises(helpers.CourseError, match=r"new cannot be made or written to \(it is read-only\). Choose"):
            write(folder)


def stand_in_colab(monkeypatch, folder, mount):
    """Make the course believe that it is in Colab, with `folder` in place of /content."""
    colab = types.SimpleNamespace(drive=types.SimpleNamespace(mount=mount))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(workspace, "COLAB_FOLDER", folder)
    monkeypatch.delenv("UNET_WORK_DIR")


def test_in_colab_the_work_folder_is_on_drive_which_is_mounted_once(monkeypatch, tmp_path):
    assert not workspace.in_colab() and workspace.COLAB_FOLDER.as_posix() == "/content"
    mounted = []

    def mount(place):
        mounted.append(place)
        (Path(place) / "MyDrive").mkdir(parents=True)

    stand_in_colab(monkeypatch, tmp_path, mount)
    assert workspace.in_colab()
    assert helpers.open_work_folder(tmp_path / "asked for").name == "asked for" and not mounted
    for _ in range(2):
        folder = helpers.open_work_folder()
        assert folder == (tmp_path / "drive" / "MyDrive" / "left-atrium-course-data").resolve()
        assert mounted == [str(tmp_path / "drive")]
    assert workspace.is_on_drive(folder) and not workspace.is_on_drive(tmp_path / "npy")


def test_a_drive_that_is_not_mounted_is_reported_with_what_to_do(monkeypatch, tmp_path):
    class MessageError(Exception):
        """Colab's own error, if the user refuses access."""

    refused = MessageError("Error: credential propagation was unsuccessful " + "x" * 500)
    stand_in_colab(monkeypatch, Path("/content"), Mock(side_effect=refused))
    told = 'Drive was not mounted .*work_dir = "/content/course-data"'
    with pytest.raises(helpers.CourseError, match=told) as refusal:
        helpers.open_work_folder()
    assert len(str(refusal.value)) < 400 and "the next notebook cannot find it" in str(refusal.value)


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


def test_json_files_are_readable_by_people(tmp_path):
    helpers.write_json(tmp_path / "file.json", {"name": "Kürş"})
    assert (tmp_path / "file.json").read_text(encoding="utf-8") == '{\n  "name": "Kürş"\n}\n'


class Pip:
    """Stands in for pip: remembers its arguments and the constraints, and returns a code."""

    def __init__(self, monkeypatch, code=0, said=""):
        self.calls, self.code, self.said = [], code, said
        monkeypatch.setattr(machine.subprocess, "run", self)

    def __call__(self, command, **options):
        constraints = Path(command[command.index("--constraint") + 1]).read_text().splitlines()
        self.calls.append((command[1:5], command[command.index("--constraint") + 2 :], constraints))
        return types.SimpleNamespace(returncode=self.code, stderr=self.said if options["text"] else self.said.encode())


def hide(monkeypatch, *names):
    """Make these packages look uninstalled."""
    found = machine.importlib.util.find_spec
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None if name in names else found(name))


class Nameless:
    """A damaged package, as Python 3.14 and the library importlib_metadata report it."""

    @property
    def name(self):
        """Find no metadata."""
        raise FileNotFoundError


def test_set_up_installs_the_missing_packages_and_changes_no_version(monkeypatch, tmp_path):
    pip = Pip(monkeypatch)
    hide(monkeypatch, "PIL", "nibabel", "papermill", "distributed", "nbval")
    for name, told in (("NumPy-1.0", "Metadata-Version: 2.1\nName: NumPy\nVersion: 1.0"), ("broken-1.0", "")):
        (tmp_path / f"{name}.dist-info").mkdir()  # an older copy, as Debian's is, and one that is damaged
        (tmp_path / f"{name}.dist-info" / "METADATA").write_text(told)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    found = [*machine.metadata.distributions(), Nameless()]
    monkeypatch.setattr(machine.metadata, "distributions", lambda: found)
    helpers.set_up()
    [(command, packages, constraints)] = pip.calls
    assert command == ["-m", "pip", "install", "--quiet"]
    assert packages == ["pillow>=11.3,<14", "nibabel>=5.3,<6"]
    assert f"numpy=={np.__version__}" in constraints and f"pytest=={pytest.__version__}" in constraints
    assert len(constraints) == len({line.partition("==")[0] for line in constraints})  # pip takes no name twice
    machine.install(*machine.BATCH_PACKAGES)
    assert pip.calls[1][1] == ["papermill>=2.6,<3", "distributed>=2025.1,<2027"]
    monkeypatch.undo()
    pip = Pip(monkeypatch)
    helpers.set_up()
    machine.install(*machine.BATCH_PACKAGES)
    assert not pip.calls


def test_set_up_knows_every_requirement_except_those_of_the_suite_and_the_pages():
    lines = (workspace.COURSE_FOLDER / "requirements.txt").read_text().splitlines()
    named = {re.match(r"[\w-]+", line)[0] for line in lines if line and not line.startswith("#")}
    assert named == {*machine.LESSON_PACKAGES, *machine.BATCH_PACKAGES, "nbval", "nbconvert"}


def test_a_package_that_cannot_be_installed_is_reported(monkeypatch):
    Pip(monkeypatch, 1, "WARNING: a\nERROR: Could not find a version" + "x" * 500)
    hide(monkeypatch, "nibabel")
    with pytest.raises(helpers.CourseError, match=r"nibabel>=5\.3,<6 could not be installed \(ERROR: Could") as refusal:
        helpers.set_up()
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("version", "works"), [("2.19.1", False), ("2.20.0", True), ("2.21.0rc1", True), ("3.0", True)]
)
def test_a_tensorflow_that_is_too_old_is_refused(monkeypatch, version, works):
    monkeypatch.setattr(machine.metadata, "version", lambda name: version)
    if works:
        helpers.set_up()
    else:
        with pytest.raises(helpers.CourseError, match="TensorFlow 2.19.1 is installed here, but the course needs 2.20"):
            helpers.set_up()


def test_importing_helpers_loads_nothing_heavy():
    heavy = ("tensorflow", "keras", "matplotlib", "nibabel", "scipy", "sklearn", "tqdm")
    code = f"import sys, helpers; print([n for n in {heavy} if n in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=workspace.COURSE_FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
