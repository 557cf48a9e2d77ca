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
        tokens_in=lambda text: len(run.model.tokenizer(text).input_ids), held=None,
        start=LONG, size=SimpleNamespace(updates=2), held_loss={"prefix": 1.0},
        loss_on=lambda model, names: ft.evaluate(model, NAMES)["loss"].value)
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


def test_a_prefix_from_an_mlp_starts_at_the_words_and_moves_in_all_layers():
    from_mlp, prefixed_loss = from_lesson("10", "FromMLP", "prefixed_loss")
    model = tiny.decoder()
    net = model.net.requires_grad_(False).eval()
    words, ids = (torch.tensor([model.tokenizer(text).input_ids]) for text in (LONG, "a cat"))
    layers = net(input_ids=words).past_key_values.layers
    start = torch.stack([part[0] for layer in layers for part in (layer.keys, layer.values)])
    made = from_mlp(start)
    together = torch.cat([words, ids], dim=1)
    labels = torch.cat([torch.full_like(words, -100), ids], dim=1)
    labels[0, words.shape[1]] = -100  # the first token has no prediction after a prefix
    expected = net(input_ids=together, labels=labels).loss.item()
    loss = prefixed_loss(net, made(), ids, ids)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(2):  # at the first step the zeros of the last layer hide the others
        prefixed_loss(net, made(), ids, ids).backward()
        optimizer.step()
    for (keys, values), layer in zip(made(), layers, strict=True):
        assert not torch.equal(keys, layer.keys[0]) and not torch.equal(values, layer.values[0])
    assert prefixed_loss(net, made(), ids, ids) < loss


def test_every_third_name_has_three_words():
    drawn = from_lesson("10", "drawn", seed=0)
    names = [f"A {i}" for i in range(30)] + [f"B C {i}" for i in range(9)]
    found = drawn(names, 9, "sample 0")
    assert [len(name.split()) for name in found] == [2, 2, 3] * 3 and len(set(found)) == 9
    assert drawn(names, 4, "sample 0") == found[:4] != drawn(names, 4, "sample 1")


def test_teams_bands_and_titles_are_no_persons():
    names_of = from_lesson("10", "names_of", "no_person")[0]
    rows = [{"question": "who won", "answers": ["Nevada Wolf Pack", "Rita Ora", "the Kinks"]},
            {"question": "who sang", "answers": ["The Kinks", "Rita Ora", "Anna Lee Johnson"]},
            {"question": "who ruled", "answers": ["Sir Robert Walpole", "Indira Gandhi"]},
            {"question": "where is it", "answers": ["Anna Lee"]}]
    assert names_of(rows) == ["Rita Ora", "Anna Lee Johnson", "Indira Gandhi"]
