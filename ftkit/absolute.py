"""The interval of a sum of absolute values, such as the calibration error, which noise lifts."""

import numpy as np

STEPS = 33  # candidates for the true value


def ends(terms, noise, least, slack):
    """The low and high end of the 95% interval of sum(abs(terms)).

    terms: as measured, shape (k,). noise: how far each resample's terms are from them, shape
    (resamples, k), centred. least: the least variance of each term where the true terms are those
    given, shapes (n, k) to (n, k): in a bin where all answers are right resamples see no noise, and
    there is some. slack: half the step in which a value can change.

    Noise makes the sum larger where terms are small, by an amount that depends on the truth, so
    that no quantile of resamples is its interval (Andrews 2000, "Inconsistency of the bootstrap
    when a parameter is on the boundary"). A true value is in the interval when what was measured is
    none of the 5% least likely values under it: those above a quantile and those below another
    (2.5% each); from below none is excluded that lies above the true value, so that the interval
    contains what was measured, and then more from above. What can be measured under a true value is
    the noise around terms in proportion to the measured ones, or around those that noise lifts
    least (in proportion to its deviation); the wider end of the two counts.
    Sources: Carpenter 1999, "Test inversion bootstrap confidence intervals"; Chuang and Lai 2000,
    "Hybrid resampling methods for confidence intervals".
    """
    value, spread = abs(terms).sum(), noise.std(0)
    normal = np.random.default_rng([1, len(noise)]).normal(size=noise.shape)
    unit = np.where(spread > 0, noise / np.where(spread > 0, spread, 1), normal)
    single = least(terms)
    alike = max(1, np.square(spread).sum() / max(single.sum(), 1e-300))

    def deviation(terms):
        return np.sqrt(alike * least(terms))

    even = deviation(terms) * np.where(terms < -deviation(terms), -1, 1)
    low, high = value, value
    for direction, both in ((terms, True), (even, False)):
        total = abs(direction).sum()
        if total:
            one, two = _inverted(value, direction / total, unit, deviation, slack)
            low, high = min(low, one) if both else low, max(high, two)
    return low, high


def _inverted(value, direction, unit, deviation, slack):
    """The least and greatest true value under which the measured one is not too unlikely."""
    resamples = len(unit)
    most = abs(unit * deviation(value * direction)).sum(1)
    truths = np.linspace(0, value + 2 * np.quantile(most, 0.99) + 4 * slack, STEPS)
    around = truths[:, None] * direction
    wide = deviation(around)
    found = np.zeros((STEPS, resamples))
    for i in range(len(direction)):  # a term at a time, which takes less memory
        found += abs(around[:, [i]] + wide[:, [i]] * unit[:, i])
    found.sort(axis=1)
    below = np.minimum(found[:, int(0.025 * resamples)], truths)
    missed = (found < below[:, None]).mean(1)
    above = np.minimum(np.ceil((0.95 + missed) * resamples), resamples - 1).astype(int)
    above = np.take_along_axis(found, above[:, None], 1)[:, 0]
    first = np.argmax(above >= value)
    low = truths[0] if not first else _between(truths, above, first - 1, value)
    inside = np.flatnonzero(below <= value + slack)
    last = inside[-1]
    high = truths[-1] if last == STEPS - 1 else _between(truths, below, last, value + slack)
    return low, high


def _between(xs, ys, i, y):
    """Where a line through two neighbouring points has the height y."""
    return xs[i] + (xs[i + 1] - xs[i]) * (y - ys[i]) / (ys[i + 1] - ys[i])
