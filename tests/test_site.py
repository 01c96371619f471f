"""The web pages of the lessons: whole, linked, and readable without a network."""

import base64
import re
import shutil
import urllib.parse

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pages import Page

from course.workspace import COURSE_FOLDER
from tools import make_site


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the site, as `make site` writes it."""
    folder = tmp_path_factory.mktemp("site")
    make_site.main(folder)
    return folder


@pytest.fixture(scope="module")
def site(folder):
    """The pages of the site as {file name: Page}."""
    return {path.name: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.html"))}


def test_there_is_a_page_for_each_notebook_for_the_teacher_and_for_the_contents(site):
    notebooks = [path.stem for path in sorted((COURSE_FOLDER / "notebooks").glob("*.ipynb"))]
    assert sorted(site) == [*(f"{name}.html" for name in notebooks), "index.html", "teaching.html"]
    assert set(site["index.html"].links) == set(site) - {"index.html"} | {"01_dataset_upload.html"}


def test_a_teachers_own_lesson_has_a_page_and_an_untitled_notebook_has_none(tmp_path, monkeypatch):
    course = tmp_path / "course"
    shutil.copytree(COURSE_FOLDER / "docs", course / "docs")
    (course / "notebooks").mkdir()
    for name, cells in {"00_run_all": ["# 0.\n\nAll"], "08_mine": ["# Mine"], "Untitled": []}.items():
        notebook = new_notebook(cells=[new_markdown_cell(text) for text in cells])
        nbformat.write(notebook, course / "notebooks" / f"{name}.ipynb")
    monkeypatch.setattr(make_site, "COURSE_FOLDER", course)
    make_site.main(tmp_path / "site")
    pages = sorted(path.stem for path in (tmp_path / "site").glob("*.html"))
    assert pages == ["00_run_all", "08_mine", "index", "teaching"]


def test_no_link_is_broken(site):
    for name, page in site.items():
        for link in page.links:
            if re.match("https?://", link):
                continue
            file, _, place = link.partition("#")
            assert not file or file in site, f"{name}: {link}"
            if place:
                assert urllib.parse.unquote(place) in site[file or name].places, f"{name}: {link}"


def test_the_pages_need_no_network_and_no_script(site):
    for name, page in site.items():
        assert "script" not in page.tags and "iframe" not in page.tags, name
        assert all(address == "style.css" or address.startswith("data:image/") for address in page.loaded), name
        assert "img" in page.tags or name in ("00_run_all.html", "index.html", "teaching.html")


def test_each_page_links_to_the_previous_and_the_next(site):
    lessons = [f"{path.stem}.html" for path in sorted((COURSE_FOLDER / "notebooks").glob("0[1-9]*.ipynb"))]
    order = [*lessons, "00_run_all.html", "teaching.html"]
    for number, name in enumerate(order):
        around = [*order[max(number - 1, 0) : number], "index.html", *order[number + 1 : number + 2]]
        assert site[name].links[: len(around)] == around and site[name].links[-len(around) :] == around


def test_solutions_checks_and_set_up_are_folded_and_no_formula_is_left_as_tex(folder):
    text = (folder / "02_preprocessing.html").read_text(encoding="utf-8")
    exercises = len(re.findall(r"<h3[^>]*>Exercise 2\.\d", text))
    folded = re.findall(r"<details[^>]*><summary>(.*?)</summary>(.*?)</details>", text, flags=re.DOTALL)
    names = [name for name, _ in folded]
    assert names.count("Solution") == names.count("The check") == exercises >= 3
    assert names[0] == "Set-up (run this cell first)" and "REPOSITORY" in folded[0][1]
    assert all("check_exercise" in inside for name, inside in folded if name == "The check")
    assert "helpers.check_exercise" not in re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL)
    assert "$$" not in text and r'alt="\text{Dice} = \frac' in text


def test_a_formula_is_a_picture_and_a_dollar_in_code_or_a_price_is_not():
    text = "It is $x^2$, not `$a$` nor $5 and $6.\n\n```python\nb = '$c$ $$d$$'\n```\n\n$$\\frac{1}{2}$$"
    made = make_site.with_formulas(text)
    assert re.findall(r'alt="(.*?)"', made) == ["x^2", "\\frac{1}{2}"]
    for unchanged in ("`$a$` nor $5 and $6.", "b = '$c$ $$d$$'"):
        assert unchanged in made
    for picture in re.findall(r"base64,([^\"]+)", made):
        assert b"<svg" in base64.b64decode(picture)
    assert made.index('class="inline"') < made.index('class="formula"')


def test_a_notebook_keeps_its_outputs_and_its_badge_becomes_words():
    table = {"text/html": "<table><tr><td>in html</td></tr></table>", "text/plain": "in words"}
    cells = [
        new_markdown_cell(
            "# 7. A & B\n\n[![Open in Colab](https://x.org/badge.svg)](https://x.org/7)\n\nFirst.\n\n"
            "**You will learn** all.\n\n"
            "See [02](02_preprocessing.ipynb#All-pictures) and [teaching](../docs/TEACHING.md)."
        ),
        new_code_cell("print(1 < 2)", outputs=[new_output("stream", name="stdout", text="1 < 2 & so on\n")]),
        new_code_cell("table", outputs=[new_output("execute_result", table)]),
    ]
    page, teaching = make_site.make_pages({"07_more": new_notebook(cells=cells)}, "# T\n\nFor [01](../notebooks/x.md).")
    assert (page["file"], page["title"], page["promise"]) == ("07_more.html", "7. A & B", "You will learn all.")
    assert "1 &lt; 2 &amp; so on" in page["body"] and "in html" in page["body"] and "in words" not in page["body"]
    assert "badge.svg" not in page["body"] and '<a href="https://x.org/7">Open in Colab</a>' in page["body"]
    assert 'href="02_preprocessing.html#All-pictures"' in page["body"] and 'href="teaching.html"' in page["body"]
    assert (teaching["file"], teaching["title"]) == ("teaching.html", "T")


def test_the_title_of_the_contents_is_escaped(tmp_path):
    pages = [{"file": "a.html", "title": "A < B", "promise": "*learn*", "body": "<p>body</p>"}]
    make_site.write_site(pages, tmp_path)
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '<a href="a.html"><strong>A &lt; B</strong></a>' in index and "<em>learn</em>" in index
    assert "<title>A &lt; B</title>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert ".highlight .k" in (tmp_path / "style.css").read_text(encoding="utf-8")
