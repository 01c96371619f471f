"""Order, augmentation, resuming and recording of a training."""

import csv
import json
import re
import shutil

import nbformat
import numpy as np
import pytest

import helpers
from course.training import write_history
from course.workspace import COURSE_FOLDER as COURSE, fingerprint

CHOSEN = {"image_size": 16, "epochs": 3, "images_per_epoch": None, "batch_size": 8}
SETTINGS = helpers.new_settings("sample", "smoke", "report", 0) | CHOSEN


def prepare(work_dir, settings=SETTINGS):
    """Do what 01 to 03 do, with a small network that has every kind of layer with a state."""
    import keras
    from keras import layers

    helpers.write_json(work_dir / "settings.json", settings)
    helpers.prepare_arrays(helpers.read_json(work_dir / "dataset.json", "01"), work_dir, 16, progress=False)
    keras.utils.set_random_seed(settings["seed"])
    image = keras.Input((settings["image_size"], settings["image_size"], 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.Dropout(settings["dropout_rate"])(x)
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, padding="same", activation="relu")(x))
    model = keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x))
    helpers.save_untrained_model(model, work_dir, settings)


def train(work_dir, settings=SETTINGS, stop_after=None):
    """What 04 does; the power fails after `stop_after` epochs."""
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


def test_an_epoch_shows_every_slice_once_in_an_order_that_changes():
    has_atrium = np.arange(32) % 3 > 0
    orders = [helpers.epoch_order(has_atrium, epoch, SETTINGS, 32) for epoch in range(2)]
    assert all(sorted(order) == list(range(32)) for order in orders)
    assert list(orders[0]) != list(orders[1]) and list(orders[0]) != list(range(32))


def test_the_last_batch_is_filled_from_the_next_pass_and_no_slice_is_shown_more_often():
    orders = np.array([helpers.epoch_order(np.ones(30, bool), epoch, SETTINGS, 30) for epoch in range(15)])
    assert orders.shape == (15, 32) and sorted(orders[0, :30]) == list(range(30))
    assert np.bincount(orders.ravel()).tolist() == [16] * 30  # 480 pictures


def test_the_order_depends_on_seed_and_epoch():
    has_atrium = np.arange(30) % 3 > 0
    for settings in (SETTINGS, {**SETTINGS, "foreground_share": 0.75, "images_per_epoch": 12}):
        first = helpers.epoch_order(has_atrium, 5, settings, 30)
        assert np.array_equal(first, helpers.epoch_order(has_atrium, 5, settings, 30))
        assert not np.array_equal(first, helpers.epoch_order(has_atrium, 5, {**settings, "seed": 1}, 30))


def test_an_epoch_has_the_chosen_share_of_slices_with_atrium():
    has_atrium = np.arange(40) < 10
    order = helpers.epoch_order(has_atrium, 2, {**SETTINGS, "foreground_share": 0.75, "images_per_epoch": 24}, 40)
    assert len(order) == 24 and has_atrium[order].sum() == 18


def test_steps_cover_all_pictures_and_an_epoch_has_full_batches():
    for slices, settings, steps in (
        (1160, {"images_per_epoch": None, "repeats": 1, "batch_size": 32}, 37),
        (100, {"images_per_epoch": None, "repeats": 3, "batch_size": 32}, 10),
        (1160, {"images_per_epoch": 400, "batch_size": 8}, 50),
    ):
        assert helpers.steps_per_epoch(slices, settings) == steps
        assert helpers.images_in_epoch(slices, settings) == steps * settings["batch_size"]


def test_valid_is_thinned_out_only_if_no_choice_depends_on_it():
    chosen_by_it, not_chosen = ({**SETTINGS, "monitor": monitor} for monitor in ("val_loss", None))
    assert len(range(569)[helpers.validated_slices(569, chosen_by_it)]) == 569
    assert len(range(569)[helpers.validated_slices(569, not_chosen)]) == 95
    assert len(range(100)[helpers.validated_slices(100, not_chosen)]) == 100


EVERYTHING = {
    **{"loss": "bce_dice_loss", "learning_rate_schedule": "cosine", "monitor": "val_iou", "dropout_rate": 0.2},
    **{"augment": True, "crop_share": 0.5, "planes": 3, "soft_masks": True},
    **{"foreground_share": 0.75, "images_per_epoch": 20},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, EVERYTHING, {"monitor": None}], ids=["plain", "with everything", "last weights"]
)
def test_an_interrupted_training_ends_like_an_uninterrupted_one(work_dir, tmp_path, changes):
    settings = {**SETTINGS, **changes}
    prepare(work_dir, settings)
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


def test_early_stopping_counts_the_epochs_before_an_interruption_and_keeps_the_best_weights(work_dir):
    settings = {**SETTINGS, "epochs": 8, "patience": 2}
    prepare(work_dir, settings)
    masks = np.load(work_dir / "npy" / "valid_y.npy", mmap_mode="r+")
    masks[:] = 1 - masks  # nothing after the first epoch can be better
    masks.flush()
    record = helpers.read_json(work_dir / "npy" / "arrays.json", "02")
    record["files"]["valid_y.npy"]["fingerprint"] = fingerprint(work_dir / "npy" / "valid_y.npy")
    helpers.write_json(work_dir / "npy" / "arrays.json", record)
    with pytest.raises(KeyboardInterrupt):
        train(work_dir, settings, stop_after=1)
    train(work_dir, settings)
    losses = [row["val_loss"] for row in helpers.read_history(work_dir)]
    assert len(losses) == 3 and min(losses) == losses[0]
    kept = helpers.load_trained_model(work_dir)
    valid = helpers.load_arrays(work_dir, "valid")
    assert kept.evaluate(*valid, verbose=0, return_dict=True)["loss"] == pytest.approx(losses[0], rel=1e-4)
    ended = {path.name: path.read_bytes() for path in (work_dir / "model").iterdir()}
    train(work_dir, settings)  # it has ended: not one batch more
    assert {path.name: path.read_bytes() for path in (work_dir / "model").iterdir()} == ended


def test_a_loss_that_is_not_finite_stops_the_training_with_one_sentence(work_dir, monkeypatch):
    import keras

    monkeypatch.setitem(helpers.LOSSES, "binary_crossentropy", lambda truth, answer: keras.ops.mean(answer) * np.nan)
    prepare(work_dir)
    with pytest.raises(helpers.CourseError, match="diverged. Lower learning_rate"):
        train(work_dir)
    assert not (work_dir / "model" / "best.keras").exists()
    assert not (work_dir / "model" / "resume.weights.h5").exists()


def test_a_validation_loss_that_is_not_finite_stops_the_training_and_its_weights_are_not_kept(work_dir):
    prepare(work_dir)
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


def test_the_training_in_keras_alone_that_04_shows_runs(work_dir):
    notebook = nbformat.read(COURSE / "notebooks" / "04_training.ipynb", as_version=4)
    [text] = [cell.source for cell in notebook.cells if "in Keras alone</summary>" in cell.source]
    helpers.prepare_arrays(helpers.read_description(work_dir), work_dir, 32, progress=False)
    arrays = {}
    for subset in ("train", "valid"):
        arrays[f"{subset}_X"], arrays[f"{subset}_y"] = helpers.load_arrays(work_dir, subset)
    given = {"helpers": helpers, "settings": {"image_size": 32}, **arrays}
    exec(re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1].replace("epochs=20", "epochs=2"), given)
    assert [len(given["curves"][name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")] == [2, 2, 2, 2]
    assert given["probabilities"].shape == arrays["valid_X"].shape
