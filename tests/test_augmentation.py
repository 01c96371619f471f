"""Augmentation of pictures and masks agrees with independent computations, with and without XLA."""

import math

import numpy as np
import pytest
from scipy import ndimage

import helpers
from course.image_operations import cut_squares, enlarge, neighbours_mean

SIZE, CROP = 64, 24


def augmentation(crop_size, compiled=False):
    """The function as training runs it: traced, or compiled by XLA."""
    import tensorflow as tf

    function = tf.function(lambda X, y, seed: helpers.augment(X, y, seed, crop_size, compiled), jit_compile=compiled)

    def run(images, masks, seed):
        X, y = (tf.constant(part, tf.float32) for part in (images, masks))
        return tuple(part.numpy() for part in function(X, y, tf.constant(seed, tf.int64)))

    return run


def run(images, masks, seed=(0, 1), crop_size=CROP):
    return augmentation(crop_size)(images, masks, seed)


def flat(count, value, size=SIZE):
    return np.full((count, size, size, 1), value, np.float32)


@pytest.fixture(scope="module")
def crops():
    """Crops of 250 pictures: for each pixel the column and row it comes from, and 1 if that is inside the picture."""
    rows, columns = np.broadcast_to(np.mgrid[:SIZE, :SIZE][:, None], (2, 250, SIZE, SIZE)).astype(np.float32)
    channels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    return run(flat(250, 0.5), channels)[1]


@pytest.fixture(scope="module")
def maps(crops):
    """The map x = a u + b v + c, y = d u + e v + f of each crop that lies inside its picture, by least squares."""
    v, u = np.mgrid[:CROP, :CROP] - (CROP - 1) / 2
    inside = [crop for crop in crops if crop[..., 2].min() > 0.999]
    assert len(inside) > 60
    known = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=1)
    return np.array([np.linalg.lstsq(known, crop[..., :2].reshape(-1, 2), rcond=None)[0].T for crop in inside])


def test_crops_are_rotated_by_up_to_20_degrees_either_way(maps):
    angles = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert -20.01 < angles.min() < -18 and 18 < angles.max() < 20.01
    across = np.sum(maps[:, :, 0] * maps[:, :, 1], axis=1)  # rotated and stretched, but not sheared
    assert np.abs(across).max() < 1e-3


def test_crops_are_scaled_by_up_to_a_quarter_and_stretched_by_up_to_a_tenth(maps):
    along, down = np.linalg.norm(maps[:, :, 0], axis=1), np.linalg.norm(maps[:, :, 1], axis=1)
    scale, stretch = 1 / np.sqrt(along * down), np.sqrt(along / down)
    assert 1 / 1.251 < scale.min() < 1 / 1.2 and 1.2 < scale.max() < 1.251
    assert 1 / 1.101 < stretch.min() < 1 / 1.08 and 1.08 < stretch.max() < 1.101


def test_crops_are_cut_from_anywhere_in_the_picture(crops):
    middles = crops[:, CROP // 2 - 1 : CROP // 2 + 1, CROP // 2 - 1 : CROP // 2 + 1, :2].mean(axis=(1, 2))
    middle, reach = (SIZE - 1) / 2, (SIZE - CROP) / 2
    for places in middles.T:
        assert middle - reach - 0.01 < places.min() < middle - 0.95 * reach
        assert middle + reach + 0.01 > places.max() > middle + 0.95 * reach
    assert abs(np.corrcoef(middles.T)[0, 1]) < 0.15


def test_cut_squares_agree_with_scipy_even_far_outside_the_picture():
    pictures = np.random.default_rng(1).random((3, 20, 20, 2), np.float32)
    transforms = np.zeros((3, 8), np.float32)
    transforms[:, :6] = [[0.9, -0.3, 2, 0.2, 1.1, -3], [1, 0, -40, 0, 1, 25], [0.5, 0.25, 15.5, -0.75, 1.5, 9.25]]
    y, x = np.mgrid[:12, :12]
    answers = [cut_squares(pictures, transforms, 12, compiled).numpy() for compiled in (False, True)]
    assert np.abs(answers[0] - answers[1]).max() < 1e-6
    for picture, answer, (a, b, c, d, e, f, _, _) in zip(pictures, answers[1], transforms):
        for channel in (0, 1):
            places = [d * x + e * y + f, a * x + b * y + c]
            expected = ndimage.map_coordinates(picture[..., channel], places, order=1, mode="grid-constant")
            assert np.abs(answer[..., channel] - expected).max() < 1e-5


def test_black_pixels_get_only_brightness_and_noise():
    images, _ = run(flat(300, 0), flat(300, 0))
    brightness, noise = images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))
    assert -0.105 < brightness.min() < -0.09 and 0.09 < brightness.max() < 0.105
    assert noise.min() < 0.002 and 0.036 < noise.max() < 0.0425
    noisy = images[noise > 0.02]
    standard = (noisy - noisy.mean(axis=(1, 2, 3), keepdims=True)) / noisy.std(axis=(1, 2, 3), keepdims=True)
    assert np.mean(np.abs(standard) < 1) == pytest.approx(0.683, abs=0.02)
    assert np.mean(np.abs(standard) < 2) == pytest.approx(0.954, abs=0.02)


