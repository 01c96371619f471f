"""A patient's slices as a volume: its cuts in three planes, and how they are put back together."""

import functools
import itertools
import math

import numpy as np


@functools.cache
def _overlaps(old, new):
    """Return the share of each of `new` pixels that each of `old` pixels covers: a sparse array (new, old)."""
    from scipy import sparse

    edges, starts = np.linspace(0, old, new + 1)[:, None], np.arange(old)
    lengths = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return sparse.csr_array((np.maximum(lengths, 0) * (new / old)).astype(np.float32))


def area_average(values, size, axis):
    """Average an array along one axis into `size` new pixels; returns float32.

    Each new pixel weighs the old ones by the length that it covers of them.
    """
    values = np.moveaxis(values, axis, 0).astype(np.float32)
    averages = _overlaps(len(values), size) @ values.reshape(len(values), -1)
    return np.moveaxis(averages.reshape(size, *values.shape[1:]), 0, axis)


def find_volumes(slices, description, image_size):
    """Return the volumes that the slices of a subset stack up to, as a list of (first row, last row + 1).

    slices: entries of arrays.json, in the order of the arrays' rows. A patient makes a volume if there are at least
    eight slices with numbers. Where the dataset's spacing is not known they must also be 16 pixels of the network's
    image deep, as `slice_step` takes it: a few slices, far apart, would be squeezed into nothing.
    """
    least = 8 if description["spacing"] else max(8, math.ceil(16 / slice_step(description, image_size)))
    volumes = []
    for _, group in itertools.groupby(enumerate(slices), key=lambda entry: entry[1]["patient"]):
        rows = [row for row, pair in group if pair["slice"] is not None]
        if len(rows) >= least:
            volumes.append((rows[0], rows[-1] + 1))
    return volumes


def slice_step(description, image_size):
    """Return the distance between two slices in pixels of the network's image.

    Where the dataset's spacing is not known, slices are taken to lie one pixel of the original apart.
    """
    row, _, depth = description["spacing"] or (1, 1, 1)
    height = description["subsets"]["train"][0]["size"][0]
    return depth / row * image_size / height


def resample_slices(values, count):
    """Resample an array along its first axis to `count` entries: averaged if it shrinks, interpolated if it grows."""
    if count <= len(values):
        return area_average(values, count, axis=0)
    places = np.clip((np.arange(count) + 0.5) * len(values) / count - 0.5, 0, len(values) - 1)
    below = places.astype(int)
    above = np.minimum(below + 1, len(values) - 1)
    weight = (places - below).reshape([-1] + [1] * (values.ndim - 1)).astype(np.float32)
    return ((1 - weight) * values[below] + weight * values[above]).astype(np.float32)


def in_square(picture, size):
    """Return a (size, size) copy of a picture, centred: what is too large is cut off, what is missing is black."""
    square = np.zeros((size, size), np.float32)
    spans = [min(length, size) for length in picture.shape]
    source = tuple(
        slice((length - span) // 2, (length - span) // 2 + span) for length, span in zip(picture.shape, spans)
    )
    target = tuple(slice((size - span) // 2, (size - span) // 2 + span) for span in spans)
    square[target] = picture[source]
    return square


class TrainingPictures:
    """All pictures to train on: the slices, and with three planes every volume's cuts along rows and columns as well.

    X, y: arrays (N, S, S, 1); a pixel of y that is all atrium holds `full`. volumes: pairs (first row, last row + 1).
    step: distance between slices in pixels.
    """

    def __init__(self, X, y, volumes=(), step=1.0, full=1):
        self.X, self.y, self.step, self.full = X, y, step, full
        self.places = [(0, 0, len(X), row) for row in range(len(X))]
        has_atrium = [np.array([row.max() >= full / 2 for row in y], bool)]
        for start, stop in volumes:
            for axis in (1, 2):
                self.places += [(axis, start, stop, index) for index in range(X.shape[1])]
                has_atrium.append(y[start:stop, ..., 0].max(axis=(0, 3 - axis)) >= full / 2)
        self.has_atrium = np.concatenate(has_atrium)

    def take(self, chosen):
        """Return the pictures with the given numbers as X and y, float32 of shape (len(chosen), S, S, 1)."""
        X, y = (
            np.stack([self._cut(array, *self.places[number]) for number in chosen])[..., None]
            for array in (self.X, self.y)
        )
        return X, y / np.float32(self.full)

    def _cut(self, array, axis, start, stop, index):
        if axis == 0:
            return array[index, ..., 0].astype(np.float32)
        cut = array[start:stop, index, :, 0] if axis == 1 else array[start:stop, :, index, 0]
        cut = resample_slices(cut, max(1, round((stop - start) * self.step)))
        return in_square(cut if axis == 1 else cut.T, array.shape[1])
