"""Order, augmentation, resuming and recording of a training."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import helpers
from course.training import write_history
from course.workspace import COURSE_FOLDER

SETTINGS = {
    **helpers.new_settings("sample", "smoke", "report", 0),
    "image_size": 16,
    "epochs": 3,
    "images_per_epoch": None,
    "batch_size": 8,
}


def make_arrays(work_dir, image_size=16):
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.prepare_arrays(description, work_dir, image_size, progress=False)


def make_model(work_dir, settings):
    """Store a network that is quickly built, with every kind of layer that keeps a state between steps."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(settings["seed"])
    image = keras.Input((settings["image_size"], settings["image_size"], 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.Dropout(settings["dropout_rate"])(x)
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, padding="same", activation="relu")(x))
    model = keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x))
    helpers.save_untrained_model(model, work_dir, settings)
    helpers.write_json(work_dir / "settings.json", settings)


def train(work_dir, settings, stop_after=None):
    """What 04 does; `stop_after` epochs the power fails."""
    import keras

    pictures = helpers.load_training_pictures(work_dir, settings)
    keras.utils.set_random_seed(settings["seed"])
    model = helpers.load_untrained_model(work_dir)
    callbacks, first_epoch = helpers.prepare_training(model, work_dir, settings, len(pictures.X))

    class PowerFailure(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == stop_after:
                raise KeyboardInterrupt

    if first_epoch < settings["epochs"]:
        model.fit(
            helpers.training_batches(pictures, settings, first_epoch),
            initial_epoch=first_epoch,
            steps_per_epoch=helpers.steps_per_epoch(len(pictures.X), settings),
            epochs=settings["epochs"],
            validation_data=helpers.ordered_batches(*helpers.load_arrays(work_dir, "valid")),
            callbacks=[*callbacks, PowerFailure()],
            shuffle=False,
            verbose=0,
        )
    return model, first_epoch


# --- the order of the slices --------------------------------------------------------------------------


def test_an_epoch_shows_every_slice_once_in_an_order_that_changes():
    has_atrium = np.arange(32) % 3 > 0
    orders = [helpers.epoch_order(has_atrium, epoch, SETTINGS, 32) for epoch in range(2)]
    assert all(sorted(order) == list(range(32)) for order in orders)
    assert list(orders[0]) != list(orders[1]) and list(orders[0]) != list(range(32))


def test_the_last_batch_is_filled_from_the_next_pass_and_none_is_shown_more_often():
    orders = np.array([helpers.epoch_order(np.ones(30, bool), epoch, SETTINGS, 30) for epoch in range(15)])
    assert orders.shape == (15, 32) and sorted(orders[0, :30]) == list(range(30))
    assert np.bincount(orders.ravel()).tolist() == [16] * 30  # 480 pictures


def test_the_order_follows_from_seed_and_epoch():
    has_atrium = np.arange(30) % 3 > 0
    for settings in (SETTINGS, {**SETTINGS, "foreground_share": 0.75, "images_per_epoch": 12}):
        first = helpers.epoch_order(has_atrium, 5, settings, 30)
        assert np.array_equal(first, helpers.epoch_order(has_atrium, 5, settings, 30))
        assert not np.array_equal(first, helpers.epoch_order(has_atrium, 5, {**settings, "seed": 1}, 30))


def test_short_epochs_together_show_every_slice():
    settings = {**SETTINGS, "images_per_epoch": 10, "batch_size": 5}
    shown = np.concatenate([helpers.epoch_order(np.ones(30, bool), epoch, settings, 30) for epoch in range(3)])
    assert sorted(shown) == list(range(30))


def test_the_share_of_slices_with_atrium_is_kept():
    has_atrium = np.arange(40) < 10
    order = helpers.epoch_order(has_atrium, 2, {**SETTINGS, "foreground_share": 0.75, "images_per_epoch": 24}, 40)
    assert len(order) == 24 and has_atrium[order].sum() == 18


def test_steps_cover_all_pictures_and_an_epoch_has_whole_batches():
    for slices, settings, steps in (
        (1160, {"images_per_epoch": None, "repeats": 1, "batch_size": 32}, 37),
        (100, {"images_per_epoch": None, "repeats": 3, "batch_size": 32}, 10),
        (1160, {"images_per_epoch": 400, "batch_size": 8}, 50),
    ):
        assert helpers.steps_per_epoch(slices, settings) == steps
        assert helpers.images_in_epoch(slices, settings) == steps * settings["batch_size"]


def test_valid_is_thinned_out_only_where_no_choice_depends_on_it():
    chosen_by_it, not_chosen = ({**SETTINGS, "monitor": monitor} for monitor in ("val_loss", None))
    assert len(range(569)[helpers.validated_slices(569, chosen_by_it)]) == 569
    assert len(range(569)[helpers.validated_slices(569, not_chosen)]) == 95
    assert len(range(100)[helpers.validated_slices(100, not_chosen)]) == 100


# --- the training -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "loss": "bce_dice_loss",
            "learning_rate_schedule": "cosine",
            "augment": True,
            "crop_share": 0.5,
            "planes": 3,
            "soft_masks": True,
            "foreground_share": 0.75,
            "images_per_epoch": 20,
            "monitor": "val_iou",
            "dropout_rate": 0.2,
        },
        {"monitor": None},
    ],
    ids=["plain", "with everything", "last weights"],
)
def test_an_interrupted_training_ends_as_one_that_was_not(work_dir, tmp_path, changes):
    import shutil

    settings = {**SETTINGS, **changes}
    helpers.write_json(work_dir / "settings.json", settings)
    make_arrays(work_dir)
    make_model(work_dir, settings)
    other = shutil.copytree(work_dir, tmp_path / "other")
    model, _ = train(work_dir, settings)
    with pytest.raises(KeyboardInterrupt):
        train(other, settings, stop_after=2)
    resumed, first_epoch = train(other, settings)
    assert first_epoch == 2
    assert (work_dir / "model" / "history.csv").read_bytes() == (other / "model" / "history.csv").read_bytes()
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), resumed.get_weights()))
    records = [json.loads((folder / "model" / "training.json").read_text()) for folder in (work_dir, other)]
    kept = [helpers.load_trained_model(folder).get_weights() for folder in (work_dir, other)]
    assert all(np.array_equal(a, b) for a, b in zip(*kept))
    images_seen = 3 * {None: 32, 20: 24}[settings["images_per_epoch"]]  # whole batches of 8
    assert [(record["epochs"], record["images_seen"]) for record in records] == [(3, images_seen)] * 2


