"""Paired comparisons of evaluations, of one training each or of several with other seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftkit.display import Facts
from ftkit.errors import SettingError
from ftkit.evaluation import resampling
from ftkit.evaluation.resampling import Estimate, group_numbers, interval, over_seeds, sign_flips


@dataclass(frozen=True)
class Comparison(Facts):
    """Two evaluations on the same examples, after minus before.

    difference: Estimate from paired resampling. p_value: where each example is right or wrong, of
    McNemar's exact test, or where examples come in groups of its form for those, else None.
    gained, lost: indices of the examples that flipped. groups: how many, None where every example
    stands alone. examples: how many.
    """

    metric: str
    before: Estimate
    after: Estimate
    difference: Estimate
    p_value: float | None
    gained: np.ndarray
    lost: np.ndarray
    groups: int | None = None
    examples: int = 0

    def facts(self):
        """What was compared and what came out, as {what: value}: the lines of its table."""
        found, flips, test = self.difference, "", ""
        if self.p_value is not None:
            p = f"p = {self.p_value:.2g}" if self.p_value else "p < 1e-300"
            test = f"sign flips of {self.groups} groups: {p}" if self.groups else f"McNemar {p}"
            flips = f"{len(self.gained)} gained, {len(self.lost)} lost"
        if not found.finite():
            told = ""
        elif found.low <= 0 <= found.high:
            told = f"whether {self.metric} differs cannot be told: the interval holds 0"
        else:
            told = f"{self.metric} is {'higher' if found.value > 0 else 'lower'} after"
        return {
            "metric": self.metric, "before": str(self.before), "after": str(self.after),
            "difference": f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
            "interval over": found.covers, "result": told, "flips": flips, "test": test,
            "in other words": resampling.covered(
                self.examples, self.groups or self.examples, "the difference")}

    def __repr__(self):
        _, before, after, difference, over, told, flips, test, words = self.facts().values()
        lines = ([f"{self.metric}: {before} to {after}"], [f"difference {difference} over {over}",
                 told], [flips, test], [words])  # JupyterLab breaks a long line within a word
        return "\n".join("; ".join(filter(None, line)) for line in lines if any(line))


def compare(after, before, metric, *, relative=False):
    """Compare two evaluations of the same data, example by example.

    metric: a name both evaluations have. relative=True gives after / before - 1 in place of the
    difference. Returns a Comparison. Raises SettingError when the examples, or their groups, are
    not the same: resamples of films and of single reviews are no pairs.
    Sources of the test: McNemar 1947, in its exact binomial form; with groups resampling.sign_flips
    (tests for clustered pairs: Durkalski et al. 2003, "Analysis of clustered matched-pair data").
    """
    first, second = before[metric], after[metric]
    if not before.same_examples(after):
        raise SettingError("compare needs two evaluations of the same examples in the same order; "
                           "evaluate both models on one data set.")
    numbers = _same_groups(before, after)
    one, two = before.per_example(metric), after.per_example(metric)
    with np.errstate(invalid="ignore", divide="ignore"):
        if relative:
            value = np.float64(second.value) / first.value - 1
            samples = second.samples / first.samples - 1
        else:
            value, samples = second.value - first.value, second.samples - first.samples
    gained = lost = np.array([], dtype=int)
    p_value, groups = None, None
    if int(numbers.max()) + 1 < len(numbers):
        groups = int(numbers.max()) + 1
    if one is not None and np.isin(one, (0, 1)).all() and np.isin(two, (0, 1)).all():
        gained, lost = np.flatnonzero(two > one), np.flatnonzero(two < one)
        p_value = sign_flips(np.bincount(numbers, two - one))
    low, high = before.parts[metric].span
    span = (-np.inf, np.inf) if relative else (low - high, high - low)
    alike = min(first.groups, second.groups)
    difference = interval(value, samples, alike, span=span, covers=first.covers)
    return Comparison(
        metric, first, second, difference, p_value, gained, lost, groups, len(numbers)
    )


def _same_groups(before, after):
    """The group number of each example. Raises SettingError where the two sides differ."""
    one, two = (group_numbers(e.groups, len(e)) for e in (before, after))
    if not np.array_equal(one, two):
        sizes = [f"{int(found.max()) + 1} groups" for found in (one, two)]
        raise SettingError(f"the two evaluations group their {len(one)} examples differently "
                           f"({sizes[0]} before, {sizes[1]} after), so that their resamples are no "
                           "pairs. Give both the same groups, as in ft.from_predictions(..., "
                           "dataset=test).")
    if before.seed != after.seed:
        raise SettingError(f"the two evaluations resample with seeds {before.seed} and "
                           f"{after.seed}; pairs need one seed.")
    return one


def paired_by_seed(after, before, seeds, least):
    """Evaluations of a claim's sides, by seed; SettingError for other numbers or few seeds."""
    if seeds is None:
        raise SettingError("a list of evaluations needs the seeds of its trainings, as in "
                           "seeds=[0, 1, 2].")
    if len(set(seeds)) != len(seeds) or len(seeds) < least:
        raise SettingError(f"seeds is {list(seeds)}; at least {least} different ones are needed to "
                           "tell what another training would give.")
    sides = [after] if before is None else [after, before]
    if not isinstance(after, Sequence) or any(
        isinstance(side, Sequence) and len(side) != len(seeds) for side in sides
    ):
        found = [len(side) if isinstance(side, Sequence) else "one" for side in sides]
        raise SettingError(f"{len(seeds)} seeds, but {' and '.join(map(str, found))} evaluations: "
                           "give a list with one for each seed (and as opponent such a list or one "
                           "evaluation).")
    return [side if isinstance(side, Sequence) else [side] * len(seeds) for side in sides]


def over_trainings(sides, metric, *, relative=False):
    """Estimates over seeds and examples, of the opponent (None without one), the method and what
    the claim is about: their difference, or the method alone.

    sides: of paired_by_seed. Each seed's pair is compared on the same resamples of examples.
    """
    after, before = sides if len(sides) == 2 else (sides[0], None)
    span = after[0].parts[metric].span if metric in after[0].parts else None
    one, *others = [evaluation for side in sides for evaluation in side]
    for other in others:
        compare(other, one, metric)  # refuses other examples or groups
    second = _over([e[metric] for e in after], span)
    if before is None:
        return None, second, second
    pairs = zip(after, before, strict=True)
    differences = [compare(*pair, metric, relative=relative).difference for pair in pairs]
    return _over([e[metric] for e in before], span), second, _over(differences)


def _over(estimates, span=None):
    first = estimates[0]
    if all(estimate is first for estimate in estimates[1:]) and len(estimates) > 1:
        return first  # of an opponent that was not trained, or once
    seeds = f"{len(estimates)} training seed{'s'[: len(estimates) != 1]}"
    return over_seeds([estimate.value for estimate in estimates],
                      [estimate.samples for estimate in estimates],
                      min(estimate.groups for estimate in estimates),
                      span=span or (-np.inf, np.inf), covers=f"{first.covers} and {seeds}")
