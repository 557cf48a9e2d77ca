"""Exercises of lessons 0 and 1: the right answer passes, a likely wrong one gets its reason."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lessons import from_lesson

import ftkit as ft


def loss(logits, right):
    top = max(logits)
    return math.log(sum(math.exp(value - top) for value in logits)) + top - logits[right]


def clipped(logits, right):
    return loss(np.clip(logits, -500, 500).tolist(), right)


def overflows(logits, right):
    return float(np.log(np.exp(np.array(logits)).sum()) - logits[right])


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_loss_that_clips_large_logits_or_overflows_is_refused():
    _, cases = from_lesson("01", "three", "cases")
    assert ft.check(loss, cases)
    assert "1000.0, 900.0" in repr(ft.check(clipped, cases))
    assert "1000.0, 0.0" in repr(ft.check(overflows, cases))
    assert "function was expected" in repr(ft.check(0.5, cases))


def test_the_lowest_threshold_that_keeps_the_promise_is_asked_for():
    def selective(split, threshold):  # right from 0.6 on; on the test set a little less so
        return 1.2 - threshold, threshold + (0.2 if split == "validation" else 0.17)

    judge = from_lesson("01", "judge", selective=selective, validation="validation", test="test")
    assert ft.check((0.60, 0.6, 0.77), judge)
    assert "a lower threshold" in repr(ft.check((0.70, 0.5, 0.87), judge))
    assert "only 0.700" in repr(ft.check((0.50, 0.7, 0.67), judge))
    assert "not those of the test set" in repr(ft.check((0.60, 0.6, 0.80), judge))
    for odd in (0.6, "0.6", (0.6, 0.5), ("a", "b", "c")):
        assert "Three numbers" in repr(ft.check(odd, judge))


def test_the_gain_of_all_raters_is_that_on_the_test_set():
    def with_raters(sample, n, raters):  # accuracies on validation and test
        return (0.70, 0.66) if raters > 1 else (0.60, 0.61)

    judge = from_lesson("01", "judge_difference", with_raters=with_raters, samples=[1, 2, 3],
                        many=1200)
    assert ft.check(0.05, judge)
    assert "one rater minus" in repr(ft.check(-0.05, judge))
    assert "validation set" in repr(ft.check(0.10, judge))
    assert "A number" in repr(ft.check("much", judge))
    assert "300 texts" in repr(ft.check(0.2, judge))


def test_a_beginning_may_not_give_the_answer_away():
    class Batch(dict):
        def to(self, device):
            return self

    def encode(text, return_tensors=None):
        if return_tensors:
            return Batch(text=text)
        return {"input_ids": [[" Canberra", " Sydney"].index(text)]}

    def net(text):
        right = "capital" in text
        logits = torch.tensor([[[2.0, 0.0] if right else [0.0, 2.0]]])
        return SimpleNamespace(logits=logits)

    real = SimpleNamespace(tokenizer=encode, device="cpu", net=net)
    judge = from_lesson("00", "prefers_the_truth", real=real)
    assert ft.check("The capital of Australia is", judge)
    assert "Canberra 12%, Sydney 88%" in repr(ft.check("Of Australia I like", judge))
    assert "not Canberra" in repr(ft.check("The capital of Australia, canberra, is", judge))
    assert "without a space" in repr(ft.check("The capital of Australia is ", judge))
    assert "A text is wanted" in repr(ft.check(7, judge))
