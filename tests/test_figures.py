"""Figures and tables: the right lines and pictures, with the right names and colours, the right way round."""

import xml.etree.ElementTree

import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from outlines import color_of, extent
from scipy.ndimage import gaussian_filter

import helpers
from course.figures import look_closer, shade_surface

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_table_has_html_and_plain_text():
    shown = helpers.table([["a<b", 1, "2"], ["c", 2.5, "-"]], ["name", "how many", "as text"])
    assert repr(shown) == "name  how many  as text\n----  --------  -------\na<b          1  2\nc          2.5  -"
    page = xml.etree.ElementTree.fromstring(shown._repr_html_())
    assert "overflow-x: auto" in page.attrib["style"]  # a table wider than the page scrolls by itself
    lines = [[cell.text for cell in line] for line in page.iter("tr")]
    assert lines == [["name", "how many", "as text"], ["a<b", "1", "2"], ["c", "2.5", "-"]]
    assert [[cell.tag for cell in line] for line in page.iter("tr")] == [["th"] * 3, ["td"] * 3, ["td"] * 3]
    for line in page.iter("tr"):
        assert [cell.attrib["style"] for cell in line] == [f"text-align: {side}" for side in ("left", "right", "left")]


def test_the_figure_of_the_dataset_shows_each_patients_largest_mask_beside_its_slice(small_dataset):
    description = helpers.read_json(small_dataset / "dataset.json", "01_dataset_upload")
    figure = helpers.plot_pairs(description, small_dataset)
    everybody = [pair["patient"] for subset in helpers.SUBSETS for pair in description["subsets"][subset]]
    shown = []
    for slice_axes, mask_axes in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        name, subset = slice_axes.get_title().split(", ")
        image, mask = helpers.pair_paths(description, small_dataset, subset, name)
        assert np.array_equal(slice_axes.images[0].get_array(), helpers.read_image(image))
        assert np.array_equal(mask_axes.images[0].get_array(), helpers.read_mask(mask))
        assert [color_of(outline) for outline in slice_axes.collections] == [helpers.TRUTH_COLOR]
        patient = name.rpartition("_")[0]
        pictures = [pair["name"] for pair in description["subsets"][subset] if pair["patient"] == patient]
        paths = [helpers.pair_paths(description, small_dataset, subset, picture)[1] for picture in pictures]
        assert helpers.read_mask(mask).sum() == max(helpers.read_mask(path).sum() for path in paths) > 0
        shown.append(patient)
    assert len(set(shown)) == 3 and (shown[0], shown[-1]) == (everybody[0], everybody[-1])
    first = [pair for pair in description["subsets"]["train"] if pair["patient"] == shown[0]]
    one = {**description, "subsets": {"train": first, "valid": [], "test": []}}
    assert len(helpers.plot_pairs(one, small_dataset).axes) == 2


def test_a_convolution_is_drawn_with_the_numbers_at_one_place():
    picture = np.random.default_rng(0).random((9, 12)).astype("float32")
    weights = np.arange(-4.0, 5).reshape(3, 3)
    whole, near, products, answer = helpers.plot_convolution(picture, weights, 4, 7).axes
    assert np.array_equal(whole.images[0].get_array(), picture)
    assert np.array_equal(near.images[0].get_array(), picture[2:7, 5:10])
    assert [text.get_text() for text in near.texts] == [f"{value:.2f}" for value in picture[2:7, 5:10].flat]
    pixels = picture[3:6, 6:9]
    pairs = list(zip(pixels.flat, range(-4, 5)))
    words = [f"{value:.2f}\n× {weight}\n= {value * weight:.2f}" for value, weight in pairs]
    assert [text.get_text() for text in products.texts] == words
    total = sum(value * weight for value, weight in pairs)
    assert products.get_xlabel() == f"sum: {total:.2f}"
    answers = answer.images[0].get_array()
    assert answers.shape == picture.shape and answers[4, 7] == pytest.approx(total, rel=1e-5)
    corner = sum(picture[row, column] * weights[row + 1, column + 1] for row in (0, 1) for column in (0, 1))
    assert answers[0, 0] == pytest.approx(corner, rel=1e-5)  # beyond the border there is 0
    assert -answer.images[0].norm.vmin == answer.images[0].norm.vmax == np.abs(answers).max()
    frames = [axes.patches[0].get_bbox().bounds for axes in (whole, near, answer)]
    assert frames == [(4.5, 1.5, 5, 5), (0.5, 0.5, 3, 3), (4.5, 1.5, 5, 5)]
    for text in near.texts:  # white on dark, black on light
        column, row = (int(place) for place in text.get_position())
        assert text.get_color() == ("white" if near.images[0].get_array()[row, column] < 0.5 else "black")


