"""Without these, lesson 6 would accept an expected score that no classifier has computed."""

import numpy as np
import pytest
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft

ROWS = 60
GIVEN = np.random.default_rng(0).uniform(-3, 3, ROWS)
MIDPOINTS = np.array([-2, -1, 0, 1, 2])


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


RIGHT = softmax(-((GIVEN[:, None] - MIDPOINTS) ** 2))
LINE = np.linspace(-2, 2, ROWS)


@pytest.fixture
def check():
    test = Dataset.from_dict({"text": [f"text {i}" for i in range(ROWS)], "label": GIVEN})
    check = from_lesson("06", "expected_scores", "are_probabilities", scores={"test": test},
                        profile="cpu")[1]
    return lambda answer: ft.check(answer, check, name="3")


def test_probabilities_of_five_classes_are_accepted(check):
    assert check(RIGHT)
    assert check(RIGHT.tolist())


@pytest.mark.parametrize("wrong, said", [
    (LINE, "one column for each class"),
    (softmax(-((LINE[:, None] - MIDPOINTS) ** 2)), "correlate"),
    (RIGHT[:, ::-1], "correlate"),
    (RIGHT[::-1], "correlate"),
    (np.eye(5)[RIGHT.argmax(axis=1)], "most probable"),
    (np.full((ROWS, 5), 0.2), "same for every text"),
    (np.log(RIGHT), "sum to 1"),
    (RIGHT[:-1], "one row for each text"),
], ids=["line", "line-as-classes", "classes-reversed", "rows-reversed", "argmax", "constant",
        "logits", "too-few"])
def test_wrong_answers_are_explained(check, wrong, said):
    found = check(wrong)
    assert not found
    assert said in repr(found)
