"""Scores are computed at the right resolution, over the right slices, and recorded completely."""

import csv
import io
import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from outlines import color_of, extent
from PIL import Image

import helpers
from course.metrics import surface_distances
from course.planes import Volume
from course.training import training_inputs
from course.workspace import fingerprint

matplotlib.use("agg")


class Judge:
    """Stands in for a network that is asked only for its loss."""

    def evaluate(self, batches, verbose, return_dict):
        assert all(len(X) == len(y) for X, y in batches.as_numpy_iterator())
        return {"loss": 0.25} if return_dict else [0.25]


class Copying:
    """Stands in for a network that predicts each picture itself, and remembers the shapes it saw."""

    def __init__(self, jit_compile=False):
        self.shapes, self.jit_compile = [], jit_compile

    def predict(self, batches, verbose):
        X = np.concatenate([images for (images,) in batches.as_numpy_iterator()])
        self.shapes.append(X.shape)
        return X


def evaluate(work_dir, subset, probabilities, threshold=0.5, largest_component=False):
    """The metrics of a network that predicted these probabilities."""
    return helpers.evaluate_subset(Judge(), work_dir, subset, probabilities, threshold, largest_component)[0]


@pytest.fixture()
def prepared(work_dir):
    """A work folder with arrays of 64 x 64 pixels."""
    helpers.prepare_arrays(helpers.read_json(work_dir / "dataset.json", "01"), work_dir, 64, progress=False)
    return work_dir


def store(model, work_dir, **record):
    """Store a model as 04 does; return what it was made from."""
    path = work_dir / "model" / "best.keras"
    path.parent.mkdir(exist_ok=True)
    model.save(path)
    best, made_from = {"fingerprint": fingerprint(path)}, training_inputs(work_dir, helpers.load_settings(work_dir))
    record = {"made_from": made_from, "best": best, "complete": True, **record}
    helpers.write_json(path.with_name("training.json"), record)
    return made_from


def truth(work_dir, subset):
    return np.array(helpers.load_arrays(work_dir, subset)[1][..., 0], np.float32)


def slices_of(work_dir, subset):
    return helpers.read_json(work_dir / "npy" / "arrays.json", "02")["slices"][subset]


@pytest.mark.parametrize("subset", helpers.SUBSETS)
def test_the_truth_of_each_subset_scores_nearly_one_at_the_masks_own_resolution(prepared, subset):
    metrics = evaluate(prepared, subset, truth(prepared, subset))
    assert set(metrics["dice_per_patient"]) == {pair["patient"] for pair in slices_of(prepared, subset)}
    assert 0.9 < metrics["dice_patient_mean"] < 1  # shrinking to 64 pixels costs a little
    assert metrics["dice"] == metrics["precision"] == metrics["recall"] == metrics["iou"] == metrics["accuracy"] == 1


def test_the_threshold_decides_what_counts(prepared):
    probabilities = np.float32(0.4) * truth(prepared, "valid")
    assert evaluate(prepared, "valid", probabilities, 0.5)["dice"] == 0
    assert evaluate(prepared, "valid", probabilities, 0.4 - 1e-6)["dice"] == 1
    assert evaluate(prepared, "valid", probabilities, 0.3)["dice_patient_mean"] > 0.8


def test_false_atrium_on_empty_slices_is_counted_at_the_masks_own_resolution(prepared):
    probabilities = truth(prepared, "valid")
    [(_, _, drawn, _)] = helpers.patient_volumes(prepared, "valid", probabilities)
    empty = np.flatnonzero(~drawn.any(axis=(1, 2)))
    probabilities[empty[:2], :16] = 1
    slices = evaluate(prepared, "valid", probabilities)["slices"]
    assert (slices["empty"], slices["with_atrium"]) == (len(empty), len(probabilities) - len(empty))
    assert (slices["empty_with_false_atrium"], slices["false_pixels_on_empty"]) == (2, 2 * 80 * 320)
    assert 0.5 < slices["dice_mean_with_atrium"] < 1


