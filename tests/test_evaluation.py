"""Scores are taken at the right resolution, over the right slices, and written down completely."""

import csv
import json

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import helpers
from course.metrics import rank_slices

matplotlib.use("agg")


class Judge:
    """Stands in for a network that is asked for its loss alone."""

    def evaluate(self, batches, verbose, return_dict):
        assert all(len(X) == len(y) for X, y in batches.as_numpy_iterator())
        return {"loss": 0.25}


class Copying:
    """Stands in for a network that answers each picture with itself, and remembers the shapes it saw."""

    def __init__(self):
        self.shapes = []

    def predict(self, batches, verbose):
        X = np.concatenate([images for (images,) in batches.as_numpy_iterator()])
        self.shapes.append(X.shape)
        return X


def evaluate(work_dir, subset, probabilities, threshold=0.5, largest_component=False):
    """The metrics of a network that answered with these probabilities."""
    return helpers.evaluate_subset(Judge(), work_dir, subset, probabilities, threshold, largest_component)[0]


@pytest.fixture()
def prepared(work_dir):
    description = json.loads((work_dir / "dataset.json").read_text())
    helpers.prepare_arrays(description, work_dir, 64, progress=False)
    return work_dir


def truth(work_dir, subset):
    return np.array(helpers.load_arrays(work_dir, subset)[1][..., 0], np.float32)


def test_the_truth_itself_scores_nearly_one_at_the_masks_own_resolution(prepared):
    metrics = evaluate(prepared, "valid", truth(prepared, "valid"))
    assert 0.9 < metrics["dice_patient_mean"] < 1  # shrinking to 64 pixels costs a little
    assert metrics["dice"] == metrics["precision"] == metrics["recall"] == metrics["iou"] == metrics["accuracy"] == 1


def test_predicting_nothing_scores_nothing_but_is_accurate(prepared):
    metrics = evaluate(prepared, "test", 0 * truth(prepared, "test"))
    assert metrics["dice_patient_mean"] == metrics["dice"] == 0
    assert metrics["accuracy"] == metrics["accuracy_predicting_nothing"] > 0.98


def test_each_subset_is_scored_against_its_own_masks(prepared):
    slices = json.loads((prepared / "npy" / "arrays.json").read_text())["slices"]
    for subset in ("train", "valid", "test"):
        metrics = evaluate(prepared, subset, truth(prepared, subset))
        assert set(metrics["dice_per_patient"]) == {pair["patient"] for pair in slices[subset]}
        assert metrics["dice"] == 1


def test_mean_and_spread_are_over_patients(prepared):
    probabilities = truth(prepared, "train")
    slices = json.loads((prepared / "npy" / "arrays.json").read_text())["slices"]["train"]
    first = slices[0]["patient"]
    probabilities[[pair["patient"] == first for pair in slices]] = 0
    metrics = evaluate(prepared, "train", probabilities)
    values = list(metrics["dice_per_patient"].values())
    assert metrics["dice_per_patient"][first] == 0 and len(values) == 3
    assert metrics["dice_patient_mean"] == pytest.approx(np.mean(values))
    assert metrics["dice_patient_std"] == pytest.approx(np.std(values, ddof=1))


def test_the_threshold_decides_what_counts(prepared):
    probabilities = np.float32(0.4) * truth(prepared, "valid")
    assert evaluate(prepared, "valid", probabilities, 0.5)["dice"] == 0
    assert evaluate(prepared, "valid", probabilities, 0.4 - 1e-6)["dice"] == 1
    assert evaluate(prepared, "valid", probabilities, 0.3)["dice_patient_mean"] > 0.8


