"""Hints to the exercises, on demand: they stand folded away in `notebooks/questions/hints.md`."""

import os
import re
from pathlib import Path

from ftkit.display import Banner
from ftkit.errors import SettingError

_PACKAGE = Path(__file__).resolve().parents[1]


def lessons_folder() -> Path:
    """Where the lessons are: inside the installed package, or beside it in a checkout."""
    inside = _PACKAGE / "_lessons"
    return inside if inside.is_dir() else _PACKAGE.parent / "notebooks"


def hint(lesson: int | str, exercise: int) -> Banner:
    """How to begin with an exercise, without its answer.

    lesson: its number, such as 9 or "09". exercise: its number, from 1. Returns a Banner, whose
    `text` is the hint. Raises SettingError for one that does not exist.
    """
    number = f"{int(lesson):02d}" if str(lesson).isdigit() else str(lesson)[:2]
    page = (lessons_folder() / "questions" / "hints.md").read_text(encoding="utf-8")
    part = re.search(rf"(?ms)^## {re.escape(number)}$(.*?)(?=^## |\Z)", page)
    found = part and re.search(rf"<summary>Exercise {re.escape(str(exercise))}</summary>\n\n"
                               r"(.+?)\n\n</details>", part[1], re.DOTALL)
    if not found:
        raise SettingError(f"there is no hint to exercise {exercise!r} of lesson {lesson!r}; "
                           "give numbers, such as ft.hint(9, 1).")
    return Banner("Hint.", found[1])


def hint_here(name: str) -> str:
    """The hint to the exercise of a name such as "1" in the notebook that is open; "" without one.

    Jupyter's server tells a kernel which notebook it belongs to.
    """
    lesson = re.match(r"\d\d(?=_)", Path(os.environ.get("JPY_SESSION_NAME", "")).name)
    exercise = re.search(r"\d+", name)
    if not lesson or not exercise:
        return ""
    try:
        return hint(lesson[0], int(exercise[0])).text
    except SettingError:
        return ""
