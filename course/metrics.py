"""The metrics: overlap, distance between surfaces, and the uncertainty of a mean over patients.

Arrays in, numbers out.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")


def confusion_counts(truth: ArrayLike, prediction: ArrayLike) -> dict[str, int]:
    """Count the pixels of two masks of the same shape: true and false positives, false and true negatives.

    truth and prediction: arrays of bool, or of any number type holding only 0 and 1.
    Raises ValueError for other values or for shapes that differ.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"The masks differ in shape: {truth.shape} and {prediction.shape}.")
    for name, mask in (("truth", truth), ("prediction", prediction)):
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError(f"The {name} holds values other than 0 and 1: apply the threshold first.")
    truth, prediction = truth.astype(bool), prediction.astype(bool)
    true_positives = int(np.count_nonzero(truth & prediction))
    false_positives = int(np.count_nonzero(prediction)) - true_positives
    false_negatives = int(np.count_nonzero(truth)) - true_positives
    true_negatives = truth.size - true_positives - false_positives - false_negatives
    return dict(zip(COUNTS, (true_positives, false_positives, false_negatives, true_negatives)))


def add_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up an iterable of confusion counts."""
    counts = list(counts)
    return {name: sum(entry[name] for entry in counts) for name in COUNTS}


def scores(counts: dict[str, float]) -> dict[str, float]:
    """Return dice, iou, precision, recall and accuracy, each from 0 to 1, of confusion counts.

    An empty prediction for an empty mask is perfect: dice, iou, precision and recall are 1. If only one of
    the two is empty, they are 0.
    """
    tp, fp, fn, tn = (counts[name] for name in COUNTS)
    empty = tp + fp + fn == 0

    def ratio(part, whole):
        """Return part / whole: 1 if both masks are empty, 0 if only the whole is 0."""
        return 1.0 if empty else part / whole if whole else 0.0

    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "iou": ratio(tp, tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
    }


def dice(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the Dice of two masks (see `confusion_counts` for what they may be), 0 to 1; both empty is 1."""
    return scores(confusion_counts(truth, prediction))["dice"]


def cross_entropy(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the binary cross-entropy, mean over all pixels.

    It is minus the natural logarithm of the probability given to the true class.
    truth: array of 0 and 1. probability: float array of the same shape, 0 to 1; a probability of 0 counts
    as 1e-7, as in Keras.
    """
    given = np.where(truth, probability, 1 - probability)
    return float(-np.log(np.maximum(given, 1e-7), dtype=float).mean())


def rank_slices(slice_counts: Sequence[dict[str, int]]) -> tuple[list[int], list[float]]:
    """Return (indices, dice) of the slices whose true mask is not empty, from the best Dice to the worst."""
    with_atrium = [i for i, counts in enumerate(slice_counts) if counts["true_positives"] + counts["false_negatives"]]
    values = {i: scores(slice_counts[i])["dice"] for i in with_atrium}
    order = sorted(with_atrium, key=values.get, reverse=True)
    return order, [values[i] for i in order]


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the slices of the smallest box that contains all of a mask; for an empty mask, of its first pixel."""
    if not mask.any():
        return (slice(0, 1),) * mask.ndim
    return tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(mask))


def surface_distances(
    truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]
) -> tuple[float, float] | None:
    """Return (mean, 95th percentile) of the distances between the surfaces of two masks, or None if one is empty.

    A pixel belongs to the surface if one of its direct neighbours is outside. For each surface pixel of one mask, the
    distance to the nearest surface pixel of the other is taken, in both directions.
    The mean is the *mean average surface distance* (MASD in Metrics Reloaded, Maier-Hein et al., 2024): the mean of
    the means of both directions, so both surfaces count alike. It is not the average symmetric surface distance (ASSD,
    and `assd` in MedPy), which pools the distances, so that the larger surface counts more. The percentile pools both
    directions, as `hd95` in MedPy does; Metrics Reloaded takes the larger of the percentiles of the two directions.
    truth, prediction: bool arrays (slices, height, width). spacing: between neighbours along each of these axes.
    """
    if not truth.any() or not prediction.any():
        return None
    from scipy import ndimage

    if len(truth) == 1:  # a single picture has no neighbours above and below
        truth, prediction, spacing = truth[0], prediction[0], spacing[1:]
    box = bounding_box(truth | prediction)
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (truth[box], prediction[box])]
    ways = [
        ndimage.distance_transform_edt(~there, sampling=spacing)[here] for here, there in (surfaces, reversed(surfaces))
    ]
    return float(np.mean([np.mean(way) for way in ways])), float(np.percentile(np.concatenate(ways), 95))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return (low, high), the 95 % percentile bootstrap interval of the mean: 9,999 resamplings, seed 0.

    None for fewer than two values. With few patients the interval is too narrow rather than too wide: patients who
    are not in the sample cannot be drawn.
    """
    if len(values) < 2:
        return None
    from scipy import stats

    interval = stats.bootstrap([values], np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return float(interval.low), float(interval.high)
