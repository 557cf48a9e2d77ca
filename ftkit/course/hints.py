"""Hints to the exercises, and reasons for their right answers: what is said beside a verdict.

They stand folded away in `notebooks/questions/`, in `hints.md` and `reasons.md`.
"""

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
    found = _told("hints", lesson, exercise)
    if not found:
        raise SettingError(f"there is no hint to exercise {exercise!r} of lesson {lesson!r}; "
                           "give numbers, such as ft.hint(9, 1).")
    return Banner("Hint.", found)


def hint_here(name: str) -> str:
    """The hint to the exercise of a name such as "1" in the notebook that is open; "" without one.

    Jupyter's server tells a kernel which notebook it belongs to.
    """
    return _told_here("hints", name)


def reason_here(name: str) -> str:
    """Why the right answer to an exercise is right, or what follows; found as by `hint_here`."""
    return _told_here("reasons", name)


def _told(page, lesson, exercise):
    """What a page says on an exercise; "" where it says nothing."""
    number = f"{int(lesson):02d}" if str(lesson).isdigit() else str(lesson)[:2]
    text = (lessons_folder() / "questions" / f"{page}.md").read_text(encoding="utf-8")
    part = re.search(rf"(?ms)^## {re.escape(number)}$(.*?)(?=^## |\Z)", text)
    found = part and re.search(rf"<summary>Exercise {re.escape(str(exercise))}</summary>\n\n"
                               r"(.+?)\n\n</details>", part[1], re.DOTALL)
    return found[1] if found else ""


def _told_here(page, name):
    lesson = re.match(r"\d\d(?=_)", Path(os.environ.get("JPY_SESSION_NAME", "")).name)
    exercise = re.search(r"\d+", name)
    return _told(page, lesson[0], int(exercise[0])) if lesson and exercise else ""
