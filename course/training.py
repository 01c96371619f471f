"""A training that may be interrupted: what is kept after each epoch, and how a training goes on from it.

Everything lies in `model/` of the work folder, and every file is written whole or not at all.
"""

import csv
import itertools
import json
import time

import numpy as np

from course.workspace import CourseError, whole_file, write_json


def read_history(work_dir):
    """Return history.csv as a list of dicts, one an epoch, all values float.

    Raises CourseError if 04 has not run.
    """
    path = work_dir / "model" / "history.csv"
    if not path.exists():
        raise CourseError(f"history.csv is not in {path.parent}: run 04_training first.")
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def write_history(work_dir, rows):
    """Write the rows of a history, dicts of one kind, as history.csv, whole or not at all."""
    with whole_file(work_dir / "model" / "history.csv") as part, open(part, "w", newline="", encoding="utf-8") as file:
        if rows:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows([{**row, "epoch": int(row["epoch"])} for row in rows])


def resume_training(model, work_dir, settings, made_from, steps, images_per_epoch):
    """Bring back an interrupted training of a compiled model; return (callbacks, first epoch).

    What belongs together is saved after every epoch: the weights with the optimizer's state (resume.weights.h5), the
    weights that the recipe keeps (best.keras), history.csv, training.json.
    made_from: dict of all that decides the training. Where the stored training has another one, the training starts
    from the first epoch, and the files of the stored one go to `model/earlier/1`, or 2, 3, ..., if it had got through
    an epoch. Where the stored one had come to its end, early or not, the first epoch is settings["epochs"]: none is
    left. steps and images_per_epoch: batches and images of an epoch.
    """
    import keras

    folder = work_dir / "model"
    state, record_path = folder / "resume.weights.h5", folder / "training.json"
    record = json.loads(record_path.read_text(encoding="utf-8")) if record_path.exists() else {}
    if any(record.get(name) != value for name, value in made_from.items()):
        worth_keeping = bool(record.get("epochs"))
        if worth_keeping:
            places = (folder / "earlier" / str(number) for number in itertools.count(1))
            kept = next(place for place in places if not (place / record_path.name).exists())
            kept.mkdir(parents=True, exist_ok=True)  # it may be there after a kill: the record moves last
            print(
                "Data, settings or code are others than those of the training in model/, so this one begins anew. "
                f"The former is kept in model/earlier/{kept.name}."
            )
        # The record last: it says that all is there
        for path in (state, folder / "history.csv", folder / "best.keras", record_path):
            if worth_keeping and path.exists():
                path.replace(kept / path.name)
            path.unlink(missing_ok=True)
        record = {**made_from, "seconds": 0.0, "images_seen": 0, "epochs": 0}
        write_json(record_path, record)
    past = []
    model.optimizer.build(model.trainable_variables)
    if state.exists():
        model.load_weights(state)
        past = read_history(work_dir)[: int(model.optimizer.iterations.numpy()) // steps]
    write_history(work_dir, past)
    callbacks = _training_callbacks(folder, settings, images_per_epoch, past, record)
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping):
            callback.set_model(model)
            # It goes through the past epochs, as `fit` would, which trains a batch before it looks
            callback.on_train_begin()
    return callbacks, settings["epochs"] if model.stop_training else len(past)


def _check_loss(loss, where, settings):
    if not np.isfinite(loss):
        raise CourseError(
            f"The loss became {loss} {where}: the training diverged. Lower learning_rate "
            f"(now {settings['learning_rate']:g}) in 03_model."
        )


def _training_callbacks(folder, settings, images_per_epoch, past, record):
    import keras

    monitor = settings["monitor"]
    smaller_is_better = monitor is not None and monitor.endswith("loss")

    class EarlyStopping(keras.callbacks.EarlyStopping):
        """Keras' early stopping that knows the epochs before an interruption."""

        def on_train_begin(self, logs=None):
            """Begin as Keras does, then go through the epochs of the interrupted training."""
            super().on_train_begin(logs)
            for epoch, row in enumerate(past):  # what it would have seen without the interruption
                self.on_epoch_end(epoch, row)

    class SaveState(keras.callbacks.Callback):
        """Keeps after each epoch all that a training needs to go on as if nothing had happened."""

        def on_epoch_begin(self, epoch, logs=None):
            """Start the clock, and draw the epoch's dropout as an uninterrupted training would."""
            self.started = time.perf_counter()
            for layer in self.model.layers:  # Keras does not save the state of dropout's random numbers
                if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
                    layer.seed_generator.state.assign([settings["seed"], epoch])

        def on_epoch_end(self, epoch, logs=None):
            """Write history.csv, best.keras if these are the weights to keep, resume.weights.h5 and training.json."""
            past.append({"epoch": epoch, **logs})
            write_history(folder.parent, past)
            best_of = np.argmin if smaller_is_better else np.argmax
            if monitor is None or best_of([row[monitor] for row in past]) == epoch:
                with whole_file(folder / "best.keras") as part:
                    self.model.save(part)
            record["seconds"] += time.perf_counter() - self.started
            record["epochs"] = epoch + 1
            record["images_seen"] = record["epochs"] * images_per_epoch
            with whole_file(folder / "resume.weights.h5") as part:
                self.model.save_weights(part)
            write_json(folder / "training.json", record)

    stop_when_diverged = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: _check_loss(logs["loss"], f"in step {batch + 1} of an epoch", settings),
        on_epoch_end=lambda epoch, logs: _check_loss(logs["val_loss"], f"on valid after epoch {epoch + 1}", settings),
    )
    callbacks = [stop_when_diverged, SaveState()]
    if monitor is not None:
        mode = "min" if smaller_is_better else "max"
        callbacks.append(EarlyStopping(monitor, mode=mode, patience=settings["patience"]))
    return callbacks
