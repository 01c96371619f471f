"""Figures and tables: the lines, pictures, labels and colours in them."""

import xml.etree.ElementTree

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

import helpers

matplotlib.use("agg")


def test_a_table_is_html_beside_the_plain_text():
    shown = helpers.table([["a<b", 1, "2"], ["c", 2.5, "-"]], ["name", "how many", "as text"])
    assert repr(shown) == "name  how many  as text\n----  --------  -------\na<b          1  2\nc          2.5  -"
    page = xml.etree.ElementTree.fromstring(shown._repr_html_())
    assert "overflow-x: auto" in page.attrib["style"]  # wider than the page, it slides by itself
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
        assert to_hex(slice_axes.collections[0].get_edgecolor()[0]).upper() == helpers.TRUTH_COLOR
        patient = name.rpartition("_")[0]
        pictures = [pair["name"] for pair in description["subsets"][subset] if pair["patient"] == patient]
        paths = [helpers.pair_paths(description, small_dataset, subset, picture)[1] for picture in pictures]
        assert helpers.read_mask(mask).sum() == max(helpers.read_mask(path).sum() for path in paths) > 0
        shown.append(patient)
    assert len(set(shown)) == 3 and (shown[0], shown[-1]) == (everybody[0], everybody[-1])
