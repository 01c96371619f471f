"""README and RESULTS.md quote the stored trainings, the tables in docs/, as they are."""

import csv
import json

import numpy as np
import pytest

import helpers
from course.workspace import COURSE_FOLDER

DOCS = COURSE_FOLDER / "docs"
README = (COURSE_FOLDER / "README.md").read_text(encoding="utf-8")
RESULTS = (DOCS / "RESULTS.md").read_text(encoding="utf-8")


def read(name):
    with open(DOCS / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def dice_of(rows, **wanted):
    """Return {seed: {patient: Dice}} of the rows that have the wanted values."""
    found = {}
    for row in rows:
        if all(row[name] == value for name, value in wanted.items()):
            found.setdefault(row["seed"], {})[row["patient"]] = float(row["dice"])
    return found


def table_row(text, first):
    """Return the cells of the one row of a Markdown table that begins with `first`."""
    [row] = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def with_mean(values):
    """Return values and their mean as RESULTS.md writes them."""
    return [f"{value:.3f}" for value in (*values, np.mean(values))]


def mean_and_spread(values):
    """Return mean and standard deviation as README and RESULTS.md write them."""
    return f"{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})"


LONGER = "its recipe `report`, trained for longer on smaller pictures, mean of three runs"


@pytest.mark.parametrize(
    ("recipe", "subset", "first"),
    [
        ("best", "valid", "our recipe `best`, profile `hour`, mean of three runs"),
        ("best", "test", "the same three runs of `best`"),
        ("report", "valid", LONGER),
    ],
)
def test_readme_quotes_the_long_trainings(recipe, subset, first):
    seeds = dice_of(read("hour.csv"), subset=subset, recipe=recipe)
    assert set(seeds) == {"0", "1", "2"}
    patients = np.mean([list(dice.values()) for dice in seeds.values()], axis=0)
    assert table_row(README, first)[-1] == mean_and_spread(patients)


def test_results_quote_every_patient_and_seed():
    rows = read("hour.csv")
    for recipe, first, seeds in (
        ("best", "{}", {"0", "1", "2"}),
        ("with_dice_loss", "`with_dice_loss`, seed {}", {"0", "1", "2"}),
        ("twice_the_pictures", "`twice_the_pictures`, seed {}", {"0"}),
        ("more_foreground", "`more_foreground`, seed {}", {"0", "1"}),
        ("report", "`report`, seed {}", {"0", "1", "2"}),
    ):
        valid, test = (dice_of(rows, subset=subset, recipe=recipe) for subset in ("valid", "test"))
        is_tested = recipe not in ("twice_the_pictures", "more_foreground")
        assert set(valid) == seeds and set(test) == (seeds if is_tested else set())
        for seed in valid:
            on_test = with_mean([*test[seed].values()]) if test else [""] * 3
            expected = with_mean([*valid[seed].values()]) + on_test
            assert table_row(RESULTS, first.format(seed))[1:] == expected


def test_readme_and_results_quote_the_report_repeated_in_full():
    metrics = json.loads((DOCS / "report_in_full" / "metrics.json").read_text(encoding="utf-8"))
    valid, test = ([*metrics[subset]["dice_per_patient"].values()] for subset in ("valid", "test"))
    assert table_row(README, "its recipe and its 20 epochs, repeated, one run")[-1] == mean_and_spread(valid)
    assert table_row(RESULTS, "`report` in full")[1:] == with_mean(valid) + with_mean(test)
    for subset, dice in (("valid", valid), ("test", test)):
        counts = metrics[subset]["confusion"]
        found, missed, invented = (counts[f"{name}s"] for name in ("true_positive", "false_negative", "false_positive"))
        pooled = [2 * found / (2 * found + missed + invented), found / (found + invented), found / (found + missed)]
        accuracy = (found + counts["true_negatives"]) / sum(counts.values())
        expected = [*(f"{value:.3f}" for value in pooled), f"{accuracy:.4f}", f"{np.mean(dice):.3f}"]
        assert table_row(RESULTS, subset)[1:] == expected
    epochs = {int(float(row["epoch"])) + 1: row for row in read("report_in_full/history.csv")}
    printed = {int(row["epoch"]): row for row in read("report_2022.csv")}
    shown = [int(epoch) for epoch in table_row(RESULTS, "epoch")[1:]]
    for who, rows in (("repeated", epochs), ("the report", printed)):
        for subset, column in (("train", "loss"), ("valid", "val_loss")):
            expected = [f"{float(rows[epoch][column]):.4f}" for epoch in shown]
            assert table_row(RESULTS, f"{who}, {subset}")[1:] == expected


def run_means(recipe, column, without=None):
    """Return {seed: mean over the valid patients} of the runs of a recipe in ladder.csv."""
    runs = {}
    for row in read("ladder.csv"):
        if row["recipe"] == recipe and row["subset"] == "valid" and row["patient"] != without:
            runs.setdefault(row["seed"], []).append(float(row[column]))
    assert all(len(values) == (4 if without else 5) for values in runs.values())
    return {seed: np.mean(values) for seed, values in runs.items()}


def test_results_quote_the_ladder():
    rungs = list(helpers.LADDER)
    for first, without in (("Dice per patient", None), ("without la_026", "la_026")):
        means = [run_means(rung, "dice", without) for rung in rungs]
        assert all(set(runs) == {"0", "1", "2"} for runs in means)
        assert table_row(RESULTS, first)[1:] == [mean_and_spread([*runs.values()]) for runs in means]
    for first, column, form, unit in (
        ("95 % distance, mm", "surface_distance_95", ".1f", 1),
        ("accuracy, pooled", "accuracy_of_subset", ".4f", 1),
        ("training on one core, minutes", "seconds_training", ".1f", 60),
    ):
        quoted = table_row(RESULTS, first)[1:]
        assert quoted == [f"{np.mean([*run_means(rung, column).values()]) / unit:{form}}" for rung in rungs]


def test_results_quote_the_ablation():
    for recipe in ("best", *helpers.ABLATION):
        dice, seconds = run_means(recipe, "dice"), [*run_means(recipe, "seconds_training").values()]
        quoted = [f"{dice[seed]:.3f}" if seed in dice else "not run" for seed in ("0", "1", "2")]
        for without in (None, "la_026"):
            best, runs = (run_means(name, "dice", without) for name in ("best", recipe))
            gains = [runs[seed] - best[seed] for seed in runs]
            quoted.append(f"{np.mean(gains):+.3f}" if gains and recipe != "best" else "")
        quoted.append(f"{np.mean(seconds) / 60:.1f}" if seconds else "")
        assert table_row(RESULTS, f"`{recipe}`")[1:] == quoted


def test_every_run_of_the_ladder_saw_the_same_number_of_pictures_and_names_its_patients():
    rows = read("ladder.csv")
    assert {row["images_seen"] for row in rows} == {"24000"} and {row["image_size"] for row in rows} == {"128"}
    assert {row["distance_unit"] for row in rows} == {"mm"}
    learned = {row["recipe"] == "report": row["learned_from"].split() for row in rows}
    assert set(learned[True]) - set(learned[False]) == {"la_005"} and len(learned[False]) == 7


@pytest.mark.parametrize("profile", ["ladder", "hour"])
def test_the_stored_runs_of_best_have_the_settings_of_the_present_profile(profile):
    now = helpers.new_settings("heart", profile, "best", 0)
    stored = {(row["image_size"], row["images_seen"]) for row in read(f"{profile}.csv") if row["recipe"] == "best"}
    assert stored == {(str(now["image_size"]), str(now["epochs"] * now["images_per_epoch"]))}


def folds(trial):
    """Return {fold: (row, {patient: Dice})} of a cross-validation."""
    found = {}
    for row in read("trials.csv"):
        if row["trial"] == trial and row["held_out"].isdigit():
            words = row["dice_at_half_per_patient"].split()
            found[row["held_out"]] = row, dict(zip(words[::2], map(float, words[1::2])))
    return found


def test_results_and_readme_quote_the_cross_validation_which_holds_each_patient_out_once():
    nnunet = {row["patient"]: float(row["dice"]) for row in read("nnunet.csv")}
    columns = [{}, {}, {}]  # today's best, with the Dice loss, nnU-Net
    with_dice_loss = folds("best")  # as best was then
    for fold, (row, ours) in folds("cross_entropy").items():
        trained_on = row["trained_on"].split()
        assert not ours.keys() & {*columns[0], *trained_on, "la_005"} and "la_005" not in trained_on  # la_026's twin
        assert with_dice_loss[fold][0]["trained_on"] == row["trained_on"]
        of_fold = ours, with_dice_loss[fold][1], {patient: nnunet[patient] for patient in ours}
        quoted = [" ".join(f"{value:.3f}" for value in dice.values()) for dice in of_fold]
        expected = [", ".join(ours), str(len(trained_on)), *quoted, f"{float(row['minutes']):.0f}"]
        assert table_row(RESULTS, f"fold {fold}")[1:] == expected
        for column, dice in zip(columns, of_fold):
            column.update(dice)
    assert len(columns[0]) == 14
    quoted = [mean_and_spread([*dice.values()]) for dice in columns]
    assert table_row(RESULTS, "all")[3:6] == quoted
    first = "`best`, five runs, each patient held out once; nnU-Net, the same"
    assert table_row(README, first)[-1] == f"{quoted[0]}; {quoted[2]}"


def test_results_quote_nnunet():
    dice = {row["patient"]: float(row["dice"]) for row in read("nnunet.csv")}
    assert len(dice) == 20
    valid = [dice[patient] for patient in ("la_023", "la_024", "la_026", "la_029", "la_030")]
    test = [dice[patient] for patient in ("la_016", "la_017")]
    assert table_row(RESULTS, "nnU-Net, 3D")[1:] == with_mean(valid) + with_mean(test)


FOUR = {"la_023", "la_024", "la_029", "la_030"}


@pytest.mark.parametrize(
    ("name", "which", "patients", "variants"),
    [
        ("held-out half of the slices", "held-out half", None, ("new", "known")),
        ("la_026", "all", {"la_026"}, ("by patient", "with the twin")),
        ("the same without la_026", "held-out half", FOUR, ("new", "known")),
        ("the other four patients", "all", FOUR, ("by patient", "with the twin")),
        ("all five patients", "all", None, ("by patient", "skips cut")),
    ],
)
def test_results_quote_the_leaks(name, which, patients, variants):
    rows = read("leaks.csv")
    everybody = sorted({row["patient"] for row in rows})
    for row in rows:  # each patient is known to one of these two networks
        first = {"knows every second": 0, "knows the others": 1}.get(row["variant"])
        if first is not None:
            row["variant"] = "known" if row["patient"] in everybody[first::2] else "new"
    for variant in variants:
        runs = []
        for seed in ("0", "1"):
            dice = dice_of(rows, variant=variant, seed=seed, slices=which)[seed]
            assert len(dice) == 5
            runs.append(np.mean([value for patient, value in dice.items() if patients is None or patient in patients]))
        [quoted] = [line for line in RESULTS.splitlines() if line.startswith(f"| {name} | {variant} |")]
        assert quoted == f"| {name} | {variant} | {runs[0]:.3f} | {runs[1]:.3f} | {np.mean(runs):.3f} |"


def test_networks_of_the_leaks_have_equal_parameters_and_pictures_and_only_the_twin_adds_slices():
    rows = read("leaks.csv")
    assert {row["parameters"] for row in rows} == {"1927841"} and len({row["images_seen"] for row in rows}) == 1
    slices = {}
    for row in rows:
        slices.setdefault(row["variant"], set()).add(row["slices_to_learn_from"])
    assert slices.pop("with the twin") == {"950"}
    assert len(slices) == 4 and set().union(*slices.values()) == {"830"}


def test_results_quote_the_failure():
    last = read("report_on_sample.csv")[-1]
    accuracy = f"{float(last['accuracy']):.2%} on train and {float(last['val_accuracy']):.2%} on valid"
    assert f"{accuracy}, and the IoU on valid {float(last['val_iou']):.2f}." in RESULTS
