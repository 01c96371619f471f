"""Scores are taken at the right resolution, over the right slices, and written down completely."""

import csv
import json

import matplotlib
import numpy as np
import pytest

import helpers

matplotlib.use("agg")


class Oracle:
    """Stands in for a network: answers with what it was given."""

    def __init__(self, probabilities, loss=0.25):
        self.probabilities, self.loss = probabilities, loss

    def predict(self, X, batch_size, verbose):
        assert len(X) == len(self.probabilities)
        return self.probabilities[..., None]

    def evaluate(self, X, y, batch_size, verbose, return_dict):
        return {"loss": self.loss}


@pytest.fixture()
def prepared(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.prepare_arrays(description, work_dir, 64, progress=False)
    return work_dir


def truth(work_dir, subset):
    return np.array(helpers.load_arrays(work_dir, subset)[1][..., 0], np.float32)


def test_the_truth_itself_scores_nearly_one_at_the_masks_own_resolution(prepared):
    metrics, _, _ = helpers.evaluate_subset(Oracle(truth(prepared, "valid")), prepared, "valid", 0.5)
    assert 0.9 < metrics["dice_patient_mean"] < 1  # shrinking to 64 pixels costs a little
    assert metrics["dice"] == metrics["precision"] == metrics["recall"] == metrics["iou"] == metrics["accuracy"] == 1


def test_predicting_nothing_scores_nothing_but_is_accurate(prepared):
    metrics, _, _ = helpers.evaluate_subset(Oracle(0 * truth(prepared, "test")), prepared, "test", 0.5)
    assert metrics["dice_patient_mean"] == metrics["dice"] == 0
    assert metrics["accuracy"] == metrics["accuracy_predicting_nothing"] > 0.98


def test_each_subset_is_scored_against_its_own_masks(prepared):
    slices = json.loads((prepared / "npy" / "arrays.json").read_text())["slices"]
    for subset in ("train", "valid", "test"):
        metrics, _, _ = helpers.evaluate_subset(Oracle(truth(prepared, subset)), prepared, subset, 0.5)
        assert set(metrics["dice_per_patient"]) == {pair["patient"] for pair in slices[subset]}
        assert metrics["dice"] == 1


def test_mean_and_spread_are_over_patients(prepared):
    probabilities = truth(prepared, "train")
    slices = json.loads((prepared / "npy" / "arrays.json").read_text())["slices"]["train"]
    first = slices[0]["patient"]
    probabilities[[pair["patient"] == first for pair in slices]] = 0
    metrics, _, _ = helpers.evaluate_subset(Oracle(probabilities), prepared, "train", 0.5)
    values = list(metrics["dice_per_patient"].values())
    assert metrics["dice_per_patient"][first] == 0 and len(values) == 3
    assert metrics["dice_patient_mean"] == pytest.approx(np.mean(values))
    assert metrics["dice_patient_std"] == pytest.approx(np.std(values, ddof=1))


def test_the_threshold_decides_what_counts(prepared):
    oracle = Oracle(0.4 * truth(prepared, "valid"))
    assert helpers.evaluate_subset(oracle, prepared, "valid", 0.5)[0]["dice"] == 0
    assert helpers.evaluate_subset(oracle, prepared, "valid", 0.4 - 1e-6)[0]["dice"] == 1
    assert helpers.evaluate_subset(oracle, prepared, "valid", 0.3)[0]["dice_patient_mean"] > 0.8


def test_probabilities_are_resized_bilinearly_before_the_threshold():
    resized = helpers.resize_probability(np.array([[0, 1], [0, 1]], np.float32), (2, 4))
    assert np.allclose(resized, [[0, 0.25, 0.75, 1]] * 2)


def test_the_results_file_holds_all_that_was_agreed(prepared):
    settings = {**helpers.load_settings(prepared), "image_size": 64}
    (prepared / "model").mkdir()
    helpers.create_model(image_size=64).save(prepared / "model" / "best.keras")
    helpers.write_json(prepared / "model" / "training.json",
                       {"made_from": "x", "seconds": 12.5, "images_seen": 300, "epochs": 7})
    metrics = {subset: helpers.evaluate_subset(Oracle(truth(prepared, subset)), prepared, subset, 0.5)[0]
               for subset in ("valid", "test")}
    path = helpers.write_results(prepared, settings, metrics)
    written = json.loads(path.read_text())
    assert path == prepared / "results" / "metrics.json"
    expected = {"dataset": "sample", "profile": "smoke", "recipe": "report", "image_size": 64, "epochs": 7, "seed": 0,
                "parameters": 1_927_841, "seconds_training": 12.5, "images_seen": 300}
    assert {name: written[name] for name in expected} == expected
    assert set(written["versions"]) == {"python", "tensorflow", "keras"}
    for subset in ("valid", "test"):
        assert {"dice_per_patient", "dice_patient_mean", "dice_patient_std", "dice", "precision", "recall", "iou",
                "accuracy", "accuracy_predicting_nothing", "loss"} <= set(written[subset])
    with open(prepared / "results" / "patients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["subset"], float(row["dice"])) for row in rows] == [
        (subset, value) for subset in ("valid", "test") for value in metrics[subset]["dice_per_patient"].values()]


def test_the_trained_model_is_loaded_in_safe_mode_and_evaluates_as_it_was_trained(prepared):
    import keras

    (prepared / "model").mkdir()
    model = helpers.create_model(image_size=64)
    model.save(prepared / "model" / "best.keras")
    X, y = helpers.load_arrays(prepared, "valid")
    loaded = helpers.load_trained_model(prepared)
    assert np.array_equal(helpers.predict_probabilities(loaded, X), helpers.predict_probabilities(model, X))
    assert loaded.evaluate(X, y, verbose=0) == pytest.approx(model.evaluate(X, y, verbose=0))
    unsafe = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)])
    unsafe.save(prepared / "model" / "best.keras")
    with pytest.raises(ValueError, match="(?i)lambda|unsafe|safe_mode"):
        helpers.load_trained_model(prepared)


