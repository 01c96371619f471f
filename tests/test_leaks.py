"""The networks that 06 compares differ in one thing only: who is in train, or what the skip connections carry."""

import csv
from pathlib import Path

import numpy as np
import papermill
import pytest

import helpers
from course.workspace import COURSE_FOLDER
from tools import measure_leaks, store_failure

SLICES = {
    "train": [{"patient": patient} for patient in ("a", "a", "a", "twin", "twin", "b", "b", "b", "b")],
    "valid": [{"patient": patient} for patient in ("c", "c", "c", "d", "d", "d", "d")],
}
# Each slice is one pixel, and its number says which it is
ARRAYS = {"train": np.arange(9).reshape(-1, 1, 1, 1), "valid": 100 + np.arange(7).reshape(-1, 1, 1, 1)}


def test_half_of_the_slices_of_each_patient_is_held_out():
    half = measure_leaks.held_out(SLICES["valid"])
    assert half.sum() == 3 and half[:3].sum() == 1 and half[3:].sum() == 2


def test_the_trainings_differ_only_in_the_slices_they_learn_from(monkeypatch):
    monkeypatch.setattr(helpers, "load_arrays", lambda work_dir, subset, kinds: (ARRAYS[subset], -ARRAYS[subset]))
    learned = {}
    for variant in measure_leaks.VARIANTS:
        X, share = measure_leaks.training_slices(None, SLICES, ["twin"], variant)
        assert np.array_equal(X, -share)  # image and mask of the same slices
        learned[variant] = X.ravel().tolist()
    without_twin = [0, 1, 2, 5, 6, 7, 8]
    assert learned["by patient"] == learned["skips cut"] == without_twin
    assert learned["with the twin"] == list(range(9))
    half = measure_leaks.held_out(SLICES["valid"])
    of_c, of_d = ({100 + row for row in rows if not half[row]} for rows in (range(3), range(3, 7)))
    for variant, known in (("knows every second", of_c), ("knows the others", of_d)):
        seen = set(learned[variant])
        assert len(seen) == len(learned[variant]) == len(without_twin)  # as many slices, none of them twice
        assert {number for number in seen if number >= 100} == known  # none that is scored
        assert {number for number in seen if number < 100} < set(without_twin)


@pytest.mark.parametrize("cut", [False, True])
def test_cut_skips_bring_zeros_and_change_nothing_else(cut):
    import keras

    model = helpers.create_model(image_size=16)
    copied = measure_leaks.copy_network(model, cut)
    assert copied.count_params() == model.count_params() == 1_927_841
    for before, after in zip(model.get_weights(), copied.get_weights()):
        assert np.array_equal(before, after)
    image = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    names = [f"up{level}_{part}" for level in (1, 2, 3) for part in ("transpose", "skip")]
    outputs = keras.Model(copied.input, [copied.get_layer(name).output for name in names])(image)
    for below, joined in zip(outputs[::2], outputs[1::2]):
        channels = below.shape[-1]
        assert joined.shape[-1] == 2 * channels and np.array_equal(joined[..., :channels], below)
        assert (np.abs(joined[..., channels:]).max() == 0) == cut


def test_the_failure_is_run_with_the_documented_choices_and_its_answers_are_stored(tmp_path, monkeypatch):
    import keras

    ran = []

    def execute(path, executed, parameters, **options):
        ran.append((path.name[:2], parameters))
        model = Path(parameters["work_dir"]) / "model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "history.csv").write_text("history")
        np.savez(model / "looks.npz", epochs=[1, 10])

    # 20 slices: the answer is the sigmoid of 4 x - 10, or of x normalised within its batch of 16
    X = np.random.default_rng(0).normal(3, 0.5, (20, 2, 2, 1)).astype(np.float32)
    y = np.uint8(X > 3)
    y[5] = 1
    normalise = keras.layers.BatchNormalization(epsilon=0, center=False, scale=False)
    model = keras.Sequential([keras.Input((2, 2, 1)), normalise, keras.layers.Activation("sigmoid")])
    normalise.set_weights([np.array([2.5]), np.array([1 / 16])])
    batches = [(part - part.mean()) / part.std() for part in (X[:16, ..., 0], X[16:, ..., 0])]
    logits = [4 * X[..., 0] - 10, np.concatenate(batches)]

    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(store_failure, "COURSE_FOLDER", tmp_path)
    monkeypatch.setattr(helpers, "load_arrays", lambda work_dir, subset: (X, y))
    monkeypatch.setattr(helpers, "load_trained_model", lambda work_dir: model)
    store_failure.main()
    assert [name for name, _ in ran] == ["01", "02", "03", "04"]
    assert len({parameters.pop("work_dir") for _, parameters in ran}) == 1
    chosen = {"dataset": "sample", "profile": "quick", "recipe": "report", "seed": 0}
    assert [parameters for _, parameters in ran] == [chosen, {}, {}, {}]
    assert (tmp_path / "docs" / "report_on_sample.csv").read_text() == "history"
    stored = np.load(tmp_path / "docs" / "report_on_sample.npz")
    assert stored["epochs"].tolist() == [1, 10]
    for found, levels, logit in zip(stored["iou"], stored["answers"], logits):
        truth, mask = y[..., 0] > 0, logit >= 0
        assert found == pytest.approx((truth & mask).sum() / (truth | mask).sum())
        assert levels == pytest.approx(256 / (1 + np.exp(-logit[5])) - 0.5, abs=0.51)


def test_in_the_stored_failure_the_loss_falls_the_accuracy_is_high_and_hardly_anything_is_found():
    with open(COURSE_FOLDER / "docs" / "report_on_sample.csv", newline="") as file:
        first, *_, last = ({name: float(value) for name, value in row.items()} for row in csv.DictReader(file))
    look = np.load(COURSE_FOLDER / "docs" / "report_on_sample.npz")
    assert last["loss"] < first["loss"] / 2 and last["val_loss"] < first["val_loss"] / 2
    assert last["accuracy"] > 0.995 and last["val_accuracy"] > 0.99 and last["val_iou"] < 0.05
    found = look["levels"][-1] >= 128
    assert (found & look["truth"]).sum() < 0.1 * look["truth"].sum()
    assert look["truth"].shape == look["levels"].shape[1:] and len(look["epochs"]) == len(look["levels"]) == 4


def test_in_the_stored_failure_the_weights_find_the_atrium_when_each_batch_is_normalised_by_itself():
    look = np.load(COURSE_FOLDER / "docs" / "report_on_sample.npz")
    assert look["iou"][0] < 0.05 and look["iou"][1] > 0.8
    as_it_answers, as_it_trains = (helpers.dice(look["truth"], levels >= 128) for levels in look["answers"])
    assert as_it_answers < 0.2 and as_it_trains > 0.9
