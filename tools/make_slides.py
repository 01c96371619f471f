"""Make slides of the lessons, data/slides/*.slides.html: `make slides`.

They are made from the cells tagged `slide`: a Markdown cell begins a slide, a code cell adds its output to it.
"""

import nbformat

from course.workspace import COURSE_FOLDER


def mark_slides(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Give every cell the slide type that nbconvert asks for: "slide", "-" (goes on), or "skip"."""
    for cell in notebook.cells:
        shown = "slide" in cell.metadata.get("tags", [])
        kind = "skip" if not shown else "slide" if cell.cell_type == "markdown" else "-"
        cell.metadata["slideshow"] = {"slide_type": kind}
    return notebook


def main() -> None:
    """Write the slides of the lessons."""
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(exclude_input=True, exclude_output_prompt=True, reveal_scroll=True)
    folder = COURSE_FOLDER / "data" / "slides"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((COURSE_FOLDER / "notebooks").glob("0[1-9]*.ipynb")):
        slides, _ = exporter.from_notebook_node(mark_slides(nbformat.read(path, as_version=4)))
        (folder / f"{path.stem}.slides.html").write_text(slides, encoding="utf-8")
        print(f"made data/slides/{path.stem}.slides.html")


if __name__ == "__main__":
    main()
