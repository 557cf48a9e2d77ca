"""The list of all sanity checks, in the order in which they are run."""

from collections.abc import Callable
from dataclasses import dataclass

CHECKS: dict[str, "Check"] = {}


@dataclass(frozen=True)
class Found:
    """What a check found. good: None where it cannot be asked here, which `found` explains."""

    good: bool | None
    found: str
    expected: str = ""


@dataclass(frozen=True)
class Check:
    """One check. about: what must be true. test: of an Observed, returns a Found."""

    name: str
    about: str
    mend: str
    test: Callable


def checks(name: str, about: str, mend: str) -> Callable:
    """Decorate a function of an Observed that returns a Found: it joins the list."""

    def add(test: Callable) -> Callable:
        CHECKS[name] = Check(name, about, mend, test)
        return test

    return add


def not_asked(why: str) -> Found:
    """The answer of a check that has nothing to look at."""
    return Found(None, why)