def test_gamma_is_one_exponent_per_picture_between_0_67_and_1_49():
    black, dark, bright = (run(flat(300, value), flat(300, 0), crop_size=16)[0] for value in (0, 0.25, 1))
    inside = run(flat(300, 1), flat(300, 1), crop_size=16)[1].min(axis=(1, 2, 3)) > 0.999
    ratio = (dark - black)[inside] / (bright - black)[inside]
    exponents = np.log(ratio) / np.log(0.25)
    assert np.ptp(exponents, axis=(1, 2, 3)).max() < 1e-3
    assert math.exp(-0.4) - 1e-3 < exponents.min() < math.exp(-0.36)
    assert math.exp(0.36) < exponents.max() < math.exp(0.4) + 1e-3


def test_contrast_shading_and_spots_stay_within_their_limits(monkeypatch):
    import tensorflow as tf

    inside = run(flat(300, 1), flat(300, 1), crop_size=16)[1].min(axis=(1, 2, 3)) > 0.999

    def factors(cells):
        """Log of the factor on white, with only the fields of this many cells in effect, set to their first cell."""

        def first_cell(field, size):
            return tf.fill([1, size, size, 1], 1.0) * field[:, :1, :1, None] * (field.shape[1:] == (cells, cells))

        monkeypatch.setattr(helpers, "enlarge", first_cell)
        black, white = (run(flat(300, value), flat(300, 0), crop_size=16)[0] for value in (0, 1))
        return np.log((white - black)[inside, 8, 8, 0])

    contrast = factors(None)
    shading, spots = factors(4) - contrast, factors(16 // 8) - contrast
    for values, limit, reached in ((contrast, 0.25, 0.23), (shading, 0.4, 0.37), (spots, 0.3, 0.2)):
        assert -limit - 1e-3 < values.min() < -reached and reached < values.max() < limit + 1e-3
    assert np.mean(np.abs(spots) < 0.1) > 0.5  # the product of two, so mostly faint


def test_one_picture_in_five_is_blurred(monkeypatch):
    as_they_are, one_more = [], []
    for results, mean in ((as_they_are, lambda images: images), (one_more, lambda images: images + 1)):
        monkeypatch.setattr(helpers, "neighbours_mean", mean)
        results.append(run(flat(500, 0.5), flat(500, 0.5), crop_size=8)[0])
    share = (one_more[0] - as_they_are[0]).mean(axis=(1, 2, 3))  # the weight of the blurred picture
    assert np.mean(share > 1e-5) == pytest.approx(0.2, abs=0.05)
    assert share.min() > -1e-5 and 0.9 < share.max() < 1.00001


def test_neighbourhood_means_ignore_what_lies_beyond_the_edge():
    images = np.random.default_rng(2).random((2, 6, 9, 1), np.float32)
    means = neighbours_mean(images).numpy()
    for row in range(6):
        for column in range(9):
            around = images[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert means[:, row, column] == pytest.approx(around.mean(axis=(1, 2)), abs=1e-6)


@pytest.mark.parametrize(("cells", "size"), [(4, 56), (7, 56), (1, 8), (19, 152)])
def test_enlarging_a_field_agrees_with_tensorflow(cells, size):
    import tensorflow as tf

    fields = np.random.default_rng(3).uniform(-1, 1, (2, cells, cells)).astype(np.float32)
    expected = tf.image.resize(fields[..., None], [size, size], "bicubic")
    assert np.abs(enlarge(fields, size) - expected).max() < 2e-6


def test_image_and_mask_move_together():
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:64, :64]
    masks = [((rows - rng.integers(24, 40)) ** 2 + (columns - rng.integers(24, 40)) ** 2 < 100) for _ in range(6)]
    masks = np.array(masks, np.float32)[..., None]
    moved_images, moved_masks = run(masks * 0.6 + 0.2, masks, crop_size=48)
    assert moved_masks.shape == moved_images.shape == (6, 48, 48, 1) and moved_masks.any((1, 2, 3)).sum() > 3
    for image, mask in zip(moved_images[..., 0], moved_masks[..., 0] >= 0.5):
        if mask.sum() > 50:
            assert np.percentile(image[mask], 5) > np.percentile(image[~mask], 90)


def test_augmentation_depends_only_on_its_seed_and_differs_between_pictures():
    picture = np.random.default_rng(4).random((1, SIZE, SIZE, 1))
    pictures = np.repeat(picture, 4, axis=0)
    first, again, other, another = (run(pictures, pictures, seed)[0] for seed in ((0, 1), (0, 1), (0, 2), (1, 1)))
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.05 and np.abs(first - another).mean() > 0.05
    assert min(np.abs(first[0] - one).mean() for one in first[1:]) > 0.05


def test_xla_gives_the_same_result():
    size, crop_size = 256, 152  # where float32 has the fewest digits left for parts of a pixel
    images = np.random.default_rng(5).random((2, size, size, 1))
    masks = (images > 0.5).astype(np.float32)
    plain, compiled = augmentation(crop_size), augmentation(crop_size, compiled=True)
    for seed in ((0, 1), (2**32 - 1, 3 * 2**16 + 5)):
        for expected, answer in zip(plain(images, masks, seed), compiled(images, masks, seed)):
            assert np.abs(answer - expected).max() < 1e-5