def test_the_network_is_drawn_as_a_u_with_what_it_makes_of_an_image():
    keras.utils.set_random_seed(1)
    model = helpers.create_model(image_size=32)
    image = np.random.default_rng(1).random((1, 32, 32, 1)).astype("float32")
    axes = helpers.plot_network(model, image).axes[0]
    names = ["image", "down1", "down2", "down3", "bottom", "up3", "up2", "up1", "mask"]
    words = [text.get_text() for text in axes.texts if ": " in text.get_text()]
    assert [word.partition(":")[0] for word in words] == names
    assert words[0] == "image: 1 channel\n32 x 32 pixels" and words[4] == "bottom: 256 channels\n4 x 4 pixels"
    assert [text.get_text() for text in axes.texts].count("skip") == 3
    places = {}
    for picture in axes.images:
        left, right, bottom, top = picture.get_extent()
        assert axes.get_xlim()[0] < left < right < axes.get_xlim()[1] and axes.get_ylim()[0] < bottom < top
        places.setdefault(round(bottom, 3), []).append((left, np.asarray(picture.get_array())))
    sizes = {height: {len(picture) for _, picture in shown} for height, shown in places.items()}
    assert [sizes[height] for height in sorted(sizes, reverse=True)] == [{32}, {32}, {16}, {8}, {4}]
    middles = {round(np.mean([left for left, _ in shown]), 3) for shown in places.values() if len(shown) > 2}
    assert middles == {round(np.mean([left for left, _ in min(places.items())[1]]), 3)}  # the lowest is in the middle
    top_left, top_right = sorted(max(places.items())[1], key=lambda shown: shown[0])
    assert np.allclose(top_left[1], image[0, ..., 0])
    assert np.allclose(top_right[1], model.predict(image, verbose=0)[0, ..., 0], atol=1e-5)
    maps = keras.Model(model.input, model.get_layer("bottom_normalization").output).predict(image, verbose=0)[0]
    most = sorted(range(256), key=lambda channel: maps[..., channel].std())[-2:]
    drawn = [picture for _, picture in sorted(min(places.items())[1], key=lambda shown: shown[0])]
    assert all(np.allclose(picture, maps[..., channel], atol=1e-5) for picture, channel in zip(drawn, most))
    places_of_it = np.zeros((4, 4), bool)  # a structure that fills pixels of the lowest level
    places_of_it[1:3, 2] = True
    each = np.moveaxis(maps, -1, 0)
    gaps = [abs(one[places_of_it].mean() - one[~places_of_it].mean()) / max(one.std(), 1e-9) for one in each]
    told = helpers.plot_network(model, image, np.kron(places_of_it, np.ones((8, 8), bool))).axes[0]
    lowest = sorted((picture.get_extent()[2], picture.get_extent()[0], i) for i, picture in enumerate(told.images))[:2]
    shown = [np.asarray(told.images[i].get_array()) for *_, i in lowest]
    assert all(np.allclose(picture, maps[..., i], atol=1e-5) for picture, i in zip(shown, np.argsort(gaps)[-2:]))
    arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None)]
    level_of = {height: number for number, height in enumerate(sorted(places, reverse=True))}
    skips = [arrow for arrow in arrows if arrow.xy[1] == arrow.xyann[1]]
    for number, arrow in enumerate(skips[::-1], start=1):  # from the right edge of the left maps to those on the right
        height = next(height for height in places if level_of[height] == number)
        lefts = sorted(left for left, _ in places[height])
        assert height < arrow.xy[1] < height + 1
        assert lefts[1] + 1 < arrow.xyann[0] < arrow.xy[0] < lefts[2]
    assert len(skips) == 3 and len(arrows) == 3 + len(names) - 1
    extents = [picture.get_extent() for picture in axes.images]
    for x, y in (end for arrow in arrows if arrow not in skips for end in (arrow.xy, arrow.xyann)):
        assert not any(left <= x <= right and bottom <= y <= top for left, right, bottom, top in extents)
    ways = [arrow.xy[1] - arrow.xyann[1] for arrow in arrows if arrow not in skips]
    assert [way > 0 for way in ways] == [False] * 4 + [True] * 4  # down, and up again
    blocks = sorted(axes.patches, key=lambda block: (-round(block.get_y(), 3), block.get_x()))
    assert len(blocks) == len(model.layers)
    kinds = dict(zip((text.get_text() for text in axes.get_legend().get_texts()), axes.get_legend().legend_handles))
    color_of = {kind: handle.get_facecolor() for kind, handle in kinds.items()}
    lowest = [block.get_facecolor() for block in blocks[-4:]]  # of the bottom
    conv = color_of["convolution"]
    assert lowest == [color_of["pooling"], conv, conv, color_of["batch normalisation"]]
    third = ["transposed convolution", "joined with the skip", "convolution", "dropout", "convolution"]
    assert [block.get_facecolor() for block in blocks[-10:-5]] == [color_of[kind] for kind in third]
    assert len(set(color_of.values())) == len(color_of) == 7


