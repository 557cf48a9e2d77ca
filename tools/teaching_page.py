"""Writes the plans of docs/teaching.md from the lessons: `python tools/teaching_page.py`.

How long a lesson runs is what its header says, which is measured. How long people work on it is
estimated from what there is to read and to do, by the rule that the page states.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ftkit.batch import notebook as nb
from ftkit.batch.report import insert_table
from ftkit.display import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "teaching.md"
WORDS_A_MINUTE, MINUTES_A_CELL, MINUTES_AN_EXERCISE = 150, 0.75, 8
EXTRA = {"own": "[your own data](../notebooks/templates/your_own.ipynb)"}
OWN_MINUTES = 60  # with a file that a learner brings: the run is quick, the file is not
TWO_DAYS = {
    "Day 1, morning": (0, 1, 2), "Day 1, afternoon": (5, 9),
    "Day 2, morning": (17, 21), "Day 2, afternoon": (19, "own"),
}
SIX_WEEKS = {
    "Week 1: what a pretrained model knows": (0, 1, 2, 3),
    "Week 2: language models that answer": (4, 5, 6),
    "Week 3: which weights learn": (7, 8, 9, 10),
    "Week 4: more tasks, more data, rewards": (11, 12, 13, 14),
    "Week 5: done well, and measured well": (15, 16, 17, 21),
    "Week 6: in use, and with your own data": (18, 19, 20, "own"),
}


@dataclass(frozen=True)
class Lesson:
    """What a plan says of a lesson: its link, and minutes of running and of work."""

    link: str
    runs: int
    work: int


def lesson(path: Path) -> Lesson:
    """Read a lesson's title, measured minutes and size. Raises ValueError without a header."""
    notebook = nb.read(path)
    prose = "\n".join(nb.source(c) for c in notebook["cells"] if c["cell_type"] == "markdown")
    code = [nb.source(cell) for _, cell in nb.code_cells(notebook)]
    title = re.search(r"^# (\d+) · ([^:\n]+)", prose, re.MULTILINE)
    time = re.search(r"^\| `cpu` \| ([^|]+?) \|", prose, re.MULTILINE)
    minutes = re.findall(r"(\d+) min", time[1]) if time else []  # of "3 to 4 min" the 4
    if not title or not minutes:
        raise ValueError(f"{path.name} has no title, or no minutes of profile cpu in its header")
    exercises = sum("ft.check(" in text for text in code)
    work = (len(prose.split()) / WORDS_A_MINUTE + len(code) * MINUTES_A_CELL
            + exercises * MINUTES_AN_EXERCISE)
    return Lesson(f"[{title[1]}](../notebooks/{path.name}) {title[2]}", int(minutes[-1]),
                  5 * math.ceil(work / 5))


def lessons() -> dict[int | str, Lesson]:
    """All lessons by number, and the template for a learner's own file."""
    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    found: dict[int | str, Lesson] = {int(path.name[:2]): lesson(path) for path in paths}
    return found | {"own": Lesson(EXTRA["own"], 2, OWN_MINUTES)}


def plan(parts: dict[str, tuple]) -> str:
    """A plan as a Markdown table: a row for each part, with its minutes added up."""
    known = lessons()
    rows = []
    for name, numbers in parts.items():
        chosen = [known[number] for number in numbers]
        work = sum(one.work for one in chosen)
        rows.append([name, "; ".join(one.link for one in chosen),
                     f"{sum(one.runs for one in chosen)} min",
                     f"{work // 60} h {work % 60:02d}" if work >= 60 else f"{work} min"])
    return markdown_table(["part", "lessons", "they run", "work, estimated"], rows)


def page(text: str) -> str:
    """The text of the page with current plans."""
    for mark, parts in (("two-days", TWO_DAYS), ("six-weeks", SIX_WEEKS)):
        text = insert_table(text, plan(parts), mark)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