def test_the_pictures_show_best_median_and_worst_of_the_subset(prepared):
    probabilities = truth(prepared, "test")
    _, probabilities, counts = helpers.evaluate_subset(Oracle(probabilities), prepared, "test", 0.5)
    figure = helpers.plot_predictions(prepared, "test", probabilities, counts, 0.5)
    order, values = helpers.rank_slices(counts)
    names = [pair["name"] for pair in json.loads((prepared / "npy" / "arrays.json").read_text())["slices"]["test"]]
    titles = [axes.get_title(loc="left") for axes in figure.axes[::4]]
    for title, label, rank in zip(titles, ("best", "median", "worst"), (0, len(order) // 2, len(order) - 1)):
        assert title == f"{label}: {names[order[rank]]}, Dice {values[rank]:.2f}"


def test_a_figure_of_the_dataset_shows_image_above_mask(prepared):
    description = json.loads((prepared / "dataset.json").read_text())
    figure = helpers.plot_pairs(description, prepared, columns=3)
    assert len(figure.axes) == 6
    for image_axes, mask_axes in zip(figure.axes[:3], figure.axes[3:]):
        name, subset = image_axes.get_title().split("\n")
        image, mask = helpers.pair_paths(description, prepared, subset, name)
        assert np.array_equal(image_axes.images[0].get_array(), helpers.read_image(image))
        assert np.array_equal(mask_axes.images[0].get_array(), helpers.read_mask(mask))
        assert helpers.read_mask(mask).any()


def test_a_figure_is_saved_as_a_whole_png(tmp_path):
    from matplotlib.figure import Figure
    from PIL import Image

    helpers.save_figure(Figure(figsize=(2, 1)), tmp_path / "new folder" / "figure.png")
    with Image.open(tmp_path / "new folder" / "figure.png") as picture:
        assert picture.format == "PNG"
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["figure.png"]


def test_smoothing_mixes_neighbouring_slices_of_one_patient_by_their_distance():
    slices = [{"patient": "a", "slice": n} for n in (0, 1, 3)] + [{"patient": "b", "slice": 0}, {"patient": "c", "slice": None}]
    probabilities = np.zeros((5, 1, 1), np.float32)
    probabilities[[0, 4]] = 1
    smoothed = helpers.smooth_between_slices(probabilities, slices, [1, 1, 2.0], 2.0)[:, 0, 0]
    near, far = np.exp(-0.5), np.exp(-0.5 * 9)
    assert smoothed[:3] == pytest.approx([1 / (1 + near + far), near / (1 + near + np.exp(-2)), far / (1 + far + np.exp(-2))], rel=1e-5)
    assert list(smoothed[3:]) == [0, 1] and probabilities[1, 0, 0] == 0
    for spacing, sigma in ((None, 2.0), ([1, 1, 2.0], 0.0)):
        assert np.array_equal(helpers.smooth_between_slices(probabilities, slices, spacing, sigma), probabilities)


def test_smoothing_is_part_of_the_evaluation(prepared):
    probabilities = truth(prepared, "valid")
    filled = np.flatnonzero(probabilities.any((1, 2)))
    probabilities[filled[len(filled) // 2]] = 0  # one slice missed in the middle
    missed = helpers.evaluate_subset(Oracle(probabilities), prepared, "valid", 0.5)[0]
    mended = helpers.evaluate_subset(Oracle(probabilities), prepared, "valid", 0.4, smoothing=8.0)[0]
    assert mended["recall"] > missed["recall"]
