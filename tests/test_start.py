"""What lesson 0 teaches in plain code is what the package computes."""


import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_lessons_surprise_is_the_packages_loss(kind):
    model = tiny.decoder(kind)
    text = "the film was good and the plot was not so dull"
    pieces, surprise = from_lesson("00", "surprises")(model, text)
    loss = ft.evaluate(model, Dataset.from_list([{"text": text}]))["loss"].value
    assert len(pieces) == len(surprise) > 5
    np.testing.assert_allclose(surprise.mean(), loss, rtol=1e-4)


def test_the_lessons_next_words_are_those_the_model_would_write():
    model = tiny.decoder()
    best = from_lesson("00", "next_words")(model, "the film was", n=3)
    assert best[0][0] == ft.generate(model, "the film was", max_new_tokens=1)
    assert [p for _, p in best] == sorted((p for _, p in best), reverse=True)


def test_the_lesson_hides_whole_words_and_keeps_what_they_were():
    encoder = tiny.encoder("masked-lm")
    vocabulary = encoder.tokenizer.convert_ids_to_tokens(range(len(encoder.tokenizer)))
    is_word = torch.tensor([token.strip("Ġ").isalpha() for token in vocabulary])
    seen = []
    encoder.net.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    gaps = from_lesson(
        "00",
        "gaps",
        bert_tokenizer=encoder.tokenizer,
        backbone=encoder.net.base_model,
        encoder=encoder,
        is_word=is_word,
        seed=0,
    )
    texts = ["the cat was not so very warm", "a dog", "the plot and the music of a great film"]
    split = Dataset.from_dict({"text": texts * 5, "group": [str(i) for i in range(15)]})
    vectors, answers, families = gaps(split, share=0.5)
    hidden = sum(int((ids == encoder.tokenizer.mask_token_id).sum()) for ids in seen)
    assert len(vectors) == len(answers) == len(families) == hidden > 10
    assert is_word[answers].all()
    assert set(families) <= set(split["group"])
