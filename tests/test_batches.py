"""Batches for training and evaluation: full, in order, from memory or the arrays, made in the step or before it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import helpers
from course import batches
from course.planes import TrainingPictures, Volume
from course.workspace import COURSE_FOLDER

CHOSEN = {"image_size": 16, "epochs": 2, "images_per_epoch": 20, "batch_size": 8}
SETTINGS = helpers.new_settings("sample", "smoke", "report", 0) | CHOSEN


def make_pictures(planes=3):
    greys = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 1), np.uint8)
    volumes = [Volume(0, 12, 1.0, 0.7), Volume(12, 28, 0.5, 0.5)] if planes == 3 else []
    return TrainingPictures(greys / np.float32(255), np.uint8(greys > 128), volumes)


def as_arrays(dataset):
    return [tuple(part.numpy() for part in batch) for batch in dataset]


@pytest.mark.parametrize("planes", [1, 3])
def test_batches_are_full_and_hold_matching_pictures_and_masks_in_the_epochs_order(planes):
    pictures = make_pictures(planes)
    shown = as_arrays(helpers.training_batches(pictures, SETTINGS))
    assert [X.shape for X, _ in shown] == [(8, 16, 16, 1)] * 6
    order = np.concatenate([helpers.epoch_order(pictures.has_atrium, epoch, SETTINGS, 30) for epoch in (0, 1)])
    images, masks = pictures.take(order)
    for batch, (X, y) in enumerate(shown):
        chosen = slice(8 * batch, 8 * batch + 8)
        assert X.dtype == y.dtype == np.float32
        assert np.array_equal(X[..., 0], images[chosen] / np.float32(255))
        assert np.array_equal(y[..., 0], masks[chosen] / np.float32(255))


def test_a_resumed_training_gets_the_batches_of_the_remaining_epochs():
    pictures = make_pictures()
    for settings in (SETTINGS, {**SETTINGS, "augment": True, "crop_share": 0.5}):
        whole, rest = (as_arrays(helpers.training_batches(pictures, settings, first)) for first in (0, 1))
        assert len(whole) == 6 and len(rest) == 3
        for (X, y), (again_X, again_y) in zip(whole[3:], rest):
            assert np.array_equal(X, again_X) and np.array_equal(y, again_y)


def test_every_batch_of_every_epoch_is_augmented_with_its_own_seed(monkeypatch):
    import tensorflow as tf

    def augment(X, y, seed, side, compiled):
        return tf.cast(seed, tf.float64), tf.constant([side, compiled])

    monkeypatch.setattr(helpers, "augment", augment)
    settings = {**SETTINGS, "augment": True, "crop_share": 0.5, "seed": 2**32 - 1}
    seeds, others = zip(*as_arrays(helpers.training_batches(make_pictures(), settings)))
    steps = [epoch * 2**16 + step for epoch in range(2) for step in range(3)]
    assert [seed.tolist() for seed in seeds] == [[2**32 - 1, step] for step in steps]
    assert {tuple(other) for other in others} == {(8, False)}


@pytest.mark.parametrize(("size", "share", "side"), [(128, 0.6, 80), (256, 0.6, 152), (96, 1.0, 96), (32, 0.1, 8)])
def test_crops_have_the_nearest_side_that_the_network_can_halve_three_times(size, share, side):
    assert helpers.crop_side({"crop_share": share}, size) == side


def test_pictures_too_large_for_memory_are_read_from_the_arrays_into_the_same_batches(monkeypatch):
    pictures = make_pictures()
    settings = {**SETTINGS, "augment": True, "crop_share": 0.5}
    held = as_arrays(helpers.training_batches(pictures, settings))
    assert 2 * batches.MOST_HELD == 2**30  # pictures and masks together take at most one GiB
    monkeypatch.setattr(TrainingPictures, "take", None)
    for room in (0, 1):
        monkeypatch.setattr(batches, "MOST_HELD", pictures.pixels + room)
        assert as_arrays(helpers.training_batches(pictures, settings))[0][0].shape == (8, 8, 8, 1)
    monkeypatch.undo()
    monkeypatch.setattr(batches, "MOST_HELD", pictures.pixels - 1)
    monkeypatch.setattr(TrainingPictures, "stack", None)
    for (X, y), (read_X, read_y) in zip(held, as_arrays(helpers.training_batches(pictures, settings)), strict=True):
        assert np.array_equal(y, read_y) and np.abs(X - read_X).max() < 3e-7


@pytest.mark.parametrize(("soft_masks", "planes", "volumes"), [(False, 1, 0), (True, 3, 3)])
def test_pictures_have_the_masks_and_planes_that_the_recipe_asks_for(work_dir, soft_masks, planes, volumes):
    helpers.prepare_arrays(helpers.read_json(work_dir / "dataset.json", "01"), work_dir, 32, progress=False)
    pictures = helpers.load_training_pictures(work_dir, {"soft_masks": soft_masks, "planes": planes})
    X, y, share = helpers.load_arrays(work_dir, "train", ("X", "y", "share"))
    assert np.array_equal(pictures.X, X) and len(pictures.volumes) == volumes
    _, masks = pictures.take(range(len(X)))
    assert np.array_equal(masks, (share if soft_masks else 255 * y)[..., 0])


def make_model(compiled):
    """A network that predicts one value for all pixels, which it learns."""
    import keras

    image = keras.Input((None, None, 1), name="image")
    mask = keras.layers.Conv2D(1, 1, activation="sigmoid", kernel_initializer="zeros", name="mask")(image)
    model = keras.Model(image, mask)
    helpers.compile_model(model, 0.01, "bce_dice_loss")
    model.jit_compile = compiled
    return model


@pytest.mark.slow
def test_a_model_compiled_by_xla_makes_its_batches_in_its_step_and_learns_the_same(tmp_path):
    import keras

    settings = {**SETTINGS, "augment": True, "crop_share": 0.5}
    histories, weights = [], []
    for compiled in (False, True):
        pictures, model = make_pictures(), make_model(compiled)
        dataset = helpers.training_batches(pictures, settings, model=model)
        numbers = [tuple(part.shape) for part in next(iter(dataset))]
        assert numbers == ([(8,), (2,)] if compiled else [(8, 8, 8, 1)] * 2)
        histories.append(model.fit(dataset, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0).history)
        weights.append(model.get_weights())
    assert histories[0]["loss"][1] < histories[0]["loss"][0]
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=1e-4)
    assert all(np.allclose(*pair, rtol=1e-3) for pair in zip(*weights))
    model.save(tmp_path / "model.keras")  # what is stored is the plain network
    stored = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert type(stored) is type(model) and "train_step" not in vars(stored)
    assert [layer.name for layer in stored.layers] == ["image", "mask"]


def test_a_model_compiled_by_xla_gets_ready_batches_if_pictures_exceed_memory(monkeypatch):
    monkeypatch.setattr(batches, "MOST_HELD", 0)
    X, _ = next(iter(helpers.training_batches(make_pictures(), SETTINGS, model=make_model(compiled=True))))
    assert X.shape == (8, 16, 16, 1)


def test_ordered_batches_follow_the_rows_and_the_last_can_be_padded():
    X = np.arange(20, dtype=np.float32).reshape(20, 1, 1, 1)
    y = X.astype(np.uint8) + 1
    rows, filled = (as_arrays(helpers.ordered_batches(X, y, batch_size=8, whole=whole)) for whole in (False, True))
    assert [len(images) for images, _ in rows] == [8, 8, 4] and [len(images) for images, _ in filled] == [8, 8, 8]
    for part, array in enumerate((X, y)):
        assert np.array_equal(np.concatenate([batch[part] for batch in rows]), array)
        last = np.concatenate([batch[part] for batch in filled]).ravel()
        assert np.array_equal(last[:20], array.ravel()) and set(last[20:]) == {array[-1, 0, 0, 0]}
    assert [len(images) for (images,) in as_arrays(helpers.ordered_batches(X))] == [16, 4]
    assert len(helpers.ordered_batches(X)) == 2


COMPILATIONS = """
import sys
import numpy as np
import helpers
import test_batches as t
from course.planes import Volume

