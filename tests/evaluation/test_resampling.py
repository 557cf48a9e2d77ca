"""Without these, an interval could miss the truth more often than it says, or fill the memory."""

import itertools
import tracemalloc

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import ftkit as ft
from ftkit.errors import SettingError
from ftkit.evaluation import resampling

GROUPS = (5, 8, 15, 30, 100)
RUNS = 2000


def coverage(top, below, truth, *, minus=None, share=False):
    """How often the interval of sum(top) / sum(below) - minus contains the truth.

    top, below: shape (runs, groups). minus: a second pair of such arrays, for a difference.
    """
    counts = np.concatenate(list(resampling.draws(top.shape[1]))).astype(float)

    def ratio(top, below):
        return top.sum(1) / below.sum(1), (top @ counts.T) / (below @ counts.T)

    value, samples = ratio(top, below)
    if minus:
        other, others = ratio(*minus)
        value, samples = value - other, samples - others
    hits = 0
    for i in range(len(top)):
        alike = resampling.effective_groups(below[i])
        found = resampling.interval(value[i], samples[i], alike, share=share)
        hits += found.low <= truth <= found.high
    return hits / len(top)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("spread", [(7, 3), (9, 1)])
def test_the_interval_of_a_share_covers_the_truth_95_times_in_100(groups, spread):
    """Shares right of 20 reviews a film, films differing in how hard they are."""
    random = np.random.default_rng(groups)
    right = random.binomial(20, random.beta(*spread, size=(RUNS, groups)))
    found = coverage(right, np.full(right.shape, 20.0), spread[0] / 10, share=True)
    assert 0.93 <= found <= 0.97


@pytest.mark.parametrize("groups", GROUPS)
def test_the_interval_of_a_mean_covers_the_truth_95_times_in_100(groups):
    values = np.random.default_rng(groups).normal(size=(RUNS, groups))
    assert 0.93 <= coverage(values, np.ones(values.shape), 0) <= 0.97


@pytest.mark.parametrize("groups", GROUPS)
def test_the_interval_of_a_weighted_mean_covers_the_truth_95_times_in_100(groups):
    """A loss in nats a token, over texts whose lengths differ a lot."""
    random = np.random.default_rng(groups)
    tokens = 20 * random.lognormal(0, 0.6, size=(RUNS, groups))
    loss = 3 + 0.5 * random.normal(size=(RUNS, groups))
    assert 0.93 <= coverage(tokens * loss, tokens, 3) <= 0.97


@pytest.mark.parametrize("groups", GROUPS)
def test_the_interval_of_a_difference_covers_the_truth_95_times_in_100(groups):
    """Two models on the same films of different sizes, whose hardness they share."""
    random = np.random.default_rng(groups)
    size = random.integers(5, 40, size=(RUNS, groups)).astype(float)
    hardness = random.beta(7, 3, size=(RUNS, groups))
    one, two = (random.binomial(size.astype(int), hardness * k) for k in (0.8, 0.9))
    assert 0.93 <= coverage(two, size, 0.07, minus=(one, size)) <= 0.97


def test_an_evaluation_has_the_interval_that_the_simulations_test():
    random = np.random.default_rng(0)
    tokens, groups = random.integers(5, 50, size=60), np.arange(60) % 8
    loss = 3 + random.normal(size=60)
    found = ft.from_scores("loss", tokens * loss, tokens, groups=groups)["loss"]
    counts = np.concatenate(list(resampling.draws(8))).astype(float)
    top, below = (np.bincount(groups, w) for w in (tokens * loss, tokens))
    samples = counts @ top / (counts @ below)
    alike = (8 + below.sum() ** 2 / (below**2).sum()) / 2
    expected = resampling.interval(top.sum() / below.sum(), samples, alike)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    plain = np.quantile(samples, [0.025, 0.975])
    assert found.low < plain[0] and found.high > plain[1]


def test_with_many_examples_the_interval_is_hardly_wider_than_the_plain_percentile_one():
    right = np.random.default_rng(0).random(500) < 0.7
    found = ft.from_predictions(right, np.ones(500, dtype=bool))["accuracy"]
    # All draws at once, and nothing stretched.
    draws = np.random.default_rng(0).multinomial(500, np.full(500, 1 / 500), size=2000)
    samples = draws @ right / 500
    low, high = np.quantile(samples, [0.025, 0.975])
    assert found.samples == pytest.approx(samples)
    assert found.low < low and high < found.high and found.high - found.low < 1.1 * (high - low)


def test_draws_are_the_same_in_pieces(monkeypatch):
    whole = np.concatenate(list(resampling.draws(50, resamples=100, seed=3)))
    monkeypatch.setattr(resampling, "_CHUNK", 50 * 7)
    assert np.array_equal(whole, np.concatenate(list(resampling.draws(50, resamples=100, seed=3))))
    assert (whole.sum(1) == 50).all() and not np.array_equal(whole[0], whole[1])


def test_draws_of_very_many_groups_are_drawn_as_evenly(monkeypatch):
    monkeypatch.setattr(resampling, "_MULTINOMIAL", 10)
    counts = np.concatenate(list(resampling.draws(20, resamples=5000)))
    assert (counts.sum(1) == 20).all()
    assert counts.mean(0) == pytest.approx(np.ones(20), abs=0.06)
    assert counts.var(0) == pytest.approx(np.full(20, 0.95), abs=0.1)


