"""Writes the README's examples from the tables that lessons keep for it.

`python tools/before_after.py README.md`. A lesson's cell with the tag `readme` ends in a table; its
metadata name the columns that are shown and what they are called there, and how many rows.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

from ftkit.batch import notebook as nb
from ftkit.batch.report import insert_table
from ftkit.display import markdown_table

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 200  # characters of a text that is shown


class _Rows(HTMLParser):
    """The cells of the first table of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True
        elif tag == "br" and self.inside:
            self.rows[-1][-1] += " / "

    def handle_endtag(self, tag):
        self.inside &= tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def examples(folder: Path) -> str:
    """Return what the lessons of a folder keep for the README, as Markdown tables."""
    found = []
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        notebook = nb.read(path)
        for _, cell in nb.code_cells(notebook):
            if "readme" in nb.tags(cell):
                found.append(_table(cell, f"{folder.name}/{path.name}"))
    return "\n\n".join(found)


def _table(cell: dict, link: str) -> str:
    wanted = cell["metadata"]["readme"]
    pages = ["".join(output["data"]["text/html"]) for output in cell["outputs"]
             if "text/html" in output.get("data", {})]
    parser = _Rows()
    parser.feed(pages[wanted.get("table", 0)])
    header, *rows = parser.rows
    places = [header.index(column) for column, _ in wanted["columns"]]
    shown = [[_short(row[place]) for place in places] for row in rows[:wanted["rows"]]]
    names = [name for _, name in wanted["columns"]]
    return f"{wanted['title']} ([lesson]({link})):\n\n{markdown_table(names, shown)}"


def _short(text: str) -> str:
    text = " / ".join(line.strip() for line in text.strip().split("\n") if line.strip())
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()}…"


if __name__ == "__main__":
    for name in sys.argv[1:] or ["README.md"]:
        page = Path(name)
        page.write_text(insert_table(page.read_text("utf-8"), examples(ROOT / "notebooks"),
                                     "examples"), encoding="utf-8")
