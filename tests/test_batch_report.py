"""The report of a batch: its figures are right, and the page is self-contained."""

import base64
import csv
import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from pages import Page
from PIL import Image
from scipy.stats import wilcoxon

import helpers
from course import report, results
from course.training import write_history
from course.workspace import COURSE_FOLDER, CourseError

PATIENTS = [f"p{number}" for number in range(8)]


def dice_of(recipe, seed, number):
    return 0.5 + 0.003 * number**2 + (0.1 + 0.01 * number if recipe == "best" else 0) + 0.02 * seed


@pytest.fixture()
def batch(tmp_path):
    """A finished batch of two recipes and two seeds, and one run that failed; returns (folder, outcomes)."""
    outcomes = {}
    for recipe in ("report", "best"):
        for seed in (0, 1):
            name = f"recipe-{recipe}_seed-{seed}"
            for part in ("results", "model"):
                (tmp_path / name / part).mkdir(parents=True)
            grey = int(255 * dice_of(recipe, seed, 0))
            Image.new("L", (8, 8), grey).save(tmp_path / name / "results" / "best_median_worst.png")
            values = {patient: dice_of(recipe, seed, number) for number, patient in enumerate(PATIENTS)}
            scores = {patient: {"dice": dice, "precision": 0.5, "recall": 0.25} for patient, dice in values.items()}
            valid = {"dice_per_patient": values, "dice_patient_mean": float(np.mean([*values.values()]))}
            valid |= {"distance_unit": "mm", "accuracy": 0.99, "patients": scores}
            ran = {"versions": {"python": "3"}, "arithmetic": "float32", "seconds_training": 60.0, "images_seen": 600}
            ran["devices"] = ["a GPU", "1 CPU core"]
            metrics = {**ran, "image_size": 32, "valid": valid}
            helpers.write_json(tmp_path / name / "results" / "metrics.json", metrics)
            rows = [{"epoch": epoch, "val_loss": 1.0 - seed, "val_dice_coef": 0.5 + 0.1 * epoch} for epoch in range(3)]
            write_history(tmp_path / name, rows)
            learned = [{"patient": patient} for patient in ("p9", "p8", "p9")]
            helpers.write_json(tmp_path / name / "npy" / "arrays.json", {"slices": {"train": learned}})
            parameters = {"dataset": "sample", "recipe": recipe, "seed": seed}
            outcomes[name] = {"name": name, "state": "complete", "seconds": 90.0, "parameters": parameters}
    parameters = {"dataset": "sample", "recipe": "best", "seed": 2}
    why = {"state": "failed", "notebook": "04_training", "cell": 7, "message": "<b>no & no</b>"}
    outcomes["lost"] = {"name": "lost", "parameters": parameters, **why}
    return tmp_path, outcomes


def test_the_results_are_means_over_patients_and_runs(batch):
    groups = report.read_groups(*batch)
    assert {label: len(runs) for label, runs in groups.items()} == {"report": 2, "best": 2}
    both = {recipe: [dice_of(recipe, 0.5, number) for number in range(8)] for recipe in groups}
    over_seeds = np.std([0, 0.02], ddof=1)
    assert report.RESULT_HEADERS[3:] == ["Dice", "SD patients", "SD seeds", "precision", "recall"]
    assert report.result_rows(groups, "valid") == [
        [recipe, 2, 8, f"{np.mean(values):.3f}", f"{np.std(values, ddof=1):.3f}", f"{over_seeds:.3f}", "0.500", "0.250"]
        for recipe, values in both.items()
    ]
    assert report.time_rows(groups)[0] == ["report", "1.0", "10.0", "3.0", "python 3"]


def test_groups_are_compared_patient_by_patient(batch):
    groups = report.read_groups(*batch)
    [[label, count, mean, interval, p]] = report.comparison_rows(groups, "valid")
    differences = [0.1 + 0.01 * number for number in range(8)]
    low, high = map(float, interval.split(" to "))
    assert (label, count, mean, p) == ("best - report", 8, "+0.135", f"{wilcoxon(differences).pvalue:.3f}")
    assert min(differences) < low < np.mean(differences) < high < max(differences)


