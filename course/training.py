"""A training that may be interrupted: what is saved after each epoch, and how the training resumes from it.

Everything lies in `model/` of the work folder, and every file is written whole or not at all.
`untrained.json` holds what the network was made from (`made_from`: `settings` and `code`), its `arithmetic` and the
`fingerprint` of its file. `training.json` holds what the training depends on (`made_from`: `dataset`, `spacing`,
`arrays`, `settings`, `weights`, `arithmetic` and `code`), the `epochs`, `images_seen` and `seconds` so far, the
`devices` that it ran on, whether it is `complete`, and under `best` the `epoch` whose weights best.keras holds, and its
`fingerprint`.
"""

import contextlib
import csv
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course.arrays import read_arrays_record
from course.geometry import spacings
from course.machine import choose_precision, device_name
from course.store import check_unchanged, read_description
from course.workspace import (
    CourseError,
    check_made_from,
    fingerprint,
    one_sentence,
    read_json,
    stored_json,
    whole_file,
    write_csv,
    write_json,
)

if TYPE_CHECKING:
    import keras

# Settings that a training does not depend on: a name, and what only 05 uses
_NOT_TRAINED_WITH = ("dataset", "threshold", "largest_component", "replaced")


def read_history(work_dir: Path) -> list[dict[str, float]]:
    """Return history.csv as a list of dicts, one for each epoch, all values float.

    Raises CourseError if 04 has not run, or the file is damaged.
    """
    path = work_dir / "model" / "history.csv"
    if not path.exists():
        raise CourseError(f"history.csv is not in {path.parent}: run 04_training first.")
    with (
        one_sentence(f"{path.name} in {path.parent} is damaged", "run 04_training again"),
        open(path, newline="", encoding="utf-8") as file,
    ):
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def write_history(work_dir: Path, rows: list[dict[str, float]]) -> None:
    """Write the rows of a history, dicts of one kind, as history.csv, whole or not at all."""
    write_csv(work_dir / "model" / "history.csv", [{**row, "epoch": int(row["epoch"])} for row in rows])


def training_inputs(work_dir: Path, settings: dict) -> dict:
    """Return what a training learns from: dataset, spacing and arrays, and the settings that matter to it.

    Raises CourseError if the arrays are not those of this dataset and these settings, or if the dataset has changed.
    """
    record = read_arrays_record(work_dir, settings)
    description = read_description(work_dir)
    check_unchanged(description)
    patients = {pair["patient"] for slices in record["slices"].values() for pair in slices}
    return {
        "dataset": record["made_from"]["dataset"],
        "spacing": {patient: spacing for patient, spacing in spacings(description).items() if patient in patients},
        "arrays": fingerprint(record["files"], record["slices"]),
        "settings": {name: value for name, value in settings.items() if name not in _NOT_TRAINED_WITH},
    }


def save_untrained(model: "keras.Model", work_dir: Path, made_from: dict) -> None:
    """Write untrained.keras, and untrained.json with what the network was made from and its arithmetic."""
    folder = work_dir / "model"
    record = {"made_from": made_from, "arithmetic": arithmetic_of(model)}
    with whole_file(folder / "untrained.keras") as part:
        model.save(part)
        record["fingerprint"] = fingerprint(part)
    write_json(folder / "untrained.json", record)


def read_untrained(work_dir: Path, made_from: dict) -> "keras.Model":
    """Load untrained.keras in Keras' safe mode, not compiled.

    Raises CourseError if 03 has not run, or made it from something other than `made_from`.
    """
    folder = work_dir / "model"
    record = read_json(folder / "untrained.json", "03_model")
    check_made_from(record.get("made_from"), made_from, "03_model")
    return _load_network(folder / "untrained.keras", record["fingerprint"], "03_model")


def read_trained(work_dir: Path, settings: dict) -> "keras.Model":
    """Load best.keras in Keras' safe mode, not compiled. Prints a note if its training has not finished.

    Raises CourseError if 04 has not run, or on another dataset, other arrays, or with other settings.
    """
    folder = work_dir / "model"
    record = read_json(folder / "training.json", "04_training")
    check_made_from(record.get("made_from"), training_inputs(work_dir, settings), "04_training")
    model = _load_network(folder / "best.keras", record.get("best", {}).get("fingerprint"), "04_training")
    if not record["complete"]:
        print(
            f"The training was interrupted after epoch {record['epochs']} of {settings['epochs']}, and these are its "
            "weights so far. Run 04_training again to continue it."
        )
    return model


def _load_network(path, recorded, notebook):
    """Load a network in Keras' safe mode, if the file has the recorded fingerprint."""
    import keras

    if not path.exists():
        raise CourseError(f"{path.name} is not in {path.parent}: run {notebook} first.")
    if fingerprint(path) != recorded:
        raise CourseError(
            f"{path.name} in {path.parent} is not the file that {notebook} recorded: run {notebook} again."
        )
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def arithmetic_of(model: "keras.Model") -> str:
    """Return the arithmetic of a model, such as "mixed_bfloat16": that of its first layer with weights."""
    return next(layer.dtype_policy.name for layer in model.layers if layer.weights)


