"""Figures: how they are saved, and those that need nothing but what they are given."""

import io
from pathlib import Path

from dataset_sources import whole_file

TRUTH_COLOR, PREDICTION_COLOR = "#E69F00", "#56B4E9"  # safe for colour-blind readers, clear on grey


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


def plot_network(model):
    """Draw the network from the model itself: one bar per layer output, as high as the image, its channels above.

    Returns a Matplotlib figure. Arrows are the skip connections.
    """
    import matplotlib.pyplot as plt

    colors = {"Conv2D": "#0072B2", "MaxPooling2D": "#D55E00", "Conv2DTranspose": "#009E73",
              "BatchNormalization": "#CCCCCC", "Concatenate": "#CC79A7", "Dropout": "#F0E442",
              "InputLayer": "#000000"}
    figure, axes = plt.subplots(figsize=(11, 4.2))
    position = {}
    for index, layer in enumerate(model.layers):
        kind, (_, height, _, channels) = type(layer).__name__, layer.output.shape
        position[layer.name] = index
        axes.bar(index, height, bottom=-height / 2, width=0.7, color=colors[kind], label=kind)
        axes.annotate(channels, (index, height / 2), xytext=(0, 2), textcoords="offset points",
                      ha="center", fontsize=7)
    for layer in model.layers:
        if type(layer).__name__ == "Concatenate":
            start, end = position[layer.input[1]._keras_history.operation.name], position[layer.name]
            level = -layer.output.shape[1] / 2
            axes.annotate("", (end, level), (start, level), annotation_clip=False,
                          arrowprops={"arrowstyle": "->", "connectionstyle": "bar,fraction=-0.03", "color": "#555555"})
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    axes.legend(unique.values(), unique.keys(), fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    axes.set(title="Image size (bar height) and channels (number) after each layer; arrows are skip connections",
             xlabel="layer, from image to mask", yticks=[])
    axes.margins(y=0.12)
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
