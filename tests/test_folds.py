"""Folds are drawn once, by patient; a fold changes which patients are valid.

A dataset taken from another work folder is used as it is.
"""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import helpers
from course import folds, people
from course.pictures import Pair


def patients(description, subset):
    return {pair["patient"] for pair in description["subsets"][subset]}


def take(work_dir, folder, **options):
    return helpers.import_dataset(work_dir / "dataset.json", folder, **options)


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


def test_a_fold_of_a_folded_dataset_is_the_fold_of_the_original(work_dir, tmp_path):
    straight = take(work_dir, tmp_path / "straight", fold=1)
    folded = take(work_dir, work_dir, fold=0)
    kept = take(work_dir, tmp_path / "kept")  # as the runs of a batch take it
    assert kept["taken_from"] == str(work_dir)  # whose arrays are used
    assert kept["subsets"] == folded["subsets"] and kept["fingerprint"] == folded["fingerprint"]
    assert take(work_dir, tmp_path / "around", fold=1) == straight


def test_a_fold_finds_the_pictures_in_their_original_subsets(work_dir, tmp_path):
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


def test_test_pictures_are_looked_for_in_test_even_if_train_has_the_same_names(work_dir, tmp_path):
    original = json.loads((work_dir / "dataset.json").read_text())
    original["subsets"]["test"][0]["name"] = original["subsets"]["train"][0]["name"]
    helpers.write_json(work_dir / "dataset.json", original)
    description = take(work_dir, tmp_path / "run", fold=0)
    with pytest.raises(helpers.CourseError, match="/test/images/sample_001_000.png of the dataset is missing"):
        helpers.pair_paths(description, tmp_path / "run", "test", description["subsets"]["test"][0]["name"])


def test_folds_refuse_two_pictures_with_one_name(work_dir, tmp_path):
    description = json.loads((work_dir / "dataset.json").read_text())
    description["subsets"]["valid"][0]["name"] = description["subsets"]["train"][0]["name"]
    helpers.write_json(work_dir / "dataset.json", description)
    with pytest.raises(helpers.CourseError, match="give each file a name of its own"):
        take(work_dir, tmp_path / "run", fold=0)
    assert not (tmp_path / "run" / "dataset.json").exists()


