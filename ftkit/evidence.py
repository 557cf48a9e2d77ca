"""Intervals, paired comparisons and claims: how sure we are, from which examples."""

import html
import json
from dataclasses import asdict, dataclass, field

import numpy as np

from ftkit import hardware
from ftkit.errors import ClaimNotHeld, SettingError

CLAIM_MIME = "application/vnd.ftkit.claim+json"
RESAMPLES = 2000
LEVEL = 0.95
_claims = []


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval, and the resamples behind it where they are kept."""

    value: float
    low: float
    high: float
    samples: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __str__(self):
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    __repr__ = __str__

    def __format__(self, spec):
        if not spec:
            return str(self)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def as_dict(self):
        """The three numbers, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def interval(value, samples):
    """An Estimate from a point value and its bootstrap samples (percentile interval)."""
    samples = np.asarray(samples, dtype=float)
    tail = (1 - LEVEL) / 2
    finite = samples[np.isfinite(samples)]
    low, high = np.quantile(finite, [tail, 1 - tail]) if finite.size else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high), samples)


def group_numbers(groups, n):
    """Numbers 0..g-1 for the groups of n examples; every example alone when groups is None."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise SettingError(f"groups has {len(groups)} entries for {n} examples; give one for each.")
    return np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]


def resample_counts(groups, n, *, resamples=RESAMPLES, seed=0):
    """How often each group is drawn in each bootstrap resample.

    Returns (numbers, counts): group number of each example, shape (n,), and an array of shape
    (resamples, groups). Whole groups are drawn, since reviews of one film are not independent.
    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap"; for groups, Field and
    Welsh 2007, "Bootstrapping clustered data".
    """
    numbers = group_numbers(groups, n)
    size = int(numbers.max()) + 1 if n else 0
    draws = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
    return numbers, draws


def bootstrap(statistic, *arrays, groups=None, n=RESAMPLES, seed=0):
    """The value of a statistic with its 95% interval, by resampling examples (or whole groups).

    statistic: a function of resampled arrays that returns a number. arrays: share their first
    dimension. groups: one name an example; examples of one group are drawn together.
    Returns an Estimate. Raises SettingError when the arrays are empty or differ in length.
    """
    arrays = [np.asarray(a) for a in arrays]
    length = len(arrays[0])
    if not length or any(len(a) != length for a in arrays):
        raise SettingError(
            f"bootstrap needs arrays of one length above 0, got {[len(a) for a in arrays]}."
        )
    numbers, counts = resample_counts(groups, length, resamples=n, seed=seed)
    samples = []
    for row in counts:
        index = np.repeat(np.arange(length), row[numbers])
        samples.append(statistic(*(a[index] for a in arrays)))
    return interval(statistic(*arrays), samples)


@dataclass(frozen=True)
class Comparison:
    """Two evaluations on the same examples, after minus before.

    difference: Estimate from paired resampling. p_value: McNemar's exact test where each example
    is right or wrong, else None. gained, lost: indices of the examples that flipped.
    """

    metric: str
    before: Estimate
    after: Estimate
    difference: Estimate
    p_value: float | None
    gained: np.ndarray
    lost: np.ndarray

    def __repr__(self):
        flips = (
            f"; {len(self.gained)} gained, {len(self.lost)} lost"
            if self.p_value is not None
            else ""
        )
        test = f"; McNemar p = {self.p_value:.2g}" if self.p_value is not None else ""
        return (
            f"{self.metric}: {self.before} to {self.after}, "
            f"difference {self.difference.value:+.3f} "
            f"[{self.difference.low:+.3f}, {self.difference.high:+.3f}]{flips}{test}"
        )


def compare(after, before, metric, *, relative=False):
    """Compare two evaluations of the same data, example by example.

    metric: a name both evaluations have. relative=True gives after / before - 1 in place of the
    difference. Returns a Comparison. Raises SettingError when the examples are not the same.
    Source of the test: McNemar 1947, in its exact binomial form.
    """
    first, second = before[metric], after[metric]
    if not before.same_examples(after):
        raise SettingError(
            "compare needs two evaluations of the same examples in the same order; "
            "evaluate both models on one data set."
        )
    if relative:
        value = second.value / first.value - 1
        samples = second.samples / first.samples - 1
    else:
        value, samples = second.value - first.value, second.samples - first.samples
    gained = lost = np.array([], dtype=int)
    p_value = None
    one, two = before.per_example(metric), after.per_example(metric)
    if one is not None and np.isin(one, (0, 1)).all() and np.isin(two, (0, 1)).all():
        gained, lost = np.flatnonzero(two > one), np.flatnonzero(two < one)
        p_value = mcnemar(len(gained), len(lost))
    return Comparison(metric, first, second, interval(value, samples), p_value, gained, lost)


def mcnemar(gained, lost):
    """The two-sided exact p-value that `gained` against `lost` flips are a fair coin's."""
    from scipy.stats import binomtest

    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


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

    def row(self):
        """The claim as a table row: a dict of strings."""

        def show(estimate):
            return "" if estimate is None else str(Estimate(**estimate))

        kind, limit = next(iter(self.bound.items()))
        word = (
            ("held" if self.held else "NOT held")
            if self.judged
            else f"{'held' if self.held else 'not held'} (not judged)"
        )
        return {
            "claim": self.claim,
            "metric": self.metric or "",
            "base": show(self.before),
            "tuned": show(self.after),
            # Of a claim about one value there is no difference to show beside it.
            "difference": "" if self.after and not self.before else show(self.difference),
            "needed": f"{kind.replace('_', ' ')} {limit:g}",
            "verdict": word,
            "computed": "; ".join(str(hardware.Computed(**way)) for way in self.computed),
        }

    def _repr_mimebundle_(self, include=None, exclude=None):
        row = self.row()
        text = "\n".join(f"{name:>10}: {value}" for name, value in row.items() if value)
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>"
            f"{html.escape(value)}</td></tr>"
            for name, value in row.items()
            if value
        )
        return {
            "text/plain": text,
            "text/html": f"<table>{cells}</table>",
            CLAIM_MIME: asdict(self),
        }


