"""A patient's slices as a volume, and its cuts in three planes, compared with values found by hand."""

import numpy as np
import pytest

from course import planes
from course.planes import Volume


def make_slices(patient, numbers, size=(320, 320)):
    return [{"patient": patient, "slice": number, "size": list(size)} for number in numbers]


def rows_of_volumes(slices, spacing=(1, 1, 1), image_size=160):
    spacing_of = dict.fromkeys("abcd", spacing)
    return [(volume.start, volume.stop) for volume in planes.find_volumes(slices, spacing_of, image_size)]


@pytest.mark.parametrize(
    ("numbers", "volumes"),
    [
        (range(8), [(0, 8)]),
        (range(7), []),
        ([None, None, *range(9)], [(2, 11)]),  # slices without a number stay out
        ([*range(1, 11), *range(13, 20), *range(21, 29)], [(0, 10), (17, 25)]),  # 11 and 12 are missing, and 20
        ([*range(5, 14), 13, *range(14, 22)], [(0, 9), (9, 18)]),  # two slices with one number are not neighbours
        (range(0, 200, 10), [(0, 20)]),  # numbers may go in steps
        ([*range(0, 100, 10), *range(120, 200, 10)], [(0, 10), (10, 18)]),
    ],
)
def test_eight_consecutive_slices_make_a_volume(numbers, volumes):
    assert rows_of_volumes(make_slices("a", numbers)) == volumes


def test_another_patient_or_size_begins_another_volume():
    slices = [*make_slices("a", [None] * 9), *make_slices("b", range(9)), *make_slices("b", range(9, 19), (320, 300))]
    assert rows_of_volumes([*slices, *make_slices("c", range(19, 27))]) == [(9, 18), (18, 28), (28, 36)]


@pytest.mark.parametrize(("count", "image_size", "found"), [(20, 160, 0), (31, 160, 0), (32, 160, 1), (20, 256, 1)])
def test_with_an_assumed_spacing_a_volume_must_be_16_pixels_deep(count, image_size, found):
    slices = make_slices("a", range(count))
    assert rows_of_volumes(slices, None, image_size) == [(0, count)] * found


def test_a_volume_of_unknown_spacing_must_be_deep_enough_in_both_planes():
    assert rows_of_volumes(make_slices("a", range(16), (160, 160)), None) == [(0, 16)]
    assert rows_of_volumes(make_slices("a", range(16), (160, 320)), None) == []
    assert rows_of_volumes(make_slices("a", range(16), (320, 160)), None) == []
    assert [rows_of_volumes(make_slices("a", range(count)), None, 960) for count in (7, 8)] == [[], [(0, 8)]]


def test_each_patient_has_its_own_spacing_and_size_and_each_plane_its_own_pixels():
    slices = [*make_slices("a", range(16), (80, 120)), *make_slices("b", range(16), (40, 40))]
    first, second = planes.find_volumes(slices, {"a": [2, 1, 3], "b": [1, 1, 0.5]}, 40)
    # At 40 x 40 a row of the first is 80 * 2 / 40 = 4 mm high, and a column 120 * 1 / 40 = 3 mm wide
    assert first == Volume(0, 16, row_step=3 / 4, column_step=3 / 3)
    assert (first.depth(1), first.depth(2)) == (16, 12)  # slices by columns, slices by rows
    assert second == Volume(16, 32, row_step=0.5, column_step=0.5)


def test_a_patient_of_unknown_spacing_makes_no_shallow_volume_beside_one_whose_spacing_is_known():
    slices = [*make_slices("a", range(8)), *make_slices("b", range(8))]
    assert planes.find_volumes(slices, {"a": None, "b": [1.25, 1.25, 2.5]}, 160) == [Volume(8, 16, 1.0, 1.0)]


def test_a_volume_is_at_least_a_pixel_deep_and_depths_are_rounded():
    assert Volume(0, 8, 0.01, 0.45).depth(2) == 1
    assert Volume(0, 8, 0.01, 0.45).depth(1) == 4  # 3.6


@pytest.mark.parametrize(
    ("numbers", "is_whole"),
    [
        *[([5], True), ([None], True), ([7, 8, 9], True), ([10, 20, 30], True), ([1, 5], True)],
        *[([7, 8, 11], False), ([10, 20, 40], False), ([1, 3, 6], False), ([1, 2, 6], False), ([1, 2, 7], False)],
        *[([1, 1, 2], False), ([1, 1], False), ([1, None], False)],
    ],
)
def test_a_stack_is_whole_if_its_slices_are_numbered_and_equally_far_apart(numbers, is_whole):
    assert planes.is_whole_stack(numbers) is is_whole


def test_fewer_slices_are_averages_of_what_they_cover():
    values = np.array([[0.0], [2], [4], [8], [10]])
    assert planes.resample_slices(values, 2).ravel().tolist() == pytest.approx([4 / 2.5, 20 / 2.5])
    assert planes.resample_slices(values, 5).ravel().tolist() == [0, 2, 4, 8, 10]
    assert planes.resample_slices(values, 2).dtype == np.float32


