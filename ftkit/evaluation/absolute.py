"""The interval of a sum of absolute values, such as the calibration error, which noise lifts."""

import numpy as np

STEPS = 33  # candidates for the true value


def ends(terms, noise, least, slack):
    """The low and high end of the 95% interval of sum(abs(terms)).

    terms: as measured, shape (k,). noise: how far each resample's terms are from them, shape
    (resamples, k), centred. least: the variance of each term where these are the true terms and
    examples are independent, shape (n, k) to (n, k). slack: half a step of the measured value.

    Noise makes the sum larger, most where terms are small, so that no quantile of resamples will do
    (Andrews 2000, "Inconsistency of the bootstrap when a parameter is on the boundary"). A true
    value is in the interval where the measured one is none of the 5% least likely under it: 2.5%
    below and 2.5% above; but none above the true value counts as too low, so that the interval
    contains what was measured, and what is spared there is added above. Measured values under a
    true one are noise around terms in proportion to the measured ones; for the high end also around
    those that noise lifts least, in proportion to their deviation. The noise has the resamples'
    form and the variance of `least`, times what resamples vary more over all terms: also in a bin
    where all answers are right.
    Sources: Carpenter 1999, "Test inversion bootstrap confidence intervals"; Chuang and Lai 2000,
    "Hybrid resampling methods for confidence intervals".
    """
    value, spread = abs(terms).sum(), noise.std(0)
    normal = np.random.default_rng([1, len(noise)]).normal(size=noise.shape)
    unit = np.where(spread > 0, noise / np.where(spread > 0, spread, 1), normal)
    single = least(terms).sum()
    alike = max(1, np.square(spread).sum() / single) if single else 1

    def deviation(terms):
        return np.sqrt(alike * least(terms))

    # Of a sign that cannot be told the positive one: of too much confidence.
    even = deviation(terms) * np.where(terms < -deviation(0 * terms), -1, 1)
    low, high = value, value
    if value:
        low, high = _inverted(value, terms / value, unit, deviation, slack)
    if even.any():
        high = max(high, _inverted(value, even / abs(even).sum(), unit, deviation, slack)[1])
    return min(low, value), max(high, value)


def _inverted(value, direction, unit, deviation, slack):
    """The least and greatest true value under which the measured one is not too unlikely."""
    resamples = len(unit)
    most = abs(unit * deviation(value * direction)).sum(1)
    truths = np.linspace(0, value + 2 * np.quantile(most, 0.99) + 16 * slack, STEPS)
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
    first, last = np.argmax(above >= value), np.flatnonzero(below <= value + slack)[-1]
    low = _between(truths, above, first - 1, value) if first else 0.0
    high = truths[-1] if last == STEPS - 1 else _between(truths, below, last, value + slack)
    return low, high


def _between(xs, ys, i, y):
    """Where a line through two neighbouring points has the height y."""
    return xs[i] + (xs[i + 1] - xs[i]) * (y - ys[i]) / (ys[i + 1] - ys[i])
