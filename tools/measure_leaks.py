"""Measure what 06 says about leaks and skip connections: `make leaks DATASET=<heart folder>`.

One network, one length (profile `quick`), one recipe (`best` in one plane, threshold 0.5), two seeds, five trainings:

- `by patient`: learns from the train patients, except the twin of a valid patient.
- `knows every second` and `knows the others`: two splits by slice. Each learns from as many slices, among them half of
  those of every second valid patient, drawn at random, or of the other valid patients. So each patient is known to one
  of the two, and new to the other.
- `with the twin`: as `by patient`, but the twin is in train as well.
- `skips cut`: as `by patient`, but the skip connections bring only zeros.

Each is scored on the half of the valid patients' slices from which no network learns, and those that know no valid
patient on all their slices. Rows are appended to docs/leaks.csv; what the table has already is not trained again.
"""

from __future__ import annotations

import csv
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import helpers
from course.machine import gpu_found
from course.planes import TrainingPictures
from course.workspace import COURSE_FOLDER
from tools.common import append_rows, current_commit, fit, new_network, processor_name

if TYPE_CHECKING:
    import keras

TABLE = COURSE_FOLDER / "docs" / "leaks.csv"
FIRST_KNOWN = {"knows every second": 0, "knows the others": 1}  # which of the sorted valid patients is known first
VARIANTS = ("by patient", *FIRST_KNOWN, "with the twin", "skips cut")
SEEDS = (0, 1)


def copy_network(model: keras.Model, cut_skips: bool) -> keras.Model:
    """Return a copy of a U-Net with its weights, for pictures of any size; with `cut_skips` its skips bring 0."""
    import keras

    def without_skip(inputs):
        """Return what comes from below, and zeros where the skip was."""
        from_below, skip = inputs
        return keras.ops.concatenate([from_below, keras.ops.zeros_like(skip)], axis=-1)

    def copy(layer):
        """Return a layer of the same kind; a skip that is cut becomes one that brings 0."""
        if cut_skips and isinstance(layer, keras.layers.Concatenate):
            return keras.layers.Lambda(without_skip, name=layer.name, dtype=layer.dtype_policy)
        return layer.__class__.from_config(layer.get_config())

    image = keras.Input((None, None, 1), name="image")
    uncompiled = keras.Model(model.input, model.output)
    copied = keras.models.clone_model(uncompiled, input_tensors=image, clone_function=copy)
    copied.set_weights(model.get_weights())
    return copied


def held_out(slices: list[dict]) -> np.ndarray:
    """Return for each slice whether it is in the half of its patient's slices from which no network learns."""
    patients = np.array([pair["patient"] for pair in slices])
    chosen = np.zeros(len(slices), bool)
    for patient in dict.fromkeys(patients):
        rows = np.flatnonzero(patients == patient)
        chosen[np.random.default_rng(0).permutation(rows)[: len(rows) // 2]] = True
    return chosen


def training_slices(work_dir: Path, slices: dict[str, list[dict]], twins: list[str], variant: str) -> list[np.ndarray]:
    """Return [images, masks], each (N, S, S, 1), that a variant learns from."""
    train, valid = (helpers.load_arrays(work_dir, subset, ("X", "share")) for subset in ("train", "valid"))
    clean = np.array([pair["patient"] not in twins for pair in slices["train"]])
    if variant == "with the twin":
        return train
    if variant in FIRST_KNOWN:
        patients = [pair["patient"] for pair in slices["valid"]]
        known = sorted(set(patients))[FIRST_KNOWN[variant] :: 2]
        seen = ~held_out(slices["valid"]) & np.isin(patients, known)
        kept = np.random.default_rng(0).permutation(np.flatnonzero(clean))[: clean.sum() - seen.sum()]
        return [np.concatenate([learned[kept], added[seen]]) for learned, added in zip(train, valid)]
    return [learned[clean] for learned in train]


def train(X: np.ndarray, share: np.ndarray, settings: dict, variant: str) -> keras.Model:
    """Return the network of a variant, trained."""
    model = copy_network(new_network(settings), cut_skips=variant == "skips cut")
    steps = helpers.steps_per_epoch(len(X), settings)
    helpers.compile_model(model, helpers.learning_rates(settings, steps), settings["loss"])
    fit(model, TrainingPictures(X, share, full=255), settings, verbose=0)
    return model


def score(model: keras.Model, work_dir: Path, slices: list[dict], variant: str) -> Iterator[tuple[str, str, float]]:
    """Yield (which slices, patient, Dice) for the valid patients, at the masks' own resolution."""
    probabilities = helpers.predict_subset(model, work_dir, "valid")
    half = held_out(slices)
    for patient, rows, truth, probability in helpers.patient_volumes(work_dir, "valid", probabilities):
        mask = probability >= 0.5
        if variant not in FIRST_KNOWN:
            yield "all", patient, helpers.dice(truth, mask)
        yield "held-out half", patient, helpers.dice(truth[half[rows]], mask[half[rows]])


def main(dataset: str) -> None:
    """Train and score what the table does not hold yet."""
    helpers.set_up()
    done = set()
    if TABLE.exists():
        with open(TABLE, newline="", encoding="utf-8") as file:
            done = {(row["variant"], int(row["seed"])) for row in csv.DictReader(file)}
    commit = current_commit()  # before the trainings, which run the code as it is now
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        description = helpers.import_dataset(dataset, work_dir, progress=False)
        settings = helpers.new_settings(dataset, "quick", "best", 0)
        slices = helpers.prepare_arrays(description, work_dir, settings["image_size"], progress=False)["slices"]
        twins = helpers.left_out_twins(description)
        for seed, variant in itertools.product(SEEDS, VARIANTS):
            if (variant, seed) in done:
                continue
            started = time.perf_counter()
            X, share = training_slices(work_dir, slices, twins, variant)
            model = train(X, share, settings | {"seed": seed}, variant)
            scored = list(score(model, work_dir, slices["valid"], variant))
            made = {
                "parameters": model.count_params(),
                "slices_to_learn_from": len(X),
                "images_seen": settings["epochs"] * settings["images_per_epoch"],
                "image_size": settings["image_size"],
                "seconds": round(time.perf_counter() - started),
                "commit": commit,
                "machine": helpers.device_name() if gpu_found() else processor_name(),
                **helpers.versions(),
            }
            trained = {"variant": variant, "seed": seed}
            rows = [{**trained, "slices": which, "patient": who, "dice": dice, **made} for which, who, dice in scored]
            append_rows(TABLE, rows, rows[0])
            mean = np.mean([dice for which, _, dice in scored if which == "held-out half"])
            print(f"{variant}, seed {seed}: {mean:.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