def test_patients_are_scored_with_what_they_are_scored_by(prepared):
    """Take a third of the atrium's pixels away from one patient, and give another a block that is not atrium."""
    probabilities = truth(prepared, "train")
    slices = json.loads((prepared / "npy" / "arrays.json").read_text())["slices"]["train"]
    names = [pair["patient"] for pair in slices]
    less, more = names[0], names[-1]
    assert less != more
    rows = [row for row, name in enumerate(names) if name == less and probabilities[row].any()]
    probabilities[rows[: len(rows) // 2]] = 0
    probabilities[[name == more for name in names], :8, :8] = 1
    patients = evaluate(prepared, "train", probabilities)["patients"]
    assert patients[less]["precision"] > 0.9 > 0.8 > patients[less]["recall"] and patients[less]["volume_error"] < -0.1
    assert patients[more]["recall"] > 0.9 > 0.8 > patients[more]["precision"] and patients[more]["volume_error"] > 0.5
    untouched = next(figures for name, figures in patients.items() if name not in (less, more))
    of_less, of_more = patients[less]["surface_distance_95"], patients[more]["surface_distance_95"]
    assert untouched["surface_distance_95"] < of_less < of_more
    for figures in patients.values():
        assert figures["dice"] == pytest.approx(2 / (1 / figures["precision"] + 1 / figures["recall"]))
        assert figures["iou"] == pytest.approx(figures["dice"] / (2 - figures["dice"]))


def test_false_atrium_on_empty_slices_is_counted_apart(prepared):
    probabilities = truth(prepared, "valid")
    clean = evaluate(prepared, "valid", probabilities)["slices"]
    empty = [
        row
        for _, rows, masks, _ in helpers.patient_volumes(prepared, "valid", probabilities)
        for row, mask in zip(rows, masks)
        if not mask.any()
    ]
    probabilities[empty[0], :16, :16] = 1
    spoilt = evaluate(prepared, "valid", probabilities)["slices"]
    assert clean["empty"] == spoilt["empty"] == len(empty) and clean["with_atrium"] == len(probabilities) - len(empty)
    assert (clean["empty_with_false_atrium"], clean["false_pixels_on_empty"]) == (0, 0)
    assert spoilt["empty_with_false_atrium"] == 1 and spoilt["false_pixels_on_empty"] > 16 * 16
    assert spoilt["dice_mean_with_atrium"] == clean["dice_mean_with_atrium"] > 0.5


def test_distances_say_their_unit(prepared):
    description = json.loads((prepared / "dataset.json").read_text())
    measured = {}
    for spacing, unit in ((None, "pixels"), ([1, 1, 1], "mm"), ([2, 2, 2], "mm")):
        helpers.write_json(prepared / "dataset.json", {**description, "spacing": spacing})
        metrics = evaluate(prepared, "valid", truth(prepared, "valid"))
        assert metrics["distance_unit"] == unit
        measured[str(spacing)] = [figures["surface_distance_mean"] for figures in metrics["patients"].values()]
    assert measured["None"] == measured["[1, 1, 1]"]
    assert measured["[2, 2, 2]"] == pytest.approx(2 * np.array(measured["[1, 1, 1]"]))


def test_threshold_and_tidying_up_are_chosen_by_the_curves():
    best_at = {False: 0.3, True: 0.7}
    curves = {kept: [1 - abs(threshold - best) for threshold in helpers.THRESHOLDS] for kept, best in best_at.items()}
    open_settings = {"threshold": None, "largest_component": None}
    assert helpers.choose_segmentation({**curves, True: [0] * 17}, open_settings) == (0.3, False)
    assert helpers.choose_segmentation({**curves, False: [0] * 17}, open_settings) == (0.7, True)
    assert helpers.choose_segmentation({False: [0.5] * 17, True: [0.5] * 17}, open_settings) == (0.5, False)
    assert helpers.choose_segmentation(curves, {"threshold": None, "largest_component": True}) == (0.7, True)
    assert helpers.choose_segmentation(curves, {"threshold": 0.62, "largest_component": None}) == (0.62, True)
    assert helpers.choose_segmentation(curves, {"threshold": 0.5, "largest_component": False}) == (0.5, False)


def test_the_curves_are_the_dice_that_the_evaluation_gives(prepared):
    probabilities = truth(prepared, "valid") * np.linspace(0.2, 1, 64, dtype=np.float32)
    probabilities[:, :6, :6] = 0.9
    curves = helpers.threshold_curves(prepared, "valid", probabilities)
    for largest_component, curve in curves.items():
        for threshold in (0.3, 0.75):
            expected = evaluate(prepared, "valid", probabilities, threshold, largest_component)["dice_patient_mean"]
            assert curve[helpers.THRESHOLDS.index(threshold)] == pytest.approx(expected)
    assert curves[True] != curves[False]


def test_the_largest_component_is_that_of_the_volume():
    probability = np.zeros((4, 8, 8), np.float32)
    probability[:, 1, 1] = 0.9  # four pixels, one above the other
    probability[0, 5:7, 5] = 0.9  # two pixels in one slice
    probability[2, 5, 5:8] = 0.9  # three pixels in another, not touching
    expected = np.zeros(probability.shape, bool)
    expected[:, 1, 1] = True
    assert np.array_equal(helpers.segment(probability, 0.5, largest_component=True), expected)
    assert np.array_equal(helpers.segment(probability, 0.5), probability > 0)
    assert not helpers.segment(probability, 0.95, largest_component=True).any()


def test_probabilities_are_resized_bilinearly_before_the_threshold():
    resized = helpers.resize_probability(np.array([[0, 1], [0, 1]], np.float32), (2, 4))
    assert np.allclose(resized, [[0, 0.25, 0.75, 1]] * 2)


def test_the_results_file_holds_all_that_was_agreed(prepared):
    settings = {**helpers.load_settings(prepared), "image_size": 64}
    (prepared / "model").mkdir()
    helpers.write_json(
        prepared / "model" / "training.json", {"made_from": "x", "seconds": 12.5, "images_seen": 300, "epochs": 7}
    )
    metrics = {subset: evaluate(prepared, subset, truth(prepared, subset)) for subset in ("valid", "test")}
    path = helpers.write_results(helpers.create_model(image_size=64), prepared, settings, metrics)
    written = json.loads(path.read_text())
    assert path == prepared / "results" / "metrics.json"
    expected = {
        "dataset": "sample",
        "profile": "smoke",
        "recipe": "report",
        "image_size": 64,
        "epochs": 7,
        "seed": 0,
        "parameters": 1_927_841,
        "seconds_training": 12.5,
        "images_seen": 300,
        "threshold": 0.5,
        "largest_component": False,
        "arithmetic": "float32",
    }
    assert {name: written[name] for name in expected} == expected
    assert set(written["versions"]) == {"python", "tensorflow", "keras"}
    for subset in ("valid", "test"):
        assert {
            "dice_per_patient",
            "dice_patient_mean",
            "dice_patient_std",
            "dice",
            "precision",
            "recall",
            "iou",
            "accuracy",
            "accuracy_predicting_nothing",
            "cross_entropy",
            "loss",
        } <= set(written[subset])
    with open(prepared / "results" / "patients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    patients = [(subset, patient) for subset in ("valid", "test") for patient in metrics[subset]["patients"]]
    assert [(row["subset"], row["patient"]) for row in rows] == patients
    for row, (subset, patient) in zip(rows, patients):
        expected = metrics[subset]["patients"][patient]
        assert {name: float(row[name]) for name in expected} == expected


def test_the_trained_model_is_loaded_in_safe_mode_and_evaluates_as_it_was_trained(prepared):
    import keras

    (prepared / "model").mkdir()
    model = helpers.create_model(image_size=64)
    model.save(prepared / "model" / "best.keras")
    helpers.write_json(prepared / "model" / "training.json", {"settings": {}})
    X, y = helpers.load_arrays(prepared, "valid")
    loaded = helpers.load_trained_model(prepared)
    assert np.array_equal(helpers.predict_probabilities(loaded, X), helpers.predict_probabilities(model, X))
    assert loaded.evaluate(X, y, verbose=0) == pytest.approx(model.evaluate(X, y, verbose=0))
    unsafe = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)])
    unsafe.save(prepared / "model" / "best.keras")
    with pytest.raises(ValueError, match="(?i)lambda|unsafe|safe_mode"):
        helpers.load_trained_model(prepared)