def with_geometry(prepared, **changes):
    description = helpers.read_json(prepared / "dataset.json", "01")
    helpers.write_json(prepared / "dataset.json", {**description, **changes})


def distances(metrics, patient):
    figures = metrics["patients"][patient]
    return figures["surface_distance_mean"], figures["surface_distance_95"]


@pytest.mark.parametrize("number", [None, 100])  # not numbered, or with slices missing before it
def test_there_are_no_distances_where_slices_are_missing_or_not_numbered(prepared, number, capsys):
    record = helpers.read_json(prepared / "npy" / "arrays.json", "02")
    slices = record["slices"]["valid"]
    [patient] = {pair["patient"] for pair in slices}
    masks = truth(prepared, "valid")
    found = np.roll(masks, 1, axis=0)  # one slice too far
    with_geometry(prepared, geometry={patient: {"spacing": [1, 1, 10], "axes": None}})
    whole = evaluate(prepared, "valid", found)
    [(_, _, truth_of_all, answers)] = helpers.patient_volumes(prepared, "valid", found)
    assert distances(whole, patient) == surface_distances(truth_of_all, answers >= 0.5, (10, 1, 1))
    assert capsys.readouterr().out == ""
    slices[-1]["slice"] = number
    helpers.write_json(prepared / "npy" / "arrays.json", record)
    lacking = evaluate(prepared, "valid", found)
    assert distances(lacking, patient) == (None, None)
    assert f"No distances between surfaces for {patient} (valid): slices are missing" in capsys.readouterr().out
    assert lacking["dice_per_patient"] == whole["dice_per_patient"]


def test_threshold_and_tidying_up_are_chosen_by_the_curves():
    best_at = {False: 0.3, True: 0.7}
    # a row for each of two patients; only their mean is highest at `best`
    curves = {
        kept: [[1 - (threshold - best - shift) ** 2 for threshold in helpers.THRESHOLDS] for shift in (-0.2, 0.2)]
        for kept, best in best_at.items()
    }
    open_settings, zero, half = {"threshold": None, "largest_component": None}, [[0] * 17] * 2, [[0.5] * 17] * 2
    assert helpers.choose_segmentation({**curves, True: zero}, open_settings) == (0.3, False)
    assert helpers.choose_segmentation({**curves, False: zero}, open_settings) == (0.7, True)
    assert helpers.choose_segmentation({False: half, True: half}, open_settings) == (0.5, False)
    assert helpers.choose_segmentation(curves, {"threshold": None, "largest_component": True}) == (0.7, True)
    assert helpers.choose_segmentation(curves, {"threshold": 0.62, "largest_component": None}) == (0.62, True)
    assert helpers.choose_segmentation(curves, {"threshold": 0.5, "largest_component": False}) == (0.5, False)


def test_the_curves_are_the_dice_that_the_evaluation_gives(prepared):
    probabilities = truth(prepared, "valid") * np.linspace(0.2, 1, 64, dtype=np.float32)
    probabilities[:, :6, :6] = 0.9
    curves = helpers.threshold_curves(prepared, "valid", probabilities)
    for largest_component, of_patients in curves.items():
        for threshold in (0.3, 0.75):
            expected = evaluate(prepared, "valid", probabilities, threshold, largest_component)["dice_per_patient"]
            at_threshold = of_patients[:, helpers.THRESHOLDS.index(threshold)]
            assert at_threshold == pytest.approx([*expected.values()])
    assert not np.array_equal(curves[True], curves[False])


def test_the_largest_component_is_found_in_3d():
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


