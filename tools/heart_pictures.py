"""Make the pictures of real hearts in docs/ and in the notebooks that show them: `make heart-pictures`.

From the heart folder (HEART_DATASET) come a slice with its outline, for 01, and a patient in three planes, for the
README. With the work folder of a
finished run on these data (RUN) come also the best, the median and the worst slice of one patient of valid, for 06.
A notebook shows a picture by `attachment:NAME` in a cell of text, so that it is seen in Google Colab too.
Authors, source and licence are in docs/PICTURES.md.
"""

import base64
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

COURSE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(COURSE))

import helpers  # noqa: E402
from course.figures import draw_enlarged  # noqa: E402
from course.metrics import bounding_box, rank_slices  # noqa: E402

PATIENT = "la_003"  # of train: the slice in which most of its atrium is seen
SLICE_PICTURE, PLANES_PICTURE, PATIENT_PICTURE = "heart_slice.png", "heart_planes.png", "heart_best_median_worst.png"
SPACING = [1.25, 1.25, 1.37]  # of the heart data, [row, column, slice] in mm


def largest_slice(folder, patient=PATIENT):
    """Return (image, mask), uint8 and bool, of the train slice of a patient that holds most atrium."""
    masks = {path: helpers.read_mask(path) for path in sorted(Path(folder, "train", "masks").glob(f"{patient}_*.png"))}
    path = max(masks, key=lambda path: masks[path].sum())
    return helpers.read_image(path.parents[1] / "images" / path.name), masks[path]


def plot_slice(image, mask):
    """Draw a slice (height, width) as the scanner gives it, beside it the same with the outline of its mask."""
    import matplotlib.pyplot as plt

    inside = bounding_box(image > 0)  # around it is a black frame
    image, mask = image[inside], mask[inside]
    figure, panels = plt.subplots(1, 2, figsize=(6, 3.3), layout="constrained")
    panels[0].imshow(image, cmap="gray")
    helpers.draw_outlines(panels[1], image, mask)
    for axes, title in zip(panels, ("a slice of a real heart", "the left atrium, outlined by a person")):
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return figure


def whole_patient(folder, patient=PATIENT):
    """Return (images, masks), uint8 and bool (slices, height, width), of a train patient."""
    names = [path.name for path in sorted(Path(folder, "train", "images").glob(f"{patient}_*.png"))]
    read = {"images": helpers.read_image, "masks": helpers.read_mask}
    return [np.stack([read[kind](Path(folder, "train", kind, name)) for name in names]) for kind in read]


def median_patient(work_dir):
    """Return (images, truth, prediction), (slices, height, width), and the name of the median patient of valid.

    Of an even number of patients the lower of the two in the middle is taken.
    """
    metrics = helpers.read_json(work_dir / "results" / "metrics.json", "05_evaluation")
    description = helpers.read_json(work_dir / "dataset.json", "01_dataset_upload")
    slices = helpers.read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")["slices"]["valid"]
    dice_of = metrics["valid"]["dice_per_patient"]
    median = sorted(dice_of, key=dice_of.get)[(len(dice_of) - 1) // 2]
    model = helpers.load_trained_model(work_dir)
    probabilities = helpers.predict_subset(model, work_dir, "valid", metrics["planes"])
    for patient, rows, truth, probability in helpers.patient_volumes(work_dir, "valid", probabilities):
        if patient == median:
            paths = [helpers.pair_paths(description, work_dir, "valid", slices[row]["name"])[0] for row in rows]
            prediction = helpers.segment(probability, metrics["threshold"], metrics["largest_component"])
            return np.stack([helpers.read_image(path) for path in paths]), truth, prediction, median


def plot_patient(images, truth, prediction, patient):
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


def small_png(figure):
    """Return a figure as the bytes of a PNG picture of 32 greys and the two colours of outlines, and close it."""
    greys = [(round(255 * step / 31),) * 3 for step in range(32)]
    outlines = [ImageColor.getrgb(color) for color in (helpers.TRUTH_COLOR, helpers.PREDICTION_COLOR)]
    palette = np.array(greys + outlines)
    with Image.open(io.BytesIO(helpers.figure_as_png(figure))) as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    nearest = ((pixels[..., None, :] - palette) ** 2).sum(axis=-1).argmin(axis=-1)
    few = Image.fromarray(nearest.astype(np.uint8))
    few.putpalette(palette.ravel().tolist())
    stream = io.BytesIO()
    few.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def embed(png, name, folder):
    """Give every cell of text in a folder's notebooks that shows `attachment:NAME` the picture."""
    for path in sorted(Path(folder).glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        showing = [cell for cell in notebook["cells"] if f"(attachment:{name})" in "".join(cell["source"])]
        for cell in showing:
            cell.setdefault("attachments", {})[name] = {"image/png": base64.b64encode(png).decode()}
        if showing:
            with helpers.whole_file(path) as part:
                text = json.dumps(notebook, indent=1, ensure_ascii=False)
                part.write_text(text + "\n", encoding="utf-8", newline="\n")


def main(folder, run=None):
    """Write the pictures: of the heart folder, and of a run's work folder where one is named."""
    pictures = {
        SLICE_PICTURE: plot_slice(*largest_slice(folder)),
        PLANES_PICTURE: helpers.plot_planes(*whole_patient(folder), SPACING),
    }
    if run:
        pictures[PATIENT_PICTURE] = plot_patient(*median_patient(Path(run)))
    for name, figure in pictures.items():
        png = small_png(figure)
        (COURSE / "docs" / name).write_bytes(png)
        embed(png, name, COURSE / "notebooks")
        print(f"made docs/{name}: {len(png) / 1000:.0f} kB")


if __name__ == "__main__":
    if not os.environ.get("HEART_DATASET"):
        sys.exit("Set HEART_DATASET to the folder of the heart data, which has train/images and train/masks.")
    main(os.environ["HEART_DATASET"], *sys.argv[1:])
