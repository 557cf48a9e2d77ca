"""What lesson 0 teaches in plain code is what the package computes."""


import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_lessons_loss_of_a_token_is_the_packages(kind):
    model = tiny.decoder(kind)
    text = "the film was good and the plot was not so dull"
    pieces, losses = from_lesson("00", "token_losses")(model, text)
    loss = ft.evaluate(model, Dataset.from_list([{"text": text}]))["loss"].value
    assert len(pieces) == len(losses) > 5
    np.testing.assert_allclose(losses.mean(), loss, rtol=1e-4)


def test_the_lessons_next_words_are_those_the_model_would_write():
    model = tiny.decoder()
    best = from_lesson("00", "next_words")(model, "the film was", n=3)
    assert best[0][0] == ft.generate(model, "the film was", max_new_tokens=1)
    assert [p for _, p in best] == sorted((p for _, p in best), reverse=True)


def test_the_lessons_attention_is_that_of_the_library():
    query, key, value = torch.randn(3, 2, 7, 16, generator=torch.Generator().manual_seed(0))
    by_hand = from_lesson("00", "attention")(query[0], key[0], value[0])
    by_torch = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(by_hand, by_torch[0])
