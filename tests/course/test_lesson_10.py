"""Without these, lesson 10 could count, attend or compare wrongly, and its MLP change the start."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from lessons import from_lesson
from test_checks_04_05 import checked

import ftkit as ft

NAMES = Dataset.from_dict({"prompt": ["Q: the film\nA:", "Q: a cat\nA:"] * 2,
                           "response": [" film", " cat"] * 2})


def numbers(config, tokens):
    size = config.hidden_size // config.num_attention_heads
    return 2 * tokens * config.num_hidden_layers * config.num_key_value_heads * size


@pytest.mark.parametrize(("answer", "said"), [
    (lambda config, tokens: numbers(config, tokens) // 2, "Keys *and* values"),
    (lambda config, tokens: numbers(config, tokens) * config.num_attention_heads
     // config.num_key_value_heads, "num_key_value_heads"),
    (lambda config, tokens: tokens * config.hidden_size, "at the input"),
    (lambda config: 1, "TypeError"),
    (640, "TypeError"),
    (lambda *_: None, "not the number"),
])
def test_a_wrong_count_of_a_prefix_is_explained(answer, said):
    # as in SmolLM2, fewer keys and values than heads
    model = tiny.decoder(num_key_value_heads=1)
    assert checked("10", 1, numbers, model=model)
    found = checked("10", 1, answer, model=model)
    assert not found and said in found.message


def attention(query, keys, values):
    scores = keys @ query / np.sqrt(len(query))
    weights = np.exp(scores - scores.max())
    return weights @ values / weights.sum()


def with_prefix(query, keys, values, more_keys, more_values):
    return attention(query, np.vstack([more_keys, keys]), np.vstack([more_values, values]))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda q, k, v, pk, pv: attention(q, k, v), "without the prefix"),
    (lambda q, k, v, pk, pv: attention(q, k, v) + attention(q, pk, pv), "One softmax"),
    (lambda q, k, v, pk, pv: with_prefix(2 * q, k, v, pk, pv), "goes over prefix and text"),
    (lambda q, k, v, pk, pv: np.stack([q, q]), "shape"),
    (lambda q: q, "TypeError"),
    ("attention", "TypeError"),
])
def test_wrong_attention_to_a_prefix_is_explained(answer, said):
    space = dict(torch=torch, F=torch.nn.functional, seed=0)
    assert checked("10", 2, with_prefix, **space)
    found = checked("10", 2, answer, **space)
    assert not found and said in found.message


LONG = "the film was good and the plot"


def trained(method, epochs=2):
    return ft.fit(tiny.decoder(), {"train": NAMES}, method=method, epochs=epochs, batch_size=4,
                  dtype="float32", quiet=True)


@pytest.fixture(scope="module")
def other_start():
    """What exercise 3 reads: a prefix that starts from a other text, and its measured loss."""
    run = trained(ft.PrefixTuning(text=LONG))
    space = dict(
        tokens_in=lambda text: len(run.model.tokenizer(text).input_ids), 
        start=LONG, size=SimpleNamespace(updates=2), held=None, records=lambda names: NAMES,
        lowest=lambda arm: 1.0)
    loss = ft.evaluate(run.model, NAMES)["loss"].value
    return run, loss - 1, from_lesson("10", "starts_shorter", **space)


def test_the_other_start_and_its_difference_are_taken(other_start):
    run, difference, check = other_start
    assert ft.check((run, difference), check)


@pytest.mark.parametrize(("change", "off", "said"), [
    (None, 0.1, "Another difference"),
    (None, None, "Another difference"),
    (lambda: "lower", 0, "A run of ft.PrefixTuning"),
    (lambda: trained(ft.PromptTuning(text=LONG)), 0, "A run of ft.PrefixTuning"),
    (lambda: trained(ft.PrefixTuning(text="the film")), 0, "positions"),
    (lambda: trained(ft.PrefixTuning(text=LONG), epochs=4), 0, "updates"),
])
def test_another_run_or_difference_is_explained(other_start, change, off, said):
    run, difference, check = other_start
    told = None if off is None else difference + off
    found = ft.check((change() if change else run, told), check)
    assert not found and said in found.message


def test_a_prefix_from_an_mlp_starts_where_the_plain_one_does_and_leaves_a_plain_one():
    method, without_mlp = from_lesson("10", "FromMLP", "PrefixFromMLP", "without_mlp")[1:]
    plain, from_mlp = (kind(text=LONG).apply(tiny.decoder()) for kind in (ft.PrefixTuning, method))
    loss = [ft.evaluate(model, NAMES)["loss"].value for model in (plain, from_mlp)]
    assert loss[0] == pytest.approx(loss[1], abs=1e-6)
    run = trained(method(text=LONG), epochs=3)
    assert run.trainable["trained"] > ft.trainable_summary(plain)["trained"]
    before = ft.evaluate(run.model, NAMES)["loss"].value
    assert before < loss[1] - 1e-3
    without_mlp(run.model)
    assert ft.trainable_summary(run.model) == ft.trainable_summary(plain)
    assert ft.evaluate(run.model, NAMES)["loss"].value == pytest.approx(before, abs=1e-6)


def test_names_of_two_and_three_words_are_balanced():
    balanced = from_lesson("10", "balanced", seed=0)
    names = [f"A {i}" for i in range(30)] + [f"B C {i}" for i in range(9)]
    drawn = balanced(names, 8, "sample 0")
    assert [len(name.split()) for name in drawn] == [2, 3] * 4 and len(set(drawn)) == 8
    assert balanced(names, 4, "sample 0") == drawn[:4] != balanced(names, 4, "sample 1")