settings = {**t.SETTINGS, "augment": True, "crop_share": 0.5, "epochs": 2}
model = t.make_model(compiled=True)
X, y = np.zeros((40, 16, 16, 1), np.float32), np.zeros((40, 16, 16, 1), np.uint8)
model.fit(helpers.training_batches(t.make_pictures(), settings, model=model), epochs=2, steps_per_epoch=3,
          validation_data=helpers.ordered_batches(X, y), shuffle=False, verbose=0)
helpers.predict_in_planes(model, X, [Volume(0, 12, 1.0, 0.8), Volume(12, 40, 0.5, 0.5)])
helpers.predict_probabilities(model, X[:1])
"""


@pytest.mark.slow
def test_xla_compiles_once_to_train_twice_to_validate_and_once_to_predict(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(COURSE_FOLDER), str(COURSE_FOLDER / "tests")]),
        "XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text",
    }
    command = [sys.executable, "-c", COMPILATIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    compiled = [path.name for path in tmp_path.glob("*one_step_on_data*before_optimizations.txt")]
    assert len(compiled) == 4, compiled  # two to validate: 16 slices, and the last 8


@pytest.mark.parametrize(
    ("steps", "compiled", "expected"), [(1704, True, 12), (90, True, 15), (37, True, 1), (96, True, 16), (96, False, 1)]
)
def test_under_xla_steps_run_in_groups_that_divide_the_epoch(steps, compiled, expected):
    assert batches.steps_per_execution(steps, compiled) == expected


def test_running_steps_in_groups_changes_no_bit():
    import keras

    results = []
    for together in (1, 3):
        model = make_model(compiled=False)
        helpers.compile_model(model, 0.01, "bce_dice_loss", together)
        pictures, settings = make_pictures(), {**SETTINGS, "augment": True}
        ends = []
        watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs, ends=ends: ends.append(batch))
        dataset = helpers.training_batches(pictures, settings, model=model)
        history = model.fit(dataset, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0, callbacks=[watch])
        assert ends == ([0, 1, 2] * 2 if together == 1 else [2] * 2)
        results.append((json.dumps(history.history), [weight.tobytes() for weight in model.get_weights()]))
    assert results[0] == results[1]
