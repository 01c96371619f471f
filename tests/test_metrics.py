"""The scores agree with an independent implementation, and with our definition where masks are empty."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, log_loss, precision_score, recall_score

import helpers
from course.metrics import bootstrap_interval, bounding_box, cross_entropy, rank_slices, surface_distances

RNG = np.random.default_rng(7)
ONE_PIXEL = np.zeros((16, 16), bool)
ONE_PIXEL[3, 5] = True
MASKS = {
    "random": RNG.random((16, 16)) > 0.7,
    "other": RNG.random((16, 16)) > 0.5,
    "full": np.ones((16, 16), bool),
    "one pixel": ONE_PIXEL,
    "empty": np.zeros((16, 16), bool),
}


def all_scores(truth, prediction):
    return helpers.scores(helpers.confusion_counts(truth, prediction))


@pytest.mark.parametrize(("truth", "prediction"), itertools.product(MASKS, MASKS))
def test_scores_agree_with_scikit_learn(truth, prediction):
    truth, prediction = MASKS[truth], MASKS[prediction]
    got = all_scores(truth, prediction)
    flat = truth.ravel(), prediction.ravel()
    of_nothing = float(not truth.any() and not prediction.any())  # finding nothing where there is nothing is perfect
    expected = {"dice": f1_score, "iou": jaccard_score, "precision": precision_score, "recall": recall_score}
    for name, function in expected.items():
        assert got[name] == pytest.approx(function(*flat, zero_division=of_nothing), abs=1e-6), name
    assert got["accuracy"] == pytest.approx(accuracy_score(*flat), abs=1e-6)
    assert got["dice"] == helpers.dice(truth, prediction)
    assert got == all_scores(truth.astype(np.uint8), prediction.astype(np.float32))  # any dtype that holds 0 and 1


def test_cross_entropy_agrees_with_scikit_learn():
    truth, probability = MASKS["random"].astype(np.uint8), np.random.default_rng(0).random((16, 16), np.float32)
    expected = log_loss(truth.ravel(), probability.ravel().astype(float))
    assert cross_entropy(truth, probability) == pytest.approx(expected, rel=1e-5)
    opposite = 1 - np.float32(truth)
    assert cross_entropy(truth, opposite) == pytest.approx(-np.log(1e-7)), "certain and wrong, yet finite"


def test_counts_are_named_for_what_they_count():
    truth, prediction = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 1, 1, 0, 0, 0, 0])
    expected = {"true_positives": 2, "false_positives": 3, "false_negatives": 1, "true_negatives": 4}
    assert helpers.confusion_counts(truth, prediction) == expected


@pytest.mark.parametrize("wrong", [np.array([0, 255]), np.array([0.0, 0.3]), np.array([0, np.nan])])
def test_a_mask_with_other_values_than_0_and_1_is_refused(wrong):
    with pytest.raises(ValueError, match="threshold"):
        helpers.confusion_counts(np.array([0, 1]), wrong)
    with pytest.raises(ValueError, match="truth"):
        helpers.confusion_counts(wrong, np.array([0, 1]))


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        helpers.confusion_counts(np.zeros((4, 4)), np.zeros((4, 5)))


def test_slices_are_ranked_by_dice_and_empty_ones_left_out():
    pairs = [([1, 1], [1, 0]), ([0, 0], [0, 0]), ([1, 1], [1, 1]), ([0, 1], [1, 0])]
    counts = [helpers.confusion_counts(np.array(truth), np.array(prediction)) for truth, prediction in pairs]
    order, values = rank_slices(counts)
    assert order == [2, 0, 3]
    assert values == [1, pytest.approx(2 / 3), 0]


def test_the_bounding_box_holds_the_mask_and_nothing_more():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 5] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3), slice(3, 6))
    assert bounding_box(np.zeros((4, 5), bool)) == (slice(0, 1), slice(0, 1))


def surface_points(mask, spacing):
    """The surface of a mask, pixel by pixel: its pixels with a direct neighbour outside the mask."""
    points = []
    for place in np.argwhere(mask):
        for axis, step in itertools.product(range(3), (-1, 1)):
            neighbour = place.copy()
            neighbour[axis] += step
            if (neighbour < 0).any() or (neighbour >= mask.shape).any() or not mask[tuple(neighbour)]:
                points.append(place * spacing)
                break
    return np.array(points)


def test_surface_distances_agree_with_measuring_every_pair_of_points():
    """Three different spacings reveal swapped axes; a large and a small mask reveal pooling."""
    rng = np.random.default_rng(1)
    zz, yy, xx = np.mgrid[:12, :14, :16]
    for spacing in ((3, 1, 2), (1.37, 1.25, 0.5)):
        for radius in (2, 3, 4):
            truth, prediction = (
                (zz - rng.uniform(4, 8)) ** 2 + (yy - rng.uniform(5, 9)) ** 2 + (xx - rng.uniform(5, 11)) ** 2 < size**2
                for size in (radius, radius + 1.5)
            )
            distances = cdist(surface_points(truth, spacing), surface_points(prediction, spacing))
            ways = distances.min(axis=1), distances.min(axis=0)
            mean, percentile = surface_distances(truth, prediction, spacing)
            assert mean == pytest.approx((ways[0].mean() + ways[1].mean()) / 2)  # MASD of Metrics Reloaded
            assert abs(mean - np.concatenate(ways).mean()) > 1e-3  # not ASSD, which pools
            assert percentile == pytest.approx(np.percentile(np.concatenate(ways), 95))  # hd95 of MedPy


def test_surface_distances_of_a_single_picture_are_measured_in_the_picture():
    truth, prediction = np.zeros((2, 1, 20, 20), bool)
    truth[0, 5:15, 5:15], prediction[0, 5:15, 7:17] = True, True
    mean, percentile = surface_distances(truth, prediction, (5, 1, 2))
    frame = [(row, column) for row in range(10) for column in range(10) if {row, column} & {0, 9}]
    distances = cdist(np.array(frame) * (1, 2), (np.array(frame) + (0, 2)) * (1, 2))
    ways = distances.min(axis=1), distances.min(axis=0)
    assert mean == pytest.approx(np.mean(ways)) and percentile == pytest.approx(np.percentile(ways, 95))


def test_equal_masks_have_distance_0_and_an_empty_mask_has_none():
    mask = np.zeros((3, 8, 8), bool)
    mask[1, 2:5, 2:5] = True
    assert surface_distances(mask, mask, (1, 1, 1)) == (0, 0)
    assert surface_distances(mask, ~mask & False, (1, 1, 1)) is None
    assert surface_distances(~mask & False, mask, (1, 1, 1)) is None


def test_the_bootstrap_interval_agrees_with_all_possible_resamplings():
    values = [0.81, 0.9, 0.95, 0.87, 0.93]
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=5)]
    low, high = bootstrap_interval(values)
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.003)
    assert low < np.mean(values) < high
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([0.9]) is None