def choose_arithmetic(work_dir: Path, settings: dict) -> str:
    """Return the arithmetic for a new network: that of the training in `model/`, if 04 would resume it.

    Otherwise it is what suits the settings and this machine. Prints a note if the two differ.
    Raises CourseError if the arrays are not those of this dataset and these settings.
    """
    inputs, record = training_inputs(work_dir, settings), stored_json(work_dir / "model" / "training.json")
    suitable, begun = choose_precision(settings["precision"]), record.get("made_from")
    if record.get("epochs") and isinstance(begun, dict) and {**begun, **inputs} == begun:
        if begun["arithmetic"] != suitable:
            print(
                f"The training in model/ began in {begun['arithmetic']} and continues in it, so the network gets this "
                f"arithmetic. For a new training, this machine would use {suitable}."
            )
        return begun["arithmetic"]
    return suitable


def resume_training(
    model: "keras.Model", work_dir: Path, settings: dict, made_from: dict, images_per_epoch: int
) -> tuple[list, int]:
    """Restore an interrupted training of a compiled model; return (callbacks, first epoch).

    Four files that belong together are saved after every epoch: history.csv; resume.weights.h5 with the weights, the
    optimizer's state, the number of epochs and a hash that ties them to this training and this history; training.json;
    and best.keras, the weights that the recipe keeps, whose hash training.json holds.
    made_from: dict of all that determines the training. If that of the stored training differs, or its files do not
    belong together, training starts from the first epoch, with a note, and the stored files go to `model/earlier/1`,
    or 2, 3, ... If the stored training had finished, early or not, the first epoch is settings["epochs"]: none is
    left. images_per_epoch: how many images an epoch shows.
    Raises CourseError if the stored training differs only in its arithmetic; nothing is changed then.
    """
    record = stored_json(work_dir / "model" / "training.json")
    begun, past = record.get("made_from"), None
    model.optimizer.build(model.trainable_variables)
    if begun == made_from:
        past = _restore(model, work_dir, settings, record)
        reason = "The files of the training in model/ do not belong together"
    else:
        _check_arithmetic(begun, made_from)
        reason = "Data, settings or code differ from those of the training in model/"
        if not record:
            reason = "training.json, which records what the training in model/ learned from, is missing or damaged"
    if past is None:
        _put_away(work_dir / "model", record, reason)
        past, record = [], {"made_from": made_from, "seconds": 0.0}
    is_complete = _is_at_its_end(past, settings)
    devices = record["devices"] = record.get("devices", []) if past else []
    if not is_complete and device_name() not in devices:
        devices.append(device_name())
    record.update(epochs=len(past), images_seen=len(past) * images_per_epoch, complete=is_complete)
    write_json(work_dir / "model" / "training.json", record)  # it is behind after a kill between weights and record
    write_history(work_dir, past)
    callbacks = _training_callbacks(work_dir, settings, images_per_epoch, past, record)
    return callbacks, settings["epochs"] if is_complete else len(past)


def _check_arithmetic(begun, made_from):
    """Refuse to replace a training that differs only in its arithmetic: it can go on in the one it began in."""
    if isinstance(begun, dict) and {**begun, "arithmetic": made_from["arithmetic"]} == made_from:
        raise CourseError(
            f"The training in model/ began in {begun['arithmetic']}, but the network of 03_model computes in "
            f"{made_from['arithmetic']}. Run 03_model again, which then uses the arithmetic of the training, "
            "and after it this notebook. Nothing was changed."
        )


def _put_away(folder, record, reason):
    """Move the files of a training to a folder of their own in `earlier/`, if it had finished an epoch."""
    names = ("resume.weights.h5", "best.keras", "history.csv", "looks.npz", "curves.png", "training.json")
    files = [folder / name for name in names]
    worth_keeping = record.get("epochs") or files[0].exists() or files[1].exists()
    if worth_keeping:
        if not record:
            write_json(files[-1], record)  # it could not be read; an empty one marks the folder as taken
        places = (folder / "earlier" / str(number) for number in itertools.count(1))
        kept = next(place for place in places if not (place / "training.json").exists())
        kept.mkdir(parents=True, exist_ok=True)  # it may exist after a kill: the record moves last
        print(f"{reason}, so a new training begins. The earlier one is kept in model/earlier/{kept.name}.")
    for path in files:
        if worth_keeping and path.exists():
            path.replace(kept / path.name)
        path.unlink(missing_ok=True)


def _restore(model, work_dir, settings, record):
    """Give a model the weights and the optimizer's state of its last epoch; return the rows of all its epochs.

    Returns None, and leaves the model as it was, if the files do not belong together.
    """
    import h5py

    state = work_dir / "model" / "resume.weights.h5"
    if not state.exists():
        return None if record["epochs"] else []
    variables = [*model.variables, *model.optimizer.variables]
    values = [variable.numpy() for variable in variables]
    fits = False
    with contextlib.suppress(OSError, LookupError, TypeError, ValueError):  # damaged, of another version, or missing
        with h5py.File(state) as file:
            saved = dict(file.attrs)
        rows = read_history(work_dir)
        past = rows[: saved["epochs"]]
        if saved["belongs_to"] == fingerprint(record["made_from"], past):
            model.load_weights(state)
            is_whole = saved["weights"] == _weights_fingerprint(model)
            fits = is_whole and _keep_best_weights(model, work_dir / "model", settings["monitor"], past, record)
    if not fits:
        for variable, value in zip(variables, values):
            variable.assign(value)
        return None
    if len(rows) > len(past):
        print(
            f"history.csv has {len(rows)} epochs, the saved weights {len(past)}: "
            f"the training continues after epoch {len(past)}."
        )
    return past


