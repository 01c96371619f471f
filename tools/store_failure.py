"""Run the failure that 04 shows and store it with the course: `make failure`.

The history of the training goes to docs/report_on_sample.csv, its predictions for one slice to report_on_sample.npz.
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import helpers
from course.batch import NOTEBOOKS, run_notebook
from course.workspace import COURSE_FOLDER

if TYPE_CHECKING:
    import keras

CHOICE = {"dataset": "sample", "profile": "quick", "recipe": "report", "seed": 0}


def answers_in_two_ways(model: "keras.Model", X: np.ndarray) -> list[np.ndarray]:
    """Return a network's probabilities for X (N, S, S, 1) with batch normalisation as it answers, and as it trains.

    Both are float32 (N, S, S). It answers with its running averages; in training each batch of 16 is normalised by its
    own mean and variance.
    """
    answered = helpers.predict_probabilities(model, X)  # first: training moves the averages
    trained = np.concatenate([model(batch, training=True) for (batch,) in helpers.ordered_batches(X)])
    return [answered, trained[..., 0]]


def main():
    """Run the four lessons in a fresh folder, copy the history, and store the predictions.

    To those that 04 keeps (see `plot_looks`) come `answers`, uint8 (2, height, width), of the stored weights for the
    same slice in the two ways, and `iou`, of all valid slices in each of them.
    """
    docs = COURSE_FOLDER / "docs"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for notebook in NOTEBOOKS[:4]:
            run_notebook(notebook, folder, work_dir=name, **(CHOICE if notebook == NOTEBOOKS[0] else {}))
        shutil.copyfile(folder / "model" / "history.csv", docs / "report_on_sample.csv")
        X, y = helpers.load_arrays(folder, "valid")
        truth = y[..., 0] > 0
        answers = answers_in_two_ways(helpers.load_trained_model(folder), X)
        iou = [helpers.scores(helpers.confusion_counts(truth, answer >= 0.5))["iou"] for answer in answers]
        shown = np.stack(answers)[:, truth.sum(axis=(1, 2)).argmax()]
        levels = np.uint8(np.minimum(256 * shown, 255))
        with np.load(folder / "model" / "looks.npz") as looks:
            np.savez_compressed(docs / "report_on_sample.npz", **looks, answers=levels, iou=iou)


if __name__ == "__main__":
    main()
