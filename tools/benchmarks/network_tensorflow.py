"""Time the course's network: `python -m tools.benchmarks.network_tensorflow PRECISION plain|xla|lesson SIZE,BATCH ...`.

Prints images a second as JSON. With `lesson` it trains on batches that are made as in 04, with crops of that size.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import helpers

helpers.set_up()  # as every lesson does, before TensorFlow is imported

import keras
import numpy as np

from course.planes import TrainingPictures

WARM_UP, STEPS = 2, 7


class StepTimes(keras.callbacks.Callback):
    """Remembers when each batch ended."""

    def __init__(self):
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    on_predict_batch_end = on_train_batch_end


def lesson_batches(size, batch_size, count):
    """Return the batches of one epoch of the recipe `best`: crops of `size`, augmented, from random slices."""
    whole = round(size / helpers.RECIPES["best"]["crop_share"] / 8) * 8
    chosen = {"image_size": whole, "batch_size": batch_size, "epochs": 1, "images_per_epoch": count}
    X = np.random.default_rng(0).random((32, whole, whole, 1), np.float32)
    pictures = TrainingPictures(X, np.uint8(255 * (X > 0.95)), full=255)
    return helpers.training_batches(pictures, helpers.new_settings("sample", "hour", "best", 0) | chosen)


def time_case(size, batch_size, precision, way):
    """Return images a second in training and in prediction."""
    model = helpers.create_model(image_size=size, precision=precision, loss="bce_dice_loss")
    model.jit_compile = way == "xla"
    count = (WARM_UP + STEPS + 1) * batch_size
    X = np.random.default_rng(0).random((count, size, size, 1), np.float32)
    y = np.float32(X > 0.95)
    training, prediction = StepTimes(), StepTimes()
    same = helpers.ordered_batches(X, y, batch_size=batch_size)
    batches = lesson_batches(size, batch_size, count) if way == "lesson" else same
    model.fit(batches, verbose=0, callbacks=[training], shuffle=False)
    model.predict(helpers.ordered_batches(X, batch_size=batch_size), verbose=0, callbacks=[prediction])
    steps = {"training": training, "prediction": prediction}
    return {task: batch_size / float(np.median(np.diff(step.ends)[WARM_UP:])) for task, step in steps.items()}


if __name__ == "__main__":
    precision, way, *cases = sys.argv[1:]
    keras.utils.set_random_seed(0)
    print(json.dumps({case: time_case(*map(int, case.split(",")), precision, way) for case in cases}))