def test_equal_groups_have_a_p_value_of_one_and_without_times_there_is_no_speed(batch):
    groups = report.read_groups(*batch)
    groups["the same"] = groups.pop("best")
    for run, same in zip(groups["report"], groups["the same"]):
        same["metrics"] = {**run["metrics"], "seconds_training": 0.0}
    assert report.comparison_rows(groups, "valid") == [["the same - report", 8, "+0.000", "+0.000 to +0.000", "1.000"]]
    assert report.time_rows(groups)[1] == ["the same", "0.0", "-", "3.0", "python 3"]


def test_one_patient_in_common_is_too_few_to_compare(batch):
    groups = report.read_groups(*batch)
    groups["again"] = groups["report"]
    for run in groups["best"]:
        run["metrics"]["valid"]["dice_per_patient"] = {"p0": 0.5, "another": 0.5}
    rows = report.comparison_rows(groups, "valid")
    assert rows[0] == ["best - report", 1, "too few patients", "", ""] and rows[1][:2] == ["again - report", 8]


def test_curves_show_the_history_of_every_run_in_the_colour_of_its_group(batch):
    figure = report.plot_curves(report.read_groups(*batch))
    losses, dices = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["Loss on valid", "Soft Dice on valid"]
    assert all(list(line.get_xdata()) == [1, 2, 3] for axes in figure.axes for line in axes.lines)
    assert [list(line.get_ydata()) for line in losses.lines] == [[1.0] * 3, [0.0] * 3] * 2  # report 0, 1, best 0, 1
    assert [list(line.get_ydata()) for line in dices.lines] == [pytest.approx([0.5, 0.6, 0.7])] * 4
    colors = [tuple(line.get_color()) for line in losses.lines]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    legend = losses.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["report", "best"]
    assert [tuple(line.get_color()) for line in legend.get_lines()] == colors[::2]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    plt.close(figure)


def test_each_patient_is_a_dot_in_the_row_of_its_group_and_the_mean_a_line(batch):
    groups = report.read_groups(*batch)
    figure = report.plot_patients(groups, "valid")
    [axes] = figure.axes
    for row, recipe in enumerate(("report", "best")):
        values = [dice_of(recipe, 0.5, number) for number in range(8)]
        assert list(axes.lines[row].get_xdata()) == pytest.approx(values)
        assert np.abs(axes.lines[row].get_ydata() - row).max() < 0.25
        [mean] = axes.collections[row].get_segments()
        assert mean == pytest.approx(np.array([[np.mean(values), row - 0.35], [np.mean(values), row + 0.35]]))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["report", "best"]
    assert list(axes.get_yticks()) == [0, 1]
    assert axes.get_xlabel() == "Dice of a patient's volume"
    assert axes.get_title() == "Patients of valid; the line is the mean"
    assert axes.get_ylim() == (1.5, -0.5)  # the first group at the top
    plt.close(figure)


def test_eleven_groups_have_eleven_colours():
    for count in (2, 10, 11, 30):
        assert len({tuple(color) for color in report._colors(range(count)).values()}) == count


def test_dollar_signs_in_a_name_are_drawn_literally(batch):
    groups = {"exclude a$b$ x": report.read_groups(*batch)["best"][:1]}
    for figure in (report.plot_curves(groups), report.plot_patients(groups, "valid")):
        figure.canvas.draw()
        texts = [text.get_text() for text in figure.findobj(plt.Text)]
        assert r"exclude a\$b\$ x" in texts  # Matplotlib shows a dollar for \$
        plt.close(figure)