def history(start):
    """Three epochs in which every figure has a value of its own."""
    names = [prefix + name for prefix in ("", "val_") for name in ("loss", "accuracy", "iou")]
    figures = [{name: start + 10 * place + epoch for place, name in enumerate(names)} for epoch in range(3)]
    return [{"epoch": float(epoch), **values} for epoch, values in enumerate(figures)]


def test_the_curves_show_train_and_valid_of_each_training():
    figure = helpers.plot_history({"mine": history(0), "yours": history(100)}, accuracy_of_nothing=0.5)
    panels = np.reshape(figure.axes, (3, 2))
    assert [axes.get_title() for axes in panels[0]] == ["mine", "yours"]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["Loss", "Accuracy", "IoU"]
    assert [axes.get_xlabel() for axes in panels[-1]] == ["epoch", "epoch"]
    for column, start in zip(panels.T, (0, 100)):
        for place, axes in enumerate(column):
            train, valid = axes.lines[:2]
            assert (train.get_label(), valid.get_label()) == ("train", "valid")
            assert list(train.get_xdata()) == list(valid.get_xdata()) == [1, 2, 3]
            assert list(train.get_ydata()) == [start + 10 * place + epoch for epoch in range(3)]
            assert list(valid.get_ydata()) == [start + 30 + 10 * place + epoch for epoch in range(3)]
            assert (train.get_color(), train.get_linestyle()) == ("grey", "--")
            assert (valid.get_color(), valid.get_linestyle()) == ("black", "-")
        assert [len(axes.lines) for axes in column] == [2, 3, 2]
        nothing = column[1].lines[2]
        assert list(nothing.get_ydata()) == [0.5, 0.5] and nothing.get_label() == "nothing found"
    for left, right in panels:
        assert left.get_ylim() == right.get_ylim()
    assert [axes.get_yscale() for axes in panels[:, 1]] == ["log", "linear", "linear"]
    assert [text.get_text() for text in panels[1, 0].get_legend().get_texts()] == ["train", "valid", "nothing found"]


@pytest.mark.parametrize(
    ("accuracies", "lowest"), [((0.5, 0.97, 0.99), 0.96), ((0.5, 0.97, 0.9), 0.9), ((0.98, 0.97, 0.99), None)]
)
def test_accuracies_far_below_that_of_predicting_nothing_are_cut_off_but_not_the_last(accuracies, lowest):
    rows = [{**row, "accuracy": value, "val_accuracy": value} for row, value in zip(history(1), accuracies)]
    axes = helpers.plot_history({"mine": rows}, accuracy_of_nothing=0.995).axes[1]
    if lowest:
        assert axes.get_ylim() == pytest.approx((lowest, 1 + (1 - lowest) / 20))
    else:
        assert axes.get_ylim()[0] < min(accuracies)


