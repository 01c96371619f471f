"""Figures: how they are saved, and those that need nothing but what they are given."""

import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from course.arrays import load_arrays, read_arrays_record
from course.metrics import bounding_box, rank_slices
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


def plot_history(histories, accuracy_of_nothing=None):
    """Plot loss, accuracy and IoU against the epoch, for train and valid: a row each, a column for each training.

    histories: {title: rows of a history}. accuracy_of_nothing: of predicting nothing on valid, a dotted line.
    Returns a Matplotlib figure; the rows share their scale.
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
        if accuracy_of_nothing is not None:
            column[1].axhline(accuracy_of_nothing, color="black", linestyle="dotted", label="nothing found")
        column[0].set_title(title)
        column[-1].set_xlabel("epoch")
        column[-1].xaxis.get_major_locator().set_params(integer=True)
    for axes, name in zip(panels[:, 0], ("Loss", "Accuracy", "IoU")):
        axes.set_ylabel(name)
    panels[1, 0].legend(loc="lower right")
    return figure


def plot_looks(runs):
    """Draw what networks answered for a slice while they learned: a row for each epoch, a column for each training.

    runs: {title: look}. A look holds `truth` (height, width), `epochs`, and `levels` (epochs, height, width), uint8:
    the probability in 256 steps, so that 128 is one half. Each panel shows the probabilities, and the outlines of truth
    (orange) and mask (dashed blue), enlarged around both. Returns a Matplotlib figure.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    rows = max(len(look["epochs"]) for look in runs.values())
    figure, panels = plt.subplots(rows, len(runs), figsize=(5.5, 2.95 * rows), squeeze=False, layout="constrained")
    for axes in panels.flat:
        axes.set_axis_off()
    for column, (title, look) in zip(panels.T, runs.items()):
        masks = look["levels"] >= 128
        region = np.any([look["truth"], *masks], axis=0)
        for axes, epoch, levels, mask in zip(column, look["epochs"], look["levels"], masks):
            axes.set_axis_on()
            draw_outlines(axes, levels, look["truth"], mask)
            axes.images[0].set_clim(0, 255)
            look_closer(axes, region)
            axes.set_title(f"{title},\nafter epoch {epoch}", fontsize=10)
    return figure


def plot_three_planes(volume, mask, centre):
    """Draw a volume as a cube with its three planes through a point, and beside it the cut in each plane.

    volume: (slices, height, width), 0 to 1; mask: bool of that shape, outlined on the cuts; centre: (slice, row,
    column). The cuts along rows and columns are stretched to squares. Returns a Matplotlib figure.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    depth, height, width = volume.shape
    cuts = {
        "a slice": (volume[centre[0]], mask[centre[0]], ("column", "row")),
        "a cut along the rows": (volume[:, centre[1]], mask[:, centre[1]], ("column", "slice")),
        "a cut along the columns": (volume[:, :, centre[2]], mask[:, :, centre[2]], ("row", "slice")),
    }
    figure = plt.figure(figsize=(5.5, 5.6), layout="constrained")
    cube = figure.add_subplot(2, 2, 1, projection="3d")
    steps = [np.linspace(0, length - 1, 33).astype(int) for length in (depth, height, width)]
    for fixed in range(3):
        others = [axis for axis in range(3) if axis != fixed]
        places = np.meshgrid(*(steps[axis] for axis in others), indexing="ij")
        where = [None, None, None]
        where[fixed] = np.full_like(places[0], centre[fixed])
        for axis, place in zip(others, places):
            where[axis] = place
        grey = plt.get_cmap("gray")(volume[tuple(where)])
        cube.plot_surface(where[2], where[1], where[0], facecolors=grey, rcount=33, ccount=33, shade=False)
    cube.set(xticks=[], yticks=[], zticks=[])
    for axis, name in ((cube.xaxis, "column"), (cube.yaxis, "row"), (cube.zaxis, "slice")):
        axis.set_label_text(name)
        axis.labelpad = -12
    cube.invert_yaxis()
    cube.set_box_aspect(None, zoom=0.9)
    for number, (title, (cut, outline, labels)) in enumerate(cuts.items(), start=2):
        axes = figure.add_subplot(2, 2, number)
        draw_outlines(axes, cut, outline, np.zeros_like(outline))
        axes.set(title=title, xlabel=labels[0], ylabel=labels[1], aspect="auto", box_aspect=1)
        axes.title.set_fontsize(10)
    return figure


def plot_predictions(work_dir, subset, slice_counts, masks):
    """Draw the best, the median and the worst slice that hold atrium, and the worst large one.

    Large: with at least as much atrium as the median slice. Left the whole slice with a box, right what is in the
    box, with the outlines of truth and prediction. slice_counts and masks are what `evaluate_subset` returned for the
    subset. Returns a Matplotlib figure.
    """
    import matplotlib.pyplot as plt
    import numpy as np

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
        left.imshow(image, cmap="gray")
        left.set(xticks=[], yticks=[], title=f"{label}:\n{slices[index]['name']}")
        draw_outlines(right, image, truth, prediction)
        look_closer(right, truth | prediction)
        right.set_title(f"Dice {values[rank]:.2f}\n{areas[rank]} pixels of atrium")
        draw_box(left, right)
    panels[-1, 1].set_xlabel("truth orange, prediction dashed blue")
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

    At the edge of the picture the square is moved inwards, and it is no larger than the picture. Where the mask
    (height, width) is empty, all of the picture stays.
    """
    if mask.any():
        box = bounding_box(mask)
        half = max(side.stop - side.start - 1 for side in box) / 2 + mask.shape[0] / 10
        half = min(half, min(mask.shape) / 2)
        row, column = (
            min(max((side.start + side.stop - 1) / 2, half - 0.5), length - half - 0.5)
            for side, length in zip(box, mask.shape)
        )
        axes.set(xlim=(column - half, column + half), ylim=(row + half, row - half))