def test_a_row_that_was_logged_before_its_state_was_saved_is_taken_back(work_dir, capsys):
    make_arrays(work_dir)
    make_model(work_dir, SETTINGS)
    train(work_dir, SETTINGS)
    expected = (work_dir / "model" / "history.csv").read_text()
    (work_dir / "model" / "history.csv").write_text(expected + expected.splitlines()[-1].replace("2,", "3,", 1) + "\n")
    capsys.readouterr()
    _, first_epoch = train(work_dir, SETTINGS)
    assert first_epoch == 3 and (work_dir / "model" / "history.csv").read_text() == expected
    assert capsys.readouterr().out == (
        "history.csv has 4 epochs, the saved weights 3: the training goes on from there.\n"
    )


@pytest.mark.slow
def test_a_training_that_another_replaces_is_kept(work_dir, capsys):
    make_arrays(work_dir)
    make_model(work_dir, SETTINGS)
    train(work_dir, {**SETTINGS, "epochs": 2})
    kept = (work_dir / "model" / "best.keras").read_bytes()
    assert capsys.readouterr().out == ""
    train(work_dir, {**SETTINGS, "epochs": 1})
    earlier = work_dir / "model" / "earlier"
    assert (earlier / "1" / "best.keras").read_bytes() == kept
    assert "kept in model/earlier/1." in capsys.readouterr().out
    train(work_dir, {**SETTINGS, "epochs": 2})
    assert "kept in model/earlier/2." in capsys.readouterr().out
    assert (earlier / "1" / "best.keras").read_bytes() == kept
    for name in ("best.keras", "resume.weights.h5"):  # one killed before its first epoch ended
        (work_dir / "model" / name).unlink()
    (work_dir / "model" / "training.json").write_text('{"epochs": 0}')
    train(work_dir, {**SETTINGS, "epochs": 1})
    assert sorted(path.name for path in earlier.iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_a_kill_while_the_former_training_moves_away_loses_nothing(work_dir, monkeypatch):
    make_arrays(work_dir)
    make_model(work_dir, SETTINGS)
    train(work_dir, {**SETTINGS, "epochs": 2})
    kept = {path.name: path.read_bytes() for path in (work_dir / "model").iterdir() if path.stem != "untrained"}
    original, moved = Path.replace, []

    def replace(path, target):
        """Move the first two files, then be killed."""
        if target.parent.parent.name == "earlier":
            moved.append(path.name)
            if len(moved) == 3:
                raise KeyboardInterrupt
        return original(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        train(work_dir, {**SETTINGS, "epochs": 1})
    train(work_dir, {**SETTINGS, "epochs": 1})
    assert {path.name: path.read_bytes() for path in (work_dir / "model" / "earlier" / "1").iterdir()} == kept


def test_a_complete_training_is_not_run_again(work_dir):
    make_arrays(work_dir)
    make_model(work_dir, SETTINGS)
    train(work_dir, SETTINGS)
    before = (work_dir / "model" / "best.keras").stat().st_mtime_ns
    _, first_epoch = train(work_dir, SETTINGS)
    assert first_epoch == SETTINGS["epochs"] and (work_dir / "model" / "best.keras").stat().st_mtime_ns == before


def test_other_settings_start_a_training_anew(work_dir, tmp_path):
    import shutil

    settings = {**SETTINGS, "epochs": 1}
    make_arrays(work_dir)
    make_model(work_dir, settings)
    train(work_dir, settings)
    make_model(work_dir, settings)  # the same first weights in a new file: the training is still the same
    changes = [({}, 1), ({"threshold": 0.4}, 1), ({"learning_rate": 0.002}, 0), ({"seed": 5}, 0), ({"epochs": 2}, 0)]
    for number, (change, expected) in enumerate(changes):
        copy = shutil.copytree(work_dir, tmp_path / f"copy {number}")
        model = helpers.load_untrained_model(copy)
        _, first_epoch = helpers.prepare_training(model, copy, {**settings, **change}, 30)
        assert first_epoch == expected
        assert (copy / "model" / "best.keras").exists() == (expected == 1)
        assert len(helpers.read_history(copy)) == expected


def test_the_best_weights_by_the_recipes_figure_are_kept(work_dir):
    import keras

    make_arrays(work_dir)
    make_model(work_dir, SETTINGS)
    train(work_dir, SETTINGS)
    history = helpers.read_history(work_dir)
    model = keras.saving.load_model(work_dir / "model" / "best.keras", compile=False)
    helpers.compile_model(model, 0.001, "binary_crossentropy")
    loss = model.evaluate(*helpers.load_arrays(work_dir, "valid"), verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(min(row["val_loss"] for row in history), rel=1e-4)


def test_without_a_figure_to_watch_the_last_weights_are_kept_and_no_epoch_ends_the_training_early(work_dir):
    import keras

    settings = {**SETTINGS, "monitor": None, "patience": 1}
    make_arrays(work_dir)
    masks = np.load(work_dir / "npy" / "valid_y.npy", mmap_mode="r+")
    masks[:] = 1 - masks  # the more the network learns, the larger its loss on valid
    masks.flush()
    make_model(work_dir, settings)
    model, _ = train(work_dir, settings)
    losses = [row["val_loss"] for row in helpers.read_history(work_dir)]
    assert len(losses) == settings["epochs"] and losses[-1] > losses[0]
    kept = keras.saving.load_model(work_dir / "model" / "best.keras", compile=False)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), kept.get_weights()))


