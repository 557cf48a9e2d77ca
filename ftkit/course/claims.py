"""Claims: statements about held-out data that a lesson is judged by, with their evidence."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real

from ftkit.display import cell, display, show_table
from ftkit.errors import ClaimNotHeld, SettingError
from ftkit.evaluation.compare import compare, over_trainings, paired_by_seed
from ftkit.evaluation.resampling import Estimate
from ftkit.models import hardware

CLAIM_MIME = "application/vnd.ftkit.claim+json"
LEAST_SEEDS = 3  # of a claim that compares trainings
_claims = []


@dataclass(frozen=True)
class Claim:
    """A statement about held-out data, with its numbers and whether they bear it out."""

    claim: str
    metric: str | None
    before: dict | None
    after: dict | None
    difference: dict
    bound: dict
    relative: bool
    held: bool
    judged: bool
    profile: str | None
    n: int | None
    computed: list = field(default_factory=list)  # in what each side was, as dicts of Computed
    expect: str = "held"
    opponent: str | None = None
    covers: str | None = None
    seeds: list | None = None

    def verdict(self):
        """Whether it held, in words, and what follows from it."""
        if not self.judged:
            return f"{'held' if self.held else 'not held'} (not judged)"
        if self.expect == "open":
            return f"{'held' if self.held else 'did not hold'} (open question)"
        return "held" if self.held else "NOT held"

    def row(self):
        """The claim as a table row: a dict of strings."""

        def show(estimate):
            return "" if estimate is None else str(Estimate(**estimate))

        kind, limit = next(iter(self.bound.items()))
        return {"claim": self.claim,
                "metric": self.metric or "",
                "opponent": self.opponent or "",
                "base": show(self.before),
                "tuned": show(self.after),
                # Of a claim about one value there is no difference to show beside it.
                "difference": "" if self.after and not self.before else show(self.difference),
                "needed": f"{kind.replace('_', ' ')} {limit:g}",
                "interval over": self.covers or "",
                "verdict": self.verdict(),
                "computed": "; ".join(str(hardware.Computed(**way)) for way in self.computed)}

    def _repr_mimebundle_(self, include=None, exclude=None):
        row = self.row()
        text = "\n".join(f"{name:>13}: {value}" for name, value in row.items() if value)
        cells = "".join(f"<tr><th style='text-align:left;white-space:nowrap'>{name}</th>"
                        f"{cell('td', value)}</tr>" for name, value in row.items() if value)
        return {"text/plain": text, "text/html": f"<table>{cells}</table>",
                CLAIM_MIME: _json_numbers(asdict(self))}


def claim(text, after, before=None, *, metric=None, at_least=None, at_most=None, relative=False,
          seeds=None, expect="held", opponent=None, covers=None):
    """State a claim, judge it on held-out data and show it with its evidence.

    after, before: evaluations of the same examples; the claim is about after minus before (or,
    relative=True, after / before - 1). With `after` alone it is about its value; `after` may also
    be an Estimate of your own, or a plain number, which has no interval. It holds when the whole
    95% interval is on its side of the bound: the low end at or above `at_least`, or the high end at
    or below `at_most`; with neither, the low end above 0. What is NaN or infinite does not hold.
    seeds: of the trainings, where `after` is a list with an evaluation for each (`before` one, too,
    or one evaluation of what was not trained): the claim is about their mean, and the interval
    covers other seeds as well as other examples. At least three. expect: "held", or "open" for a
    question whose answer the lesson leaves open: it is recorded, and does not fail the run.
    opponent: what `before` is, in words. covers: over what the interval of your own Estimate is.
    Shows a row that carries the claim as JSON, and returns the Claim.
    Raises SettingError for two bounds or a missing metric, never for a claim that does not hold:
    `conclude` does that at the end of the lesson.
    """
    if at_least is not None and at_most is not None:
        raise SettingError("a claim takes at_least or at_most, not both; make two claims.")
    if expect not in ("held", "open"):
        raise SettingError(f'expect is {expect!r}; choose "held" or "open".')
    own = isinstance(after, (Estimate, Real))
    if not own and metric is None:
        raise SettingError('which metric is the claim about? Give one, as in metric="accuracy".')
    judged = hardware.current_profile() != "smoke"
    first = second = None
    sides = []
    if own:
        found = after if isinstance(after, Estimate) else _plain(float(after))
    elif seeds is not None or isinstance(after, Sequence) or isinstance(before, Sequence):
        sides = paired_by_seed(after, before, seeds, LEAST_SEEDS if judged else 1)
        first, second, found = over_trainings(sides, metric, relative=relative)
    elif before is None:
        found = second = after[metric]
        sides = [[after]]
    else:
        comparison = compare(after, before, metric, relative=relative)
        found, first, second = comparison.difference, comparison.before, comparison.after
        sides = [[after], [before]]
    evaluations = [evaluation for side in sides for evaluation in side]
    if at_most is not None:
        bound, held = {"at_most": at_most}, found.high <= at_most
    else:
        limit = 0 if at_least is None else at_least
        bound = {"at_least": limit}
        held = found.low > 0 if at_least is None else found.low >= at_least
    made = Claim(text, metric, first and first.as_dict(), second and second.as_dict(),
                 found.as_dict(), bound, relative, bool(held) and found.finite(), judged,
                 hardware.current_profile(), len(evaluations[0]) if evaluations else None,
                 _computed(*evaluations), expect, opponent, covers or found.covers,
                 None if seeds is None else list(seeds))
    _claims.append(made)
    display(made)
    return made


def _computed(*evaluations):
    """In which numbers and on what evaluations were made, each way once."""
    found = [getattr(evaluation, "computed", None) for evaluation in evaluations]
    return [asdict(way) for way in dict.fromkeys(found) if way]


def _plain(number):
    return Estimate(number, number, number, covers="a plain number, without an interval")


def _json_numbers(value):
    """The same without NaN and infinity, which JSON has not: None in their place."""
    if isinstance(value, dict):
        return {name: _json_numbers(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def conclude():
    """End a lesson: show its claims, and on the profiles cpu and gpu insist that they hold.

    Returns nothing. Raises ClaimNotHeld, naming the claims that failed, when one was judged and
    did not hold (unless it was declared an open question), or when the lesson made none.
    Start-over: the list of claims is emptied.
    """
    made = list(_claims)
    failed = [c for c in made if c.judged and not c.held and c.expect != "open"]
    _claims.clear()
    if not made:
        raise ClaimNotHeld("this lesson made no claim; call ft.claim before ft.conclude.")
    show_table([{"claim": c.claim, "result": str(Estimate(**c.difference)),
                 **{k: c.row()[k] for k in ("needed", "verdict")}} for c in made])
    if failed:
        lines = "; ".join(
            f"{c.claim!r}: {Estimate(**c.difference)}, needed {json.dumps(c.bound)}" for c in failed
        )
        raise ClaimNotHeld(f"{len(failed)} of {len(made)} claims did not hold: {lines}. Run it "
                           "with another seed, more test data or a longer training before you "
                           "believe either side.")