def test_the_results_files_are_complete_and_can_be_written_again(prepared):
    settings = {**helpers.load_settings(prepared, image_size=64), "threshold": 0.35, "largest_component": True}
    model = helpers.create_model(image_size=64)
    made_from = store(model, prepared, seconds=12.5, images_seen=300, epochs=7, devices=["a GPU"])
    metrics = {subset: evaluate(prepared, subset, truth(prepared, subset)) for subset in ("valid", "test")}
    for _ in range(2):  # 05 may be run again
        path = helpers.write_results(model, prepared, settings, metrics)
    written = json.loads(path.read_text())
    assert path == prepared / "results" / "metrics.json"
    expected = {
        **{"dataset": "sample", "profile": "smoke", "recipe": "report", "image_size": 64, "seed": 0},
        **{"parameters": 1_927_841, "arithmetic": "float32", "threshold": 0.35, "largest_component": True},
        **{"trained_on": made_from, "epochs": 7, "images_seen": 300, "seconds_training": 12.5, "devices": ["a GPU"]},
    }
    assert {name: written[name] for name in expected} == expected
    assert helpers.chosen_segmentation(prepared) == (0.35, True)
    assert set(written["versions"]) == {"python", "tensorflow", "keras"}
    assert {name: written[name] for name in metrics} == json.loads(json.dumps(metrics))
    with open(prepared / "results" / "patients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    patients = [(subset, patient) for subset in ("valid", "test") for patient in metrics[subset]["patients"]]
    assert [(row["subset"], row["patient"]) for row in rows] == patients
    for row, (subset, patient) in zip(rows, patients):
        expected = metrics[subset]["patients"][patient]
        assert {name: float(row[name]) for name in expected} == expected
        assert row["distance_unit"] == metrics[subset]["distance_unit"]


def test_results_are_not_written_or_used_for_another_network(prepared):
    settings = {**helpers.load_settings(prepared, image_size=64), "threshold": 0.35, "largest_component": True}
    model = helpers.create_model(image_size=64)
    record = {"seconds": 12.5, "images_seen": 300, "epochs": 7}
    store(model, prepared, **record)
    metrics_file = helpers.write_results(model, prepared, settings, {})
    written = metrics_file.read_bytes()
    another = helpers.create_model(image_size=64)
    for changes in ({"epochs": 8}, {"made_from": "other data"}):  # trained further, or on other data
        store(another, prepared, **{**record, **changes})
        with pytest.raises(helpers.CourseError, match="ran with a network that is no longer in model/: run 05"):
            helpers.chosen_segmentation(prepared)
    store(another, prepared, **record)
    with pytest.raises(helpers.CourseError, match="no longer the one that was evaluated .* run 05_evaluation again"):
        helpers.write_results(model, prepared, settings, {})
    description = helpers.read_json(prepared / "dataset.json", "01")
    first = description["subsets"]["train"][0]["patient"]
    helpers.prepare_arrays(description, prepared, 64, [first], progress=False)
    with pytest.raises(helpers.CourseError, match="run 02_preprocessing again"):
        helpers.write_results(another, prepared, settings, {})
    assert metrics_file.read_bytes() == written


@pytest.mark.slow
def test_the_trained_model_is_loaded_in_safe_mode_and_evaluates_as_it_was_trained(prepared):
    import keras

    helpers.load_settings(prepared, image_size=64)
    model = helpers.create_model(image_size=64)
    store(model, prepared)
    X, y = helpers.load_arrays(prepared, "valid")
    loaded = helpers.load_trained_model(prepared)
    assert np.array_equal(helpers.predict_probabilities(loaded, X), helpers.predict_probabilities(model, X))
    assert loaded.evaluate(X, y, verbose=0) == pytest.approx(model.evaluate(X, y, verbose=0))
    unsafe = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)])
    store(unsafe, prepared)
    with pytest.raises(ValueError, match="(?i)lambda|unsafe|safe_mode"):
        helpers.load_trained_model(prepared)


def test_the_returned_masks_are_the_ones_that_are_scored(prepared):
    probabilities = truth(prepared, "test")
    probabilities[:, 0, 0] = 0.9  # a separate component
    for largest_component in (False, True):
        metrics, _, masks = helpers.evaluate_subset(Judge(), prepared, "test", probabilities, 0.5, largest_component)
        assert masks[:, 0, 0].all() != largest_component and masks.dtype == bool
        assert masks.sum() == metrics["confusion"]["true_positives"] + metrics["confusion"]["false_positives"]


