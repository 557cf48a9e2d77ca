"""Without these, a test set could be thought large enough for a difference that it cannot show."""

import numpy as np
import pytest

import ftkit as ft
from ftkit.errors import SettingError

RUNS = 300


def test_the_formula_by_hand():
    k = 1.96 + 0.842
    assert ft.power(10_000, sd=2.0) == pytest.approx(2 * k / 100, rel=1e-3)
    difference = ft.power(10_000, flips=0.2)
    assert difference == pytest.approx(k / 100 * np.sqrt(0.2 - difference**2), rel=1e-3)
    assert ft.power(400, flips=0.2) == pytest.approx(0.062, abs=5e-4)  # the docstring's
    # Rows of a group that are all alike tell no more than the group.
    assert ft.power(400, sd=1, groups=20, correlation=1) == pytest.approx(ft.power(20, sd=1))
    assert ft.power(400, sd=1, groups=20, correlation=0) > ft.power(400, sd=1)


def shown(before, after, metric, **options):
    return ft.compare(after, before, metric, **options).difference.low > 0


def test_of_right_answers_the_difference_is_shown_in_80_of_100_runs():
    random, n, flips = np.random.default_rng(0), 200, 0.25
    gained = (flips + ft.power(n, flips=flips)) / 2
    hits = 0
    for _ in range(RUNS):
        flip = random.choice([1, -1, 0], size=n, p=[gained, flips - gained, 1 - flips])
        one = np.where(flip == 0, random.random(n) < 0.6, flip < 0)
        two = np.where(flip == 0, one, flip > 0)
        truth = np.ones(n, dtype=bool)
        hits += shown(ft.from_predictions(one, truth), ft.from_predictions(two, truth), "accuracy")
    assert 0.74 <= hits / RUNS <= 0.86


def test_of_means_in_groups_the_difference_is_shown_in_80_of_100_runs():
    random, groups, each, alike = np.random.default_rng(1), 20, 5, 0.3
    gain = ft.power(groups * each, sd=1, groups=groups, correlation=alike)
    names = np.repeat(np.arange(groups), each)
    hits = 0
    for _ in range(RUNS):
        differences = gain + np.sqrt(alike) * random.normal(size=groups)[names]
        differences = differences + np.sqrt(1 - alike) * random.normal(size=groups * each)
        base = random.normal(size=groups * each)
        one, two = (ft.from_scores("x", v, groups=names) for v in (base, base + differences))
        hits += shown(one, two, "x")
    assert 0.74 <= hits / RUNS <= 0.86


@pytest.mark.parametrize(("options", "words"), [
    ({}, "flips"), ({"flips": 0.1, "sd": 1}, "not both"), ({"flips": 20}, "flips is 20"),
    ({"sd": 1, "groups": 500, "correlation": 0}, "groups is 500"),
    ({"sd": 1, "groups": 20}, "correlation is needed"), ({"sd": 1, "correlation": 0.1}, "groups"),
    ({"sd": 1, "chance": 80}, "chance is 80"),
])
def test_wrong_numbers_are_explained(options, words):
    with pytest.raises(SettingError, match=words):
        ft.power(100, **options)