def draw_box(axes, closer):
    """Draw on a picture the box of it that other axes show."""
    (left, right), (bottom, top) = closer.get_xlim(), closer.get_ylim()
    axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="white", linewidth=1)


def is_numeric(rows: Sequence[Sequence], column: int) -> bool:
    """Return whether a column of a table holds nothing but numbers."""
    return all(isinstance(row[column], (int, float)) for row in rows)


def format_table(rows, headers):
    """Return a plain-text table: columns aligned, numbers to the right, a line under the headers."""
    texts = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts)]
    numeric = [is_numeric(rows, column) for column in range(len(headers))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)
        ).rstrip()
        for row in texts
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


class Table:
    """Rows and headers that a notebook shows as HTML, and as plain text where there is no page."""

    def __init__(self, rows, headers):
        self.rows, self.headers = list(rows), list(headers)

    def __repr__(self):
        return format_table(self.rows, self.headers)

    def _repr_html_(self):
        sides = ["right" if is_numeric(self.rows, column) else "left" for column in range(len(self.headers))]

        def line(cells, tag):
            """Return a row of the table, each cell escaped and on its side."""
            written = (
                f'<{tag} style="text-align: {side}">{html.escape(str(cell))}</{tag}>'
                for cell, side in zip(cells, sides, strict=True)
            )
            return f"<tr>{''.join(written)}</tr>"

        body = "\n".join(line(row, "td") for row in self.rows)
        return (
            '<div style="overflow-x: auto">\n<table>\n'
            f"<thead>{line(self.headers, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
        )


def table(rows: Iterable[Sequence], headers: Sequence[str]) -> Table:
    """Return a table to be shown as the last line of a cell, or by `display`.

    rows: lists of cells, as many in each as there are headers. Columns of numbers stand to the right.
    """
    return Table(rows, headers)


def plot_planes(pictures, mask, spacing):
    """Draw a volume cut in three planes through the middle of a mask, and the mask's surface seen along each of them.

    pictures, mask: arrays (slices, height, width); spacing: [row, column, slice] in mm, so that all is drawn in its
    true proportions. Returns a Matplotlib figure.
    """
    import matplotlib.pyplot as plt

    sizes = spacing[2], spacing[0], spacing[1]
    lengths = [count * size for count, size in zip(mask.shape, sizes)]
    middle = [int(np.median(where)) for where in np.nonzero(mask)] if mask.any() else [n // 2 for n in mask.shape]
    ratios = [max(lengths[1] / lengths[2], 0.5), *(max(lengths[0] / length, 0.5) for length in lengths[:0:-1])]
    figure, panels = plt.subplots(
        3, 2, figsize=(6, 3.2 * sum(ratios)), height_ratios=ratios, layout="constrained", squeeze=False
    )
    for axis, (title, (cut, surface)) in enumerate(zip(("slice", "along the rows", "along the columns"), panels)):
        down, across = (size for place, size in enumerate(sizes) if place != axis)
        origin = "lower" if axis else "upper"  # the first slice lies at the bottom
        cut.imshow(pictures.take(middle[axis], axis), cmap="gray", origin=origin, aspect=down / across)
        outline = mask.take(middle[axis], axis)
        if outline.any():
            cut.contour(outline, [0.5], colors=PREDICTION_COLOR, linewidths=1.2)
        surface.imshow(shade_surface(mask, axis, sizes), cmap="gray", origin=origin, vmin=0, vmax=1)
        cut.set(title=f"cut: {title}", xticks=[], yticks=[])
        surface.set(title="surface, seen that way", xticks=[], yticks=[])
    return figure


def shade_surface(mask, axis, sizes):
    """Return a picture of a mask's surface seen along an axis, with pixels as large as the smallest side of a voxel.

    mask: bool, three axes; sizes: of a voxel along them, in mm. What is not surface is 0. The surface, 0.2 to 1, is
    the brighter the more it is turned towards a light behind the reader's left shoulder. It is smoothed a little.
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