@pytest.fixture()
def by_hand(tmp_path):
    """Two valid patients, a with two slices and b with one, drawn by hand at 16x16; returns (folder, probabilities)."""
    truth = {name: np.zeros((16, 16), bool) for name in ("a_000", "a_001", "b_000")}
    truth["a_000"][2:4, 2:6] = True
    truth["b_000"][8:10, 8:10] = True
    for subset, names in (("train", ("c_000",)), ("valid", truth), ("test", ("d_000",))):
        for kind in ("images", "masks"):
            (tmp_path / "drawn" / subset / kind).mkdir(parents=True)
        for number, name in enumerate(names):
            mask = truth.get(name, truth["a_000"])
            image = np.random.default_rng([number, len(subset)]).integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(image).save(tmp_path / "drawn" / subset / "images" / f"{name}.png")
            Image.fromarray(np.uint8(255 * mask)).save(tmp_path / "drawn" / subset / "masks" / f"{name}.png")
    work_dir = tmp_path / "data"
    work_dir.mkdir()
    description = helpers.import_dataset(str(tmp_path / "drawn"), work_dir, progress=False)
    geometry = {patient: {"spacing": [2, 3, 5], "axes": None} for patient in description["geometry"]}
    helpers.write_json(work_dir / "dataset.json", {**description, "geometry": geometry})
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    probabilities = np.full((3, 16, 16), 0.25, np.float32)
    probabilities[0, 2:4, 4:8] = 0.75  # two columns too far to the right
    probabilities[1, 0, 0] = 0.75  # one pixel where there is nothing; b is missed
    return work_dir, probabilities


def test_every_figure_agrees_with_a_count_by_hand(by_hand):
    work_dir, probabilities = by_hand
    metrics, counts, masks = helpers.evaluate_subset(Judge(), work_dir, "valid", probabilities, 0.5)
    # columns are 3 mm apart, rows 2, slices 5; the pixel in the next slice is 2 rows and 2 columns from the square
    lone = (5**2 + (2 * 2) ** 2 + (2 * 3) ** 2) ** 0.5
    apart = {"surface_distance_mean": (18 / 8 + (18 + lone) / 9) / 2, "surface_distance_95": 6 + 0.2 * (lone - 6)}
    # a: 4 pixels found, 5 invented, 4 missed. b: 4 missed.
    of_a = {"dice": 8 / 17, "iou": 4 / 13, "precision": 4 / 9, "recall": 0.5, "volume_error": 1 / 8, **apart}
    of_b = {**dict.fromkeys(of_a, 0), "volume_error": -1, **dict.fromkeys(apart)}
    assert metrics["patients"] == {"a": pytest.approx(of_a), "b": of_b}
    assert metrics["distance_unit"] == "mm" and metrics["loss"] == 0.25
    assert metrics["dice_per_patient"] == pytest.approx({"a": 8 / 17, "b": 0})
    assert metrics["dice_patient_interval"] == pytest.approx((0, 8 / 17))
    on_slices = {"with_atrium": 2, "dice_mean_with_atrium": 0.25, "empty": 1}
    assert metrics["slices"] == {**on_slices, "empty_with_false_atrium": 1, "false_pixels_on_empty": 1}
    # pooled over 3 * 256 pixels: 4 found, 5 invented, 8 missed
    assert list(metrics["confusion"].values()) == [4, 5, 8, 751]  # true and false positives, false and true negatives
    pooled = {"dice": 8 / 21, "iou": 4 / 17, "precision": 4 / 9, "recall": 1 / 3, "accuracy": 755 / 768}
    pooled |= {"accuracy_predicting_nothing": 756 / 768}
    pooled |= {"cross_entropy": (-755 * np.log(0.75) - 13 * np.log(0.25)) / 768}
    means = {"dice_patient_mean": 4 / 17, "dice_patient_std": 8 / 17 / 2**0.5}
    assert {name: metrics[name] for name in pooled | means} == pytest.approx(pooled | means)
    assert np.array_equal(masks, probabilities > 0.5) and [entry["false_positives"] for entry in counts] == [4, 1, 0]


