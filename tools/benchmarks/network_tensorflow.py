"""Time the course's network: `python -m tools.benchmarks.network_tensorflow PRECISION plain|xla SIZE,BATCH ...`.

Prints images a second as JSON.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np

import helpers

WARM_UP, STEPS = 2, 7


def layer_operations(model):
    """Return the multiplications and additions that a model needs for one image in its convolutions."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
            transposed = isinstance(layer, keras.layers.Conv2DTranspose)
            _, height, width, _ = (layer.input if transposed else layer.output).shape  # one product for each of these
            total += 2 * int(np.prod(layer.kernel.shape)) * height * width
    return total


class StepTimes(keras.callbacks.Callback):
    """Remembers when each batch ended."""

    def __init__(self):
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def on_predict_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def images_per_second(self, batch_size):
        """Return the median over the steps after the warm-up."""
        return batch_size / float(np.median(np.diff(self.ends)[WARM_UP:]))


def time_case(size, batch_size, precision, xla):
    """Return images a second in training and in prediction, and the operations for one image."""
    model = helpers.create_model(image_size=size, precision=precision, loss="bce_dice_loss")
    model.jit_compile = xla
    count = (WARM_UP + STEPS + 1) * batch_size
    X = np.random.default_rng(0).random((count, size, size, 1), np.float32)
    y = np.float32(X > 0.95)
    training, prediction = StepTimes(), StepTimes()
    model.fit(helpers.ordered_batches(X, y, batch_size=batch_size), verbose=0, callbacks=[training], shuffle=False)
    model.predict(helpers.ordered_batches(X, batch_size=batch_size), verbose=0, callbacks=[prediction])
    return {
        "training": training.images_per_second(batch_size),
        "prediction": prediction.images_per_second(batch_size),
        "gflop_per_image": layer_operations(model) / 1e9,
    }


if __name__ == "__main__":
    precision, way, *cases = sys.argv[1:]
    keras.utils.set_random_seed(0)
    print(json.dumps({case: time_case(*map(int, case.split(",")), precision, way == "xla") for case in cases}))
