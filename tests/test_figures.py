"""Figures and tables: the lines, pictures, labels and colours in them."""

import xml.etree.ElementTree

import helpers


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
