"""Make web pages of the stored lessons and of the teacher's page, in data/site/: `make site`.

They need no network and no script: pictures are part of the pages, formulas are drawn, solutions and the set-up are
folded by HTML itself.
"""

import base64
import html
import io
import re
from pathlib import Path

import nbformat

from course.workspace import COURSE_FOLDER

TEMPLATES = COURSE_FOLDER / "tools" / "site"


def draw_formula(tex: str, size: float) -> str:
    """Return the data URL of a TeX formula drawn by Matplotlib as SVG; `size` is that of its letters in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import math_to_image

    stream = io.BytesIO()
    math_to_image(f"${tex}$", stream, prop=FontProperties(size=size), dpi=72, format="svg")
    return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"


def with_formulas(text: str) -> str:
    """Return Markdown in which formulas, between $$ on lines of their own or $ within a line, are pictures."""

    def block(found):
        """Return a formula on a line of its own."""
        tex = " ".join(found[1].split())
        picture = f'<img alt="{html.escape(tex)}" src="{draw_formula(tex.replace("frac", "dfrac"), 16)}">'
        return f'<p class="formula">{picture}</p>'

    def inline(found):
        """Return a formula within a line."""
        return f'<img class="inline" alt="{html.escape(found[1])}" src="{draw_formula(found[1], 13)}">'

    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.DOTALL)  # a dollar in code is a dollar
    for number in range(0, len(parts), 2):
        parts[number] = re.sub(r"\$\$(.+?)\$\$", block, parts[number], flags=re.DOTALL)
        parts[number] = re.sub(r"(?<![\\$])\$(?![\s\d$])([^$\n]+?)(?<!\s)\$(?!\d)", inline, parts[number])
    return "".join(parts)


def make_page(file: str, text: str, body: str) -> dict[str, str]:
    """Return a page of the site: file, title, what it promises (Markdown), body (HTML, with links to the other pages).

    text: Markdown, the title first.
    """
    promise = re.search(r"\*\*You will learn\*\* (.+?)\n\n", text + "\n\n", flags=re.DOTALL)
    body = re.sub(r'href="(?:\./)?(\d\d_\w+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', body)
    return {
        "file": file,
        "title": text.partition("\n")[0].removeprefix("# ").strip(),
        "promise": f"You will learn {promise[1]}" if promise else text.partition("\n\n")[2].partition("\n\n")[0],
        "body": re.sub(r'href="(?:\.\./docs/)?TEACHING\.md"', 'href="teaching.html"', body),
    }


def make_pages(notebooks: dict[str, nbformat.NotebookNode], teaching: str) -> list[dict[str, str]]:
    """Return the pages of the site in their order, as `make_page` makes them.

    notebooks: {name: notebook}, in the order of the site. teaching: the text of the teacher's page.
    """
    from jinja2 import FileSystemLoader
    from nbconvert import HTMLExporter
    from nbconvert.filters import markdown2html

    exporter = HTMLExporter(
        extra_loaders=[FileSystemLoader(TEMPLATES)],
        template_file="lesson.html.j2",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    pages = []
    for name, notebook in notebooks.items():
        text = notebook.cells[0].source
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                badge_as_words = re.sub(r"\[!\[Open in Colab\]\([^)]*\)\]", "[Open in Colab]", cell.source)
                cell.source = with_formulas(badge_as_words)
        body, _ = exporter.from_notebook_node(notebook)
        pages.append(make_page(f"{name}.html", text, body))
    return [*pages, make_page("teaching.html", teaching, markdown2html(with_formulas(teaching)))]


def contents(pages: list[dict[str, str]]) -> str:
    """Return the body of index.html: what the course is about, and its pages."""
    from nbconvert.filters import markdown2html

    entries = "\n".join(
        f'<li><a href="{page["file"]}"><strong>{html.escape(page["title"])}</strong></a>'
        f"{markdown2html(page['promise'])}</li>"
        for page in pages
    )
    return (
        "<h1>Find the left atrium: a U-Net course</h1>\n"
        "<p>A student report of 2022 trained a U-Net to find the left atrium of the heart in MRI slices, and printed "
        "an accuracy of 99.9 %. Can we trust it? These pages show the notebooks of the course with their results. "
        "To change the code and to do the exercises, open the notebooks themselves.</p>\n"
        f'<ul class="contents">\n{entries}\n</ul>\n'
    )


def write_site(pages: list[dict[str, str]], folder: Path) -> None:
    """Write the pages, index.html and the style sheet into a folder."""
    from jinja2 import Environment, FileSystemLoader
    from pygments.formatters import HtmlFormatter

    folder.mkdir(parents=True, exist_ok=True)
    template = Environment(loader=FileSystemLoader(TEMPLATES)).get_template("page.html.j2")
    index = {"file": "index.html", "title": "Find the left atrium", "body": contents(pages)}
    every = [index, *pages]
    for number, page in enumerate(every):
        around = {"before": every[number - 1] if number > 1 else None, "after": (*every[1:], None)[number]}
        text = template.render(title=page["title"], body=page["body"], is_index=page is index, **around)
        (folder / page["file"]).write_text(text, encoding="utf-8")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    colors = HtmlFormatter(style="default", nobackground=True).get_style_defs(".highlight")
    (folder / "style.css").write_text(f"{style}{colors}\n", encoding="utf-8")


def main(folder: Path = COURSE_FOLDER / "data" / "site") -> None:
    """Write the site: the lessons, 00, the teacher's page."""
    batch, *lessons = sorted((COURSE_FOLDER / "notebooks").glob("0*.ipynb"))  # no Untitled.ipynb
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in (*lessons, batch)}
    write_site(make_pages(notebooks, (COURSE_FOLDER / "docs" / "TEACHING.md").read_text(encoding="utf-8")), folder)
    print(f"made {len(notebooks) + 2} pages: open data/site/index.html")


if __name__ == "__main__":
    main()
