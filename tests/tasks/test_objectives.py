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
def test_the_lessons_cross_entropy_is_the_librarys(logits, right):
    right %= len(logits)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor([logits], dtype=torch.float64), torch.tensor([right])
    )
    assert from_lesson("06", "cross_entropy")(logits, right) == pytest.approx(
        expected.item(), abs=1e-9)


def test_the_lessons_squared_error_is_the_librarys():
    expected = torch.nn.functional.mse_loss(torch.tensor(0.7), torch.tensor(0.2))
    assert from_lesson("06", "squared_error")(0.7, 0.2) == pytest.approx(expected.item())


WORDS = st.text("abcd éà", min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS)
def test_the_lessons_chrf_is_the_packages(said, wanted):
    by_lesson = from_lesson("06", "ngrams", "chrf")[1](said, wanted)
    assert ft.from_texts([said], [wanted])["chrf"].value == pytest.approx(by_lesson, abs=1e-4)
