"""Drawings of the lessons: slices with their masks, a convolution in numbers, the U with what flows through it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course.arrays import load_arrays, read_arrays_record
from course.figures import TRUTH_COLOR, draw_enlarged, draw_outlines, plain_text
from course.metrics import rank_slices
from course.pictures import SUBSETS
from course.store import read_slice

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

LAYER_KINDS = {  # name and colour of each kind of layer in the drawing
    "InputLayer": ("image", "#000000"),
    "Conv2D": ("convolution", "#0072B2"),
    "Dropout": ("dropout", "#F0E442"),
    "BatchNormalization": ("batch normalisation", "#BBBBBB"),
    "MaxPooling2D": ("pooling", "#D55E00"),
    "Conv2DTranspose": ("transposed convolution", "#009E73"),
    "Concatenate": ("joined with the skip", "#56B4E9"),
}


def plot_convolution(picture: np.ndarray, weights: np.ndarray, row: int, column: int) -> Figure:
    """Draw what a 3x3 convolution does at one place of a picture, in numbers, and what it gives everywhere.

    picture: (height, width), with at least two pixels on each side of the place; beyond it is 0. weights: (3, 3).
    """
    import matplotlib.pyplot as plt
    from scipy import ndimage

    figure, ((whole, near), (products, answer)) = plt.subplots(2, 2, figsize=(6.4, 6.8), layout="constrained")
    patch = picture[row - 2 : row + 3, column - 2 : column + 3]
    pixels = patch[1:4, 1:4]
    answers = ndimage.correlate(picture, weights, mode="constant")
    farthest = np.abs(answers).max()
    whole.imshow(picture, cmap="gray")
    near.imshow(patch, cmap="gray", vmin=0, vmax=1)
    products.imshow(pixels * weights, cmap="gray", vmin=-1, vmax=1)
    answer.imshow(answers, cmap="gray", vmin=-farthest, vmax=farthest)
    for axes, centre, half in ((whole, (column, row), 2.5), (near, (2, 2), 1.5), (answer, (column, row), 2.5)):
        corner = (centre[0] - half, centre[1] - half)
        axes.add_patch(plt.Rectangle(corner, 2 * half, 2 * half, fill=False, edgecolor=TRUTH_COLOR, linewidth=2))
    for axes, values in ((near, patch), (products, pixels)):
        for (down, right), value in np.ndenumerate(values):
            text = f"{value:.2f}"
            if axes is products:
                text += f"\n× {weights[down, right]:g}\n= {value * weights[down, right]:.2f}"
            dark = axes.images[0].norm(axes.images[0].get_array()[down, right]) < 0.5
            axes.text(right, down, text, ha="center", va="center", fontsize=10.5, color="white" if dark else "black")
    titles = ["a slice, and 5 x 5 of its pixels", "the window lies on 3 x 3 of them"]
    for axes, title in zip(figure.axes, [*titles, "nine products", "the sums everywhere"]):
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], yticks=[])
    products.set_xlabel(f"sum: {np.sum(pixels * weights):.2f}", fontsize=11)
    answer.set_xlabel("black negative, grey 0, white positive", fontsize=10)
    return figure


def _parts(model):
    """Return the layers of a U-Net in order, cut where the size of the picture changes; image and mask stand alone."""
    parts = [list(part) for _, part in itertools.groupby(model.layers, lambda layer: layer.output.shape[1])]
    return [parts[0][:1], parts[0][1:], *parts[1:-1], parts[-1][:-1], parts[-1][-1:]]


def plot_network(model: keras.Model, image: np.ndarray, mask: np.ndarray | None = None) -> Figure:
    """Draw a U-Net as a U, from the model itself, with its feature maps for an image (1, S, S, 1), values 0 to 1.

    At each level, on either side, there are two feature maps, and below them a block for each layer in order. The maps
    are those that vary most; with `mask`, bool (S, S), those in which its structure differs most from the rest.
    """
    import keras
    import matplotlib.pyplot as plt

    parts = _parts(model)
    answers = keras.Model(model.input, [part[-1].output for part in parts]).predict(image, verbose=0)
    figure, axes = plt.subplots(figsize=(6.5, 9.2), layout="constrained")
    bottom, place = len(parts) // 2, {}
    for number, (part, answer) in enumerate(zip(parts, answers)):
        level = min(number, 2 * bottom - number)
        left = 0.12 * level if number < bottom else 4.5 - 0.12 * level if number > bottom else 2.25
        top = -1.9 * level
        _draw_part(axes, part, np.asarray(answer[0], np.float32), mask, left, top)
        place |= {layer.name: (left, top) for layer in part}
    for layer in model.layers:
        if type(layer).__name__ == "Concatenate":
            (start, level), (end, _) = place[layer.input[1]._keras_history.operation.name], place[layer.name]
            arrow = {"arrowstyle": "->", "color": "#555555", "linewidth": 1.5}
            axes.annotate("", (end - 0.05, level - 0.5), (start + 2.1, level - 0.5), arrowprops=arrow)
            axes.text((start + end + 2) / 2, level - 0.45, "skip", ha="center", va="bottom", fontsize=10)
    for (left, top), (after, below) in itertools.pairwise(dict.fromkeys(place.values())):
        ends = (top - 1.25, below + 0.47) if below < top else (top + 0.47, below - 1.25)
        axes.annotate("", (after + 1, ends[1]), (left + 1, ends[0]), arrowprops={"arrowstyle": "->"})
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    axes.legend(unique.values(), unique.keys(), fontsize=10, ncol=2, loc="upper center", bbox_to_anchor=(0.5, 0))
    axes.set(xlim=(-0.05, 6.6), ylim=(-1.9 * bottom - 1.3, 0.45), aspect="equal")
    axes.axis("off")
    return figure


def _contrast(answer, mask):
    """Return by how many standard deviations a structure stands out in each channel of `answer` (S, S, channels)."""
    size, deviation = len(answer), answer.std(axis=(0, 1))
    share = mask.reshape(size, len(mask) // size, size, -1).mean(axis=(1, 3))  # how much of each place is structure
    inside, outside = (np.tensordot(part, answer, 2) / part.sum() for part in (share, 1 - share))
    return np.abs(inside - outside) / np.where(deviation > 0, deviation, 1)


def _draw_part(axes, part, answer, mask, left, top):
    """Draw two channels of a layer's output (S, S, channels), its name and size, and a block for each layer."""
    size, _, channels = answer.shape
    chosen = np.argsort(answer.std(axis=(0, 1)) if mask is None else _contrast(answer, mask))[-2:]
    for right, channel in enumerate(chosen):
        extent = (left + 1.05 * right, left + 1.05 * right + 1, top - 1, top)
        axes.imshow(answer[..., channel], cmap="gray", extent=extent)
    name = part[-1].name.partition("_")[0]
    several = f"{channels} channels" if channels > 1 else "1 channel"
    axes.text(left, top + 0.04, f"{name}: {several}\n{size} x {size} pixels", va="bottom", fontsize=10)
    for right, layer in enumerate(part):
        label, color = LAYER_KINDS[type(layer).__name__]
        axes.bar(left + 0.1 + 0.3 * right, 0.14, bottom=top - 1.2, width=0.22, color=color, label=label)