def look(epochs, inside):
    """A look at a 20x20 slice: truth in rows 4 to 7, columns 2 to 9; `inside` is predicted in columns 4 to 11."""
    truth, levels = np.zeros((20, 20), bool), np.zeros((len(epochs), 20, 20), np.uint8)
    truth[4:8, 2:10] = True
    levels[:, 4:8, 4:12] = np.reshape(inside, (-1, 1, 1))
    return {"truth": truth, "epochs": np.array(epochs), "levels": levels}


def test_a_look_shows_probabilities_truth_and_mask_of_each_epoch():
    runs = {"mine": look([1, 2, 5], [127, 128, 255]), "stored": look([1, 10], [10, 20])}
    another = look([1], [10])
    another["truth"] = another["truth"].T
    figure = helpers.plot_looks(runs)
    panels = np.reshape(figure.axes, (3, 2))
    mine, stored = ([axes.get_title() for axes in column] for column in panels.T)
    assert mine == [f"mine,\nafter epoch {epoch}" for epoch in (1, 2, 5)]
    assert stored == ["stored,\nafter epoch 1", "stored,\nafter epoch 10", ""]
    assert [[axes.axison for axes in row] for row in panels] == [[True, True], [True, True], [True, False]]
    # 128 of 256 is one half, and belongs to the mask; 127 does not
    assert [[len(axes.collections) for axes in row] for row in panels] == [[1, 1], [2, 1], [2, 0]]
    assert np.array_equal(panels[2, 0].images[0].get_array(), runs["mine"]["levels"][2])
    assert panels[2, 0].images[0].get_clim() == (0, 255)
    assert [(color_of(outline), extent(outline)) for outline in panels[2, 0].collections] == [
        (helpers.TRUTH_COLOR, (1.5, 9.5, 3.5, 7.5)),
        (helpers.PREDICTION_COLOR, (3.5, 11.5, 3.5, 7.5)),
    ]
    # columns 2 to 11 and two more on each side; as many rows, shifted to the edge of the picture
    assert [axes.get_xlim() for axes in panels.flat[:5]] == [pytest.approx((0, 13))] * 5
    assert [axes.get_ylim() for axes in panels.flat[:5]] == [pytest.approx((12.5, -0.5))] * 5
    alone = helpers.plot_looks({"mine": runs["stored"], "stored": another}).axes[0]
    assert alone.get_xlim() == pytest.approx((0, 11)) and alone.get_ylim() == pytest.approx((11, 0))


@pytest.mark.parametrize(
    ("rows", "columns", "xlim", "ylim"),
    [
        ((10, 14), (8, 10), (5, 12), (15, 8)),  # in the middle of a picture of 20 rows and 30 columns
        ((16, 20), (26, 30), (22.5, 29.5), (19.5, 12.5)),  # in the lower right corner
        ((0, 20), (3, 27), (4.5, 24.5), (19.5, -0.5)),  # wider than the picture is high
    ],
)
def test_the_enlarged_square_stays_in_the_picture(rows, columns, xlim, ylim):
    axes = matplotlib.figure.Figure().subplots()
    mask = np.zeros((20, 30), bool)
    mask[slice(*rows), slice(*columns)] = True
    axes.imshow(mask)
    look_closer(axes, mask)
    assert axes.get_xlim() == pytest.approx(xlim) and axes.get_ylim() == pytest.approx(ylim)
    look_closer(axes, np.zeros((20, 30), bool))
    assert axes.get_xlim() == pytest.approx(xlim)


def test_the_three_planes_are_cut_where_they_should_be():
    volume = np.random.default_rng(0).random((6, 8, 10), np.float32)
    mask = np.zeros(volume.shape, bool)
    mask[1:3, 2:5, 3:7] = True
    figure = helpers.plot_three_planes(volume, mask, (2, 4, 5))
    cube, *panels = figure.axes
    geometry = [axes.get_subplotspec().get_geometry() for axes in figure.axes]
    assert geometry == [(2, 2, place, place) for place in range(4)]  # none overlaps another
    assert {axes.get_box_aspect() for axes in panels} == {1}
    assert [axes.get_title() for axes in panels] == ["a slice", "a cut along the rows", "a cut along the columns"]
    assert [axes.get_xlabel() for axes in panels] == ["column", "column", "row"]
    assert [axes.get_ylabel() for axes in panels] == ["row", "slice", "slice"]
    for axes, cut in zip(panels, (volume[2], volume[:, 4], volume[:, :, 5])):
        assert np.array_equal(axes.images[0].get_array(), cut)
        assert [color_of(outline) for outline in axes.collections] == [helpers.TRUTH_COLOR]
    assert (cube.get_xlabel(), cube.get_ylabel(), cube.get_zlabel()) == ("column", "row", "slice")
    assert len(cube.collections) == 3
    low, high = cube.get_ylim()
    assert low > high  # row 0 is at the back, which is the top of a picture


