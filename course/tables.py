"""Tables as plain text and as HTML."""

import html
from collections.abc import Iterable, Sequence


def is_numeric(rows: Sequence[Sequence], column: int) -> bool:
    """Return whether a column of a table holds nothing but numbers."""
    return all(isinstance(row[column], (int, float)) for row in rows)


def format_table(rows: Sequence[Sequence], headers: Sequence[str]) -> str:
    """Return a plain-text table: columns aligned, numbers to the right, a line under the headers."""
    texts = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts)]
    numeric = [is_numeric(rows, column) for column in range(len(headers))]
    lines = []
    for row in texts:
        sided = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric))
        lines.append("  ".join(sided).rstrip())
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def html_table(rows: Sequence[Sequence], headers: Sequence[str]) -> str:
    """Return a table in HTML, its cells escaped; a table wider than the page scrolls by itself."""
    sides = ["right" if is_numeric(rows, column) else "left" for column in range(len(headers))]

    def line(cells, tag):
        """Return a row of the table, each cell aligned to its side."""
        sided = zip(cells, sides, strict=True)
        written = (f'<{tag} style="text-align: {side}">{html.escape(str(cell))}</{tag}>' for cell, side in sided)
        return f"<tr>{''.join(written)}</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    table = f"<table>\n<thead>{line(headers, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div style="overflow-x: auto">\n{table}\n</div>'


class table:
    """A table to show as the last line of a cell, or with `display`: as HTML, or as text outside a web page.

    rows: lists of cells, in each as many as there are headers. Columns of numbers are aligned to the right.
    """

    def __init__(self, rows: Iterable[Sequence], headers: Sequence[str]):
        self.rows, self.headers = list(rows), list(headers)

    def __repr__(self):
        return format_table(self.rows, self.headers)

    def _repr_html_(self):
        return html_table(self.rows, self.headers)
