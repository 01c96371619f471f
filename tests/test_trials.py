"""A trial's row gives its results, and its changes do what their names say."""

import csv

import numpy as np
import pytest

import helpers
from tools import trials
from tools.common import append_rows


def pictures_of(*patients):
    return [{"name": f"{patient}_0", "patient": patient, "slice": 0} for patient in patients]


@pytest.mark.parametrize(
    ("held_out", "learned", "answered"),
    [("train", "de", "ac"), ("0", "cdef", "ag"), ("1", "adefg", "c"), ("4", "acdeg", "f")],
)
def test_train_or_a_fold_is_held_out_without_twins(held_out, learned, answered):
    description = {
        "subsets": {"train": pictures_of(*"abc"), "valid": pictures_of(*"de"), "test": pictures_of(*"gf")},
        "twins": [{"patients": [["train", "b"], ["valid", "e"]]}],
        "fingerprint": "x",
    }
    made = trials.hold_out(description, held_out)
    patients = {subset: [pair["patient"] for pair in pairs] for subset, pairs in made["subsets"].items()}
    assert patients == {"train": [*learned], "valid": [*answered], "test": ["g", "f"]}
    folders = {"train": "abc", "valid": "de", "test": "gf"}
    assert made["stored_in"] == {f"{patient}_0": subset for subset in folders for patient in folders[subset]}
    assert made["fingerprint"] != "x" and description["subsets"]["train"] == pictures_of(*"abc")


def test_a_row_holds_the_means_at_the_threshold_chosen_for_all_and_at_each_patients_own(tmp_path):
    curves = {"a": [0.0] * 17, "b": [0.0] * 17}  # Dice at 0.10, 0.15, ..., 0.90
    curves["a"][4], curves["a"][6], curves["a"][8] = 0.9, 0.8, 0.1  # at 0.30, 0.40 and 0.50
    curves["b"][6], curves["b"][8], curves["b"][10] = 0.6, 0.5, 0.7  # at 0.40, 0.50 and 0.60
    row = trials.summary_of_curves(curves)
    assert row == {
        "dice": "0.7000",
        "worst": "0.6000",
        "threshold": "0.40",
        "dice_at_half": "0.3000",
        "dice_at_half_per_patient": "a 0.1000 b 0.5000",
        "dice_at_own_best": "0.8000",
        "best_threshold_deviation": "0.212",  # of 0.3 and 0.6, over n - 1
        "dice_per_patient": "a 0.8000 b 0.6000",
        "best_threshold_per_patient": "a 0.30 b 0.60",
    }
    for seed in (3, 4):
        append_rows(tmp_path / "trials.csv", [{"seed": seed, **row}], trials.COLUMNS)
    with open(tmp_path / "trials.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["seed"] for line in lines] == ["3", "4"] and lines[1]["dice"] == "0.7000" and lines[0]["verdict"] == ""


def test_a_trials_change_of_the_crops_comes_after_the_recipes_augmentation(monkeypatch):
    monkeypatch.setattr(helpers, "augment", lambda images, masks, seed, crop_size, _: (images + crop_size, masks))
    trials.augmented(lambda images, masks, seed: (images * 10, masks * seed))
    images, masks = helpers.augment(1, 1, 5, 2)
    assert images == 30 and masks == 5 + 2**40


def test_a_trial_whose_row_could_not_name_its_commit_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.common.COURSE_FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["trials.py", "best", "--folder", str(tmp_path / "trials")])
    with pytest.raises(helpers.CourseError, match="git knows none here"):
        trials.main()
    assert not (tmp_path / "trials").exists()


@pytest.mark.slow
def test_a_trial_learns_from_some_patients_and_predicts_the_others(work_dir, tmp_path, monkeypatch):
    import keras

    subsets = helpers.read_json(work_dir / "dataset.json", "01")["subsets"]
    patients = {subset: sorted({pair["patient"] for pair in subsets[subset]}) for subset in helpers.SUBSETS}
    monkeypatch.setattr(trials, "TABLE", tmp_path / "trials.csv")
    monkeypatch.setattr(trials, "current_commit", lambda: "1234567")
    augment = helpers.augment
    command = ["--dataset", str(work_dir / "dataset"), "--held-out", "train", "--profile", "smoke"]
    for name in ("best", "low_resolution"):
        monkeypatch.setattr(helpers, "augment", augment)
        arguments = ["trials.py", name, "--pictures", "64", "--folder", str(tmp_path / "trials"), *command]
        monkeypatch.setattr("sys.argv", arguments)
        trials.main()
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["best", "low_resolution"]
    assert [(row["pictures"], row["commit"]) for row in rows] == [("64", "1234567")] * 2
    for row in rows:
        assert row["trained_on"].split() == patients["valid"]
        assert row["dice_per_patient"].split()[::2] == patients["train"]

    def weights(run, name):
        path = tmp_path / "trials" / run / "model" / name
        return np.concatenate([part.ravel() for part in keras.saving.load_model(path, compile=False).get_weights()])

    untrained = weights("best_train_0_64", "untrained.keras")
    first, second = weights("best_train_0_64", "best.keras"), weights("low_resolution_train_0_64", "best.keras")
    assert len({part.tobytes() for part in (untrained, first, second)}) == 3  # each is trained differently
