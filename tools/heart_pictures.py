"""Make the pictures of real hearts in docs/ and in the notebooks that show them: `make heart-pictures`.

From the heart folder (HEART_DATASET) come a slice with its outline and a patient in three planes, and from the work
folder of a finished run on these data (RUN) the best, the median and the worst slice of one patient of valid.
A notebook shows a picture by `attachment:NAME` in a Markdown cell, so that Google Colab shows it too.
Authors, source and licence are in docs/PICTURES.md.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor

import helpers
from course.arrays import read_arrays_record
from course.figures import draw_enlarged
from course.metrics import bounding_box, rank_slices
from course.workspace import COURSE_FOLDER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATIENT = "la_003"  # of train
SLICE_PICTURE, PLANES_PICTURE, PATIENT_PICTURE = "heart_slice.png", "heart_planes.png", "heart_best_median_worst.png"
SPACING = [1.25, 1.25, 1.37]  # of the heart data, [row, column, slice] in mm


def whole_patient(folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (images, masks) of PATIENT in the heart folder, uint8 and bool (slices, height, width)."""
    images, masks = (sorted(Path(folder, "train", kind).glob(f"{PATIENT}_*.png")) for kind in ("images", "masks"))
    return np.stack([*map(helpers.read_image, images)]), np.stack([*map(helpers.read_mask, masks)])


def plot_slice(images: np.ndarray, masks: np.ndarray) -> Figure:
    """Draw the slice with most atrium of (slices, height, width), and beside it the same with its mask's outline."""
    import matplotlib.pyplot as plt

    largest = masks.sum(axis=(1, 2)).argmax()
    inside = bounding_box(images[largest] > 0)  # without the black frame around it
    image, mask = images[largest][inside], masks[largest][inside]
    figure, panels = plt.subplots(1, 2, figsize=(6, 3.3), layout="constrained")
    panels[0].imshow(image, cmap="gray")
    helpers.draw_outlines(panels[1], image, mask)
    for axes, title in zip(panels, ("a slice of a real heart", "the left atrium, outlined by a person")):
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return figure


def median_patient(work_dir: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Return images, truth and prediction (slices, height, width) of the median patient of valid, and the name."""
    metrics = helpers.read_json(work_dir / "results" / "metrics.json", "05_evaluation")
    description = helpers.read_description(work_dir)
    slices = read_arrays_record(work_dir)["slices"]["valid"]
    dice_of = metrics["valid"]["dice_per_patient"]
    median = sorted(dice_of, key=dice_of.get)[(len(dice_of) - 1) // 2]
    model = helpers.load_trained_model(work_dir)
    probabilities = helpers.predict_subset(model, work_dir, "valid", metrics["planes"])
    volumes = helpers.patient_volumes(work_dir, "valid", probabilities)
    rows, truth, probability = next(volume for patient, *volume in volumes if patient == median)
    paths = [helpers.pair_paths(description, work_dir, "valid", slices[row]["name"])[0] for row in rows]
    prediction = helpers.segment(probability, metrics["threshold"], metrics["largest_component"])
    return np.stack([helpers.read_image(path) for path in paths]), truth, prediction, median


def plot_patient(images: np.ndarray, truth: np.ndarray, prediction: np.ndarray, patient: str) -> Figure:
    """Draw the best, the median and the worst slice of a patient: the whole slice, and what is in the box, outlined."""
    import matplotlib.pyplot as plt

    order, values = rank_slices([helpers.confusion_counts(*pair) for pair in zip(truth, prediction)])
    figure, panels = plt.subplots(3, 2, figsize=(4, 6.1), layout="constrained")
    figure.suptitle(f"{patient}: a person orange, the network blue", fontsize=11)
    for row, (label, rank) in zip(panels, {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}.items()):
        chosen = order[rank]
        draw_enlarged(*row, images[chosen], truth[chosen], prediction[chosen])
        row[0].axis("off")
        row[0].set_title(f"{label} slice: Dice {values[rank]:.2f}", fontsize=10)
    return figure


def small_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG picture of 32 greys and the two colours of outlines, and close it."""
    greys = [(round(255 * step / 31),) * 3 for step in range(32)]
    outlines = [ImageColor.getrgb(color) for color in (helpers.TRUTH_COLOR, helpers.PREDICTION_COLOR)]
    palette = np.array(greys + outlines)
    with Image.open(io.BytesIO(helpers.figure_as_png(figure))) as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    nearest = ((pixels[..., None, :] - palette) ** 2).sum(axis=-1).argmin(axis=-1)  # Pillow's `quantize` is less exact
    few = Image.fromarray(nearest.astype(np.uint8))
    few.putpalette(palette.ravel().tolist())
    stream = io.BytesIO()
    few.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def embed(png: bytes, name: str, folder: Path) -> None:
    """Attach the picture to every cell in a folder's notebooks that shows `attachment:NAME`."""
    for path in folder.glob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        showing = [cell for cell in notebook["cells"] if f"(attachment:{name})" in "".join(cell["source"])]
        for cell in showing:
            cell.setdefault("attachments", {})[name] = {"image/png": base64.b64encode(png).decode()}
        if showing:
            with helpers.whole_file(path) as part:
                text = json.dumps(notebook, indent=1, ensure_ascii=False)
                part.write_text(text + "\n", encoding="utf-8", newline="\n")


def main(folder: str, run: str | None = None) -> None:
    """Write the pictures of the heart folder and, if one is named, of a run's work folder."""
    images, masks = whole_patient(folder)
    planes = helpers.plot_planes(images, masks, SPACING, helpers.TRUTH_COLOR)
    pictures = {SLICE_PICTURE: plot_slice(images, masks), PLANES_PICTURE: planes}
    if run:
        pictures[PATIENT_PICTURE] = plot_patient(*median_patient(Path(run)))
    for name, figure in pictures.items():
        png = small_png(figure)
        (COURSE_FOLDER / "docs" / name).write_bytes(png)
        embed(png, name, COURSE_FOLDER / "notebooks")
        print(f"made docs/{name}: {len(png) / 1000:.0f} kB")


if __name__ == "__main__":
    if not os.environ.get("HEART_DATASET"):
        sys.exit("Set HEART_DATASET to the folder of the heart data, which has train/images and train/masks.")
    main(os.environ["HEART_DATASET"], *sys.argv[1:])
