"""Figures: how they are saved, and those that need nothing but what they are given."""

import io
import itertools
from pathlib import Path

from course.metrics import bounding_box
from course.workspace import whole_file

TRUTH_COLOR, PREDICTION_COLOR = "#E69F00", "#56B4E9"  # safe for colour-blind readers, clear on grey


def plain_text(name: str) -> str:
    """Return a name of a file or patient as Matplotlib draws it letter by letter: $ would begin a formula."""
    return name.replace("$", r"\$")


def save_figure(figure, path):
    """Save a Matplotlib figure as a PNG file, whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, bbox_inches="tight", format="png")


def figure_as_png(figure):
    """Return a pyplot figure as the bytes of a PNG picture, and close it."""
    import matplotlib.pyplot as plt

    stream = io.BytesIO()
    figure.savefig(stream, dpi=100, format="png")
    plt.close(figure)
    return stream.getvalue()


LAYER_KINDS = {  # how each kind of layer is called and coloured in the drawing
    "InputLayer": ("image", "#000000"),
    "Conv2D": ("convolution", "#0072B2"),
    "Dropout": ("dropout", "#F0E442"),
    "BatchNormalization": ("batch normalisation", "#BBBBBB"),
    "MaxPooling2D": ("pooling", "#D55E00"),
    "Conv2DTranspose": ("transposed convolution", "#009E73"),
    "Concatenate": ("joined with the skip", "#CC79A7"),
}


def plot_network(model):
    """Draw a U-Net from the model itself: a block for each layer, in order from left to right, its channels above.

    The smaller the picture, the lower the block. Arrows are the skip connections. Returns a Matplotlib figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(12, 4.4), layout="constrained")
    heights = sorted({layer.output.shape[1] for layer in model.layers}, reverse=True)
    place = {}
    for index, layer in enumerate(model.layers):
        label, color = LAYER_KINDS[type(layer).__name__]
        _, height, _, channels = layer.output.shape
        level = -heights.index(height)
        place[layer.name] = index, level
        axes.bar(index, 0.4, bottom=level - 0.2, width=0.8, color=color, label=label)
        axes.annotate(
            channels, (index, level + 0.2), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=8
        )
    above = {
        "arrowstyle": "->",
        "color": "#555555",
        "connectionstyle": "arc,angleA=90,angleB=90,armA=10,armB=10,rad=0",
    }  # up, across, and down
    for layer in model.layers:
        if type(layer).__name__ == "Concatenate":
            (start, level), (end, _) = place[layer.input[1]._keras_history.operation.name], place[layer.name]
            axes.annotate("", (end, level + 0.32), (start, level + 0.32), arrowprops=above)
            axes.annotate(
                "skip connection",
                ((start + end) / 2, level + 0.32),
                xytext=(0, 13),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color="#555555",
            )
    for (before, level), (after, next_level) in itertools.pairwise(place.values()):
        if level != next_level:
            ends = (level - 0.2, next_level + 0.36) if next_level < level else (level + 0.36, next_level - 0.2)
            axes.plot([before, after], ends, color="#555555", linewidth=1)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    axes.legend(unique.values(), unique.keys(), fontsize=8, loc="lower left")
    axes.set(
        title="The layers from image to mask, and the number of channels after each",
        xticks=[],
        yticks=[-level for level in range(len(heights))],
        yticklabels=[f"{height} x {height}" for height in heights],
        ylabel="size of the picture (pixels)",
        ylim=(-len(heights) + 0.6, 0.95),
    )
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def plot_history(history):
    """Plot accuracy, loss and IoU against the epoch, for train and valid; returns a Matplotlib figure."""
    import matplotlib.pyplot as plt

    epochs = [int(row["epoch"]) + 1 for row in history]
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for axes, name, title in zip(panels, ("accuracy", "loss", "iou"), ("Accuracy", "Loss", "IoU")):
        for prefix, label, style, color in (("", "train", "--s", "grey"), ("val_", "valid", "-o", "black")):
            axes.plot(epochs, [row[prefix + name] for row in history], style, color=color, markersize=3, label=label)
        axes.set(title=title, xlabel="epoch", ylabel=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    return figure


def draw_outlines(axes, image, truth, prediction):
    """Draw an image and the outlines of two masks: the truth orange and solid, the prediction blue and dashed.

    All three are of one shape (height, width); a mask may be empty.
    """
    axes.imshow(image, cmap="gray")
    axes.set(xticks=[], yticks=[])
    for mask, color, style in ((truth, TRUTH_COLOR, "solid"), (prediction, PREDICTION_COLOR, "dashed")):
        if mask.any():
            axes.contour(mask, [0.5], colors=color, linestyles=style, linewidths=1.2)


def look_closer(axes, mask):
    """Show of a picture only the square around the True pixels of a mask, with a margin of a tenth of its height.

    Where the mask (height, width) is empty, all of the picture stays.
    """
    if mask.any():
        box = bounding_box(mask)
        row, column = ((side.start + side.stop - 1) / 2 for side in box)
        half = max(side.stop - side.start - 1 for side in box) / 2 + mask.shape[0] / 10
        axes.set(xlim=(column - half, column + half), ylim=(row + half, row - half))


def draw_box(axes, closer):
    """Draw on a picture the box of it that other axes show."""
    (left, right), (bottom, top) = closer.get_xlim(), closer.get_ylim()
    axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="white", linewidth=1)


def format_table(rows, headers):
    """Return a plain-text table: columns aligned, numbers to the right, a line under the headers."""
    texts = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts)]
    numeric = [all(isinstance(row[column], (int, float)) for row in rows) for column in range(len(headers))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)
        ).rstrip()
        for row in texts
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
