"""What the network answers: for slices, and for volumes in three planes.

Where XLA compiles the network (Keras' choice on a single GPU) every batch has one shape, so that it is compiled once:
the last batch is filled up, and the cuts of a volume are padded to squares. Elsewhere that would only cost time.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from course.arrays import load_arrays, read_arrays_record
from course.batches import ordered_batches
from course.planes import Volume, find_volumes, resample_slices
from course.scan import centred
from course.workspace import read_json

AT_ONCE = 512  # pictures whose enlarged answers are in memory together


def predict_probabilities(model, X: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Return the network's probabilities for X (N, height, width, 1): float32 of shape (N, height, width), 0 to 1.

    scale: the network sees the pictures larger by this factor, to the nearest multiple of 8 pixels, and its answers are
    brought back to their size, both bilinearly. Where it errs by a pixel, that is less of the body then (a network
    answers best for pictures somewhat larger than those of its training: Touvron et al., Fixing the train-test
    resolution discrepancy, 2019).
    """
    import tensorflow as tf

    size = X.shape[1:3]
    enlarged = [round(scale * side / 8) * 8 for side in size]
    probabilities = np.empty(X.shape[:3], np.float32)
    for start in range(0, len(X), AT_ONCE):
        rows = probabilities[start : start + AT_ONCE]
        batches = ordered_batches(X[start : start + AT_ONCE], whole=model.jit_compile)
        answers = model.predict(batches.map(lambda images: (tf.image.resize(images, enlarged),)), verbose=0)
        rows[:] = tf.image.resize(answers[: len(rows)], size)[..., 0]
    return probabilities


def predict_in_planes(model, X: np.ndarray, volumes: list[Volume], scale: float = 1.0) -> np.ndarray:
    """Return the probabilities for X (N, S, S, 1), for volumes averaged over their three planes.

    The network is asked three times: for the slices, and for the same volume cut across its rows and across its
    columns (Perslev et al., One Network to Segment Them All, 2019). Rows that belong to no volume are answered from
    the slice alone. scale: see `predict_probabilities`.
    """
    probabilities = predict_probabilities(model, X, scale)
    least = 0
    if model.jit_compile:
        least = max([X.shape[1], *(volume.depth(axis) for volume in volumes for axis in (1, 2))])
    for volume in volumes:
        rows = slice(volume.start, volume.stop)
        for axis, axes in ((1, (1, 0, 2)), (2, (2, 1, 0))):  # swapped once and swapped back
            depth = volume.depth(axis)
            cuts = resample_slices(np.asarray(X[rows, ..., 0]), depth)
            padded = max(depth, least)
            padded += -padded % 8  # the network halves the image three times
            cuts = np.pad(cuts, [(0, padded - depth), (0, 0), (0, 0)]).transpose(axes)
            answer = predict_probabilities(model, cuts[..., None], scale).transpose(axes)[:depth]
            probabilities[rows] += resample_slices(answer, volume.stop - volume.start)
        probabilities[rows] /= 3
    return probabilities


def predict_subset(model, work_dir: Path, subset: str, planes: int = 1, scale: float = 1.0) -> np.ndarray:
    """Return the network's probabilities for a subset, float32 (N, S, S).

    planes: 1 or 3, see `predict_in_planes`; scale: see `predict_probabilities`.
    """
    description = read_json(work_dir / "dataset.json", "01_dataset_upload")
    slices = read_arrays_record(work_dir)["slices"][subset]
    X, _ = load_arrays(work_dir, subset)
    volumes = find_volumes(slices, description, X.shape[1]) if planes == 3 else []
    return predict_in_planes(model, X, volumes, scale)


def resize_probability(probability: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a (S, S) map of probabilities bilinearly to `shape` (height, width); float32, 0 to 1."""
    height, width = shape
    return np.asarray(Image.fromarray(probability).resize((width, height), Image.Resampling.BILINEAR))


def predict_scan(
    model,
    X: np.ndarray,
    field: tuple[int, int],
    shape: tuple[int, int],
    spacing: list[float] | None,
    planes: int,
    scale: float = 1.0,
) -> np.ndarray:
    """Return the probabilities for the pictures of a scan, float32 (slices, height, width), at their own resolution.

    X and field: what `helpers.scan_input` returned; shape: (height, width) of the scan's pictures; spacing: theirs,
    [row, column, slice] in mm, or None where it is unknown; planes: 1 or 3, see `predict_in_planes`;
    scale: see `predict_probabilities`.
    """
    slices = [{"patient": "the scan", "slice": number, "size": field} for number in range(len(X))]
    volumes = find_volumes(slices, {"spacing": spacing}, X.shape[1]) if planes == 3 else []
    probabilities = predict_in_planes(model, X, volumes, scale)
    return centred(np.stack([resize_probability(probability, field) for probability in probabilities]), *shape)