def test_distances_are_in_pixels_if_the_spacing_of_one_patient_is_unknown(by_hand):
    work_dir, probabilities = by_hand
    known, unknown = ({"spacing": spacing, "axes": None} for spacing in ([2, 3, 5], None))
    with_geometry(work_dir, geometry={"a": known, "b": unknown})
    metrics = evaluate(work_dir, "valid", probabilities)
    lone = (1 + 2**2 + 2**2) ** 0.5
    assert metrics["distance_unit"] == "pixels"
    assert distances(metrics, "a") == pytest.approx(((6 / 8 + (6 + lone) / 9) / 2, 2 + 0.2 * (lone - 2)))


def test_smaller_slices_are_padded_at_the_end_to_the_patients_largest(by_hand, monkeypatch):
    work_dir, probabilities = by_hand
    drawn = {"a_000": np.ones((3, 4), bool), "a_001": np.ones((5, 2), bool), "b_000": np.ones((7, 7), bool)}
    monkeypatch.setattr(helpers, "read_mask", lambda path, values: drawn[path.stem])
    (_, rows, truth, probability), (_, _, other, _) = helpers.patient_volumes(work_dir, "valid", probabilities)
    assert rows == [0, 1] and truth.dtype == bool and truth.shape == probability.shape == (2, 5, 4)
    assert other.shape == (1, 7, 7)
    for mask, whole, answer, asked in zip((drawn["a_000"], drawn["a_001"]), truth, probability, probabilities):
        height, width = mask.shape
        assert whole[:height, :width].all() and whole.sum() == mask.sum()
        assert np.array_equal(answer[:height, :width], helpers.resize_probability(asked, mask.shape))
        assert not answer[height:].any() and not answer[:, width:].any()


def test_the_metrics_a_training_prints_agree_with_a_count_by_hand():
    """Four pixels, through a network that returns its input."""
    import keras

    image = keras.Input((2, 2, 1))
    copy = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="mask")
    model = keras.Model(image, copy(image))
    helpers.compile_model(model, 0.001, "bce_dice_loss")
    answer = np.array([0.75, 0.25, 0.5, 0.25], np.float32).reshape(1, 2, 2, 1)
    truth = np.array([1, 0.5, 0, 0.25], np.float32).reshape(1, 2, 2, 1)  # soft: a pixel counts as atrium from one half
    printed = model.evaluate(answer, truth, verbose=0, return_dict=True)
    assert printed["accuracy"] == 0.5  # the first and the last are right
    assert printed["iou"] == pytest.approx(1 / 3)  # one found, one missed, one invented
    overlap = 0.75 + 0.5 * 0.25 + 0.25 * 0.25
    assert printed["dice_coef"] == pytest.approx((2 * overlap + 1) / (1.75 + 1.75 + 1))
    of_each = np.log(0.75), np.log(0.25 * 0.75) / 2, np.log(0.5), np.log(0.25 * 0.75**3) / 4
    entropy = -sum(of_each) / 4
    squares = (1 + 0.25 + 0.0625) + (0.5625 + 0.0625 + 0.25 + 0.0625)
    assert printed["loss"] == pytest.approx(entropy + 1 - (2 * overlap + 1) / (squares + 1), rel=1e-5)