def test_memory_grows_with_the_rows_not_with_two_thousand_times_them():
    n = 100_000
    values = np.random.default_rng(0).random(n)
    evaluation = ft.from_scores("score", values)
    resampling._kept_draws.cache_clear()
    tracemalloc.start()
    found = evaluation["score"]
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1e6 and peak < 100e6  # all draws at once: 1.6 GB
    assert found.low < values.mean() < found.high
    assert found.high - found.low == pytest.approx(3.92 * values.std() / n**0.5, rel=0.1)


def test_one_group_alone_has_no_interval():
    found = ft.from_scores("loss", [1.0, 2.0, 3.0], groups=["a"] * 3)["loss"]
    assert found.value == 2 and np.isnan([found.low, found.high]).all()
    assert not ft.claim("positive", found).held
    assert np.isnan(ft.bootstrap(np.mean, [1.0, 2.0], groups=["a", "a"]).low)


@pytest.mark.parametrize("unknown", [None, float("nan"), " "])
def test_rows_without_a_group_are_no_group_together(unknown):
    groups = ["a", unknown, "b", unknown, "a", unknown]
    numbers = resampling.group_numbers(groups, 6)
    assert numbers[0] == numbers[4] and len(set(numbers.tolist())) == 5
    assert set(numbers.tolist()) == set(range(5))
    found = ft.bootstrap(np.mean, np.arange(6.0), groups=[unknown] * 6)
    assert found.covers == "6 examples" and found.finite()


def test_a_plain_dataset_with_rows_without_a_group_is_evaluated_by_its_known_groups():
    data = Dataset.from_dict({"group": ["a", "a", None, None, None]})
    one = ft.from_scores("x", [0.0, 1, 2, 3, 4], dataset=data)
    two = ft.from_scores("x", [0.0, 1, 2, 3, 4], groups=["a", "a", "c", "d", "e"])
    assert one["x"] == two["x"] and "5 examples in 4 groups" in repr(one)
    assert ft.compare(one, two, "x").difference.value == 0


def test_all_right_is_not_certainty():
    for n in (9, 200):
        found = ft.from_predictions([1] * n, [1] * n)["accuracy"]
        # The exact binomial bound: with a share right of `low`, all n are right in 1 of 40 draws.
        assert found.high == 1 and found.low**n == pytest.approx(0.025)
    wrong = ft.from_predictions([0] * 9, [1] * 9)["accuracy"]
    assert (wrong.low, wrong.high) == pytest.approx((0, 1 - 0.025 ** (1 / 9)))


def test_no_interval_leaves_the_range_of_its_metric():
    films = np.repeat(np.arange(4), 5)
    right = np.array([1] * 15 + [0, 1, 1, 1, 1])
    assert ft.from_predictions(right, np.ones(20, dtype=int), groups=films)["accuracy"].high == 1
    assert ft.from_values([0.5, 2.0, 1.0], [0.5, 1.0, 1.0])["mae"].low == 0
    assert ft.bootstrap(np.mean, right, groups=films).high == 1


@pytest.mark.parametrize("largest", [np.max, max, lambda x: -np.min(-x)])
def test_a_maximum_has_no_bootstrap(largest):
    x = np.random.default_rng(0).random(30)
    with pytest.raises(SettingError, match="plain number"):
        ft.bootstrap(largest, x)
    with pytest.raises(SettingError, match="plain number"):
        ft.bootstrap(np.min, x, groups=np.arange(30) % 6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=12),
       st.sampled_from([np.mean, np.median, np.sum, np.var, lambda x: (x == 0).mean()]))
def test_other_statistics_are_not_taken_for_a_maximum(values, statistic):
    if statistic is np.var and np.count_nonzero(np.diff(sorted(values))) == 1:
        return  # of one value beside equal ones, which is as hard
    ft.bootstrap(statistic, values, n=50)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_sign_flips_count_all_flips(differences):
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    totals = abs(signs @ differences)
    expected = (totals >= abs(sum(differences))).mean()
    assert resampling.sign_flips(differences) == pytest.approx(expected)


@pytest.mark.parametrize(("seeds", "spread", "shared", "rest"), [
    (3, 0.0, 1.0, 1.0), (3, 0.3, 1.0, 1.0), (3, 0.3, 0.2, 1.0), (5, 0.3, 0.2, 1.0),
    (5, 0.05, 1.0, 0.3), (3, 0.0, 0.0, 1.0),
])
def test_the_interval_over_seeds_covers_other_seeds_and_other_examples(
    seeds, spread, shared, rest
):
    """Differences vary over trainings, over examples, and over both together."""
    random, groups, hits = np.random.default_rng(seeds), 50, 0
    counts = np.concatenate(list(resampling.draws(groups)))[:400] / groups
    for _ in range(400):
        each = (
            spread * random.normal(size=(seeds, 1))
            + shared * random.normal(size=(1, groups))
            + rest * random.normal(size=(seeds, groups))
        )
        found = resampling.over_seeds(each.mean(1), each @ counts.T, groups)
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 400 <= 0.99
