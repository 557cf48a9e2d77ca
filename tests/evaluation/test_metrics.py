"""Without these, a metric could be wrong and every claim that rests on it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ftkit as ft
from ftkit.errors import DataError


def test_values_are_measured_as_numpy_does():
    values, truth = np.array([0.1, 0.5, 0.7, 0.2]), np.array([0.0, 0.6, 0.9, 0.4])
    ev = ft.from_values(values, truth)
    assert ev["rmse"].value == pytest.approx(np.sqrt(((values - truth) ** 2).mean()))
    assert ev["mae"].value == pytest.approx(abs(values - truth).mean())
    assert ev["pearson"].value == pytest.approx(np.corrcoef(values, truth)[0, 1])


def test_a_constant_has_no_correlation_whatever_its_rounding():
    truth = np.linspace(0, 1, 50)
    ev = ft.from_values([0.1 + 0.2] * 50, truth)
    assert np.isnan(ev["pearson"].value)
    assert ev["rmse"].value == pytest.approx(np.sqrt(((truth - 0.3) ** 2).mean()))


@pytest.mark.parametrize(("text", "reference", "value"), [
    ("the cat sat", "the cat sat", 1),
    ("the cat sat", "the dog sat", 2 / 3),  # "the … sat": 2 of 3 either way
    ("police killed the gunman", "police kill the gunman", 3 / 4),  # Lin 2004, section 3
    ("the gunman police killed", "police killed the gunman", 2 / 4),  # order counts
    ("a b c d", "a d", 2 * 2 / 6),  # gaps do not
    ("Aortic-valve STENOSIS.", "aortic valve stenosis", 1),  # neither case nor marks
    ("", "x", 0), ("x", "", 0), ("one", "two", 0),
])
def test_rouge_l_by_hand(text, reference, value):
    assert ft.rouge_l([text], [reference]) == [pytest.approx(value)]


def test_rouge_l_is_that_of_the_package_of_its_name():
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="not a dependency")
    rouge = scorer.RougeScorer(["rougeL"])
    rng = np.random.default_rng(0)
    texts, references = (
        [" ".join(rng.choice(list("abcde"), size=n)) for n in rng.integers(1, 12, size=60)]
        for _ in range(2)
    )
    pairs = zip(texts, references, strict=True)
    expected = [rouge.score(right, said)["rougeL"].fmeasure for said, right in pairs]
    assert ft.rouge_l(texts, references) == pytest.approx(expected)


def test_a_class_that_is_absent_is_no_wrong_answer():
    """All answers right, and one class that the test set does not have (torchmetrics 300, 1494)."""
    truth = np.array([0, 1] * 30)
    ev = ft.from_predictions(truth, truth, labels=["bad", "good", "mixed"])
    assert str(ev["macro_f1"]) == "1.000 [1.000, 1.000]"
    assert np.isnan(ev["f1_mixed"].value) and ev.absent == ["mixed"]
    assert "none of the class mixed" in repr(ev) and "none of the class mixed" in ev._repr_html_()
    # Said although no example has it: that is wrong, and counts.
    said = np.where(np.arange(60) < 6, 2, truth)
    ev = ft.from_predictions(said, truth, labels=["bad", "good", "mixed"])
    from sklearn.metrics import f1_score

    assert ev["f1_mixed"].value == 0
    assert ev["macro_f1"].value == pytest.approx(f1_score(truth, said, average="macro"))


def test_a_class_that_a_resample_lacks_does_not_lower_it():
    truth = np.array([0, 1] * 99 + [2] * 2)
    ev = ft.from_predictions(truth, truth, labels=["bad", "good", "rare"])
    assert str(ev["macro_f1"]) == str(ev["f1_rare"]) == "1.000 [1.000, 1.000]"
    tags = [["O"]] * 60 + [["B-RARE"]]
    for metric in ("f1_RARE", "f1", "precision", "recall"):
        assert str(ft.from_tags(tags, tags)[metric]) == "1.000 [1.000, 1.000]"
    nothing = ft.from_tags([["O"]] * 61, tags)  # as seqeval: nothing was said, so nothing is right
    assert [str(nothing[m]) for m in ("f1", "precision")] == ["0.000 [0.000, 0.000]"] * 2


CONFIDENCES = {
    "evenly from 0.6": lambda random, n: random.uniform(0.6, 1, size=n),
    "mostly above 0.9": lambda random, n: 0.5 + 0.5 * random.beta(4, 1, size=n),
    "at 0.99": lambda random, n: random.uniform(0.99, 1, size=n),
}


def calibration_error(confidence, right, groups=None):
    return ft.from_predictions(
        right.astype(int), np.ones(len(right), dtype=int), groups=groups,
        probabilities=np.stack([1 - confidence, confidence], 1),
    )["calibration_error"]


@pytest.mark.parametrize(("kind", "gap"), [
    ("evenly from 0.6", 0), ("evenly from 0.6", 0.15), ("mostly above 0.9", 0.05),
    ("at 0.99", 0), ("at 0.99", 0.02),
])
def test_the_interval_of_the_calibration_error_covers_the_truth_with_100_rows(kind, gap):
    random, hits, runs = np.random.default_rng(5), 0, 300
    for _ in range(runs):
        confidence = CONFIDENCES[kind](random, 100)
        found = calibration_error(confidence, random.random(100) < confidence - gap)
        assert found.low <= found.value <= found.high
        hits += found.low <= gap <= found.high
    assert hits >= 0.93 * runs


@pytest.mark.parametrize("gap", [0, 0.15])
@pytest.mark.parametrize(("groups", "rows"), [(5, 20), (8, 13), (15, 10), (30, 10), (100, 10)])
def test_the_interval_of_the_calibration_error_covers_the_truth_with_groups(groups, rows, gap):
    """Answers about one film are more or less often right together."""
    random, hits, runs = np.random.default_rng(groups), 0, 200
    film = np.repeat(np.arange(groups), rows)
    for _ in range(runs):
        confidence = random.uniform(0.6, 0.95, size=len(film))
        shift = random.uniform(-0.05, 0.05, size=groups)[film]
        found = calibration_error(confidence, random.random(len(film)) < confidence - gap + shift,
                                  film)
        assert found.low <= found.value <= found.high
        hits += found.low <= gap <= found.high
    assert hits >= 0.92 * runs  # of 200 runs 93% may come out as 92


def test_the_interval_of_the_calibration_error_narrows_with_the_rows():
    random, widths = np.random.default_rng(0), []
    for n in (100, 400, 10_000):
        confidence = random.uniform(0.6, 1, size=n)
        found = calibration_error(confidence, random.random(n) < confidence - 0.15)
        widths.append(found.high - found.low)
    # Of one bin alone: 4 deviations of about 0.45 / sqrt(n).
    assert widths[0] < 0.26 and widths[1] < 0.11 and widths[2] < 0.02


@pytest.mark.parametrize("n", [20, 100])
def test_all_right_at_full_confidence_is_not_certainty(n):
    found = calibration_error(np.ones(n), np.ones(n, dtype=bool))
    exact = 1 - 0.025 ** (1 / n)  # with so many wrong in all, none of n is wrong in 1 of 40 draws
    assert found.value == found.low == 0 and exact < found.high < 1.5 * exact


WORDS = st.lists(st.sampled_from("abc"), max_size=7)


def longest_by_trying_all(one, two):
    """Every subsequence of the one is looked for in the other."""
    best = 0
    for mask in range(1 << len(one)):
        part = [word for i, word in enumerate(one) if mask >> i & 1]
        rest = iter(two)
        if len(part) > best and all(word in rest for word in part):
            best = len(part)
    return best


@settings(max_examples=100, deadline=None)
@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_the_longest(one, two):
    [value] = ft.rouge_l([" ".join(one)], [" ".join(two)])
    expected = 2 * longest_by_trying_all(one, two) / max(1, len(one) + len(two))
    assert value == pytest.approx(expected)


def test_texts_are_measured_without_the_space_around_them():
    ev = ft.from_texts([" good ", "bad film"], ["good", "film"])
    assert ev.per_example("exact_match").tolist() == [1, 0]
    assert ev["rouge_l"].value == pytest.approx((1 + 2 / 3) / 2)
    assert ev["chrf"].value > 50 and ev.texts == ["good", "bad film"]


def test_wrong_numbers_of_answers_are_explained():
    with pytest.raises(DataError, match="2 values for 1 references"):
        ft.from_values([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="1 texts for 2 references"):
        ft.from_texts(["a"], ["a", "b"])
    with pytest.raises(DataError, match="reference 1 is nan"):
        ft.from_values([0.5, 0.5], [0.5, None])
