"""The files in `results/`: what 05 has measured, and of what."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from course.machine import versions
from course.training import arithmetic_of
from course.workspace import read_json, whole_file, write_json

if TYPE_CHECKING:
    import keras


def write_results(model: "keras.Model", work_dir: Path, settings: dict, metrics: dict) -> Path:
    """Write results/metrics.json and results/patients.csv; return the path of metrics.json.

    model: the network that was evaluated. metrics.json says what it was trained on, as training.json does.
    metrics: what `evaluate_subset` returned for each subset that was opened.
    """
    training = read_json(work_dir / "model" / "training.json", "04_training")
    folder = work_dir / "results"
    folder.mkdir(exist_ok=True)
    with whole_file(folder / "patients.csv") as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        figures = list(next(iter(next(iter(metrics.values()))["patients"].values())))
        writer.writerow(["subset", "patient", *figures])
        for subset, result in metrics.items():
            writer.writerows([subset, patient, *scored.values()] for patient, scored in result["patients"].items())
    chosen = {
        name: settings[name]
        for name in ("dataset", "profile", "recipe", "image_size", "seed", "planes", "threshold", "largest_component")
    }
    write_json(
        folder / "metrics.json",
        {
            **chosen,
            "arithmetic": arithmetic_of(model),
            "trained_on": training["made_from"],
            "epochs": training["epochs"],
            "parameters": model.count_params(),
            "seconds_training": training["seconds"],
            "images_seen": training["images_seen"],
            "versions": versions(),
            **metrics,
        },
    )
    return folder / "metrics.json"
