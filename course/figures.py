"""Figures drawn from their arguments alone, and how a figure is saved."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course.metrics import bounding_box
from course.workspace import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUTH_COLOR, PREDICTION_COLOR = "#E69F00", "#56B4E9"  # safe for colour-blind readers, clear on grey


def plain_text(name: str) -> str:
    """Return a name of a file or patient escaped for Matplotlib, in which $ would begin a formula."""
    return name.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Save a Matplotlib figure as a PNG file, whole or not at all."""
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, bbox_inches="tight", format="png")


def figure_as_png(figure: Figure) -> bytes:
    """Return a pyplot figure as the bytes of a PNG picture, and close it."""
    import matplotlib.pyplot as plt

    stream = io.BytesIO()
    figure.savefig(stream, dpi=100, format="png")
    plt.close(figure)
    return stream.getvalue()


def plot_history(histories: dict[str, list[dict]], accuracy_of_nothing: float) -> Figure:
    """Plot loss, accuracy and IoU of train and valid against the epoch: a row each, a column for each training.

    histories: {title: rows of a history}. accuracy_of_nothing: that of predicting nothing on valid, a dotted line.
    Accuracies with over eight times the errors of predicting nothing are cut off, unless a training ends there.
    """
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        3, len(histories), figsize=(5.5, 6.5), sharex="col", sharey="row", squeeze=False, layout="constrained"
    )
    for column, (title, history) in zip(panels.T, histories.items()):
        epochs = [int(row["epoch"]) + 1 for row in history]
        for axes, name in zip(column, ("loss", "accuracy", "iou")):
            for prefix, label, style, color in (("", "train", "--s", "grey"), ("val_", "valid", "-o", "black")):
                values = [row[prefix + name] for row in history]
                axes.plot(epochs, values, style, color=color, markersize=3, label=label)
        column[1].axhline(accuracy_of_nothing, color="black", linestyle="dotted", label="nothing found")
        column[0].set_title(title)
        column[-1].set_xlabel("epoch")
        column[-1].xaxis.get_major_locator().set_params(integer=True)
    for axes, name in zip(panels[:, 0], ("Loss", "Accuracy", "IoU")):
        axes.set_ylabel(name)
    panels[0, 0].set_yscale("log")
    accuracies = [[row[name] for row in rows] for rows in histories.values() for name in ("accuracy", "val_accuracy")]
    lowest = min(1 - 8 * (1 - accuracy_of_nothing), *(values[-1] for values in accuracies))
    if lowest > min(map(min, accuracies)):
        panels[1, 0].set_ylim(lowest, 1 + (1 - lowest) / 20)
    panels[1, 0].legend(loc="lower right")
    return figure


def plot_looks(runs: dict[str, dict]) -> Figure:
    """Draw predictions for a slice in the course of training: a row for each epoch, a column for each training.

    runs: {title: look}. A look holds `truth` (height, width), `epochs`, and `levels`, uint8 (epochs, height, width):
    probabilities in 256 steps, so that 128 is one half. Each panel outlines truth (orange) and mask (dashed blue);
    looks at the same slice show the same part of it.
    """
    import matplotlib.pyplot as plt

    rows = max(len(look["epochs"]) for look in runs.values())
    figure, panels = plt.subplots(rows, len(runs), figsize=(5.5, 2.95 * rows), squeeze=False, layout="constrained")
    for axes in panels.flat:
        axes.set_axis_off()
    for column, (title, look) in zip(panels.T, runs.items()):
        masks = look["levels"] >= 128
        same_slice = [each["levels"] for each in runs.values() if np.array_equal(each["truth"], look["truth"])]
        region = look["truth"] | (np.concatenate(same_slice) >= 128).any(axis=0)
        for axes, epoch, levels, mask in zip(column, look["epochs"], look["levels"], masks):
            axes.set_axis_on()
            draw_outlines(axes, levels, look["truth"], mask)
            axes.images[0].set_clim(0, 255)
            look_closer(axes, region)
            axes.set_title(f"{title},\nafter epoch {epoch}", fontsize=10)
    return figure


def plot_three_planes(volume: np.ndarray, mask: np.ndarray, centre: tuple[int, int, int]) -> Figure:
    """Draw a volume as a cube with its three planes through a point, and beside it the cut in each plane.

    volume: (slices, height, width), 0 to 1; mask: bool of that shape; centre: (slice, row, column). The cuts along rows
    and columns are stretched to squares.
    """
    import matplotlib.pyplot as plt

    names = ("slice", "row", "column")
    figure = plt.figure(figsize=(5.5, 5.6), layout="constrained")
    cube = figure.add_subplot(2, 2, 1, projection="3d")
    steps = [np.linspace(0, length - 1, 33).astype(int) for length in volume.shape]
    brightest = np.percentile(volume, 99) or 1
    for axis, (place, title) in enumerate(zip(centre, ("a slice", "a cut along the rows", "a cut along the columns"))):
        plane = np.meshgrid(*(place if each == axis else step for each, step in enumerate(steps)), indexing="ij")
        slices, rows, columns = (places.squeeze(axis) for places in plane)
        grey = plt.get_cmap("gray")(volume[slices, rows, columns] / brightest)
        cube.plot_surface(columns, rows, slices, facecolors=grey, rcount=33, ccount=33, shade=False)
        cut = figure.add_subplot(2, 2, axis + 2)
        draw_outlines(cut, volume.take(place, axis), mask.take(place, axis))
        down, across = (name for each, name in enumerate(names) if each != axis)
        cut.set(title=title, xlabel=across, ylabel=down, aspect="auto", box_aspect=1)
        cut.title.set_fontsize(10)
    cube.set(xticks=[], yticks=[], zticks=[])
    for axis, name in zip((cube.zaxis, cube.yaxis, cube.xaxis), names):
        axis.set_label_text(name)
        axis.labelpad = -12
    cube.invert_yaxis()
    cube.set_box_aspect(None, zoom=0.9)
    return figure


