"""What lesson 6 teaches in plain code is what the package and the library compute."""


import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lessons import from_lesson

import ftkit as ft

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
LOGITS = st.lists(st.floats(-50, 50), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(BIO), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_lessons_alignment_is_the_packages(tags, rng):
    word_ids = [None]
    for word in range(len(tags)):
        word_ids += [word] * rng.randint(0, 3)
    word_ids.append(None)
    assert from_lesson("06", "align")(tags, word_ids, BIO) == ft.align_tags(tags, word_ids, BIO)


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.integers(0, 5))
def test_the_lessons_cross_entropy_is_the_librarys_cross_entropy(logits, right):
    right %= len(logits)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor([logits], dtype=torch.float64), torch.tensor([right])
    )
    by_hand = from_lesson("06", "cross_entropy")(logits, right)
    assert by_hand == pytest.approx(expected.item(), abs=1e-9)


def test_the_lessons_squared_error_is_the_librarys():
    expected = torch.nn.functional.mse_loss(torch.tensor(0.7), torch.tensor(0.2))
    assert from_lesson("06", "squared_error")(0.7, 0.2) == pytest.approx(expected.item())


@settings(max_examples=60, deadline=None)
@given(*[st.text("abc d", max_size=12)] * 2)
def test_the_lessons_chrf_is_the_packages(said, wanted):
    _, chrf = from_lesson("06", "ngrams", "chrf")
    expected = ft.from_texts([said], [wanted])["chrf"].value
    assert chrf(said, wanted) == pytest.approx(expected)