def test_best_median_worst_and_worst_large_slice_with_truth_and_prediction(by_hand):
    work_dir, probabilities = by_hand
    _, counts, masks = helpers.evaluate_subset(Judge(), work_dir, "valid", probabilities, 0.5)
    record = helpers.read_json(work_dir / "npy" / "arrays.json", "02")
    record["slices"]["valid"][0]["name"] = "a$^$_000"  # Matplotlib would take it for a formula, an invalid one
    helpers.write_json(work_dir / "npy" / "arrays.json", record)
    figure = helpers.plot_predictions(work_dir, "valid", counts, masks)
    figure.canvas.draw()
    X, _ = helpers.load_arrays(work_dir, "valid")
    a, b = "a\\$^\\$_000", "b_000"
    slices = {"best": a, "median": b, "worst": b, "worst large": a}  # 8 pixels; the median of 8 and 4 is 6
    assert [axes.get_title() for axes in figure.axes[::2]] == [f"{which}:\n{name}" for which, name in slices.items()]
    assert [axes.get_title() for axes in figure.axes[1::2]] == [
        f"Dice {dice}\n{area} pixels of atrium" for dice, area in (("0.50", 8), ("0.00", 4), ("0.00", 4), ("0.50", 8))
    ]
    for place, row in ((0, 0), (2, 2), (6, 0)):
        whole, close = figure.axes[place : place + 2]
        assert np.array_equal(whole.images[0].get_array(), X[row, ..., 0])
        assert np.array_equal(close.images[0].get_array(), X[row, ..., 0])
        [box] = whole.lines
        (left, right), (bottom, top) = close.get_xlim(), close.get_ylim()
        assert (left, right) != whole.get_xlim() and bottom > top  # row 0 is at the top
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        assert list(zip(box.get_xdata(), box.get_ydata())) == corners
    truth, prediction = figure.axes[1].collections
    assert color_of(truth) == helpers.TRUTH_COLOR and extent(truth) == (1.5, 5.5, 1.5, 3.5)
    assert color_of(prediction) == helpers.PREDICTION_COLOR and extent(prediction) == (3.5, 7.5, 1.5, 3.5)
    assert truth.get_linestyle()[0][1] is None and prediction.get_linestyle()[0][1] is not None  # solid, dashed
    assert figure.axes[7].get_xlabel() == "truth orange, prediction dashed blue"


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


