"""A game: a fault is planted, and the player finds it with as few checks as can be."""

from typing import Any

from ftkit.course.faults.plant import fault
from ftkit.course.faults.registry import FAULTS
from ftkit.course.sanity import sanity_checks
from ftkit.course.view import Control, View
from ftkit.data.load import load_data
from ftkit.display import Table
from ftkit.errors import SettingError

NO_CHECK, NO_GUESS, GIVE_UP = "none", "no guess yet", "I give up"


def which_fault(
    model: Any, source: Any, *, seed: int = 0, ask: str = NO_CHECK, guess: str = NO_GUESS,
    max_length: int | None = None, **options: Any,
) -> View:
    """Find a planted fault: ask checks, as few as you can, then say which fault it is.

    model: for classification or causal-lm, as sanity_checks takes it; a small random one answers
    fastest. source, options: as load_data takes them; the data are read with the fault in place.
    seed: draws the fault, as `ft.fault.mystery` does. ask: the name of a check, or "none". guess:
    the name of a fault, "no guess yet" or "I give up". max_length: as in fit. Returns a View with a
    row for each check asked about this fault, "check", "result", "found", "expected", and one for
    the guess: "right" or "wrong", and why. Controls: seed (the puzzle), ask, guess.
    Raises SettingError for another task, or a check or a fault that does not exist.
    """
    faults = [row["fault"] for row in fault.table(model.task).rows]
    checks = list(dict.fromkeys(FAULTS[name].check for name in faults))
    asked: dict[int, dict[str, dict]] = {}  # by seed: the rows of the checks

    def compute(seed, ask, guess):
        puzzle, rows = fault.mystery(seed, model.task), asked.setdefault(seed, {})
        if ask != NO_CHECK and ask not in rows:
            with puzzle:
                data = load_data(source, **options)
                found = sanity_checks(model, data, only=ask, max_length=max_length)[ask]
            rows[ask] = {name: found[name] for name in ("check", "result", "found", "expected")}
        if guess == NO_GUESS:
            return [*rows.values()]
        verdict = puzzle.is_it(guess)
        if guess != GIVE_UP and guess not in FAULTS:
            raise SettingError(verdict)
        right = verdict is True
        name = puzzle.reveal()
        told = (f"It is {name!r}: {FAULTS[name].symptom}. What to do: {FAULTS[name].mend}."
                if right or guess == GIVE_UP else verdict)
        return [*rows.values(), {"check": f"your guess: {guess}",
                                 "result": "right" if right else "wrong", "found": told}]

    def render(rows, settings):
        number = len(asked[settings["seed"]])
        return [Table(rows, caption=f"puzzle {settings['seed']}: {number} "
                                    f"{'check' if number == 1 else 'checks'} asked")]

    return View(f"Which of {len(faults)} faults is in place?", {
        "seed": Control("puzzle", seed, high=max(999, seed)),
        "ask": Control("ask a check", ask, (NO_CHECK, *checks)),
        "guess": Control("your guess", guess, (NO_GUESS, *faults, GIVE_UP))}, compute, render,
        resets={"seed": {"ask": NO_CHECK, "guess": NO_GUESS}})