def test_a_missing_dataset_json_or_one_that_has_lost_its_files_is_refused(work_dir, tmp_path):
    with pytest.raises(helpers.CourseError, match="run 01_dataset_upload in that folder first"):
        helpers.import_dataset(tmp_path / "none" / "dataset.json", tmp_path / "run")
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.write_json(work_dir / "dataset.json", {**description, "root": "dataset/lost"})
    with pytest.raises(helpers.CourseError, match="are missing"):
        take(work_dir, tmp_path / "run")
    del description["geometry"]
    helpers.write_json(work_dir / "dataset.json", description)
    with pytest.raises(helpers.CourseError, match=f"^dataset.json in {work_dir} lacks geometry. An older"):
        take(work_dir, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def pair(patient, number=0, subset=None, scan=None, constant=False, drawn=1):
    """A slice; slices with the same `scan` show the same picture. Without `scan` the picture is unique."""
    name = f"{patient}_{number}"
    facts = SimpleNamespace(
        image_hash=scan or f"{subset}/{name}",
        is_constant=constant,
        foreground_pixels=lambda values: drawn * values[1],
        mask_values={0: 1, drawn: 1},
    )
    return Pair(subset, name, patient, number, Path(name), Path(name), facts)


def subsets(pairs):
    found = {subset: set() for subset in helpers.SUBSETS}
    for one in pairs:
        found[one.subset].add(one.patient)
    return found


PEOPLE = {  # a patient, and the person that it is
    **{"patient3_ED": "patient3", "p1_time_2": "p1", "sub-01_ses-02": "sub-01", "P7-Frame05.left": "P7"},
    **{"Image_01L": "Image_01", "OD07": "07", "L7": "7", "scan3_p7": "p7", "pre_p2": "p2"},
    **{"20200105_p1": "p1", "p1_2020-01-31_dr": "p1_dr", "AB_31.01.2020": "AB", "AB_01-31-2020": "AB"},
    **{name: name for name in ("Image_01LR", "ImageL", "la_003", "bed_3", "overview-3", "p1_view", "ED")},
    **{name: name for name in ("scan3_slice07", "scan_003_image", "p1_20201301", "20200105")},
}


@pytest.mark.parametrize(("patient", "name"), PEOPLE.items())
def test_time_points_and_sides_are_not_part_of_a_persons_name(patient, name):
    assert people.person(patient) == name


def test_only_files_that_share_a_persons_name_are_one_person():
    assert people.people_of(["p1_ED", "p2_ED", "p1_ES"]) == {"p1_ED": "p1", "p1_ES": "p1", "p2_ED": "p2_ED"}
    assert people.people_of(["CT_scan_01", "CT_scan_02"]) == {name: name for name in ("CT_scan_01", "CT_scan_02")}
    assert set(people.people_of(["IMG_20200105", "IMG_20200106"]).values()) == {"IMG_20200105", "IMG_20200106"}
    assert set(people.people_of(["p1_scan_01", "p1_scan_02"]).values()) == {"p1"}
    assert set(people.people_of(["scan1_p7", "scan2_p7"]).values()) == {"p7"}
    for name in ("scan{}_3T", "Scan {} of 6", "frame{}_512"):  # what is left is no person's name
        names = [name.format(number) for number in (1, 2, 10)]
        assert people.people_of(names) == dict(zip(names, names))


@pytest.mark.parametrize(
    ("patients", "alike"),
    [
        *[(["s_2_a", "s_1_b", "s_1_a", "s_3_a", "s_3_b"], ["s_1_a", "s_1_b"]), (["a_2", "b", "a_1"], ["a_1", "a_2"])],
        *[(["P1-dia", "P0-dia", "P0-sys", "P1-sys"], ["P0-dia", "P0-sys"]), (["P0", "P0 b", "P1"], ["P0", "P0 b"])],
        *[(["P0ED", "P0ES", "P1ED", "P1ES"], ["P0ED", "P0ES"]), (["anna-1", "anna-2", "ben-1"], ["anna-1", "anna-2"])],
        (["P0_2CH_T1", "P1_2CH_T1", "P0_4CH_T1"], ["P0_2CH_T1", "P0_4CH_T1"]),
        (["anna_2ch", "anna_4ch", "ben_4ch"], ["anna_2ch", "anna_4ch"]),
        (["p0-s0", "p0-s1", "p0-s2", "p1-s0", "p1-s1", "p1-s2"], ["p0-s0", "p0-s1", "p0-s2"]),
        *[(["P1.0-a", "P01.0-a", "P2.0-a"], ["P01.0-a", "P1.0-a"]), (["p1", "P1"], ["P1", "p1"])],
        (["ct_p0", "mr_p0", "ct_p1", "mr_p1", "ct_p2"], ["ct_p0", "mr_p0"]),
        (["T1DUAL-p0", "T2SPIR-p0", "T1DUAL-p1", "T2SPIR-p2"], ["T1DUAL-p0", "T2SPIR-p0"]),
        (["later_p2", "later_p3", "p1", "p3"], ["later_p3", "p3"]),
        ([f"v{visit}_p{person}" for visit in range(3) for person in range(2)], ["v0_p0", "v1_p0", "v2_p0"]),
        *[(["CT-001", "CT-002", "MR-001"], ["CT-001", "MR-001"]), (["T1w_007", "FLAIR_007"], [])],  # all are one
        *[
            (["2019-1", "2020-1", "2020-2"], ["2019-1", "2020-1"]),
            (["visit1_1", "visit2_1", "visit2_2"], ["visit1_1", "visit2_1"]),
        ],
        *[(["la_003", "la_004"], []), (["a_1", "b_1"], []), (["a", "b", "c_1"], []), (["P10", "P100"], [])],
        *[(["benign-p0", "malign-p1", "normal-p2", "normal-p3"], []), (["1a7c", "1b30", "2d4e"], [])],  # by chance
        (["Kings-1", "Kings-2", "Kings-3", "Leeds-1"], []),  # places
    ],
)
def test_the_first_names_that_may_belong_to_one_patient(patients, alike):
    assert people.look_alike(patients)[0] == alike


def test_patients_share_a_scan_if_half_of_the_smaller_ones_pictures_are_the_same():
    p = [pair("p", number, scan=f"h{number}") for number in range(4)]
    q = [pair("q", 0, scan="h2"), pair("q", 1)]
    r = [pair("r", 0, scan="h1"), pair("r", 1), pair("r", 2)]
    twice = [pair("twice", number, scan="same") for number in range(2)]
    black = [pair(patient, scan="black", constant=True) for patient in ("s", "t")]
    assert folds.same_scans([*p, *q, *r, *twice, *black]) == {("p", "q"): [(p[2], q[0])]}
    many = folds.same_scans([pair(f"m{number:02}", scan="one") for number in range(25)])
    assert len(many) == sum(min(number, 20) for number in range(25))  # each with the first twenty before it


def test_a_hundred_patients_are_split_into_51_25_and_24():
    pairs = [pair(f"p{number:02}", place) for number in range(100) for place in range(2)]
    split, notes = folds.fill_subsets(pairs, 3)
    assert {subset: len(found) for subset, found in subsets(split).items()} == {"train": 51, "valid": 25, "test": 24}
    assert [one.name for one in split] == [one.name for one in pairs]
    told = "its patients were split at random (seed 3) into 51 train, 25 valid, 24 test."
    assert notes == [f"The dataset has no subsets: {told}"]
    only = [pair(f"p{number:02}", subset="valid") for number in range(100)]
    assert "no subsets but valid: its patients" in folds.fill_subsets(only, 3)[1][0]
    for missing, present, count in (("valid", "test", 7), ("test", "valid", 6)):  # 20 * 0.25 / 0.76, 20 * 0.24 / 0.75
        pairs = [*(pair(f"p{number:02}", subset="train") for number in range(20)), pair("x", subset=present)]
        split, notes = folds.fill_subsets(pairs, 3)
        found = subsets(split)
        assert (len(found["train"]), len(found[missing])) == (20 - count, count)
        assert found[present] == {"x"}
        counts = ", ".join(f"{len(found[subset])} {subset}" for subset in helpers.SUBSETS)
        told = "it was drawn at random from the patients of train (seed 3), which gives"
        assert notes == [f"The dataset has no {missing}: {told} {counts}."]
    assert folds.fill_subsets(split, 3) == (split, [])


def test_healthy_patients_are_spread_so_that_every_subset_has_foreground():
    healthy = [pair(f"h{number}", drawn=0) for number in range(9)]
    for seed in range(20):
        found = subsets(folds.fill_subsets([*healthy, pair("a"), pair("b"), pair("c")], seed)[0])
        assert [len(found[subset] & {"a", "b", "c"}) for subset in helpers.SUBSETS] == [1, 1, 1]
    found = subsets(folds.fill_subsets([*healthy, pair("a"), pair("b")], 0)[0])  # too few: refused elsewhere
    assert sum(map(len, found.values())) == 11


def test_no_subset_is_empty_even_if_one_person_has_nearly_all_names():
    people = {f"a{number}": "a" for number in range(28)}
    for seed in range(6):
        split, _ = folds.fill_subsets([pair(patient) for patient in [*people, "b", "c"]], seed, people)
        assert sorted(map(len, subsets(split).values())) == [1, 1, 28]


@pytest.mark.parametrize(
    ("patients", "told"),
    [
        ([("a" * 44, None), ("b" * 45, None)], f"2 patients are .*est .{'a' * 44}, {'b' * 24}[.]{{3}}{'b' * 16}.: "),
        ([("a", "train"), ("x", "test")], "1 patient is too few to split into train and valid .a.: two are needed"),
        ([("a", None), ("b", None)], ".*: three are needed"),
        ([("a", "valid"), ("x", "test")], "The subset train has no images, but valid and test have"),
    ],
)
def test_too_few_patients_are_reported_by_name(patients, told):
    with pytest.raises(helpers.CourseError, match=f"^{told}"):
        folds.fill_subsets([pair(patient, subset=subset) for patient, subset in patients], 0)


def test_a_patient_or_person_in_two_subsets_is_refused_with_both_places():
    pairs = [pair("p", 1, "train"), pair("p", 2, "train"), pair("q", 3, "test")]
    folds.check_subsets(pairs)
    with pytest.raises(helpers.CourseError, match=r"^Patient 'p' is in two subsets \(train/p_1 and valid/p_4\), so"):
        folds.check_subsets([*pairs, pair("p", 4, "valid")])
    one_person = r"^'p' and 'q' look like two times or sides of one patient, who is .* \(train/p_1 and test/q_3"
    with pytest.raises(helpers.CourseError, match=one_person):
        folds.check_subsets(pairs, {"p": "p", "q": "p"})


def test_a_subset_without_foreground_is_refused():
    pairs = [pair("p", subset="train"), pair("q", subset="valid"), pair("r", subset="valid", drawn=0)]
    pairs += [pair("s", subset="test", drawn=0), pair("t", 1, subset="test")]
    folds.check_masks(pairs, [0, 1])
    with pytest.raises(helpers.CourseError, match="^All masks of test are empty .s_0 and the others"):
        folds.check_masks(pairs[:-1], [0, 1])


@pytest.mark.parametrize(
    ("groups", "sizes"), [([1] * 7, [1, 1, 1, 2, 2]), ([1, 1, 1, 4, 1, 1, 1], [1, 1, 2, 2, 4]), ([1, 1, 1], [1, 1, 1])]
)
def test_folds_are_at_most_five_and_as_even_as_people_allow(groups, sizes):
    people = {f"p{person}-{name}": f"{person}" for person, names in enumerate(groups) for name in range(names)}
    pairs = [*(pair(patient, subset="train") for patient in people), pair("x", subset="test")]
    drawn = folds.draw_folds(pairs, 0, people)
    assert sorted(map(len, drawn)) == sizes and drawn == [sorted(fold) for fold in drawn]
    assert sorted(sum(drawn, [])) == sorted(people)
    for person in people.values():  # each is in one fold
        names = {patient for patient, one in people.items() if one == person}
        assert len([fold for fold in drawn if names & {*fold}]) == 1


def test_the_folds_depend_on_the_seed():
    pairs = [pair(f"p{number:02}", subset="train", scan=f"{number % 11}") for number in range(13)]  # two share a scan
    drawn = [folds.draw_folds(pairs, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for dealt in drawn:
        assert sorted(map(len, dealt)) == [2, 2, 3, 3, 3]
        for two in ({"p00", "p11"}, {"p01", "p12"}):
            assert any(two <= set(fold) for fold in dealt)


def test_patients_linked_by_shared_scans_belong_to_one_group():
    scans = {"a": "1", "b": "1", "c": "3", "d": "4", "e": "3"}
    pairs = [pair(patient, subset="train", scan=scan) for patient, scan in scans.items()]
    drawn = folds.draw_folds(pairs, 0, {"b": "x", "c": "x"})
    assert sorted(drawn) == [["a", "b", "c", "e"], ["d"]]


DESCRIPTION = {
    "subsets": {
        "train": [{"name": f"{patient}_{n}", "patient": patient, "slice": n} for patient in "abc" for n in (2, 10)],
        "valid": [{"name": "d_1", "patient": "d", "slice": 1}],
        "test": [{"name": "e_1", "patient": "e", "slice": 1}],
    },
    "folds": [["b"], ["a", "d"], ["c"]],
    "twins": [{"patients": [["train", "a"], ["test", "e"]]}],
    "notes": ["as it came"],
    "fingerprint": "1234",
}


def test_a_fold_makes_its_patients_valid_and_can_be_undone():
    description = copy.deepcopy(DESCRIPTION)
    folds.apply_fold(description, 1)
    names = {subset: [entry["name"] for entry in pairs] for subset, pairs in description["subsets"].items()}
    assert names == {"train": ["b_2", "b_10", "c_2", "c_10"], "valid": ["a_2", "a_10", "d_1"], "test": ["e_1"]}
    assert description["twins"] == [{"patients": [["valid", "a"], ["test", "e"]]}]
    assert description["fold"] == 1 and description["notes"][0] == "as it came"
    assert description["notes"][1].startswith("Fold 1 of 3: a, d are in valid")
    assert description["stored_in"] == {**dict.fromkeys(names["train"] + ["a_2", "a_10"], "train"), "d_1": "valid"}
    assert description["as_imported"] == {"fingerprint": "1234", "notes": ["as it came"]}
    other = copy.deepcopy(DESCRIPTION)
    folds.apply_fold(other, 0)
    assert len({description["fingerprint"], other["fingerprint"], "1234"}) == 3
    folds.undo_fold(description)
    assert description == DESCRIPTION
    folds.undo_fold(description)
    assert description == DESCRIPTION


ONE, TWO = [["a", "b", "c", "d"]], [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(("dealt", "fold"), [(ONE, 0), (TWO, 2), (TWO, -1), (TWO, "0"), (TWO, True)])
def test_an_invalid_fold_is_refused(dealt, fold):
    choices = {1: "None", 2: "a whole number from 0 to 1, or None"}[len(dealt)]
    told = f"^fold is {fold!r}, but .* of the 4 train and valid patients is {len(dealt)}: choose {choices}"
    with pytest.raises(helpers.CourseError, match=told):
        folds.apply_fold({**copy.deepcopy(DESCRIPTION), "folds": dealt}, fold)
