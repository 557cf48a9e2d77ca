"""Without these, lesson 16 could train its heads wrongly, or accept a wrong answer."""

import numpy as np
import pytest
import torch
from lessons import from_lesson
from test_checks_04_05 import checked

import ftkit as ft


def world(searches=3, labels=10, width=5):
    """A pool of vectors with labels that they tell, and who has which."""
    torch.manual_seed(0)
    x = torch.randn(searches * labels, 2, width)
    y = (x[:, -1, 0] > 0).float()
    return dict(x=x, y=y, rows=torch.arange(len(x)).reshape(searches, labels), seed=0)


def of_lesson(*names, **space):
    return from_lesson("16", "share_of_rate", *names, **space)[1:]


@pytest.mark.parametrize("settings", [dict(rate=0.1), dict(
    rate=0.03, batch=4, epochs=3, schedule="cosine", warmup=0.3, decay=0.5, layer=0)])
def test_heads_that_are_trained_together_are_those_that_are_trained_alone(settings):
    """One head's gradient, momentum or decay must not leak into another's."""
    space = world()
    (train_heads,) = of_lesson("train_heads", **space)
    together = train_heads(space["rows"], **settings)
    luck = torch.Generator().manual_seed(0)
    first = 0.02 * torch.randn(*together.shape, generator=luck)
    orders = []
    epochs, batch = settings.get("epochs", 12), settings.get("batch", 16)
    for _epoch in range(epochs):
        orders.append(torch.rand(space["rows"].shape, generator=luck).argsort(1))
    share = from_lesson("16", "share_of_rate")
    for number, own in enumerate(space["rows"]):
        net = torch.nn.Linear(together.shape[1], 1, bias=False)
        net.weight.data = first[number:number + 1].clone()
        adam = torch.optim.AdamW(net.parameters(), weight_decay=settings.get("decay", 0.01))
        steps, step = epochs * -(-len(own) // batch), 0
        for order in orders:
            for some in own[order[number]].split(batch):
                adam.param_groups[0]["lr"] = settings["rate"] * share(
                    step, steps, settings.get("schedule", "linear"), settings.get("warmup", 0.1))
                logits = net(space["x"][some, settings.get("layer", -1)])[:, 0]
                adam.zero_grad()
                torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, space["y"][some]).backward()
                adam.step()
                step += 1
        torch.testing.assert_close(together[number], net.weight[0].detach(), atol=1e-5, rtol=1e-4)


def test_fresh_reviews_are_those_that_the_search_has_never_seen():
    space = world()
    others = np.ones((3, 30), bool)
    np.put_along_axis(others, space["rows"].numpy(), False, axis=1)
    is_right, fresh = of_lesson("is_right", "fresh", **space, others=others)
    knows = torch.zeros(3, 5)
    knows[:, 0] = 1.0
    right = is_right(knows)
    assert right.shape == (3, 30) and right.all() and (fresh(right) == 1).all()
    right[0, :10], right[1, :10] = False, False
    assert fresh(right) == pytest.approx([1, 0.5, 0.5 * 2])


def test_the_leader_is_the_first_of_the_best():
    pick = from_lesson("16", "pick")
    scores = np.array([[0.5, 0.7], [0.5, 0.6], [0.4, 0.7]])
    assert pick(scores, np.arange(6).reshape(3, 2)).tolist() == [0, 1]


def test_the_outer_fold_has_no_part_in_a_nested_choice():
    """Whatever is right in a fold, the trial that is judged there is the same."""
    chance = np.random.default_rng(0)
    fold, inner = np.arange(20) % 5, chance.random((6, 5, 3))
    crossed = chance.random((6, 3, 20)) < 0.6
    nested = from_lesson("16", "nested", pick=from_lesson("16", "pick"), fold=fold, inner=inner,
                         crossed=crossed)
    wanted = [np.mean([crossed[inner[:, i, s].argmax(), s, fold == i].mean() for i in range(5)])
              for s in range(3)]
    assert nested(np.arange(6)) == pytest.approx(wanted)
    some = np.array([4, 1])
    wanted = [np.mean([crossed[some[inner[some, i, s].argmax()], s, fold == i].mean()
                       for i in range(5)]) for s in range(3)]
    assert nested(some) == pytest.approx(wanted)


def test_successive_halving_ends_with_who_led_at_each_budget():
    halve = from_lesson("16", "halve")
    scores = np.array([[0.1, 0.9, 0.8, 0.7], [0.0, 0.6, 0.7, 0.5], [1.0, 0.9, 0.8, 0.99]])
    assert halve(scores) == 2  # the others of the last budget were not trained so long
    assert halve(scores[:1]) == 1


def test_the_rate_is_a_tenth_of_that_of_the_lowest_loss():
    suggest = from_lesson("16", "suggest")
    rates = np.geomspace(1e-4, 1, 41)
    losses = (np.log10(rates) + 2) ** 2
    losses[-8:] = np.nan  # where the training diverged
    assert suggest(rates, losses)[0] == pytest.approx(1e-3)


def leaders(scores):
    return [scores.index(max(scores[: n + 1])) for n in range(len(scores))]


def halves(right):
    one, two = np.split(right, 2, axis=1)
    return (two[one.mean(1).argmax()].mean() + one[two.mean(1).argmax()].mean()) / 2


@pytest.mark.parametrize(("number", "right", "wrong"), [
    (2, leaders, (
        lambda scores: [max(scores[: n + 1]) for n in range(len(scores))],
        lambda scores: [len(scores) - 1 - scores[::-1].index(max(scores)) for _ in scores],
        lambda scores: scores.index(max(scores)), lambda *_: None, [0, 1, 1])),
    (3, halves, (
        lambda right: right.mean(1).max(),
        lambda right: right[:, right.shape[1] // 2:][
            right[:, :right.shape[1] // 2].mean(1).argmax()].mean(),
        lambda right: np.mean([half.mean(1).max() for half in np.split(right, 2, axis=1)]),
        lambda right: np.split(right, 2), lambda right: None, lambda: 1, 0.7)),
])
def test_the_check_takes_the_right_answer_and_explains_wrong_ones(number, right, wrong):
    assert checked("16", number, right)
    for answer in wrong:
        found = checked("16", number, answer)
        assert not found and len(repr(found)) > len(f"{number}: not yet. "), answer
    assert "not answered" in repr(checked("16", number, None))


def test_a_prediction_and_a_measurement_are_both_wanted():
    class Size:
        many = (10, 30, 90, 270, 810)

    by_n = {n: ft.bootstrap(np.mean, np.full(5, 40 / n**0.5)) for n in Size.many}
    space = dict(by_n=by_n, size=Size)
    assert checked("16", 1, {"predicted": 4, "measured": 3.7}, **space)
    for wrong, said in [
        (3.7, "dict"), ({"measured": 3.7}, "dict"), ({"predicted": 4, "measured": 0.037}, "points"),
        ({"predicted": 20, "measured": 3.7}, "Predict again"),
        ({"predicted": 4, "measured": 7.4}, "between"),
        ({"predicted": 4, "measured": np.ones(60)}, "plain numbers"),
        ({"predicted": "four", "measured": 3.7}, "plain numbers"),
    ]:
        found = checked("16", 1, wrong, **space)
        assert not found and said in repr(found), repr(found)
