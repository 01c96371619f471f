"""The pictures of real hearts: what they show, that they are small, and that docs/ and the notebooks hold the same."""

import base64
import io
import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from outlines import color_of, extent
from PIL import Image, ImageColor

import helpers
from course.workspace import COURSE_FOLDER
from tools import heart_pictures

matplotlib.use("agg")
STORED = sorted((COURSE_FOLDER / "docs").glob("heart_*.png"))
NOTEBOOKS = [json.loads(path.read_text("utf-8")) for path in sorted((COURSE_FOLDER / "notebooks").glob("*.ipynb"))]


def test_the_notebooks_show_the_stored_pictures_with_their_licence_and_they_are_small():
    cells = [cell for notebook in NOTEBOOKS for cell in notebook["cells"]]
    attached = [(name, cell) for cell in cells for name in cell.get("attachments", {})]
    assert sorted(name for name, _ in attached) == [path.name for path in STORED]
    assert heart_pictures.SLICE_PICTURE in dict(attached)
    for name, cell in attached:
        png = (COURSE_FOLDER / "docs" / name).read_bytes()
        assert base64.b64decode(cell["attachments"][name]["image/png"]) == png and len(png) < 60_000
        text = "".join(cell["source"])
        words = (f"(attachment:{name})", "Antonelli", "Simpson", "King's College London", "CC BY-SA 4.0")
        assert all(word in text for word in words)
        assert name in (COURSE_FOLDER / "docs" / "PICTURES.md").read_text(encoding="utf-8")


def test_the_slice_is_the_one_with_most_atrium_and_is_cut_out_of_its_black_frame(heart):
    paths = sorted(heart.glob(f"train/masks/{heart_pictures.PATIENT}_*.png"))
    largest = max(paths, key=lambda path: helpers.read_mask(path).sum())
    image, mask = helpers.read_image(heart / "train" / "images" / largest.name), helpers.read_mask(largest)
    plain, outlined = heart_pictures.plot_slice(*heart_pictures.whole_patient(heart)).axes
    assert np.array_equal(plain.images[0].get_array(), outlined.images[0].get_array())
    shown = plain.images[0].get_array()
    top, left = (np.flatnonzero(image.any(axis=axis))[0] for axis in (1, 0))
    height, width = shown.shape
    assert np.array_equal(shown, image[top : top + height, left : left + width])
    assert image.sum() == shown.sum(dtype=int) and all(side.any() for side in (shown[-1], shown[:, -1]))
    assert color_of(outlined.collections[0]) == helpers.TRUTH_COLOR and not plain.collections
    rows, columns = np.nonzero(mask)
    edges = columns.min() - left - 0.5, columns.max() - left + 0.5, rows.min() - top - 0.5, rows.max() - top + 0.5
    assert extent(outlined.collections[0]) == pytest.approx(edges)


def test_a_small_picture_keeps_greys_and_the_colours_of_outlines():
    figure = plt.figure(figsize=(2, 1))
    figure.add_axes((0, 0, 1, 1)).imshow([[0, 1]], cmap="gray", aspect="auto")
    figure.axes[0].axis("off")
    figure.axes[0].axhline(0, color=helpers.TRUTH_COLOR, linewidth=20)
    with Image.open(io.BytesIO(heart_pictures.small_png(figure))) as picture:
        colors = [picture.convert("RGB").getpixel(place) for place in ((5, 5), (195, 5), (100, 50))]
    assert colors == [(0, 0, 0), (255, 255, 255), ImageColor.getrgb(helpers.TRUTH_COLOR)]


def test_a_picture_is_put_where_a_notebook_asks_for_it_and_nowhere_else(tmp_path):
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Ä\n", "![A heart](attachment:new.png)"]},
        {"cell_type": "markdown", "metadata": {}, "source": ["no picture: new.png"]},
    ]
    for name, shown in (("a.ipynb", cells), ("b.ipynb", cells[1:])):
        (tmp_path / name).write_text(json.dumps({"cells": shown}, indent=1), encoding="utf-8")
    before = (tmp_path / "b.ipynb").read_bytes()
    heart_pictures.embed(b"bytes", "new.png", tmp_path)
    first, second = json.loads((tmp_path / "a.ipynb").read_text(encoding="utf-8"))["cells"]
    assert first == {**cells[0], "attachments": {"new.png": {"image/png": base64.b64encode(b"bytes").decode()}}}
    assert second == cells[1] and (tmp_path / "b.ipynb").read_bytes() == before


def test_a_patients_best_median_and_worst_slices_are_drawn():
    truth = np.zeros((5, 20, 20), bool)
    truth[:4, 5:9, 5:9] = True  # the last slice holds no atrium
    prediction = np.zeros_like(truth)
    for number, width in enumerate((1, 4, 3, 2)):
        prediction[number, 5:9, 5 : 5 + width] = True  # a quarter is found in the first, all in the second
    images = np.arange(5)[:, None, None] * np.ones((5, 20, 20))
    figure = heart_pictures.plot_patient(images, truth, prediction, "la_000")
    assert [axes.images[0].get_array().max() for axes in figure.axes] == [1, 1, 3, 3, 0, 0]
    titles = [axes.get_title() for axes in figure.axes[::2]]
    assert titles == ["best slice: Dice 1.00", "median slice: Dice 0.67", "worst slice: Dice 0.40"]
    assert "la_000" in figure.get_suptitle()
    assert all(axes.lines[0].get_linewidth() > 0 for axes in figure.axes[::2])  # the box


def test_the_median_patient_of_a_run_comes_with_its_slices_masks_and_predictions(work_dir, monkeypatch):
    description = helpers.read_json(work_dir / "dataset.json", "01_dataset_upload")
    slices = helpers.prepare_arrays(description, work_dir, 64, progress=False)["slices"]["valid"]
    patients = list(dict.fromkeys(pair["patient"] for pair in slices))
    dice_of = {patient: (number + 1) % len(patients) / 10 for number, patient in enumerate(patients)}
    median = sorted(patients, key=dice_of.get)[(len(patients) - 1) // 2]
    valid = {"dice_per_patient": dice_of}
    metrics = {"valid": valid, "planes": 3, "threshold": 0.75, "largest_component": False}
    (work_dir / "results").mkdir()
    helpers.write_json(work_dir / "results" / "metrics.json", metrics)
    asked = []

    def answer(model, work_dir, subset, planes):
        """Return 0.8 where there is atrium, 0.7 elsewhere: the threshold lies between them."""
        asked.append((model, subset, planes))
        return 0.7 + 0.1 * np.asarray(helpers.load_arrays(work_dir, subset)[1][..., 0], np.float32)

    monkeypatch.setattr(helpers, "load_trained_model", lambda work_dir: "the model")
    monkeypatch.setattr(helpers, "predict_subset", answer)
    images, truth, prediction, name = heart_pictures.median_patient(work_dir)
    assert asked == [("the model", "valid", 3)] and name == median
    names = [pair["name"] for pair in slices if pair["patient"] == median]
    paths = [helpers.pair_paths(description, work_dir, "valid", name) for name in names]
    assert np.array_equal(images, [helpers.read_image(image) for image, _ in paths])
    assert np.array_equal(truth, [helpers.read_mask(mask) for _, mask in paths])
    assert prediction.shape == truth.shape and helpers.dice(truth, prediction) > 0.8
