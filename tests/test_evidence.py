"""Without these, a claim could hold by luck, or an interval could be too narrow to be believed."""

import json

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import ftkit as ft
from ftkit import evidence, hardware
from ftkit.errors import ClaimNotHeld, SettingError
from ftkit.resampling import sign_flips


@pytest.fixture(autouse=True)
def _fresh():
    evidence._claims.clear()
    hardware.profile("cpu")
    yield
    evidence._claims.clear()


def right(mask):
    mask = np.asarray(mask, dtype=int)
    return ft.from_predictions(mask, np.ones(len(mask), dtype=int), labels=["wrong", "right"])


def test_interval_of_a_mean_is_that_of_theory():
    x = np.random.default_rng(0).normal(size=400)
    found = ft.bootstrap(np.mean, x)
    half = 1.96 * x.std() / 20
    assert found.value == pytest.approx(x.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for i in range(200):
        found = right(rng.random(150) < 0.7)
        found.seed = i
        hits += found["accuracy"].low <= 0.7 <= found["accuracy"].high
    assert 0.88 <= hits / 200 <= 0.99


def test_groups_widen_the_interval_when_their_members_agree():
    films = np.repeat(np.arange(20), 20)
    mask = np.random.default_rng(2).random(20)[films] < 0.5
    plain = right(mask)["accuracy"]
    grouped = ft.from_predictions(mask.astype(int), np.ones(400, dtype=int), groups=films)[
        "accuracy"
    ]
    assert grouped.high - grouped.low > 2 * (plain.high - plain.low)


def test_fast_metrics_agree_with_plain_resampling():
    rng = np.random.default_rng(3)
    truth, said = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    from sklearn.metrics import accuracy_score, f1_score

    ev = ft.from_predictions(said, truth, labels=list("abc"))
    assert ev["accuracy"].value == pytest.approx(accuracy_score(truth, said))
    assert ev["macro_f1"].value == pytest.approx(f1_score(truth, said, average="macro"))
    assert ev["f1_b"].value == pytest.approx(f1_score(truth, said, average=None)[1])
    slow = ft.bootstrap(lambda a, b: f1_score(a, b, average="macro"), truth, said, n=300)
    assert ev["macro_f1"].low == pytest.approx(slow.low, abs=0.02)
    assert ev["macro_f1"].high == pytest.approx(slow.high, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_a_comparison_counts_every_flip_once(pairs):
    one, two = (np.array(c) for c in zip(*pairs, strict=True))
    found = ft.compare(right(two), right(one), "accuracy")
    assert len(found.gained) == int((two & ~one).sum())
    assert len(found.lost) == int((one & ~two).sum())
    assert found.difference.value == pytest.approx(two.mean() - one.mean())
    assert found.difference.low - 1e-9 <= found.difference.value <= found.difference.high + 1e-9


def test_paired_intervals_are_narrower_than_unpaired_ones():
    rng = np.random.default_rng(4)
    one = rng.random(500) < 0.6
    two = one | (rng.random(500) < 0.1)
    found = ft.compare(right(two), right(one), "accuracy")
    assert found.difference.low > 0
    assert right(two)["accuracy"].low < right(one)["accuracy"].high
    assert found.p_value < 0.001


def test_the_test_of_single_examples_is_mcnemars_exact_one():
    from scipy.stats import binomtest

    assert sign_flips([0, 0]) == 1
    for gained, lost in ((5, 5), (10, 0), (3, 12), (40, 21)):
        found = sign_flips([1] * gained + [-1] * lost + [0] * 7)
        assert found == pytest.approx(binomtest(gained, gained + lost).pvalue)


def test_different_examples_are_not_compared():
    with pytest.raises(SettingError, match="same examples"):
        ft.compare(right([1, 0, 1]), right([1, 0]), "accuracy")


def test_a_claim_holds_only_with_its_whole_interval():
    good = ft.claim(
        "better", right([1] * 90 + [0] * 10), right([1] * 50 + [0] * 50), metric="accuracy"
    )
    assert good.held
    close = ft.claim("at least 0.9", right([1] * 90 + [0] * 10), metric="accuracy", at_least=0.9)
    assert not close.held
    assert ft.claim(
        "at most 0.97", right([1] * 90 + [0] * 10), metric="accuracy", at_most=0.97
    ).held


def test_no_difference_is_no_gain():
    same = right([1, 0] * 50)
    assert not ft.claim("no better", same, same, metric="accuracy").held


def test_a_claim_carries_itself_as_json():
    made = ft.claim(
        "better", right([1] * 90 + [0] * 10), right([1] * 50 + [0] * 50), metric="accuracy"
    )
    bundle = made._repr_mimebundle_()
    carried = json.loads(json.dumps(bundle[evidence.CLAIM_MIME]))
    assert carried["held"] is True
    assert carried["difference"]["low"] <= carried["difference"]["value"]
    assert "better" in bundle["text/plain"]
    assert (
        "<script"
        not in ft.claim(
            "<script>", right([1] * 9), metric="accuracy", at_least=0
        )._repr_mimebundle_()["text/html"]
    )


def test_the_lesson_fails_at_its_end_when_a_claim_does_not_hold(capsys):
    ft.claim("impossible", right([1, 0] * 50), metric="accuracy", at_least=0.99)
    with pytest.raises(ClaimNotHeld, match="impossible"):
        ft.conclude()
    with pytest.raises(ClaimNotHeld, match="no claim"):
        ft.conclude()


def test_on_smoke_claims_are_recorded_and_not_judged():
    hardware.profile("smoke")
    made = ft.claim("impossible", right([1, 0] * 50), metric="accuracy", at_least=0.99)
    assert not made.held and not made.judged
    ft.conclude()


def test_wrong_uses_of_a_claim_are_explained():
    with pytest.raises(SettingError, match="not both"):
        ft.claim("x", right([1]), metric="accuracy", at_least=0, at_most=1)
    with pytest.raises(SettingError, match="Give one"):
        ft.claim("x", right([1]))
    with pytest.raises(SettingError, match="'bleu'.*accuracy"):
        ft.claim("x", right([1]), metric="bleu")
    with pytest.raises(SettingError, match="one length"):
        ft.bootstrap(np.mean, [])
    with pytest.raises(SettingError, match="groups has 1"):
        ft.bootstrap(np.mean, [1, 2], groups=["a"])


def test_labels_without_meaning_do_not_support_a_claim():
    """The test that a claim can fail: a model trained on shuffled labels must not beat the base."""
    data = tiny.reviews(shuffled=True)
    base = tiny.encoder()
    tuned = ft.fit(base, data, epochs=2, learning_rate=1e-3, quiet=True).model
    made = ft.claim(
        "shuffled labels help",
        ft.evaluate(tuned, data["test"]),
        ft.evaluate(base, data["test"]),
        metric="accuracy",
        at_least=0.1,
    )
    assert not made.held