def claim(text, after, before=None, *, metric=None, at_least=None, at_most=None, relative=False):
    """State a claim, judge it on held-out data and show it with its evidence.

    after, before: evaluations of the same examples; the claim is about after minus before (or,
    relative=True, after / before - 1). With `after` alone it is about its value; `after` may also
    be an Estimate of your own. It holds when the whole 95% interval is on its side of the bound:
    the low end at or above `at_least`, or the high end at or below `at_most`; with neither, the
    low end above 0. Shows a row that carries the claim as JSON, and returns the Claim.
    Raises SettingError for two bounds or a missing metric, never for a claim that does not hold:
    `conclude` does that at the end of the lesson.
    """
    if at_least is not None and at_most is not None:
        raise SettingError("a claim takes at_least or at_most, not both; make two claims.")
    if not isinstance(after, Estimate) and metric is None:
        raise SettingError('which metric is the claim about? Give one, as in metric="accuracy".')
    first = second = None
    n = None
    if isinstance(after, Estimate):
        found = after
    elif before is None:
        found = second = after[metric]
        n = len(after)
    else:
        comparison = compare(after, before, metric, relative=relative)
        found, first, second, n = (
            comparison.difference,
            comparison.before,
            comparison.after,
            len(after),
        )
    if at_most is not None:
        bound, held = {"at_most": at_most}, found.high <= at_most
    else:
        limit = 0 if at_least is None else at_least
        bound = {"at_least": limit}
        held = found.low > 0 if at_least is None else found.low >= at_least
    name = hardware.current_profile()
    made = Claim(
        text,
        metric,
        first and first.as_dict(),
        second and second.as_dict(),
        found.as_dict(),
        bound,
        relative,
        bool(held),
        name != "smoke",
        name,
        n,
        _computed(after, before),
    )
    _claims.append(made)
    _display(made)
    return made


def _computed(*evaluations):
    """In which numbers and on what evaluations were made, each way once."""
    found = [getattr(evaluation, "computed", None) for evaluation in evaluations]
    return [asdict(way) for way in dict.fromkeys(found) if way]


def conclude():
    """End a lesson: show its claims, and on the profiles cpu and gpu insist that they hold.

    Returns nothing. Raises ClaimNotHeld, naming the claims that failed, when one was judged and
    did not hold, or when the lesson made none. Start-over: the list of claims is emptied.
    """
    made, failed = list(_claims), [c for c in _claims if c.judged and not c.held]
    _claims.clear()
    if not made:
        raise ClaimNotHeld("this lesson made no claim; call ft.claim before ft.conclude.")
    from ftkit.show import show_table

    show_table(
        [{"claim": c.claim, "result": str(Estimate(**c.difference)),
          **{k: c.row()[k] for k in ("needed", "verdict")}} for c in made]
    )
    if failed:
        lines = "; ".join(
            f"{c.claim!r}: {Estimate(**c.difference)}, needed {json.dumps(c.bound)}" for c in failed
        )
        raise ClaimNotHeld(
            f"{len(failed)} of {len(made)} claims did not hold: {lines}. Run it "
            "with another seed, more test data or a longer training before you "
            "believe either side."
        )


def _display(thing):
    try:
        from IPython.display import display
    except ImportError:
        print(thing)
    else:
        display(thing)