def draw_outline(axes: Axes, mask: np.ndarray, color: str, style: str = "solid", width: float = 1.2) -> None:
    """Draw the outline of a mask (height, width), half way between the pixels inside and outside.

    There is none if all pixels are alike, and Matplotlib draws none in a picture of one row.
    """
    if mask.any() and not mask.all() and min(mask.shape) > 1:
        axes.contour(mask, [0.5], colors=color, linestyles=style, linewidths=width)


def draw_outlines(axes: Axes, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray | None = None) -> None:
    """Draw an image and the outlines of two masks: the truth orange and solid, the prediction blue and dashed.

    All three are of one shape (height, width); a mask may be empty.
    """
    axes.imshow(image, cmap="gray")
    axes.set(xticks=[], yticks=[])
    draw_outline(axes, truth, TRUTH_COLOR)
    if prediction is not None:
        draw_outline(axes, prediction, PREDICTION_COLOR, "dashed")


def draw_enlarged(whole: Axes, closer: Axes, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    """Draw on the axes `whole` an image with a box around two masks, and on `closer` what the box holds, outlined."""
    whole.imshow(image, cmap="gray")
    whole.set(xticks=[], yticks=[])
    draw_outlines(closer, image, truth, prediction)
    look_closer(closer, truth | prediction)
    (left, right), (bottom, top) = closer.get_xlim(), closer.get_ylim()
    whole.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="white", linewidth=1)


def look_closer(axes: Axes, mask: np.ndarray) -> None:
    """Show only the square of a picture around a mask (height, width), with a tenth of the picture's height as margin.

    The square lies inside the picture. If the mask is empty, the whole picture is shown.
    """
    if mask.any():
        box = bounding_box(mask)
        half = max(side.stop - side.start - 1 for side in box) / 2 + mask.shape[0] / 10
        half = min(half, min(mask.shape) / 2)
        middle = [(side.start + side.stop - 1) / 2 for side in box]
        row, column = np.clip(middle, half - 0.5, np.array(mask.shape) - half - 0.5)
        axes.set(xlim=(column - half, column + half), ylim=(row + half, row - half))


def plot_planes(
    pictures: np.ndarray, mask: np.ndarray, spacing: Sequence[float], color: str = PREDICTION_COLOR
) -> Figure:
    """Draw a volume cut in three planes through the middle of a mask, and the mask's surface seen along each axis.

    pictures, mask: arrays (slices, height, width); spacing: [row, column, slice] in mm, for true proportions;
    color: of the outline, TRUTH_COLOR for a mask that a person drew.
    """
    import matplotlib.pyplot as plt

    sizes = spacing[2], spacing[0], spacing[1]
    lengths = [count * size for count, size in zip(mask.shape, sizes)]
    middle = [int(np.median(where)) for where in np.nonzero(mask)] if mask.any() else [n // 2 for n in mask.shape]
    ratios = [max(lengths[1] / lengths[2], 0.5), *(max(lengths[0] / length, 0.5) for length in lengths[:0:-1])]
    figure, panels = plt.subplots(3, 2, figsize=(6, 3.2 * sum(ratios)), height_ratios=ratios, layout="constrained")
    for axis, (title, (cut, surface)) in enumerate(zip(("slice", "along the rows", "along the columns"), panels)):
        down, across = (size for place, size in enumerate(sizes) if place != axis)
        origin = "lower" if axis else "upper"  # the first slice lies at the bottom
        cut.imshow(pictures.take(middle[axis], axis), cmap="gray", origin=origin, aspect=down / across)
        draw_outline(cut, mask.take(middle[axis], axis), color)
        surface.imshow(shade_surface(mask, axis, sizes), cmap="gray", origin=origin, vmin=0, vmax=1)
        cut.set(title=f"cut: {title}", xticks=[], yticks=[])
        surface.set(title="surface, seen that way", xticks=[], yticks=[])
    return figure


def shade_surface(mask: np.ndarray, axis: int, sizes: Sequence[float]) -> np.ndarray:
    """Return a picture of a mask's surface seen along an axis, with pixels as large as the smallest side of a voxel.

    mask: bool, three axes; sizes: of a voxel along them, in mm. The surface, smoothed a little, is 0.2 to 1: brighter
    where it faces a light behind the reader's left shoulder. All else is 0.
    """
    from scipy import ndimage

    if not mask.any():
        return np.zeros((8, 8))
    boxed = np.pad(mask[bounding_box(mask)].astype(np.float32), 2)
    solid = ndimage.gaussian_filter(ndimage.zoom(boxed, np.array(sizes) / min(sizes), order=1), 1.5)
    solid = np.moveaxis(solid, axis, 0)
    inside = solid >= 0.5
    hit = inside.any(axis=0)
    first = np.where(hit, inside.argmax(axis=0), 0)
    normal = -np.stack([np.take_along_axis(step, first[None], axis=0)[0] for step in np.gradient(solid)])
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-6)
    light = np.array([-0.8, -0.4, -0.45])  # towards the reader, up, left
    brightness = np.tensordot(light / np.linalg.norm(light), normal, axes=1)
    return np.where(hit, 0.2 + 0.8 * np.clip(brightness, 0, 1), 0.0)
