"""Folds are drawn by patient, once; a fold changes who is valid.

A dataset is taken from another work folder as it is.
"""

import json

import numpy as np
import pytest

import helpers
from course import folds


def patients(description, subset):
    return {pair["patient"] for pair in description["subsets"][subset]}


def take(work_dir, folder, **options):
    return helpers.import_dataset(work_dir / "dataset.json", folder, **options)


def test_every_train_and_valid_patient_is_valid_in_just_one_fold_and_test_stays(work_dir, tmp_path):
    original = json.loads((work_dir / "dataset.json").read_text())
    pool = patients(original, "train") | patients(original, "valid")
    taken = [take(work_dir, tmp_path / str(fold), fold=fold) for fold in range(4)]
    assert sorted(patient for description in taken for patient in patients(description, "valid")) == sorted(pool)
    for description in taken:
        assert patients(description, "train") == pool - patients(description, "valid")
        assert description["subsets"]["test"] == original["subsets"]["test"]
    assert len({description["fingerprint"] for description in [original, *taken]}) == 5


def test_a_fold_of_the_work_folders_own_dataset_can_be_undone(work_dir):
    original = json.loads((work_dir / "dataset.json").read_text())
    folded = take(work_dir, work_dir, fold=0)
    assert folded["fold"] == 0 and folded["subsets"] != original["subsets"]
    assert folded["root"] == original["root"] and "taken_from" not in folded  # the work folder may still be moved
    other = take(work_dir, work_dir, fold=2)
    assert patients(other, "valid") == set(original["folds"][2])
    assert len(other["notes"]) == len(original["notes"]) + 1
    assert take(work_dir, work_dir) == original
    assert json.loads((work_dir / "dataset.json").read_text()) == original


def test_a_fold_of_a_folded_dataset_is_that_of_the_dataset(work_dir, tmp_path):
    straight = take(work_dir, tmp_path / "straight", fold=1)
    folded = take(work_dir, work_dir, fold=0)
    kept = take(work_dir, tmp_path / "kept")  # as the runs of a batch take it
    assert kept["subsets"] == folded["subsets"] and kept["fingerprint"] == folded["fingerprint"]
    assert take(work_dir, tmp_path / "around", fold=1) == straight


def test_a_fold_finds_the_pictures_where_they_are(work_dir, tmp_path):
    original = json.loads((work_dir / "dataset.json").read_text())
    [moved] = patients(original, "valid")
    fold = next(number for number, names in enumerate(original["folds"]) if moved not in names)
    description = take(work_dir, tmp_path / "run", fold=fold)
    pair = next(pair for pair in description["subsets"]["train"] if pair["patient"] == moved)
    image, mask = helpers.pair_paths(description, tmp_path / "run", "train", pair["name"])
    assert image.parts[-3] == "valid" and helpers.read_image(image).shape == helpers.read_mask(mask).shape
    assert {row[0]: row[1] for row in helpers.dataset_counts(description)} == {
        subset: len(pairs) for subset, pairs in description["subsets"].items()
    }


def test_pictures_of_test_stay_where_they_are_though_train_has_their_names(work_dir, tmp_path):
    original = json.loads((work_dir / "dataset.json").read_text())
    original["subsets"]["test"][0]["name"] = original["subsets"]["train"][0]["name"]
    helpers.write_json(work_dir / "dataset.json", original)
    description = take(work_dir, tmp_path / "run", fold=0)
    image, _ = helpers.pair_paths(description, tmp_path / "run", "test", description["subsets"]["test"][0]["name"])
    assert image.parts[-3] == "test"


def test_the_seed_draws_the_folds():
    class Pair:
        def __init__(self, number):
            self.patient, self.subset, self.slice, self.name = f"p{number:02}", "train", 0, f"p{number:02}_0"

    pairs = [Pair(number) for number in range(13)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "same_scans", lambda pairs: [("p02", "p09")])
        drawn = [folds.draw_folds(pairs, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for dealt in drawn:
        assert sorted(map(len, dealt)) == [2, 2, 3, 3, 3]
        assert any({"p02", "p09"} <= set(fold) for fold in dealt)


@pytest.mark.parametrize("fold", [4, -1, "0", True])
def test_a_fold_that_is_not_there_is_refused(work_dir, tmp_path, fold):
    with pytest.raises(helpers.CourseError, match="4 folds, choose a whole number from 0 to 3"):
        take(work_dir, tmp_path / "run", fold=fold)
    assert not (tmp_path / "run" / "dataset.json").exists()


def test_folds_refuse_two_pictures_of_one_name(work_dir, tmp_path):
    description = json.loads((work_dir / "dataset.json").read_text())
    description["subsets"]["valid"][0]["name"] = description["subsets"]["train"][0]["name"]
    helpers.write_json(work_dir / "dataset.json", description)
    with pytest.raises(helpers.CourseError, match="give each file a name of its own"):
        take(work_dir, tmp_path / "run", fold=0)
    assert not (tmp_path / "run" / "dataset.json").exists()


def test_a_dataset_json_that_is_not_there_or_lost_its_files_is_refused(work_dir, tmp_path):
    with pytest.raises(helpers.CourseError, match="run 01_dataset_upload in that folder first"):
        helpers.import_dataset(tmp_path / "none" / "dataset.json", tmp_path / "run")
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.write_json(work_dir / "dataset.json", {**description, "root": "dataset/lost"})
    with pytest.raises(helpers.CourseError, match="are gone"):
        take(work_dir, tmp_path / "run")


def test_arrays_are_used_from_the_folder_that_the_dataset_was_taken_from(work_dir, tmp_path):
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    run = tmp_path / "run"
    taken = take(work_dir, run)
    record = helpers.prepare_arrays(taken, run, 16, progress=False)
    assert record["folder"] == str(work_dir / "npy")
    assert [path.name for path in (run / "npy").iterdir()] == ["arrays.json"]
    used, made = helpers.load_arrays(run, "train"), helpers.load_arrays(work_dir, "train")
    assert all(np.array_equal(one, other) for one, other in zip(used, made))
    own = helpers.prepare_arrays(taken, run, 24, progress=False)  # another size is made here
    assert "folder" not in own and helpers.load_arrays(run, "train")[0].shape[1] == 24
    assert helpers.load_arrays(work_dir, "train")[0].shape[1] == 16


@pytest.mark.slow
def test_twins_of_the_heart_data_are_in_one_fold(heart, tmp_path):
    description = helpers.import_dataset(heart, tmp_path / "data", progress=False)
    assert sum({"la_005", "la_026"} <= set(fold) for fold in description["folds"]) == 1
    assert len(description["folds"]) == 5
    fold = next(number for number, names in enumerate(description["folds"]) if "la_005" in names)
    assert helpers.left_out_twins(take(tmp_path / "data", tmp_path / "run", fold=fold)) == []
