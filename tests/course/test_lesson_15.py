"""Without these, lesson 15 could train on wrong labels, or accept a wrong temperature."""

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from lessons import from_lesson
from scipy import optimize, special
from test_checks_04_05 import checked

import ftkit as ft


def temperature(logits, labels, sign=-1):
    def loss(log_t):
        likely = special.log_softmax(logits * np.exp(sign * log_t), axis=1)
        return -likely[np.arange(len(labels)), labels].mean()

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.1), np.log(20)), method="bounded")
    return float(np.exp(found.x))


@pytest.mark.parametrize(("number", "right", "wrong"), [
    (1, 89.5, (46.2, 0.1, 180, -89.5, "a lot", [1, 2])),
    (2, temperature, (
        lambda logits, labels: temperature(logits, labels, sign=1),
        lambda logits, labels: 1.0,
        lambda logits, labels: float("nan"),
        lambda logits, labels: None,
        lambda logits: 1.0, 1.5)),
])
def test_the_check_takes_the_right_answer_and_explains_wrong_ones(number, right, wrong):
    assert checked("15", number, right, special=special)
    for answer in wrong:
        found = checked("15", number, answer, special=special)
        assert not found and len(repr(found)) > len(f"{number}: not yet. "), answer


def test_strengths_are_chosen_on_validation_texts():
    validation = Dataset.from_dict({"text": list("abcd"), "label": [0, 1, 2, 3]})

    def judged(sure, rows=validation):
        truth = np.array(rows["label"])
        likely = np.full((len(truth), 4), (1 - sure) / 3)
        likely[np.arange(len(truth)), truth] = sure
        return ft.from_predictions(truth, truth, labels=list("wxyz"), probabilities=likely)

    right = {0.1: judged(0.9), 0.3: judged(0.8), 0.6: judged(0.5)}
    assert checked("15", 3, right, validation=validation)
    test = Dataset.from_dict({"text": list("abc"), "label": [0, 1, 2]})
    for wrong, said in [
        (0.3, "dict"), ({0.1: 0.5, 0.3: 0.6, 0.6: 0.7}, "dict"),
        (dict(list(right.items())[:2]), "Three strengths"),
        ({10: judged(0.9), 30: judged(0.8), 60: judged(0.5)}, "from 0 to below 1"),
        ({s: judged(1 - s, test) for s in right}, "never made on the test"),
        (right | {0.9: judged(0.9)}, "one model twice"),
    ]:
        answer = checked("15", 3, wrong, validation=validation)
        assert not answer and said in repr(answer), repr(answer)


def test_no_text_is_in_two_samples():
    rows = Dataset.from_dict({"text": list(map(str, range(48))), "label": [0, 1, 2, 3] * 12})
    disjoint = from_lesson("15", "disjoint", seed=0, labels=list("wxyz"))
    found = disjoint(rows, 3, 4)
    assert len({text for part in found for text in part["text"]}) == 48
    assert all(sorted(part["label"]) == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 for part in found)


def test_the_penalty_is_that_of_elastic_weights_of_equal_importance():
    base = tiny.encoder()
    pretrained = {name: weight.detach().clone() for name, weight in base.net.named_parameters()
                  if "classifier" not in name}
    penalty = from_lesson("15", "distance_penalty", pretrained=pretrained)
    held = ft.EWC(ft.EWCState({n: torch.ones_like(w) for n, w in pretrained.items()}, pretrained),
                  weight=0.3, trainable=ft.Freeze(unfreeze_last=1))
    moved = held.apply(base.copy()).net
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(0.1)
    theirs = held.loss(moved, None, None, torch.zeros(()))
    assert theirs > 0
    torch.testing.assert_close(penalty(moved, 0.3), theirs)


def test_a_temperature_undoes_what_made_the_logits_too_large():
    chance = np.random.default_rng(0)
    logits = 2 * chance.normal(size=(2000, 4))
    truth = (logits + chance.gumbel(size=logits.shape)).argmax(1)
    scaled, best, _ = from_lesson("15", "scaled", "best_temperature", "TEMPERATURES")
    likely = special.softmax(3 * logits, axis=1)
    np.testing.assert_allclose(scaled(likely, 3.0), special.softmax(logits, axis=1), atol=1e-3)
    ev = ft.from_predictions(likely.argmax(1), truth, labels=list("wxyz"), probabilities=likely)
    assert best(ev) == pytest.approx(3, rel=0.15)


def test_edits_change_few_words_and_leave_some():
    edited = from_lesson("15", "edited", synonym=lambda word, chance: "other")
    chance = np.random.default_rng(0)
    text = "one two three four five six seven eight nine ten"
    kinds = set()
    for _try in range(60):
        words = edited(text, chance).split()
        assert words and sum(word not in text.split() for word in words) <= 1
        kinds.add((len(words) > 10) - (len(words) < 10))
    assert kinds == {-1, 0, 1} and all(edited("one", chance) for _try in range(30))


def test_new_texts_keep_the_labels_of_the_old():
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [3, 1], "paraphrase": ["A", "B"],
                              "back_translation": ["aa", "bb"]})
    with_new = from_lesson("15", "with_new", edited=lambda text, chance: text + "!",
                           columns={"paraphrase": "paraphrase", "back": "back_translation"})
    found = with_new(rows, "paraphrase", "back", copies=2)
    assert found["text"][:] == ["a", "b", "A", "B", "aa", "bb", "a!", "b!", "a!", "b!"]
    assert found["label"][:] == [3, 1] * 5
    assert rows["text"][:] == ["a", "b"]


def test_an_interval_is_wider_for_many_comparisons_and_covers_training_samples():
    chance = np.random.default_rng(0)
    before = [ft.from_scores("accuracy", chance.integers(0, 2, 200)) for _seed in range(5)]
    after = [ft.from_scores("accuracy", chance.integers(0, 2, 200)) for _seed in range(5)]
    difference = from_lesson("15", "difference")
    value, low, high = difference(after, before, "accuracy")
    wide = difference(after, before, "accuracy", comparisons=15)
    each = [a["accuracy"].value - b["accuracy"].value for a, b in zip(after, before, strict=True)]
    assert value == pytest.approx(np.mean(each)) == wide[0]
    alone = 2.776 * np.std(each, ddof=1) / np.sqrt(5)  # over samples alone
    assert wide[1] < low <= value - alone and value + alone <= high < wide[2]