def _weights_fingerprint(model):
    """Return a hash of a model's weights and its optimizer's state: Keras skips parts that a file lacks."""
    return fingerprint(*(variable.numpy().tobytes() for variable in [*model.weights, *model.optimizer.variables]))


def _keep_best_weights(model, folder, monitor, past, record):
    """Return whether best.keras holds the weights to keep of these epochs; write it if the model has them."""
    path, kept = folder / "best.keras", kept_epoch(past, monitor)
    if path.exists() and record.get("best") == {"epoch": kept, "fingerprint": fingerprint(path)}:
        return True
    if kept != len(past) - 1:
        return False
    with whole_file(path) as part:
        model.save(part)
        record["best"] = {"epoch": kept, "fingerprint": fingerprint(part)}
        write_json(folder / "training.json", record)
    return True


def kept_epoch(rows: list[dict], monitor: str | None) -> int:
    """Return the epoch, from 0, whose weights are kept: the best by the metric `monitor`, or for None the last."""
    if monitor is None:
        return len(rows) - 1
    best_of = np.argmin if monitor.endswith("loss") else np.argmax
    return int(best_of([row[monitor] for row in rows]))


def _is_at_its_end(rows, settings):
    """True after the last epoch, or if the best one was `patience` epochs ago."""
    if not rows:
        return False
    waited = len(rows) - 1 - kept_epoch(rows, settings["monitor"])
    return len(rows) >= settings["epochs"] or waited >= settings["patience"]


def _check_loss(loss, where, settings):
    if not np.isfinite(loss):
        raise CourseError(
            f"The loss became {loss} {where}: the training diverged. Lower learning_rate "
            f"(now {settings['learning_rate']:g}) in 03_model."
        )


def _training_callbacks(work_dir, settings, images_per_epoch, past, record):
    """Return the callbacks of `fit`: one stops if the loss is not finite, one saves the state after each epoch."""
    import h5py
    import keras

    folder = work_dir / "model"

    class SaveState(keras.callbacks.Callback):
        """Saves after each epoch all that a training needs to resume as if nothing had happened."""

        def on_epoch_begin(self, epoch, logs=None):
            """Start the clock, and draw the epoch's dropout as an uninterrupted training would."""
            self.started = time.perf_counter()
            for layer in self.model.layers:  # Keras does not save the state of dropout's random numbers
                if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
                    layer.seed_generator.state.assign([settings["seed"], epoch])

        def on_epoch_end(self, epoch, logs=None):
            """Write history.csv, resume.weights.h5, training.json, and best.keras if these are the weights to keep.

            Stop if no better epoch has come for `patience` epochs. Raise CourseError, and write nothing, if
            training.json is no longer this training's.
            """
            if stored_json(work_dir / "model" / "training.json") != record:
                raise CourseError(
                    f"Another training has begun in {folder}, or its files were moved away, so this one ends. "
                    "Train in one notebook at a time, or give each a work_dir of its own."
                )
            past.append({"epoch": float(epoch), **{name: float(value) for name, value in logs.items()}})
            write_history(work_dir, past)
            record["seconds"] += time.perf_counter() - self.started
            record.update(epochs=epoch + 1, images_seen=(epoch + 1) * images_per_epoch)
            with contextlib.ExitStack() as stack:
                # The best weights are the last to appear, since the state can write them again
                if kept_epoch(past, settings["monitor"]) == epoch:
                    part = stack.enter_context(whole_file(folder / "best.keras"))
                    self.model.save(part)
                    record["best"] = {"epoch": epoch, "fingerprint": fingerprint(part)}
                with whole_file(folder / "resume.weights.h5") as part:
                    self.model.save_weights(part)
                    with h5py.File(part, "a") as file:
                        file.attrs["epochs"] = epoch + 1
                        file.attrs["belongs_to"] = fingerprint(record["made_from"], past)
                        file.attrs["weights"] = _weights_fingerprint(self.model)
                write_json(folder / "training.json", record)
            if _is_at_its_end(past, settings):
                self.model.stop_training = True

        def on_train_end(self, logs=None):
            """Record that the training has finished, early or not: an interrupted one does not get here."""
            record["complete"] = True
            write_json(folder / "training.json", record)

    stop_when_diverged = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: _check_loss(logs["loss"], f"in step {batch + 1} of an epoch", settings),
        on_epoch_end=lambda epoch, logs: _check_loss(logs["val_loss"], f"on valid after epoch {epoch + 1}", settings),
    )
    return [stop_when_diverged, SaveState()]
