"""A patient's slices as a volume: which of them are neighbours, its cuts in three planes, the pictures to train on."""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np


class Volume(NamedTuple):
    """Rows `start` to `stop` (not included) of a subset's arrays: neighbouring slices of one patient.

    row_step, column_step: the distance between neighbouring slices, in heights and in widths of a pixel of the
    network's image. The two differ if the picture or its pixels are not square.
    """

    start: int
    stop: int
    row_step: float
    column_step: float

    def depth(self, axis: int) -> int:
        """Return the depth in pixels of the cuts along the rows (axis 1) or the columns (axis 2), at least 1.

        A cut along the rows shows one row of every slice, so its pixels are as deep as a column is wide; a cut along
        the columns shows one column of every slice, so they are as deep as a row is high.
        """
        step = self.column_step if axis == 1 else self.row_step
        return max(1, round((self.stop - self.start) * step))


def is_whole_stack(numbers: list[int | None]) -> bool:
    """Tell whether slices with these numbers, ascending, lie one behind the other: numbered, and equally far apart."""
    if len(numbers) == 1:
        return True
    return None not in numbers and len(steps := {*np.diff(numbers).tolist()}) == 1 and 0 not in steps


def _neighbours(slices):
    """Return (first row, last row + 1) of each run of slices without a gap, all of one patient and one size."""
    runs = []
    for _, group in itertools.groupby(enumerate(slices), key=lambda entry: entry[1]["patient"]):
        numbered = [(row, pair["slice"], pair["size"]) for row, pair in group if pair["slice"] is not None]
        pairs = list(itertools.pairwise(numbered))
        unit = min((after[1] - before[1] for before, after in pairs if after[1] > before[1]), default=1)
        starts = [after[0] for before, after in pairs if after[1] - before[1] != unit or before[2] != after[2]]
        if numbered:
            runs += itertools.pairwise([numbered[0][0], *starts, numbered[-1][0] + 1])
    return runs


def find_volumes(slices: list[dict], spacing_of: dict[str, list | None], image_size: int) -> list[Volume]:
    """Return the volumes into which the slices of a subset can be stacked.

    slices: entries of arrays.json, in the order of the arrays' rows: a patient's slices together, ascending.
    spacing_of: for each patient [row, column, slice] in mm, or None if it is not known.
    Numbered slices make a volume if at least eight of one patient and size follow each other without a gap; at a gap a
    new volume begins. If the spacing is not known, slices are taken to lie one original pixel apart, and the volume
    must also be at least 16 pixels of the network's image deep: a few slices, in truth far apart, would be squeezed
    into nothing.
    """
    volumes = []
    for start, stop in _neighbours(slices):
        spacing = spacing_of[slices[start]["patient"]]
        row, column, between = spacing or (1, 1, 1)
        height, width = slices[start]["size"]
        volume = Volume(start, stop, between / (row * height / image_size), between / (column * width / image_size))
        least = 8 if spacing else max(8, math.ceil(16 / min(volume.row_step, volume.column_step)))
        if stop - start >= least:
            volumes.append(volume)
    return volumes


@functools.cache
def _overlaps(old, new):
    """Return a sparse array (new, old): the share of each of `new` pixels that each of `old` pixels covers."""
    from scipy import sparse

    edges, starts = np.linspace(0, old, new + 1)[:, None], np.arange(old)
    lengths = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return sparse.csr_array((np.maximum(lengths, 0) * (new / old)).astype(np.float32))


