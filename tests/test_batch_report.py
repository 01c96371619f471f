"""The report of a batch: its figures are right, and the page needs nothing but itself."""

import base64
import csv
import html.parser
import io

import nbformat
import numpy as np
import pytest
from PIL import Image
from scipy.stats import wilcoxon

import helpers
from course import report
from course.training import write_history

PATIENTS = [f"p{number}" for number in range(8)]


def dice_of(recipe, seed, number):
    return 0.5 + 0.02 * number + (0.1 + 0.01 * number if recipe == "best" else 0) + 0.02 * seed


@pytest.fixture()
def batch(tmp_path):
    """A finished batch of two recipes and two seeds, and one run that failed; returns (folder, outcomes)."""
    outcomes = {}
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "png")
    picture = nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(stream.getvalue()).decode()})
    shown = nbformat.v4.new_code_cell("helpers.plot_predictions()", outputs=[picture])
    for recipe in ("report", "best"):
        for seed in (0, 1):
            name = f"recipe-{recipe}_seed-{seed}"
            for part in ("results", "model", "notebooks"):
                (tmp_path / name / part).mkdir(parents=True)
            values = {patient: dice_of(recipe, seed, number) for number, patient in enumerate(PATIENTS)}
            helpers.write_json(
                tmp_path / name / "results" / "metrics.json",
                {
                    "versions": {"python": "3"},
                    "arithmetic": "float32",
                    "seconds_training": 60.0,
                    "images_seen": 600,
                    "image_size": 32,
                    "valid": {
                        "dice_per_patient": values,
                        "dice_patient_mean": float(np.mean(list(values.values()))),
                        "accuracy": 0.99,
                        "precision": 0.9,
                        "recall": 0.9,
                        "patients": {
                            patient: {"dice": value, "precision": 0.5, "recall": 0.25}
                            for patient, value in values.items()
                        },
                    },
                },
            )
            write_history(
                tmp_path / name, [{"epoch": epoch, "val_loss": 1.0, "val_dice_coef": 0.5} for epoch in range(2)]
            )
            notebook = nbformat.v4.new_notebook(cells=[shown])
            nbformat.write(notebook, tmp_path / name / "notebooks" / "05_evaluation.ipynb")
            outcomes[name] = {
                "name": name,
                "state": "complete",
                "seconds": 90.0,
                "parameters": {"dataset": "sample", "recipe": recipe, "seed": seed},
            }
    outcomes["lost"] = {
        "name": "lost",
        "state": "failed",
        "notebook": "04_training",
        "cell": 7,
        "message": "<b>no & no</b>",
        "parameters": {"dataset": "sample", "recipe": "best", "seed": 2},
    }
    return tmp_path, outcomes


def test_the_results_are_means_over_patients_and_runs(batch):
    groups = report.read_groups(*batch)
    assert {label: len(runs) for label, runs in groups.items()} == {"report": 2, "best": 2}
    both = {
        recipe: [np.mean([dice_of(recipe, seed, number) for seed in (0, 1)]) for number in range(8)]
        for recipe in groups
    }
    over_seeds = np.std([0, 0.02], ddof=1)
    assert report.result_rows(groups, "valid") == [
        [recipe, 2, 8, f"{np.mean(values):.3f}", f"{np.std(values, ddof=1):.3f}", f"{over_seeds:.3f}", "0.500", "0.250"]
        for recipe, values in both.items()
    ]
    assert report.result_rows(groups, "test") == []
    assert report.time_rows(groups)[0] == ["report", "1.0", "10.0", "3.0", "python 3"]


def test_groups_are_compared_patient_by_patient(batch):
    groups = report.read_groups(*batch)
    [[label, count, mean, interval, p]] = report.comparison_rows(groups, "valid")
    differences = [0.1 + 0.01 * number for number in range(8)]
    low, high = map(float, interval.split(" to "))
    assert (label, count, mean, p) == ("best - report", 8, "+0.135", f"{wilcoxon(differences).pvalue:.3f}")
    assert min(differences) < low < np.mean(differences) < high < max(differences)


def test_one_patient_in_common_is_too_few_to_compare(batch):
    groups = report.read_groups(*batch)
    for run in groups["best"]:
        run["metrics"]["valid"]["dice_per_patient"] = {"p0": 0.5, "another": 0.5}
    assert report.comparison_rows(groups, "valid") == [["best - report", 1, "too few patients", "", ""]]


class Page(html.parser.HTMLParser):
    """The tags of a page, and the addresses that it names."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "srcset", "action", "data", "poster")
        ]


def test_the_page_needs_nothing_but_itself(batch):
    path = report.write_report(*batch, {"grid": {"recipe": ["report", "best"]}})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("img") == 4 and page.tags.count("table") == 4 and "script" not in page.tags
    assert text.count('alt="') == 4
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "@import" not in text and "url(" not in text
    assert "4 ran, 0 were reused, 1 failed" in text and "&lt;b&gt;no &amp; no&lt;/b&gt;" in text and "viewport" in text


def test_a_batch_of_failures_has_a_report_too(batch):
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
    of_the_run = row["dataset"], row["image_size"], row["images_seen"], row["seconds_training"], row["arithmetic"]
    assert of_the_run == ("sample", "32", "600", "60", "float32")