def test_the_masks_handed_out_are_those_that_are_scored(prepared):
    probabilities = truth(prepared, "test")
    probabilities[:, 0, 0] = 0.9  # a piece of its own
    for largest_component in (False, True):
        metrics, _, masks = helpers.evaluate_subset(Judge(), prepared, "test", probabilities, 0.5, largest_component)
        assert masks[:, 0, 0].all() != largest_component and masks.dtype == bool
        assert masks.sum() == metrics["confusion"]["true_positives"] + metrics["confusion"]["false_positives"]


def test_the_pictures_show_best_median_and_worst_of_the_subset(prepared):
    probabilities = truth(prepared, "test")
    _, counts, masks = helpers.evaluate_subset(Judge(), prepared, "test", probabilities, 0.5)
    figure = helpers.plot_predictions(prepared, "test", counts, masks)
    order, values = rank_slices(counts)
    names = [pair["name"] for pair in json.loads((prepared / "npy" / "arrays.json").read_text())["slices"]["test"]]
    titles = [axes.get_title(loc="left") for axes in figure.axes[::4]]
    for title, label, rank in zip(titles, ("best", "median", "worst"), (0, len(order) // 2, len(order) - 1)):
        assert title == f"{label}: {names[order[rank]]}, Dice {values[rank]:.2f}"
    for row in range(3):
        whole, *close = figure.axes[4 * row : 4 * row + 4]
        assert {axes.get_xlim() for axes in close} == {close[0].get_xlim()} != {whole.get_xlim()}
        [box] = whole.lines
        assert (min(box.get_xdata()), max(box.get_xdata())) == close[0].get_xlim()


@pytest.mark.parametrize(("mode", "name"), [("L", "own.png"), ("RGB", "own.jpg"), ("I;16", "own.tif")])
def test_a_picture_of_any_size_and_kind_gets_a_mask_of_its_own_size(tmp_path, mode, name):
    pixels = np.zeros((60, 90), np.uint16 if mode == "I;16" else np.uint8)
    pixels[20:40, 30:60] = 4000 if mode == "I;16" else 250
    Image.fromarray(np.stack([pixels] * 3, axis=-1) if mode == "RGB" else pixels).save(tmp_path / name)
    image, mask = helpers.segment_picture(Copying(), tmp_path / name, 32, 0.5)
    assert image.dtype == np.uint8 and image.shape == mask.shape == (60, 90)
    assert helpers.dice(pixels > 0, mask) > 0.95
    helpers.save_mask(mask, tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as saved:
        assert np.array_equal(np.asarray(saved), np.where(mask, 255, 0))


def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(helpers.CourseError, match="notes.png cannot be read as a picture"):
        helpers.segment_picture(Copying(), tmp_path / "notes.png", 32, 0.5)


def test_outlines_have_the_two_colours_and_an_empty_mask_has_none():
    axes = Figure().subplots()
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    helpers.draw_outlines(axes, np.zeros((8, 8)), mask, np.zeros((8, 8), bool))
    helpers.draw_outlines(axes, np.zeros((8, 8)), np.zeros((8, 8), bool), mask)
    colors = [matplotlib.colors.to_hex(outline.get_edgecolor()[0]).upper() for outline in axes.collections]
    assert colors == [helpers.TRUTH_COLOR, helpers.PREDICTION_COLOR]


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


def test_a_figure_becomes_png_bytes_and_is_closed():
    import io

    import matplotlib.pyplot as plt
    from PIL import Image

    before = plt.get_fignums()
    with Image.open(io.BytesIO(helpers.figure_as_png(plt.figure(figsize=(2, 1))))) as picture:
        assert picture.format == "PNG" and picture.size == (200, 100)
    assert plt.get_fignums() == before


def test_a_figure_is_saved_as_a_whole_png(tmp_path):
    from matplotlib.figure import Figure
    from PIL import Image

    helpers.save_figure(Figure(figsize=(2, 1)), tmp_path / "new folder" / "figure.png")
    with Image.open(tmp_path / "new folder" / "figure.png") as picture:
        assert picture.format == "PNG"
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["figure.png"]


def test_an_answer_in_three_planes_of_a_network_that_copies_is_the_volume_itself():
    X = np.random.default_rng(0).random((20, 16, 16, 1), np.float32)
    network = Copying()
    answer = helpers.predict_in_planes(network, X, [(0, 16)], step=1.0)
    assert network.shapes == [(20, 16, 16, 1), (16, 16, 16, 1), (16, 16, 16, 1)]
    assert answer.shape == (20, 16, 16) and np.allclose(answer, X[..., 0], atol=1e-6)


def test_each_plane_has_a_third_of_the_say():
    X = np.zeros((16, 16, 16, 1), np.float32)

    class OnlySlices(Copying):
        def predict(self, batches, verbose):
            X = super().predict(batches, verbose)
            return np.full(X.shape, 0.9 if len(self.shapes) == 1 else 0.0, np.float32)

    assert np.allclose(helpers.predict_in_planes(OnlySlices(), X, [(0, 16)], 1.0), 0.3)
    assert np.allclose(helpers.predict_in_planes(OnlySlices(), X, [], 1.0), 0.9)


def test_cuts_are_padded_to_what_the_network_can_halve_and_put_back_in_place():
    X = np.linspace(0, 1, 22, dtype=np.float32)[:, None, None, None] * np.ones((1, 16, 16, 1), np.float32)
    network = Copying()
    answer = helpers.predict_in_planes(network, X, [(0, 22)], step=0.5)
    assert network.shapes[1:] == [(16, 16, 16, 1), (16, 16, 16, 1)]  # eleven slices, five of padding
    assert np.allclose(answer, X[..., 0], atol=0.03)


def test_a_subset_is_answered_in_as_many_planes_as_asked_for(prepared):
    X, _ = helpers.load_arrays(prepared, "valid")
    for planes, expected in ((1, 1), (3, 3)):
        network = Copying()
        helpers.predict_subset(network, prepared, "valid", planes)
        assert len(network.shapes) == expected and network.shapes[0] == X.shape