def test_more_slices_are_interpolated_between_the_middles_of_the_old():
    resampled = planes.resample_slices(np.array([[0, 1], [4, 1]], np.uint8), 4)
    assert resampled.dtype == np.float32 and resampled.tolist() == [[0, 1], [1, 1], [3, 1], [4, 1]]
    assert planes.resample_slices(np.array([0, 3, 9]), 6).tolist() == [0, 0.75, 2.25, 4.5, 7.5, 9]


def test_averages_run_along_the_given_axis():
    values = np.arange(8).reshape(2, 4)
    assert planes.area_average(values, 2, axis=1).tolist() == [[0.5, 2.5], [4.5, 6.5]]
    assert planes.area_average(values, 1, axis=0).tolist() == [[2, 3, 4, 5]]


def make_volume(slices=20, size=16):
    """Whole-number greys, and masks of a box with different ends along each axis, in slices 4 to 15 of 20."""
    greys = np.random.default_rng(0).integers(0, 256, (slices, size, size, 1), np.uint8)
    y = np.zeros_like(greys)
    y[4:16, 3:9, 5:7] = 1
    return greys / np.float32(255), y, greys


def test_slices_come_first_and_are_unchanged():
    X, y, greys = make_volume()
    pictures = planes.TrainingPictures(X, y)
    assert len(pictures.places) == len(pictures.has_atrium) == 20
    images, masks = pictures.take([3, 11])
    assert images.dtype == masks.dtype == np.uint8
    assert np.array_equal(images, greys[[3, 11], ..., 0]) and np.array_equal(masks, 255 * y[[3, 11], ..., 0])


def test_cuts_are_those_of_the_volume_with_slices_downwards_and_then_to_the_right():
    X, y, greys = make_volume()
    pictures = planes.TrainingPictures(X, y, [Volume(2, 18, 1.0, 1.0)])
    assert len(pictures.places) == 20 + 2 * 16
    images, masks = pictures.take(range(20, 52))
    for index in range(16):
        assert np.array_equal(images[index], greys[2:18, index, :, 0])
        assert np.array_equal(images[16 + index], greys[2:18, :, index, 0].T)
        assert np.array_equal(masks[16 + index], 255 * y[2:18, :, index, 0].T)


def test_each_plane_is_resampled_by_its_own_step_and_centred():
    X, y, greys = make_volume()
    pictures = planes.TrainingPictures(X, y, [Volume(0, 20, row_step=0.5, column_step=1.0)])
    images, _ = pictures.take([20 + 3, 20 + 16 + 5])
    assert np.array_equal(images[0], greys[2:18, 3, :, 0])  # 20 deep: two are cut off at each end
    pairs = greys[:, :, 5, 0].astype(float).reshape(10, 2, 16).mean(axis=1)  # 10 deep: 3 pixels of black on each side
    assert np.array_equal(images[1][:, 3:13], np.rint(pairs).astype(np.uint8).T)
    assert not images[1][:, :3].any() and not images[1][:, 13:].any()


@pytest.mark.parametrize("full", [1, 255])
def test_a_picture_has_atrium_if_half_a_pixel_is(full):
    X, y, _ = make_volume()
    shares = y * np.uint8(full)
    if full == 255:
        shares[0, 0, 0], shares[1, 0, 0] = 127, 128
    pictures = planes.TrainingPictures(X, shares, [Volume(0, 20, 1.0, 1.0)], full=full)
    slices, rows, columns = pictures.has_atrium[:20], pictures.has_atrium[20:36], pictures.has_atrium[36:]
    assert np.flatnonzero(slices).tolist() == [*([1] * (full == 255)), *range(4, 16)]
    assert np.flatnonzero(rows).tolist() == [*([0] * (full == 255)), *range(3, 9)]
    assert np.flatnonzero(columns).tolist() == [*([0] * (full == 255)), 5, 6]
    assert pictures.take([4])[1].max() == 255


VOLUMES = [Volume(0, 9, 1.3, 0.8), Volume(9, 19, 0.7, 0.7), Volume(19, 39, 1.0, 1.0)]


def test_the_stack_shows_the_same_pictures():
    X, y, _ = make_volume(slices=70)
    pictures = planes.TrainingPictures(X, y, VOLUMES)
    images, masks, views = pictures.stack()
    # 9 slices, 12 and 7 deep, 10 slices, twice 7 deep, 20 slices, twice 20 deep: what is equally deep is held once
    assert len(images) == len(masks) == pictures.pixels == (70 + 12 + 7 + 7 + 20) * 256 + 1
    assert images.dtype == masks.dtype == np.uint8 and views.dtype == np.int32
    for number, (image, mask) in enumerate(zip(*pictures.take(range(70 + 6 * 16)))):
        first, below, beside, top, bottom, left, right = views[number]
        rows, columns = np.mgrid[top:bottom, left:right]
        for flat, expected in ((images, image), (masks, mask)):
            shown = np.zeros((16, 16), np.uint8)
            shown[top:bottom, left:right] = flat[first + rows * below + columns * beside]
            assert np.array_equal(shown, expected)
