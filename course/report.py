"""The report of a batch: one self-contained HTML page, made from run.json, metrics.json and history.csv.

Runs that differ only in seed and fold make a group. A patient's Dice in a group is the mean over the group's runs.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import shlex
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course.arrays import train_patients
from course.figures import figure_as_png, plain_text
from course.metrics import bootstrap_interval
from course.pictures import SUBSETS
from course.tables import html_table
from course.training import read_history
from course.workspace import read_json, whole_file, write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; color: #111; }
h1 { line-height: 1.2; } h1, h2 { overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #bbb; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 600px) { table { font-size: .75rem; } th, td { padding: .2rem; } }
@media print { body { max-width: none; font-size: 10pt; } img, tr, pre { break-inside: avoid; }
  h2 { break-after: avoid; } div { overflow: visible !important; } table { font-size: 8pt; } }
"""
RESULT_HEADERS = ["group", "runs", "patients", "Dice", "SD patients", "SD seeds", "precision", "recall"]
COMPARISON_HEADERS = ["comparison", "n patients", "difference", "95 % interval", "p"]
TIME_HEADERS = ["group", "training, minutes a run", "images a second", "all runs, minutes", "versions"]

Groups = dict[str, list[dict]]  # the runs of each group


def read_groups(folder: Path, outcomes: dict[str, dict]) -> Groups:
    """Return {group: finished runs} of a batch, each with `metrics` and `history`.

    A group is named after the parameters in which it differs from others.
    """
    finished = [outcome for outcome in outcomes.values() if outcome["state"] != "failed"]
    keys = dict.fromkeys(key for outcome in finished for key in outcome["parameters"] if key not in ("seed", "fold"))
    varied = [key for key in keys if len({json.dumps(run["parameters"].get(key)) for run in finished}) > 1]
    groups = defaultdict(list)
    for outcome in finished:
        run_dir = folder / outcome["name"]
        metrics = read_json(run_dir / "results" / "metrics.json", "05_evaluation")
        chosen = {key: outcome["parameters"].get(key) for key in varied or ["recipe"]}
        label = ", ".join(str(value) if key == "recipe" else f"{key} {value}" for key, value in chosen.items())
        groups[label].append({**outcome, "run_dir": run_dir, "metrics": metrics, "history": read_history(run_dir)})
    return dict(groups)


def patient_dice(runs: list[dict], subset: str) -> dict[tuple[str, str], float]:
    """Return {(dataset, patient): Dice} of a subset, the mean over the runs that scored the patient."""
    values = defaultdict(list)
    for run in runs:
        for patient, value in run["metrics"][subset]["dice_per_patient"].items():
            values[run["parameters"]["dataset"], patient].append(value)
    return {patient: float(np.mean(found)) for patient, found in values.items()}


def result_rows(groups: Groups, subset: str) -> list[list]:
    """Return the rows of a subset's results, a row for each group; RESULT_HEADERS names the columns.

    SD is the standard deviation (n - 1), over the patients' Dice and over the means of the seeds.
    """
    rows = []
    for label, runs in groups.items():
        values = list(patient_dice(runs, subset).values())
        seeds, patients = defaultdict(list), []
        for run in runs:
            seeds[run["parameters"]["seed"]] += run["metrics"][subset]["dice_per_patient"].values()
            patients += run["metrics"][subset]["patients"].values()
        spread = [_deviation(values), _deviation([np.mean(found) for found in seeds.values()])]
        means = [f"{np.mean([patient[name] for patient in patients]):.3f}" for name in ("precision", "recall")]
        rows.append([label, len(runs), len(values), f"{np.mean(values):.3f}", *spread, *means])
    return rows


def _deviation(values):
    """Return the standard deviation (n - 1) as text."""
    return f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "one only"


