"""Before a run: the smallest difference that a test set of some size can show."""

import numpy as np

from ftkit.errors import SettingError
from ftkit.evaluation.resampling import quantile

CHANCE = 0.8  # that a difference of this size is shown


def power(rows, *, flips=None, sd=None, groups=None, correlation=None, chance=CHANCE):
    """The smallest true difference that a paired comparison of so many test rows will show.

    rows: number of test examples. For right and wrong answers give flips, the share of examples
    that only one of the two sides gets right (0.2 is common for a tuned and an untuned model, 0.1
    for two trainings); for a mean, such as the loss, give sd, the standard deviation of the
    examples' differences. groups: number of groups, where rows come in some; then correlation says
    how alike differences in one group are, from 0 (as of single rows) to 1 (a group tells no more
    than a row). Take flips, sd and correlation from the validation split, or from an earlier run.
    chance: how often the interval of `compare` shall exclude 0 if the difference is that large. For
    a claim with a bound, it is the distance from the bound.
    Returns the difference, in the metric's unit:

        sd * k / sqrt(rows / (1 + (rows / groups - 1) * correlation))

    where k is the sum of Student's quantiles of 97.5% and of `chance` with groups - 1 degrees of
    freedom, 2.8 for many. For answers, sd squared is flips minus the difference squared. Raises
    SettingError for numbers out of range, and where no difference would do.
    Sources: Connor 1987, "Sample size for testing differences in proportions for the paired-sample
    design"; Kish 1965, "Survey Sampling", section 5.4 (groups); Card et al. 2020, "With Little
    Power Comes Great Responsibility".
    Example: ft.power(400, flips=0.2) is 0.062: six points of accuracy.
    """
    from scipy.stats import t

    if (flips is None) == (sd is None):
        raise SettingError("give one of flips (for right and wrong answers) and sd (for a mean), "
                           f"{'not both' if sd is not None else 'such as flips=0.2'}.")
    _within("rows", rows, 2, np.inf)
    _within("chance", chance, 0.5, 0.999)
    design = 1.0
    if groups is None:
        groups = rows
        if correlation is not None:
            raise SettingError("correlation is of rows in one group; give groups, too.")
    else:
        _within("groups", groups, 2, rows)
        if correlation is None:
            raise SettingError("with groups, correlation is needed: 0 where rows of one group are "
                               "no more alike than others, 1 where a group tells no more than one "
                               "of its rows.")
        _within("correlation", correlation, 0, 1)
        design = 1 + (rows / groups - 1) * correlation
    quantiles = quantile(groups - 1) + t.ppf(chance, groups - 1)
    squared = quantiles**2 * design / rows
    if sd is not None:
        _within("sd", sd, 0, np.inf)
        return float(sd * np.sqrt(squared))
    _within("flips", flips, 0, 1)
    # difference**2 == squared * (flips - difference**2), solved for the difference.
    return float(np.sqrt(squared * flips / (1 + squared)))


def _within(name, value, least, most):
    if not least <= value <= most:
        raise SettingError(f"{name} is {value}; expected {least:g} to {most:g}.")
