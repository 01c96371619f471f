"""What several tools use: a copy of the course, the name of this machine, tables, and a training as in notebook 04."""

import csv
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import helpers
from course.planes import TrainingPictures
from course.workspace import COURSE_FOLDER, one_sentence


def copy_course(folder: Path) -> Path:
    """Copy what the suite needs of the course to `folder`, and return it."""
    without = shutil.ignore_patterns(".git", ".venv", "data", "__pycache__")
    return shutil.copytree(COURSE_FOLDER, folder, ignore=without)


def processor_name() -> str:
    """Return the name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    return model[1] if model else platform.processor() or platform.machine()


def machine() -> str:
    """Return what this machine is, in a few words."""
    return f"{os.cpu_count()} cores of {processor_name()}, {platform.system()}"


def current_commit() -> str:
    """Return the short name of the course's current commit; raise CourseError if git does not know it."""
    command = ["git", "-C", str(COURSE_FOLDER), "rev-parse", "--short", "HEAD"]
    with one_sentence("The rows of the table name a commit, but git knows none here", "start in a clone of the course"):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def markdown_table(header: list[str], rows: Iterable[list]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def append_rows(table: Path, rows: list[dict], columns: Iterable[str]) -> None:
    """Append rows to a CSV file, with a header if it is new; a row that lacks a name has an empty cell there."""
    with open(table, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def new_network(settings: dict):
    """Return the network that 03 makes with these settings, its weights drawn with their seed."""
    import keras

    keras.utils.set_random_seed(settings["seed"])
    network = {name: settings[name] for name in helpers.NETWORK_SETTINGS if name != "seed"}
    return helpers.create_model(**network | {"precision": helpers.choose_precision(settings["precision"])})


def fit(model, pictures: TrainingPictures, settings: dict, first_epoch: int = 0, **options) -> None:
    """Train a compiled model as 04 does; `options` go to Keras' `fit`."""
    model.fit(
        helpers.training_batches(pictures, settings, first_epoch, model),
        epochs=settings["epochs"],
        initial_epoch=first_epoch,
        steps_per_epoch=helpers.steps_per_epoch(len(pictures.X), settings),
        shuffle=False,
        **options,
    )