def test_the_page_is_self_contained(batch):
    path = report.write_report(*batch, {"grid": {"recipe": ["report", "best"]}})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.headings == [
        f"{batch[0].name}: 5 runs",
        "Results on valid",
        "Each patient of valid",
        "Training",
        "Slices of the best run: recipe-best_seed-1",
        "Slices of the worst run: recipe-report_seed-0",
        "Time and versions",
        "Every run",
        "How to repeat it",
    ]
    assert list(page.pictures) == [page.headings[number] for number in (2, 3, 4, 5)]
    for title, recipe, seed in ((page.headings[4], "best", 1), (page.headings[5], "report", 0)):
        png = base64.b64decode(page.pictures[title].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(png)).getpixel((0, 0)) == int(255 * dice_of(recipe, seed, 0))
    assert page.tags.count("table") == 4 and "script" not in page.tags
    assert not page.links and all(address.startswith("data:") for address in page.loaded)
    assert "@import" not in text and "url(" not in text
    assert "4 ran, 0 were reused, 1 failed" in text and "&lt;b&gt;no &amp; no&lt;/b&gt;" in text and "viewport" in text
    command = "-y &#x27;{&quot;grid&quot;: {&quot;recipe&quot;: [&quot;report&quot;, &quot;best&quot;]}}&#x27;</pre>"
    assert command in text


@pytest.mark.parametrize(
    ("count", "slices"),
    [
        (1, ["Slices of the run: recipe-report_seed-0"]),
        (2, ["Slices of the best run: recipe-report_seed-1", "Slices of the worst run: recipe-report_seed-0"]),
    ],
)
def test_the_page_compares_nothing_if_there_is_one_group(batch, count, slices):
    folder, outcomes = batch
    path = report.write_report(folder, dict(itertools.islice(outcomes.items(), count)), {})
    page = Page(path.read_text(encoding="utf-8"))
    assert page.headings[0] == f"{folder.name}: {count} run{'s' if count > 1 else ''}" and page.tags.count("table") == 3
    assert [title for title in page.pictures if title.startswith("Slices")] == slices


def test_a_batch_in_which_every_run_failed_has_a_report(batch):
    folder, outcomes = batch
    path = report.write_report(folder, {"lost": outcomes["lost"]}, {})
    assert "04_training" in path.read_text(encoding="utf-8")


def test_the_table_of_patients_has_a_row_for_every_run_and_patient(batch):
    path = report.write_patients(batch[0], report.read_groups(*batch))
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(PATIENTS) and {row["subset"] for row in rows} == {"valid"}
    row = next(row for row in rows if (row["recipe"], row["seed"], row["patient"]) == ("best", "1", "p3"))
    assert float(row["dice"]) == pytest.approx(dice_of("best", 1, 3))
    columns = ("distance_unit", "dataset", "image_size", "images_seen", "seconds_training", "arithmetic", "devices")
    assert [row[name] for name in columns] == ["mm", "sample", "32", "600", "60", "float32", "a GPU, then 1 CPU core"]
    assert row["learned_from"] == "p8 p9"


def test_06_reads_the_runs_of_a_batch_and_refuses_runs_it_cannot_average(tmp_path):
    stored = COURSE_FOLDER / "docs" / "ladder.csv"
    rows = results.read_runs(stored)
    assert rows == [row for row in csv.DictReader(stored.open(encoding="utf-8")) if row["subset"] == "valid"]
    for text, reason in (
        (None, "No such file"),
        ("", "no row of valid"),
        ("subset,patient,dice\nvalid,a,0.9\n", "'recipe'"),
        ("subset,recipe,seed,patient\nvalid,without_planes,0,a\n", "no row of valid has a recipe of the ladder"),
    ):
        path = tmp_path / "patients.csv"
        if text is not None:
            path.write_text(text)
        with pytest.raises(CourseError, match=rf"is not the patients.csv of a batch \(.*{reason}.*\): give the path"):
            results.read_runs(path)
    path.write_text("subset,recipe,seed,epochs,patient\nvalid,best,0,5,a\nvalid,best,0,9,a\ntest,best,0,9,a\n")
    with pytest.raises(CourseError, match="holds a 2 times for recipe best and seed 0, so its runs differ in some"):
        results.read_runs(path)
    path.write_text("subset,recipe,seed,patient\nvalid,report,0,a\nvalid,report,0,b\nvalid,best,0,a\ntest,best,0,b\n")
    with pytest.raises(CourseError, match="lacks b for recipe best and seed 0, .* Start the batch again"):
        results.read_runs(path)
