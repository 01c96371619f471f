"""What the figures of 04 show: the right lines and pictures, under the right names, the right way round."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba

import helpers
from course.figures import look_closer

matplotlib.use("agg")


def history(start):
    """Three epochs in which every figure has a value of its own."""
    names = [prefix + name for prefix in ("", "val_") for name in ("loss", "accuracy", "iou")]
    return [
        {"epoch": float(epoch), **{name: start + 10 * place + epoch for place, name in enumerate(names)}}
        for epoch in range(3)
    ]


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
    assert [text.get_text() for text in panels[1, 0].get_legend().get_texts()] == ["train", "valid", "nothing found"]


def test_without_an_accuracy_of_nothing_there_is_no_line_for_it():
    figure = helpers.plot_history({"mine": history(0)})
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2]


def look(epochs, inside):
    """A look at a slice of 20x20: truth at rows 4 to 7, columns 2 to 9; `inside` the level on columns 4 to 11."""
    truth, levels = np.zeros((20, 20), bool), np.zeros((len(epochs), 20, 20), np.uint8)
    truth[4:8, 2:10] = True
    levels[:, 4:8, 4:12] = np.reshape(inside, (-1, 1, 1))
    return {"truth": truth, "epochs": np.array(epochs), "levels": levels}


def test_a_look_shows_probabilities_truth_and_mask_of_each_epoch():
    runs = {"mine": look([1, 2, 5], [127, 128, 255]), "stored": look([1, 10], [10, 20])}
    figure = helpers.plot_looks(runs)
    panels = np.reshape(figure.axes, (3, 2))
    titles = [[axes.get_title() for axes in row] for row in panels]
    assert titles == [
        ["mine,\nafter epoch 1", "stored,\nafter epoch 1"],
        ["mine,\nafter epoch 2", "stored,\nafter epoch 10"],
        ["mine,\nafter epoch 5", ""],
    ]
    assert [[axes.axison for axes in row] for row in panels] == [[True, True], [True, True], [True, False]]
    # 128 of 256 is one half, and belongs to the mask; 127 does not
    assert [[len(axes.collections) for axes in row] for row in panels] == [[1, 1], [2, 1], [2, 0]]
    assert np.array_equal(panels[2, 0].images[0].get_array(), runs["mine"]["levels"][2])
    assert panels[2, 0].images[0].get_clim() == (0, 255)
    truth, mask = panels[2, 0].collections
    extents = []
    for outline in (truth, mask):
        corners = np.concatenate([path.vertices for path in outline.get_paths()])
        extents.append((*corners.min(axis=0), *corners.max(axis=0)))
    assert extents == [(1.5, 3.5, 9.5, 7.5), (3.5, 3.5, 11.5, 7.5)]
    assert to_hex(truth.get_edgecolor()[0]).upper() == helpers.TRUTH_COLOR
    assert to_hex(mask.get_edgecolor()[0]).upper() == helpers.PREDICTION_COLOR
    # columns 2 to 11, and two more to both sides; rows as many, moved down to the picture's edge
    assert panels[0, 0].get_xlim() == panels[2, 0].get_xlim() == pytest.approx((0, 13))
    assert panels[0, 0].get_ylim() == pytest.approx((12.5, -0.5))


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
    assert [axes.get_title() for axes in panels] == ["a slice", "a cut along the rows", "a cut along the columns"]
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels] == [
        ("column", "row"),
        ("column", "slice"),
        ("row", "slice"),
    ]
    for axes, cut in zip(panels, (volume[2], volume[:, 4], volume[:, :, 5])):
        assert np.array_equal(axes.images[0].get_array(), cut)
        assert len(axes.collections) == 1 and np.allclose(axes.collections[0].get_edgecolor(), to_rgba("#E69F00"))
    assert (cube.get_xlabel(), cube.get_ylabel(), cube.get_zlabel()) == ("column", "row", "slice")
    assert len(cube.collections) == 3
    low, high = cube.get_ylim()
    assert low > high  # row 0 is at the back, as it is above in a picture