def write_patients(folder: Path, groups: Groups) -> Path:
    """Write patients.csv, which 06 reads, a row for each run, subset and patient; return its path.

    A row holds the run's parameters, the patient's metrics as in metrics.json, the unit of the distances (mm or
    pixels), and, for the run, the patients it learned from, the accuracy on the subset's pixels, the images seen, the
    seconds of training, the arithmetic, the devices of the training, and the versions.
    """
    rows = []
    for run in itertools.chain(*groups.values()):
        metrics = run["metrics"]
        learned_from = " ".join(train_patients(run["run_dir"]))
        for subset in SUBSETS:
            rows += [
                {
                    **run["parameters"],
                    "dataset": Path(run["parameters"]["dataset"]).stem,
                    "subset": subset,
                    "patient": patient,
                    **figures,
                    "distance_unit": metrics[subset]["distance_unit"],
                    "learned_from": learned_from,
                    "accuracy_of_subset": metrics[subset]["accuracy"],
                    "image_size": metrics["image_size"],
                    "images_seen": metrics["images_seen"],
                    "seconds_training": round(metrics["seconds_training"]),
                    "arithmetic": metrics["arithmetic"],
                    "devices": ", then ".join(metrics.get("devices", [])),
                    **metrics["versions"],
                }
                for patient, figures in metrics.get(subset, {}).get("patients", {}).items()
            ]
    write_csv(folder / "patients.csv", rows)
    return folder / "patients.csv"


def comparison_rows(groups: Groups, subset: str) -> list[list]:
    """Compare each group with the first, patient by patient; COMPARISON_HEADERS names the columns.

    The interval is a bootstrap over patients; p is that of Wilcoxon's signed-rank test, two-sided and not corrected.
    """
    from scipy.stats import wilcoxon

    (first, *others), rows = groups.items(), []
    reference = patient_dice(first[1], subset)
    for label, runs in others:
        values = patient_dice(runs, subset)
        both = [patient for patient in reference if patient in values]
        differences = np.array([values[patient] - reference[patient] for patient in both])
        if len(differences) < 2:
            rows.append([f"{label} - {first[0]}", len(differences), "too few patients", "", ""])
            continue
        low, high = bootstrap_interval(differences)
        p = wilcoxon(differences).pvalue if differences.any() else 1.0
        figures = [f"{differences.mean():+.3f}", f"{low:+.3f} to {high:+.3f}", f"{p:.3f}"]
        rows.append([f"{label} - {first[0]}", len(differences), *figures])
    return rows


def time_rows(groups: Groups) -> list[list]:
    """Return the rows of training times, a row for each group; TIME_HEADERS names the columns."""
    rows = []
    for label, runs in groups.items():
        training = [run["metrics"]["seconds_training"] for run in runs]
        images = sum(run["metrics"]["images_seen"] for run in runs)
        versions = {", ".join(map(" ".join, run["metrics"]["versions"].items())) for run in runs}
        speed = f"{images / sum(training):.1f}" if sum(training) else "-"
        minutes = [f"{seconds / 60:.1f}" for seconds in (np.mean(training), sum(run["seconds"] for run in runs))]
        rows.append([label, minutes[0], speed, minutes[1], "; ".join(sorted(versions))])
    return rows


def _colors(groups):
    import matplotlib.pyplot as plt

    places = np.arange(len(groups)) if len(groups) <= 10 else np.linspace(0, 0.95, len(groups))
    return dict(zip(groups, plt.get_cmap("tab10" if len(groups) <= 10 else "viridis")(places)))


def plot_curves(groups: Groups) -> Figure:
    """Overlay the loss and the soft Dice on valid of all runs, one colour for each group."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 1, figsize=(6, 6.4), layout="constrained")
    for axes, name, title in zip(panels, ("val_loss", "val_dice_coef"), ("Loss on valid", "Soft Dice on valid")):
        for label, color in _colors(groups).items():
            for number, run in enumerate(groups[label]):
                epochs, values = zip(*((int(row["epoch"]) + 1, row[name]) for row in run["history"]))
                named = None if number else plain_text(label)
                axes.plot(epochs, values, "-o", markersize=3, color=color, alpha=0.7, label=named)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].legend()
    return figure


def plot_patients(groups: Groups, subset: str) -> Figure:
    """Draw the Dice of each patient, a row for each group, with the mean as a line."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 1.4 + 0.6 * len(groups)), layout="constrained")
    for row, (label, color) in enumerate(_colors(groups).items()):
        values = list(patient_dice(groups[label], subset).values())
        axes.plot(values, row + np.linspace(-0.2, 0.2, len(values)), "o", color=color, alpha=0.8)
        axes.vlines(np.mean(values), row - 0.35, row + 0.35, color="black")
    axes.set_yticks(range(len(groups)), [plain_text(label) for label in groups])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(groups) - 0.5, -0.5), xlabel="Dice of a patient's volume")
    axes.set_title(f"Patients of {subset}; the line is the mean")
    return figure