def test_a_file_that_is_not_a_picture_is_refused_by_name(tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(helpers.CourseError, match="notes.png cannot be read as a picture"):
        helpers.segment_picture(Copying(), tmp_path / "notes.png", 32, 0.5)
    with pytest.raises(helpers.CourseError, match="There is no picture at .*nothing.png: give the path of one"):
        helpers.segment_picture(Copying(), tmp_path / "nothing.png", 32, 0.5)


def test_a_figure_becomes_png_bytes_and_is_closed():
    before = plt.get_fignums()
    with Image.open(io.BytesIO(helpers.figure_as_png(plt.figure(figsize=(2, 1))))) as picture:
        assert picture.format == "PNG" and picture.size == (200, 100)
    assert plt.get_fignums() == before


def test_a_figure_is_saved_as_a_whole_png(tmp_path):
    helpers.save_figure(Figure(figsize=(2, 1)), tmp_path / "new folder" / "figure.png")
    with Image.open(tmp_path / "new folder" / "figure.png") as picture:
        assert picture.format == "PNG"
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["figure.png"]


VOLUME = Volume(0, 16, row_step=1.0, column_step=1.0)


def test_each_plane_has_a_weight_of_one_third():
    X = np.zeros((16, 16, 16, 1), np.float32)

    class OnePlane(Copying):
        def __init__(self, answering):
            super().__init__()
            self.answering = answering

        def predict(self, batches, verbose):
            X = super().predict(batches, verbose)
            return np.full(X.shape, 0.9 if len(self.shapes) == self.answering else 0.0, np.float32)

    for answering in (1, 2, 3):
        assert np.allclose(helpers.predict_in_planes(OnePlane(answering), X, [VOLUME]), 0.3)
    assert np.allclose(helpers.predict_in_planes(OnePlane(1), X, []), 0.9)


@pytest.mark.parametrize("compiled", [False, True])
def test_cuts_show_slices_downwards_or_to_the_right_and_are_padded_at_the_end(compiled):
    size, volume = 32, Volume(2, 24, row_step=0.5, column_step=1.0)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    X = np.stack([slice_ + 0.01 * rows + 0.0001 * columns for slice_ in range(24)])[..., None]

    class Watching(Copying):
        def predict(self, batches, verbose):
            self.seen = [*getattr(self, "seen", []), super().predict(batches, verbose)]
            return self.seen[-1]

    network = Watching(compiled)
    answer = helpers.predict_in_planes(network, X, [volume])
    of_slices, of_rows, of_columns = (seen[:count, ..., 0] for seen, count in zip(network.seen, (24, 32, 32)))
    assert [len(pictures) for pictures in network.seen] == [32 if compiled else 24, 32, 32]  # whole batches of 16
    assert np.array_equal(of_slices, X[..., 0])
    deep = 32 if compiled else 24  # 22 pixels and padding, at least a square where XLA compiles
    assert of_rows.shape == (32, deep, 32) and of_columns.shape == (32, 32, 32 if compiled else 16)  # 11 pixels
    assert np.allclose(of_rows[5, :22], X[2:, 5, :, 0], atol=1e-5) and not of_rows[:, 22:].any()
    pairs = X[2:, :, 7, 0].reshape(11, 2, size).mean(axis=1)
    assert np.allclose(of_columns[7, :, :11], pairs.T, atol=1e-5) and not of_columns[:, :, 11:].any()
    assert np.array_equal(answer[:2], X[:2, ..., 0]) and np.allclose(answer, X[..., 0], atol=0.2)


def test_under_xla_all_volumes_have_the_shape_of_the_deepest():
    X, network = np.zeros((40, 16, 16, 1), np.float32), Copying(jit_compile=True)
    helpers.predict_in_planes(network, X, [Volume(0, 10, 1.0, 1.0), Volume(10, 40, 1.0, 0.5)])
    assert network.shapes[1:] == [(16, 32, 16, 1), (16, 16, 32, 1)] * 2


def test_a_subset_is_predicted_in_as_many_planes_as_asked_for(prepared):
    X, _ = helpers.load_arrays(prepared, "valid")
    for planes, expected in ((1, 1), (3, 3)):
        network = Copying()
        helpers.predict_subset(network, prepared, "valid", planes)
        assert len(network.shapes) == expected and network.shapes[0] == X.shape


@pytest.mark.parametrize(
    ("planes", "spacing", "field", "cuts"),
    [
        (1, [1, 1, 1], (16, 16), []),
        (2, [1, 1, 1], (16, 16), []),
        (3, [2, 1, 3], (16, 16), [(16, 64, 16, 1), (16, 16, 32, 1)]),  # 60 and 30 pixels deep, and padding
        (3, None, (16, 16), [(16, 24, 16, 1), (16, 16, 24, 1)]),
        (3, None, (16, 32), []),  # 20 slices of unknown spacing are 10 pixels deep: too few
        (3, None, (32, 16), []),
    ],
)
def test_a_scan_is_predicted_at_its_own_size_and_in_three_planes_if_deep_enough(planes, spacing, field, cuts):
    deeper = 0.01 * np.arange(1, 21, dtype=np.float32)  # from slice to slice
    X = np.random.default_rng(0).random((16, 16, 1), np.float32) + deeper[:, None, None, None]
    network = Copying()
    answer = helpers.predict_scan(network, X, field, (40, 36), spacing, planes)
    assert network.shapes == [X.shape, *cuts] and answer.shape == (20, 40, 36)
    top, left = (40 - field[0]) // 2, (36 - field[1]) // 2
    inside = np.zeros((40, 36), bool)
    inside[top : top + field[0], left : left + field[1]] = True
    assert answer[:, inside].all() and not answer[:, ~inside].any()
    if field == (16, 16):
        assert np.allclose(answer[:, inside].reshape(X.shape), X, atol=0.01 if cuts else 0)
