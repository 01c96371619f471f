"""Seconds of training until the mean Dice of the valid patients (threshold 0.5) first passes 0.75 and 0.85.

    python -m tools.benchmarks.time_to_dice DATASET RECIPE PROFILE MINUTES

Trains as notebook 04 does, scores after every epoch, and stops at 0.85 or after MINUTES of training. Scoring is not
timed. Prints a line an epoch and, last, the result as JSON.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np

import helpers
from tools.common import fit, new_network

GOALS = (0.75, 0.85)


def main(dataset, recipe, profile, minutes):
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        settings = helpers.new_settings(dataset, profile, recipe, seed=0)
        helpers.write_json(work_dir / "settings.json", settings)
        description = helpers.import_dataset(dataset, work_dir, sample=settings["sample"], progress=False)
        leave_out = helpers.left_out_twins(description) if settings["leave_out_twins"] else []
        helpers.prepare_arrays(description, work_dir, settings["image_size"], leave_out, progress=False)
        print(json.dumps(train(work_dir, settings, 60 * minutes)))


def train(work_dir, settings, seconds):
    """Train until the last goal or the time is reached; return when each goal was passed."""
    helpers.save_untrained_model(new_network(settings), work_dir, settings)
    model = helpers.load_untrained_model(work_dir)
    pictures = helpers.load_training_pictures(work_dir, settings)
    helpers.prepare_training(model, work_dir, settings, len(pictures.X))  # compiles it with the recipe's learning rate
    images_per_epoch = helpers.images_in_epoch(len(pictures.X), settings)
    result = {"recipe": settings["recipe"], "profile": settings["profile"], "seconds": 0.0, "passed": {}}

    class Score(keras.callbacks.Callback):
        """Times every epoch and scores the valid patients after it."""

        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            result["seconds"] += time.perf_counter() - self.start
            result["images"] = (epoch + 1) * images_per_epoch
            probabilities = helpers.predict_subset(self.model, work_dir, "valid", settings["planes"])
            volumes = helpers.patient_volumes(work_dir, "valid", probabilities)
            result["dice"] = float(np.mean([helpers.dice(truth, found >= 0.5) for _, _, truth, found in volumes]))
            print("epoch {}: {images} images, {seconds:.0f} s, Dice {dice:.3f}".format(epoch + 1, **result), flush=True)
            for goal in GOALS:
                if result["dice"] > goal:
                    result["passed"].setdefault(str(goal), {"seconds": result["seconds"], "images": result["images"]})
            self.model.stop_training = len(result["passed"]) == len(GOALS) or result["seconds"] > seconds

    fit(model, pictures, settings, verbose=0, callbacks=[Score()])
    return result


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