def test_a_volume_is_cut_through_the_middle_of_its_mask_in_its_true_proportions():
    pictures = np.random.default_rng(0).random((6, 20, 30), np.float32)
    mask = np.zeros(pictures.shape, bool)
    mask[1:4, 5:10, 8:19] = True  # its middle: slice 2, row 7, column 13
    sizes = [1.0, 0.5, 4.0]  # mm from row to row, column to column, slice to slice
    figure = helpers.plot_planes(pictures, mask, sizes)
    cuts, surfaces = figure.axes[::2], figure.axes[1::2]
    titles = ["cut: slice", "cut: along the rows", "cut: along the columns"]
    assert [axes.get_title() for axes in cuts] == titles
    for axes, cut in zip(cuts, (pictures[2], pictures[:, 7], pictures[:, :, 13])):
        assert np.array_equal(axes.images[0].get_array(), cut)
    assert [axes.get_aspect() for axes in cuts] == [2, 8, 4]
    assert [axes.yaxis_inverted() for axes in figure.axes] == [True, True, False, False, False, False]  # slice 0 below
    outlines = [axes.collections[0] for axes in cuts]
    columns, rows, slices = (7.5, 18.5), (4.5, 9.5), (0.5, 3.5)
    assert [extent(outline) for outline in outlines] == [columns + rows, columns + slices, rows + slices]
    assert {color_of(outline) for outline in outlines} == {helpers.PREDICTION_COLOR}
    for axes, (height, width) in zip(surfaces, ((5, 5.5), (12, 5.5), (12, 5))):  # of the mask, in mm
        rows, columns = np.nonzero(axes.images[0].get_array())
        assert (np.ptp(rows) / 2, np.ptp(columns) / 2) == pytest.approx((height, width), rel=0.2)
    drawn_by_hand = helpers.plot_planes(pictures, mask, sizes, helpers.TRUTH_COLOR)
    assert {color_of(axes.collections[0]) for axes in drawn_by_hand.axes[::2]} == {helpers.TRUTH_COLOR}
    assert figure.axes[0].get_gridspec().get_height_ratios() == pytest.approx([20 / 15, 24 / 15, 24 / 20])
    flat = helpers.plot_planes(pictures[:1], mask[1:2], sizes)  # one slice of 4 mm is drawn half as high as wide
    assert flat.axes[0].get_gridspec().get_height_ratios() == pytest.approx([20 / 15, 0.5, 0.5])
    assert not flat.axes[2].collections and helpers.plot_planes(pictures[:2], mask[1:3], sizes).axes[2].collections
    nothing = helpers.plot_planes(pictures, mask & False, sizes)
    assert np.array_equal(nothing.axes[2].images[0].get_array(), pictures[:, 10]) and not nothing.axes[2].collections


@pytest.mark.parametrize("axis", range(3))
def test_a_surface_is_brightest_where_it_faces_the_upper_left(axis):
    ball = (np.mgrid[-10:11, -10:11, -10:11] ** 2).sum(0) <= 64
    picture = shade_surface(ball, axis, (1.0, 1.0, 1.0))
    inside = np.hypot(*np.mgrid[-10:11, -10:11])
    assert picture.shape == inside.shape and np.all(picture[inside > 9] == 0)
    assert picture[inside < 7].min() >= 0.2 and picture.max() == pytest.approx(1, abs=0.02)
    assert np.array_equal(picture > 0, (gaussian_filter(ball.astype(float), 1.5) >= 0.5).any(axis))  # a little smoothed
    towards_light = np.array([-0.4, -0.45]) / np.linalg.norm([0.8, 0.4, 0.45])  # of a normal of length 1: rows, columns
    brightest = np.argwhere(picture > 0.98 * picture.max()).mean(axis=0)
    assert brightest == pytest.approx(10 + 8 * towards_light, abs=1)