def plot_pairs(description: dict, work_dir: Path) -> Figure:
    """Draw the slice with most atrium, outlined, beside its mask, for three patients spread evenly over all."""
    import matplotlib.pyplot as plt

    names_of = {}
    for subset in SUBSETS:
        for pair in description["subsets"][subset]:
            names_of.setdefault((subset, pair["patient"]), []).append(pair["name"])
    spread = np.linspace(0, len(names_of) - 1, min(3, len(names_of))).round().astype(int)
    figure, panels = plt.subplots(len(spread), 2, figsize=(6, 3.1 * len(spread)), layout="constrained", squeeze=False)
    for row, ((subset, _), names) in zip(panels, [list(names_of.items())[number] for number in spread]):
        images, masks = zip(*(read_slice(description, work_dir, subset, name) for name in names))
        largest = int(np.argmax([np.count_nonzero(mask) for mask in masks]))
        draw_outlines(row[0], images[largest], masks[largest])
        row[1].imshow(masks[largest], cmap="gray")
        for axes, title in zip(row, (plain_text(f"{names[largest]}, {subset}"), "its mask")):
            axes.set_title(title, fontsize=10)
            axes.axis("off")
    return figure


def plot_predictions(work_dir: Path, subset: str, slice_counts: list[dict], masks: np.ndarray) -> Figure:
    """Draw the best, the median and the worst slice that hold atrium, and the worst large one.

    Large: with at least as much atrium as the median slice. slice_counts, masks: what `evaluate_subset` returned.
    """
    import matplotlib.pyplot as plt

    slices = read_arrays_record(work_dir)["slices"][subset]
    X, y = load_arrays(work_dir, subset)
    order, values = rank_slices(slice_counts)
    areas = [slice_counts[index]["true_positives"] + slice_counts[index]["false_negatives"] for index in order]
    worst_large = max(rank for rank, area in enumerate(areas) if area >= np.median(areas))
    shown = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1, "worst large": worst_large}
    figure, panels = plt.subplots(4, 2, figsize=(5.5, 11.6), layout="constrained")
    for (left, right), (label, rank) in zip(panels, shown.items()):
        index = order[rank]
        image, truth, prediction = X[index, ..., 0], y[index, ..., 0], masks[index]
        draw_enlarged(left, right, image, truth, prediction)
        left.set_title(plain_text(f"{label}:\n{slices[index]['name']}"))
        right.set_title(f"Dice {values[rank]:.2f}\n{areas[rank]} pixels of atrium")
    panels[-1, 1].set_xlabel("truth orange, prediction dashed blue")
    return figure