def ranked_runs(groups: Groups) -> list[dict]:
    """Return the runs of all groups, the best Dice on valid last."""
    return sorted(itertools.chain(*groups.values()), key=lambda run: run["metrics"]["valid"]["dice_patient_mean"])


def slices_picture(run: dict) -> Path:
    """Return the path of a run's picture of its best, median and worst slice, as 05 has drawn it."""
    return run["run_dir"] / "results" / "best_median_worst.png"


def _picture(png, alt):
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{html.escape(alt)}">'


def _results_on(subset, groups):
    yield f"<h2>Results on {subset}</h2>" + html_table(result_rows(groups, subset), RESULT_HEADERS)
    if len(groups) > 1:
        yield (
            "<p>Each group against the first, patient by patient: the mean difference, its 95 % interval (bootstrap "
            "over patients) and the p-value of Wilcoxon's signed-rank test, two-sided, not corrected for the "
            f"number of comparisons ({len(groups) - 1}). With fewer than six patients the p-value cannot fall below "
            "0.05, and the interval is too narrow.</p>"
        )
        yield html_table(comparison_rows(groups, subset), COMPARISON_HEADERS)
    title = f"Each patient of {subset}"
    yield f"<h3>{title}</h3>" + _picture(figure_as_png(plot_patients(groups, subset)), title)


def write_report(folder: Path, outcomes: dict[str, dict], choices: dict) -> Path:
    """Write report.html into a batch's folder; return its path. `choices`: the parameters of 00 that repeat it."""
    groups, name = read_groups(folder, outcomes), html.escape(folder.name)
    counts = Counter(outcome["state"] for outcome in outcomes.values())
    parts = [
        f"<h1>{name}: {len(outcomes)} run{'s' if len(outcomes) > 1 else ''}</h1>",
        f"<p>{counts['complete']} ran, {counts['reused']} were reused, {counts['failed']} failed. "
        "Dice is that of a patient's whole volume at the masks' own resolution; if several runs scored a patient, it "
        "is the mean over these runs. Precision and recall are means over patients too. SD is the standard deviation: "
        "over patients, and over the means of the seeds.</p>",
    ]
    ranked = ranked_runs(groups)
    for subset in ("valid", "test"):
        if any(subset in run["metrics"] for run in ranked):
            parts += _results_on(subset, groups)
    if ranked:
        parts += ["<h2>Training</h2>", _picture(figure_as_png(plot_curves(groups)), "Training")]
        extremes = {"Slices of the best run": ranked[-1], "Slices of the worst run": ranked[0]}
        for what, run in (extremes if len(ranked) > 1 else {"Slices of the run": ranked[0]}).items():
            title = f"{what}: {run['name']}"
            parts += [f"<h2>{html.escape(title)}</h2>", _picture(slices_picture(run).read_bytes(), title)]
        parts.append("<h2>Time and versions</h2>" + html_table(time_rows(groups), TIME_HEADERS))
    columns = ("state", "notebook", "cell", "message")
    rows = [[run, *(outcome.get(key) or "" for key in columns)] for run, outcome in outcomes.items()]
    parts.append("<h2>Every run</h2>" + html_table(rows, ["run", "outcome", *columns[1:]]))
    command = f"papermill notebooks/00_run_all.ipynb out.ipynb --kernel python3 -y {shlex.quote(json.dumps(choices))}"
    parts.append(f"<h2>How to repeat it</h2><pre>{html.escape(command)}</pre>")
    path = folder / "report.html"
    write_page(path, f"Batch {name}", "\n".join(parts))
    return path


def write_page(path: Path, title: str, body: str) -> None:
    """Write one self-contained HTML page, whole or not at all; title and body are escaped already."""
    with whole_file(path) as part:
        part.write_text(
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f"<style>{STYLE}</style></head><body>{body}</body></html>\n",
            encoding="utf-8",
        )
