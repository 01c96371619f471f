"""What 05 measures for a patient and for single slices, and the files in `results/` that hold it."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course.machine import versions
from course.metrics import confusion_counts, rank_slices, scores, surface_distances
from course.recipes import LADDER, load_settings
from course.training import arithmetic_of, read_trained
from course.workspace import CourseError, one_sentence, read_json, write_csv, write_json

if TYPE_CHECKING:
    import keras


def patient_scores(
    truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float] | None
) -> dict[str, float | None]:
    """Return the metrics of one patient: dice, iou, precision, recall, the two surface distances and volume_error.

    truth, prediction: bool (slices, height, width). spacing: between slices, rows and columns; with None there are no
    distances. volume_error: the predicted volume over the true one, minus 1; None if the truth is empty.
    """
    overlap = scores(confusion_counts(truth, prediction))
    mean, percentile = (spacing and surface_distances(truth, prediction, spacing)) or (None, None)
    return {
        **{name: overlap[name] for name in ("dice", "iou", "precision", "recall")},
        "surface_distance_mean": mean,
        "surface_distance_95": percentile,
        "volume_error": float(prediction.sum() / truth.sum() - 1) if truth.any() else None,
    }


def slice_scores(slice_counts: list[dict[str, int]]) -> dict[str, float | int | None]:
    """Return metrics of single slices: the Dice of those with atrium, and the false positives on those without."""
    _, values = rank_slices(slice_counts)
    empty = [counts for counts in slice_counts if counts["true_positives"] + counts["false_negatives"] == 0]
    false_pixels = [counts["false_positives"] for counts in empty]
    return {
        "with_atrium": len(values),
        "dice_mean_with_atrium": float(np.mean(values)) if values else None,
        "empty": len(empty),
        "empty_with_false_atrium": int(np.count_nonzero(false_pixels)),
        "false_pixels_on_empty": int(sum(false_pixels)),
    }


def write_results(model: "keras.Model", work_dir: Path, settings: dict, metrics: dict) -> Path:
    """Write results/metrics.json and results/patients.csv; return the path of metrics.json.

    model: the network that was evaluated. metrics: what `evaluate_subset` returned for each subset that was opened.
    Raises CourseError if dataset, arrays or network have been replaced since the network was loaded.
    """
    weights = read_trained(work_dir, load_settings(work_dir)).get_weights()
    if not all(map(np.array_equal, model.get_weights(), weights)):
        raise CourseError(
            "The network in model/ is no longer the one that was evaluated here, so nothing was written: "
            "run 05_evaluation again from its first cell."
        )
    training = read_json(work_dir / "model" / "training.json", "04_training")
    folder = work_dir / "results"
    rows = [
        {"subset": subset, "patient": patient, **scored, "distance_unit": result["distance_unit"]}
        for subset, result in metrics.items()
        for patient, scored in result["patients"].items()
    ]
    write_csv(folder / "patients.csv", rows)
    chosen = ("dataset", "profile", "recipe", "image_size", "seed", "planes", "threshold", "largest_component")
    record = {
        **{name: settings[name] for name in chosen},
        "arithmetic": arithmetic_of(model),
        "devices": training.get("devices", []),  # an older version of the course did not record them
        "trained_on": training["made_from"],
        "epochs": training["epochs"],
        "parameters": model.count_params(),
        "seconds_training": training["seconds"],
        "images_seen": training["images_seen"],
        "versions": versions(),
        **metrics,
    }
    write_json(folder / "metrics.json", record)
    return folder / "metrics.json"


def read_runs(path: str | os.PathLike) -> list[dict[str, str]]:
    """Return the rows of valid in the patients.csv of a batch that ran several recipes; all values are strings.

    Raises CourseError for any other file, and if runs differ in more than recipe, seed and fold, or in their patients.
    """
    path = Path(os.path.expanduser(path))
    with (
        one_sentence(f"{path} is not the patients.csv of a batch", "give the path of one that 00_run_all has written"),
        open(path, newline="", encoding="utf-8") as file,
    ):
        rows = [row for row in csv.DictReader(file) if row["subset"] == "valid"]
        if not {row["recipe"] for row in rows} & LADDER.keys():
            raise ValueError("no row of valid has a recipe of the ladder")
        of_runs = Counter((row["recipe"], row["seed"], row["patient"]) for row in rows)
    (recipe, seed, patient), count = of_runs.most_common(1)[0]
    if count > 1:
        raise CourseError(
            f"{path} holds {patient} {count} times for recipe {recipe} and seed {seed}, so its runs differ in "
            "something else. Give the file of a batch whose grid names only recipe, seed and fold."
        )
    everybody = {row["patient"] for row in rows}
    for recipe, seed in sorted({(row["recipe"], row["seed"]) for row in rows}):
        if missing := sorted(patient for patient in everybody if not of_runs[recipe, seed, patient]):
            raise CourseError(
                f"{path} lacks {missing[0]} for recipe {recipe} and seed {seed}, and means over different patients "
                "cannot be compared. Start the batch again, until none of its runs fails."
            )
    return rows


def chosen_segmentation(work_dir: Path) -> tuple[float, bool]:
    """Return the threshold, and whether to keep only the largest component, as 05 chose them on valid.

    Raises CourseError if 05 has not run, or ran before the training in model/ or in the middle of it.
    """
    metrics = read_json(work_dir / "results" / "metrics.json", "05_evaluation")
    training = read_json(work_dir / "model" / "training.json", "04_training")
    evaluated = metrics.get("trained_on"), metrics.get("epochs")
    if evaluated != (training["made_from"], training["epochs"]):
        raise CourseError("05_evaluation ran with a network that is no longer in model/: run 05_evaluation again.")
    return metrics["threshold"], metrics["largest_component"]
