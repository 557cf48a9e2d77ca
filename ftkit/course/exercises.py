"""Self-checks for exercises: they compute the right answer and explain a wrong one."""

import html
import re
from dataclasses import dataclass

import numpy as np

from ftkit.course.hints import hint_here, reason_here


@dataclass(frozen=True)
class Checked:
    """The outcome of a self-check: true when the answer is right."""

    right: bool
    message: str
    hint: str = ""  # how to begin, folded away below a wrong answer
    why: str = ""  # why a right answer is right, or what follows from it, below the verdict

    def __bool__(self):
        return self.right

    def __repr__(self):
        return f"{self.message}\n\n{self.why}" if self.why else self.message

    def html(self):
        """The verdict as HTML: green with a tick, or orange with a cross."""
        color, mark = ("#009e73", "✓") if self.right else ("#d55e00", "✗")
        folded = "" if self.right or not self.hint else (
            f"<details><summary>A hint</summary>{marked_up(self.hint)}</details>")
        why = self.why and f"<p style='margin:4px 0 0'>{marked_up(self.why)}</p>"
        return (f"<div role='status' style='border-left:4px solid {color};padding:2px 12px'>"
                f"{mark} {marked_up(self.message)}{why}{folded}</div>")

    _repr_html_ = html


def marked_up(text):
    """The code and emphasis of a line of Markdown as HTML."""
    safe = html.escape(text, quote=False)
    for mark, tag in ((r"`([^`]+)`", "code"), (r"\*([^*]+)\*", "em")):
        safe = re.sub(mark, rf"<{tag}>\1</{tag}>", safe)
    return safe


def check(answer, expected, *, tolerance=None, hints=None, name=""):
    """Check an exercise's answer and explain what is wrong with a wrong one.

    answer: the learner's value or function; None means not answered yet.
    expected: the right value; or a function of the answer that returns True, or a sentence that
    explains what is wrong; or `cases(...)` when the answer is a function.
    tolerance: absolute, for numbers and arrays. hints: {wrong value or test of it: explanation}.
    Returns a Checked, true when right; nothing is raised for a wrong answer. In an open lesson a
    right answer has below it why it is right, and a wrong one its hint, folded away.
    """
    label = f"{name}: " if name else ""
    if answer is None:
        return Checked(False, f"{label}not answered yet. Put your answer in place of None.",
                       hint_here(name))
    try:
        verdict = expected(answer) if callable(expected) else _same(answer, expected, tolerance)
    except Exception as error:  # of a learner's function that `expected` calls by itself
        kind = "a function" if callable(answer) else _kind(answer).lower() or type(answer).__name__
        verdict = f"Your answer is {kind}; with it the check raised {type(error).__name__}: {error}"
    if verdict is True or isinstance(verdict, np.bool_) and verdict:
        return Checked(True, f"{label}right.", why=reason_here(name))
    reason = verdict if isinstance(verdict, str) else _reason(answer, expected, hints, tolerance)
    return Checked(False, f"{label}not yet. {reason}", hint_here(name))


def cases(*pairs, tolerance=None):
    """An `expected` for a function: pairs of (arguments, result), arguments a tuple or one value.

    Returns a function that calls the learner's function on each and explains the first failure.
    """

    def test(function):
        if not callable(function):
            return f"A function was expected, not {function!r}."
        for arguments, result in pairs:
            arguments = arguments if isinstance(arguments, tuple) else (arguments,)
            name = getattr(function, "__name__", "<")
            name = name if name.isidentifier() else "f"  # of a lambda, or an object that is called
            called = f"{name}({', '.join(map(repr, arguments))})"
            try:
                got = function(*arguments)
            except Exception as error:
                return f"{called} raised {type(error).__name__}: {error}"
            if got is None and result is not None:
                return f"{called} gave None. Did you forget `return`?"
            if not _same(got, result, tolerance):
                return f"{called} gave {got!r}; it should be {result!r}."
        return True

    return test


def _same(answer, expected, tolerance):
    if answer is None or expected is None:
        return answer is expected
    if isinstance(expected, str) or isinstance(answer, str):
        return (isinstance(answer, str) and isinstance(expected, str)
                and answer.strip().casefold() == expected.strip().casefold())
    try:
        one, two = np.asarray(answer, dtype=float), np.asarray(expected, dtype=float)
    except (TypeError, ValueError):
        return bool(answer == expected)
    return one.shape == two.shape and bool(np.allclose(one, two, rtol=1e-6, atol=tolerance or 1e-9))


def _reason(answer, expected, hints, tolerance):
    for wrong, explanation in (hints or {}).items():
        if wrong(answer) if callable(wrong) else _same(answer, wrong, tolerance):
            return explanation
    if (
        isinstance(expected, int | float) and not isinstance(expected, bool)
        and isinstance(answer, int | float)
    ):
        return f"{answer!r} is too {'low' if answer < expected else 'high'}."
    wanted = _kind(expected)
    if wanted and callable(answer):
        return f"{wanted} was expected, not a function. Did you forget to call it?"
    if isinstance(answer, str) and wanted == "A number":
        return f"{answer!r} is a text; a number was expected. Leave the quotes out."
    if wanted == "A text" and _kind(answer) == "A number":
        return f"{answer!r} is a number; a text was expected. Put it in quotes."
    return f"{answer!r} is not it."


def _kind(value):
    """What a value is called where it is the answer to an exercise; "" for anything else."""
    if isinstance(value, str):
        return "A text"
    return "A number" if isinstance(value, int | float) and not isinstance(value, bool) else ""