def area_average(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Average an array along one axis into `size` new pixels; returns float32.

    Each new pixel weights the old ones by the length that it shares with them.
    """
    values = np.moveaxis(values, axis, 0).astype(np.float32)
    averages = _overlaps(len(values), size) @ values.reshape(len(values), -1)
    return np.moveaxis(averages.reshape(size, *values.shape[1:]), 0, axis)


def resample_slices(values: np.ndarray, count: int) -> np.ndarray:
    """Resample an array along its first axis to `count` entries: averaged if it shrinks, interpolated if it grows."""
    if count <= len(values):
        return area_average(values, count, axis=0)
    places = np.clip((np.arange(count) + 0.5) * len(values) / count - 0.5, 0, len(values) - 1)
    below = places.astype(int)
    above = np.minimum(below + 1, len(values) - 1)
    weight = (places - below).reshape([-1] + [1] * (values.ndim - 1)).astype(np.float32)
    return ((1 - weight) * values[below] + weight * values[above]).astype(np.float32)


class TrainingPictures:
    """All pictures to train on: the slices, and every volume's cuts along rows and columns.

    X: float32 (N, S, S, 1) from 0 to 1, in steps of 1/255; y: uint8 of the same shape, `full` in a pixel that is all
    atrium; both may be memory maps. Pictures are numbered: the N slices, then for each volume its cuts along the rows
    and those along the columns. A cut lies in the middle of a black square; if it is too deep for the square, it is
    cropped at both ends. A picture and its mask are uint8 (S, S), 0 to 255.
    has_atrium: bool, for each picture whether some pixel of its mask is at least half atrium.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, volumes: list[Volume] = (), full: int = 1):
        self.X, self.y, self.full = X, y, full
        self.places = [(0, row, None) for row in range(len(X))]  # axis, index, volume
        has_atrium = [np.array([row.max() >= full / 2 for row in y], bool)]
        for volume in volumes:
            for axis in (1, 2):
                self.places += [(axis, index, volume) for index in range(X.shape[1])]
                has_atrium.append(y[volume.start : volume.stop, ..., 0].max(axis=(0, 3 - axis)) >= full / 2)
        self.has_atrium = np.concatenate(has_atrium)
        self.volumes = volumes

    def take(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the pictures with these numbers and their masks, read from the arrays."""
        return tuple(
            np.stack([self._cut(whole, *self.places[number]) for number in numbers])
            for whole in (self._images, self._masks)
        )

    def _images(self, *where):
        return np.rint(self.X[*where, ..., 0] * np.float32(255)).astype(np.uint8)

    def _masks(self, *where):
        return self.y[*where, ..., 0] * np.uint8(255 // self.full)

    def _cut(self, whole, axis, index, volume):
        if axis == 0:
            return whole(index)
        size, rows = self.X.shape[1], slice(volume.start, volume.stop)
        cut = whole(rows, index) if axis == 1 else whole(rows, slice(None), index)
        square, (first, last, start) = np.zeros((size, size), np.uint8), _in_the_middle(volume.depth(axis), size)
        square[first:last] = _resample_greys(cut, volume.depth(axis))[start : start + size]
        return square if axis == 1 else square.T

    @property
    def pixels(self) -> int:
        """How many pixels `stack` holds of the pictures; the masks have as many again."""
        deep = sum(depth for volume in self.volumes for depth in {volume.depth(axis) for axis in (1, 2)})
        return (len(self.X) + deep) * self.X.shape[1] ** 2 + 1

    def stack(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all pictures as (images, masks, views), which take little memory.

        images and masks: uint8, flat: all pixels of the slices, then of the volumes, resampled along their depth, then
        one black pixel. views: int32, a row for each picture: first, below, beside, top, bottom, left, right. If row r
        of the picture lies from top to bottom, and column c from left to right (the ends not included), it shows there
        the pixel with index `first + r * below + c * beside`, else the black one.
        """
        size = self.X.shape[1]
        image, rows = size * size, range(0, len(self.X), 64)  # a few at a time: X is float32
        stacks = [[whole(slice(row, row + 64)) for row in rows] for whole in (self._images, self._masks)]
        views = [(row * image, size, 1, 0, size, 0, size) for row in range(len(self.X))]
        filled = len(self.X)
        for volume in self.volumes:
            begins = {}  # depth: where the volume of that depth begins
            for axis in (1, 2):
                depth = volume.depth(axis)
                if depth not in begins:
                    begins[depth] = filled
                    filled += depth
                    for stack, whole in zip(stacks, (self._images, self._masks)):
                        stack.append(_resample_greys(whole(slice(volume.start, volume.stop)), depth))
                first, last, start = _in_the_middle(depth, size)
                begin = (begins[depth] + start - first) * image
                for index in range(size):
                    if axis == 1:
                        views.append((begin + index * size, image, 1, first, last, 0, size))
                    else:
                        views.append((begin + index, size, image, 0, size, first, last))
        black = np.zeros(1, np.uint8)
        images, masks = (np.concatenate([*(part.ravel() for part in stack), black]) for stack in stacks)
        return images, masks, np.array(views, np.int32)


def _in_the_middle(depth, size):
    """Return where in its square of `size` a cut of `depth` pixels begins and ends, and its first pixel to show."""
    first = max(0, (size - depth) // 2)
    return first, first + min(depth, size), max(0, (depth - size) // 2)


def _resample_greys(values, count):
    return np.rint(resample_slices(values, count)).astype(np.uint8)
