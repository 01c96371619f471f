"""The network's predictions: for slices, and for volumes in three planes.

If XLA compiles the network (Keras' choice on a single GPU), every batch has one shape, so that it is compiled once:
the last batch is filled up, and the cuts of a volume are padded to squares. Otherwise that would only cost time.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from course.arrays import load_arrays, read_arrays_record
from course.batches import ordered_batches
from course.geometry import spacings
from course.planes import Volume, find_volumes, resample_slices
from course.scan import centred
from course.store import read_description


def predict_probabilities(model, X: np.ndarray) -> np.ndarray:
    """Return the network's probabilities for X (N, height, width, 1): float32 of shape (N, height, width), 0 to 1."""
    return model.predict(ordered_batches(X, whole=model.jit_compile), verbose=0)[: len(X), ..., 0]


def predict_in_planes(model, X: np.ndarray, volumes: list[Volume]) -> np.ndarray:
    """Return the probabilities for X (N, S, S, 1), float32 (N, S, S): in volumes, the mean over three planes.

    The network sees the slices, and the same volume cut along its rows and along its columns (Perslev et al., One
    Network to Segment Them All, 2019). A slice that belongs to no volume has the prediction of that slice alone.
    """
    probabilities = np.array(predict_probabilities(model, X))
    depths = [volume.depth(axis) for volume in volumes for axis in (1, 2)]
    least = max([X.shape[1], *depths]) if model.jit_compile else 0
    for volume in volumes:
        rows = slice(volume.start, volume.stop)
        for axis, axes in ((1, (1, 0, 2)), (2, (2, 1, 0))):  # swapped once and swapped back
            depth = volume.depth(axis)
            cuts = resample_slices(np.asarray(X[rows, ..., 0]), depth)
            padded = -(-max(depth, least) // 8) * 8  # the network halves the image three times
            cuts = np.pad(cuts, [(0, padded - depth), (0, 0), (0, 0)]).transpose(axes)
            answer = predict_probabilities(model, cuts[..., None]).transpose(axes)[:depth]
            probabilities[rows] += resample_slices(answer, volume.stop - volume.start)
        probabilities[rows] /= 3
    return probabilities


def predict_subset(model, work_dir: Path, subset: str, planes: int = 1) -> np.ndarray:
    """Return the network's probabilities for a subset, float32 (N, S, S); planes: 1 or 3, see `predict_in_planes`."""
    description = read_description(work_dir)
    slices = read_arrays_record(work_dir)["slices"][subset]
    X, _ = load_arrays(work_dir, subset)
    return predict_in_planes(model, X, find_volumes(slices, spacings(description), X.shape[1]) if planes == 3 else [])


def resize_probability(probability: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a map of probabilities (S, S) bilinearly to `shape` (height, width); float32, 0 to 1."""
    height, width = shape
    return np.asarray(Image.fromarray(probability).resize((width, height), Image.Resampling.BILINEAR))


def predict_scan(
    model, X: np.ndarray, field: tuple[int, int], shape: tuple[int, int], spacing: list[float] | None, planes: int
) -> np.ndarray:
    """Return the probabilities for a scan at its own resolution, float32 (slices, height, width).

    X and field: what `helpers.scan_input` returned; shape: (height, width) of the scan's pictures; spacing: theirs,
    [row, column, slice] in mm, or None where it is unknown; planes: 1 or 3, see `predict_in_planes`.
    """
    slices = [{"patient": "the scan", "slice": number, "size": field} for number in range(len(X))]
    volumes = find_volumes(slices, {"the scan": spacing}, X.shape[1]) if planes == 3 else []
    probabilities = predict_in_planes(model, X, volumes)
    return centred(np.stack([resize_probability(probability, field) for probability in probabilities]), *shape)
