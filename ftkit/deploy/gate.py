"""The ship gate: a candidate takes the champion's place where the task is won and nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftkit.deploy import suite as suites
from ftkit.deploy.suite import SuitePart
from ftkit.display import Table
from ftkit.errors import SettingError
from ftkit.evaluation.compare import Comparison, compare
from ftkit.evaluation.resampling import Estimate
from ftkit.models.load import load_model
from ftkit.models.model import Model

PASSED = ("won", "no worse", "left out")


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may take the champion's place.

    rows: one for each claim and part of the suite, a dict of strings. reasons: why not, in words;
    none where it may.
    """

    rows: list[dict[str, str]]
    reasons: list[str]

    @property
    def ship(self) -> bool:
        """Whether every claim is won and no part got worse beyond its bound."""
        return not self.reasons

    def table(self) -> Table:
        """The verdict, with its evidence."""
        said = "ship" if self.ship else f"do not ship: {'; '.join(self.reasons)}"
        return Table(self.rows, said)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def ship(candidate: Model | str, champion: Model | str, task_claims: Sequence[Any],
         general_suite: Sequence[SuitePart] | None = None) -> Verdict:
    """Decide whether a candidate takes the champion's place: task won, nothing else got worse.

    candidate, champion: Models, or what ft.load_model takes, such as
    "registry:support-voice@champion". task_claims: what is to be won, each a claim of ft.claim,
    which is won where it held, or a Comparison of ft.compare(candidate, champion, metric), won
    where its whole 95% interval is better than no difference. general_suite: SuiteParts, by
    default ft.general_suite(). A part is "no worse" where the whole 95% interval of its change
    for the worse is within its bound (a test of non-inferiority: Piaggio et al. 2012, "Reporting
    of Noninferiority and Equivalence Randomized Trials"); where the interval reaches beyond, it
    "cannot be told", and the candidate is not shipped: more rows can tell.
    Returns a Verdict. Raises SettingError without claims or parts, and where both models are one.
    """
    if not task_claims:
        raise SettingError("task_claims is empty: a candidate has to win something. Give claims of "
                           'ft.claim, or comparisons such as ft.compare(new, old, "accuracy").')
    new, old = (load_model(one) if isinstance(one, str) else one for one in (candidate, champion))
    parts = suites.general_suite() if general_suite is None else list(general_suite)
    rows = [_of_claim(claim) for claim in task_claims] + _of_parts(parts, new, old)
    reasons = [f"{row['what']} {row['verdict']}" for row in rows if row["verdict"] not in PASSED]
    return Verdict(rows, reasons)


def forgotten(run: Any, base: Model | str, suite: Sequence[SuitePart] | None = None) -> Table:
    """What a training made a model forget: each part of a suite before it and after.

    run: a Run of ft.fit, or the tuned Model. base: what was trained, or what ft.load_model takes.
    suite: SuiteParts, by default ft.general_suite(); a base that was measured before is not
    measured again. Returns a Table with a row for each part: "what", "before", "after", the
    "difference" with its 95% interval, what is "allowed", and the "verdict" as ft.ship gives it:
    "no worse", "got worse", "cannot be told", or "left out" with the reason.
    Raises SettingError where both are the same weights, or no part of the suite applies.
    """
    new, old = getattr(run, "model", run), load_model(base) if isinstance(base, str) else base
    parts = suites.general_suite() if suite is None else list(suite)
    rows = [{"what": row["what"], "before": row["champion"], "after": row["candidate"],
             "difference": row["difference"], "allowed": row["needed"], "verdict": row["verdict"]}
            for row in _of_parts(parts, new, old)]
    worse = [row["what"] for row in rows if row["verdict"] == "got worse"]
    unknown = [row["what"] for row in rows if row["verdict"] == "cannot be told"]
    said = f"forgotten: {', '.join(worse) or 'nothing beyond what is allowed'}"
    return Table(rows, said + (f"; cannot be told: {', '.join(unknown)}" if unknown else ""))


def _is_better(comparison: Comparison) -> bool:
    """Whether the whole interval of a difference is on the better side of none."""
    found = comparison.difference
    if comparison.metric in suites.LOWER_IS_BETTER:
        return found.finite() and found.high < 0
    return found.finite() and found.low > 0


def _of_claim(claim):
    if isinstance(claim, Comparison):
        lower = claim.metric in suites.LOWER_IS_BETTER
        return {"what": f"task: {claim.metric}", "candidate": str(claim.after),
                "champion": str(claim.before), "difference": str(claim.difference),
                "needed": "below 0" if lower else "above 0",
                "verdict": "won" if _is_better(claim) else "is not won"}
    if not hasattr(claim, "held"):
        raise SettingError(f"{claim!r:.60} is neither a claim of ft.claim nor a comparison of "
                           "ft.compare.")
    row = claim.row()
    return {"what": f"task: {claim.claim}", "candidate": row["tuned"], "champion": row["base"],
            "difference": row["difference"] or row["tuned"], "needed": row["needed"],
            "verdict": "won" if claim.held else "is not won"}


def _of_parts(parts, new, old):
    suites.names(parts)
    if new.hash() == old.hash():
        raise SettingError(f"both models are the same weights ({new.name}).")
    rows = [_of_part(part, new, old) for part in parts]
    if all(row["verdict"] == "left out" for row in rows):
        raise SettingError(f"no part of the suite applies: {rows[-1]['difference']}. What else "
                           "should not get worse? Measure that with a SuitePart of your own.")
    return rows


def _of_part(part, new, old):
    row = {"what": part.name, "candidate": "", "champion": "", "difference": "", "needed": ""}
    if why := part.applies(new) or part.applies(old):
        return row | {"difference": why, "verdict": "left out"}
    found = compare(part.of(new), part.of(old), part.metric)
    lower = part.metric in suites.LOWER_IS_BETTER
    change = found.difference
    worse = (change.low, change.high) if lower else (-change.high, -change.low)
    needed = f"at most +{part.bound:g}" if lower else f"at least -{part.bound:g}"
    return row | {"candidate": str(found.after), "champion": str(found.before),
                  "difference": str(change), "needed": f"{part.metric} {needed}",
                  "verdict": _judged(change, worse, part.bound)}


def _judged(change: Estimate, worse: tuple[float, float], bound: float) -> str:
    """"no worse", "got worse", or "cannot be told". worse: the interval of the change, its sign
    such that more is worse."""
    if not np.isfinite(change.value):  # a model whose output is NaN
        return "got worse"
    if not change.finite():  # of one example, or one group
        return "cannot be told"
    if worse[1] <= bound:
        return "no worse"
    return "got worse" if worse[0] > bound else "cannot be told"
