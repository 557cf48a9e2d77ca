"""Without these, a claim could hold by luck, or an interval could be too narrow to be believed."""

import json

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import ftkit as ft
from ftkit.course import claims
from ftkit.errors import ClaimNotHeld, SettingError
from ftkit.evaluation.resampling import sign_flips
from ftkit.models import hardware
from ftkit.models.hardware import Computed


@pytest.fixture(autouse=True)
def _fresh():
    claims._claims.clear()
    hardware.profile("cpu")
    yield
    claims._claims.clear()


def right(mask):
    mask = np.asarray(mask, dtype=int)
    return ft.from_predictions(mask, np.ones(len(mask), dtype=int), labels=["wrong", "right"])


def test_interval_of_a_mean_is_that_of_theory():
    x = np.random.default_rng(0).normal(size=400)
    found = ft.bootstrap(np.mean, x)
    half = 1.96 * x.std() / 20
    assert found.value == pytest.approx(x.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


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


def test_sides_with_other_groups_are_not_compared():
    """A baseline without groups drew single reviews where the model's draws were whole films."""
    mask, films = [1, 0, 1, 1] * 10, np.repeat(np.arange(8), 5)
    grouped = ft.from_predictions(mask, [1] * 40, groups=films)
    with pytest.raises(SettingError, match="8 groups before, 40 groups after.*dataset=test"):
        ft.compare(right(mask), grouped, "accuracy")
    with pytest.raises(SettingError, match="differently"):
        ft.compare(ft.from_predictions(mask, [1] * 40, groups=films[::-1]), grouped, "accuracy")
    same = ft.compare(grouped, ft.from_predictions(mask, [1] * 40, groups=films), "accuracy")
    assert (same.difference.low, same.difference.high) == (0, 0)
    other = right(mask)
    other.seed = 1
    with pytest.raises(SettingError, match="seeds 0 and 1"):
        ft.compare(other, right(mask), "accuracy")


def test_where_examples_come_in_groups_the_test_flips_whole_groups():
    films = np.repeat(np.arange(20), 20)
    gain = np.arange(20) < 13  # whole films won, the others lost
    one, two = (
        ft.from_predictions(mask[films].astype(int), [1] * 400, groups=films)
        for mask in (~gain, gain)
    )
    found = ft.compare(two, one, "accuracy")
    alone = ft.compare(*(right(e.per_example("accuracy")) for e in (two, one)), "accuracy")
    wins = int(gain.sum())
    assert found.p_value == pytest.approx(sign_flips([1] * wins + [-1] * (20 - wins)))
    assert found.p_value > 0.05 > 1e-6 > alone.p_value
    assert "sign flips of 20 groups" in repr(found) and "McNemar p" in repr(alone)


def test_a_result_says_what_its_interval_covers_and_when_it_cannot_tell():
    films = np.repeat(np.arange(20), 20)
    some = np.random.default_rng(0).integers(0, 2, size=400)
    grouped = ft.from_predictions(some, [1] * 400, groups=films)
    for shown in (repr(grouped), grouped._repr_html_()):
        assert "400 examples in 20 groups" in shown
        assert "repeated with other groups of examples, 19 of 20 such 95% intervals" in shown
    assert "with other examples, 19 of 20" in repr(right(some))
    one = ft.from_predictions([0, 1, 1], [1, 1, 1], groups=["a"] * 3)
    assert "no intervals: with one group" in repr(one)
    none, all_ = right(np.zeros(400)), right(np.ones(400))
    same = repr(ft.compare(right(some[::-1]), right(some), "accuracy"))
    told = "whether accuracy differs cannot be told: the interval holds 0"
    assert f"over 400 examples; {told}" in same
    assert "would contain the difference over all such examples" in same
    for words, pair in (("higher", (all_, none)), ("lower", (none, all_))):
        said = repr(ft.compare(*pair, "accuracy"))
        assert f"accuracy is {words} after" in said and "cannot be told" not in said
    # Of a loss, too, whose parts have no value for one example alone.
    scores = ft.compare(*(ft.from_scores("loss", x) for x in ([1.0, 2, 4], [1.0, 3, 2])), "loss")
    assert "whether loss differs cannot be told" in repr(scores)


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
    carried = json.loads(json.dumps(bundle[claims.CLAIM_MIME]))
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


def test_what_is_no_number_bears_no_claim():
    nothing = ft.Estimate(float("nan"), float("nan"), float("nan"))
    endless = ft.Estimate(float("inf"), 1.0, float("inf"))
    undefined = ft.from_scores("nats", [1.0, float("nan"), 2.0])
    for found in (nothing, endless, float("nan"), float("inf")):
        assert not ft.claim("x", found, at_least=0).held
    assert not ft.claim("x", undefined, metric="nats", at_most=9).held
    assert not ft.claim("x", right([1] * 9), right([0] * 9), metric="accuracy", relative=True).held
    # JSON has no NaN: what carries the claim must be readable by every notebook.
    carried = ft.claim("x", nothing)._repr_mimebundle_()[claims.CLAIM_MIME]
    assert json.loads(json.dumps(carried, allow_nan=False))["difference"]["value"] is None
    with pytest.raises(ClaimNotHeld, match="nan"):
        ft.conclude()


def test_an_open_question_may_come_out_either_way(capsys):
    ft.claim("more right", right([1, 0] * 50), metric="accuracy", at_least=0.99, expect="open")
    made = ft.claim("some right", right([1, 0] * 50), metric="accuracy", expect="open")
    assert made.row()["verdict"] == "held (open question)"
    assert made._repr_mimebundle_()[claims.CLAIM_MIME]["expect"] == "open"
    ft.conclude()
    assert "did not hold (open question)" in capsys.readouterr().out
    with pytest.raises(SettingError, match='"open"'):
        ft.claim("x", right([1]), metric="accuracy", expect="maybe")


def trainings(random, gain, seeds=3, n=400):
    """Right and wrong answers of trainings with several seeds, before and after."""
    films = np.repeat(np.arange(n // 10), 10)
    hard = random.random(n)
    return [
        [
            ft.from_predictions(
                (hard + 0.1 * random.normal(size=n) < 0.6 + more).astype(int), [1] * n, groups=films
            )
            for more in gains
        ]
        for gains in (gain, [0] * seeds)
    ]


def test_a_claim_over_seeds_covers_other_trainings_too():
    after, before = trainings(np.random.default_rng(0), [0.3, 0.0, -0.1])
    # The luckiest seed alone would bear the claim; what differs between seeds does not.
    assert ft.claim("one seed", after[0], before[0], metric="accuracy").held
    made = ft.claim("other seeds, too", after, before, metric="accuracy", seeds=[0, 1, 2])
    assert not made.held and made.seeds == [0, 1, 2]
    assert made.covers == "400 examples in 40 groups and 3 training seeds"
    means = [np.mean([e["accuracy"].value for e in side]) for side in (before, after)]
    assert [made.before["value"], made.after["value"]] == pytest.approx(means)
    assert made.difference["value"] == pytest.approx(means[1] - means[0])
    after, before = trainings(np.random.default_rng(1), [0.2, 0.22, 0.18])
    assert ft.claim("all seeds", after, before, metric="accuracy", seeds=[0, 1, 2]).held
    # An opponent that was not trained has one evaluation.
    one = ft.claim("x", after, before[0], metric="accuracy", seeds=range(3), opponent="word counts")
    assert one.held and one.before == before[0]["accuracy"].as_dict()
    assert one.row()["opponent"] == "word counts"
    alone = ft.claim("x", after, metric="accuracy", seeds=[0, 1, 2], at_least=0.5)
    assert alone.held and alone.before is None


def test_too_few_or_unnamed_seeds_are_explained():
    sides = trainings(np.random.default_rng(0), [0.1, 0.1, 0.1])
    for seeds, words in (([0, 1], "at least 3"), ([0, 1, 1], "different"), (None, "seeds=")):
        with pytest.raises(SettingError, match=words):
            ft.claim("x", *sides, metric="accuracy", seeds=seeds)
    with pytest.raises(SettingError, match="3 seeds, but 3 and 2 evaluations"):
        ft.claim("x", sides[0], sides[1][:2], metric="accuracy", seeds=[0, 1, 2])
    with pytest.raises(SettingError, match="3 seeds, but one evaluations"):
        ft.claim("x", sides[0][0], metric="accuracy", seeds=[0, 1, 2])
    with pytest.raises(SettingError, match="same examples"):
        ft.claim("x", [*sides[0][:2], right([1])], metric="accuracy", seeds=[0, 1, 2])
    hardware.profile("smoke")  # where nothing is judged, one training is enough
    made = ft.claim("x", [sides[0][0]], [sides[1][0]], metric="accuracy", seeds=[0])
    assert made.difference == ft.compare(sides[0][0], sides[1][0], "accuracy").difference.as_dict()


def test_a_claim_states_its_evidence():
    ev = right([1] * 90 + [0] * 10)
    ev.computed = Computed("float32", "cpu", 2)
    made = ft.claim("x", ev, right([0] * 100), metric="accuracy", opponent="always wrong")
    assert made.computed == [{"dtype": "float32", "device": "cpu", "threads": 2}]
    assert made.covers == "100 examples" and made.bound == {"at_least": 0}
    other = right([0] * 100)
    other.computed = Computed("bf16", "cpu", 2)
    both = ft.claim("x", ev, other, metric="accuracy")
    assert [way["dtype"] for way in both.computed] == ["float32", "bf16"]
    assert "float32 on cpu, 2 threads; bf16" in both.row()["computed"]
    plain = ft.claim("the largest difference", 3e-5, at_most=1e-3)
    assert plain.held and "without an interval" in plain.row()["interval over"]
    gain = ft.bootstrap(np.mean, [1.0, 2.0, 4.0, 3.0], groups=list("aabb"))
    assert ft.claim("x", gain).covers == "4 examples in 2 groups"
    assert ft.claim("x", ft.Estimate(2, 1, 3), covers="30 prompts").covers == "30 prompts"


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