@pytest.mark.slow
def test_a_training_killed_while_it_writes_its_weights_keeps_those_from_before(work_dir, monkeypatch):
    import keras

    make_arrays(work_dir)
    make_model(work_dir, {**SETTINGS, "monitor": None})
    with pytest.raises(KeyboardInterrupt):
        train(work_dir, {**SETTINGS, "monitor": None}, stop_after=1)
    before = (work_dir / "model" / "best.keras").read_bytes()

    def half(model, path):
        Path(path).write_bytes(before[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save", half)
    with pytest.raises(KeyboardInterrupt):
        train(work_dir, {**SETTINGS, "monitor": None})
    assert (work_dir / "model" / "best.keras").read_bytes() == before


def test_early_stopping_counts_the_epochs_before_an_interruption(work_dir):
    settings = {**SETTINGS, "epochs": 8, "patience": 2}
    make_arrays(work_dir)
    masks = np.load(work_dir / "npy" / "valid_y.npy", mmap_mode="r+")
    masks[:] = 1 - masks  # nothing after the first epoch can be better
    masks.flush()
    make_model(work_dir, settings)
    with pytest.raises(KeyboardInterrupt):
        train(work_dir, settings, stop_after=1)
    train(work_dir, settings)
    assert np.argmin([row["val_loss"] for row in helpers.read_history(work_dir)]) == 0
    assert len(helpers.read_history(work_dir)) == 3
    ended = {path.name: path.read_bytes() for path in (work_dir / "model").iterdir()}
    train(work_dir, settings)  # has come to its end: not one batch more
    assert {path.name: path.read_bytes() for path in (work_dir / "model").iterdir()} == ended


def test_a_loss_that_is_not_finite_stops_with_a_sentence(work_dir, monkeypatch):
    import keras

    monkeypatch.setitem(helpers.LOSSES, "binary_crossentropy", lambda truth, answer: keras.ops.mean(answer) * np.nan)
    make_arrays(work_dir)
    make_model(work_dir, SETTINGS)
    with pytest.raises(helpers.CourseError, match="diverged. Lower learning_rate"):
        train(work_dir, SETTINGS)
    assert not (work_dir / "model" / "best.keras").exists()
    assert not (work_dir / "model" / "resume.weights.h5").exists()


def test_a_loss_on_valid_that_is_not_finite_stops_too_and_its_weights_are_not_kept(work_dir):
    make_arrays(work_dir)
    make_model(work_dir, SETTINGS)
    callbacks, _ = helpers.prepare_training(helpers.load_untrained_model(work_dir), work_dir, SETTINGS, 30)
    with pytest.raises(helpers.CourseError, match="The loss became nan on valid after epoch 1: the training diverged"):
        for callback in callbacks:
            callback.on_epoch_end(0, {"loss": 0.1, "val_loss": np.nan})
    assert not (work_dir / "model" / "best.keras").exists()


def test_a_history_survives_writing_and_reading_to_the_last_digit(work_dir):
    (work_dir / "model").mkdir()
    rows = [{"epoch": 0.0, "loss": 0.1 + 0.2, "val_loss": 1 / 3}, {"epoch": 1.0, "loss": 1e-17, "val_loss": 2.0}]
    write_history(work_dir, rows)
    assert helpers.read_history(work_dir) == rows
    with open(work_dir / "model" / "history.csv", newline="") as file:
        assert next(csv.reader(file)) == ["epoch", "loss", "val_loss"]


@pytest.mark.slow
def test_a_killed_process_resumes(work_dir):
    """Not a polite exception: the process is killed in the middle of an epoch."""
    make_arrays(work_dir)
    make_model(work_dir, SETTINGS)
    code = (
        f"import sys; sys.path[:0] = [{str(COURSE_FOLDER)!r}, {str(COURSE_FOLDER / 'tests')!r}]\n"
        "import os, signal, json, pathlib, keras, helpers, test_training as t\n"
        "class Kill(keras.callbacks.Callback):\n"
        "    def on_train_batch_end(self, batch, logs=None):\n"
        "        if int(self.model.optimizer.iterations) == 6: os.kill(os.getpid(), 9)\n"
        "original = helpers.prepare_training\n"
        "helpers.prepare_training = lambda *a: (lambda c, e: ([*c, Kill()], e))(*original(*a))\n"
        f"t.train(pathlib.Path({str(work_dir)!r}), t.SETTINGS)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode == -9
    _, first_epoch = train(work_dir, SETTINGS)
    assert first_epoch == 1 and len(helpers.read_history(work_dir)) == 3
