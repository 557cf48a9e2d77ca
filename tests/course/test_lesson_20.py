"""Without these, lesson 20 could call work unneeded that is needed, or accept a wrong answer."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import transformers
from lessons import from_lesson
from test_checks_04_05 import checked
from torch.utils.flop_counter import FlopCounterMode

import ftkit as ft

SIZE = SimpleNamespace(top=1, blocks=2, epochs=3, batch=4, rounds=3)
LENGTHS = np.random.default_rng(0).integers(4, 90, 48)


@pytest.fixture
def decoder():
    model = tiny.decoder(tie_word_embeddings=True)  # as the lesson's model is
    model.tokenizer.pad_token = model.tokenizer.pad_token or model.tokenizer.eos_token
    return model


def pack(lengths, budget, order=None):
    """Batches of positions: sorted as the solution's, or in the order given."""
    batches = []
    for i in order or sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        widest = max(lengths[j] for j in [*batches[-1], i]) if batches else 0
        if batches and widest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


@pytest.mark.parametrize("wrong", [4, 1.6, 0.7, 0.3, 1.3, 1 / 0.6, "1.43", (1, 2)])
def test_what_a_faster_part_makes_of_the_whole(wrong):
    assert checked("20", 1, 1 / 0.7)
    found = checked("20", 1, wrong)
    assert not found and len(repr(found)) > len("1: not yet. ")


@pytest.mark.parametrize(("wrong", "said"), [
    (lambda lengths, budget: [[0, 1], *([i] for i in range(2, len(lengths)))], "put texts"),
    (lambda lengths, budget: [[i] for i in range(len(lengths))], "put texts"),
    (lambda lengths, budget: [list(range(len(lengths)))], "positions, of"),
    (lambda lengths, budget: pack(lengths, budget)[1:], "in one batch"),
    (lambda lengths, budget: pack(lengths, budget) + [[0]], "in one batch"),
    (lambda lengths, budget: [*pack(lengths, budget), []], "none empty"),
    (lambda lengths, budget: None, "list of lists"),
    (lambda lengths, budget: len(lengths), "list of lists"),
    (lambda lengths: [[0]], "TypeError"),
    (512, "function was expected"),
])
def test_batches_of_positions(wrong, said):
    assert checked("20", 2, pack, lengths=LENGTHS)
    found = checked("20", 2, wrong, lengths=LENGTHS)
    assert not found and said in repr(found), repr(found)


def test_a_prediction_is_the_count_and_a_measurement_is_not():
    def counted(top, epochs=3):
        return {"plain loop": 12.0, "fit": 2.0 + top}

    space = dict(size=SimpleNamespace(top=4, blocks=30), counted=counted, profile="cpu")
    good = {1: (4.0, 3.1), 10: (1.0, 0.9)}
    assert checked("20", 3, good, **space)
    for wrong, said in [
        (3.1, "a dict"), ({1: 4.0, 10: 1.0}, "a dict"), ({1: (4.0, 3.1)}, "Two numbers"),
        ({1: (4.0, 3.1), 4: (2.0, 1.9)}, "Two numbers"),
        (good | {99: (1.0, 0.9)}, "from 1 to 30"), (good | {2: ("3", 2.0)}, "two ratios"),
        (good | {10: (4.0, 0.9)}, "is not counted"), (good | {10: (1.0, 1.0)}, "to be measured"),
        (good | {10: (1.0, 30.0)}, "far from"),
    ]:
        found = checked("20", 3, wrong, **space)
        assert not found and said in repr(found), repr(found)


def lesson(model, *names, **space):
    collate = transformers.DataCollatorForSeq2Seq(model.tokenizer)
    return from_lesson("20", *names, model=model, net=model.net, tokenizer=model.tokenizer,
                       device=model.device, collate=collate, size=SIZE, **space)


ROWS = [{"input_ids": [5, 6, 7, 8, 9, 10, 11], "labels": [-100] * 5 + [10, 11]},
        {"input_ids": [9, 8, 7, 6, 5], "labels": [-100] * 3 + [6, 5]}]


@pytest.mark.parametrize("top", [1, 2])
def test_the_count_is_what_pytorch_counts(decoder, top):
    """But for attention, and the gradient of the lowest trained block's input, which nobody
    needs and PyTorch does not compute."""
    names = ("library_loss", "plain_loop", "freeze", "weights_in", "block_weights", "operations")
    _, plain_loop, _, _, block_weights, operations = lesson(decoder, *names)
    with FlopCounterMode(display=False) as counter:
        plain_loop([ROWS], top=top)
    positions = 2 * 7
    formula, found = operations(*[positions] * 3, top), counter.get_total_flops()
    assert sum(block_weights(top)) > 0
    assert 0.7 * found < formula < 1.3 * found


def test_the_plain_loop_learns_what_fit_learns(decoder, float32):
    """The lesson's opponent would be a straw man if it trained something else."""
    names = ("library_loss", "plain_loop", "freeze", "label_only_loss", "short_loss", "encoded",
             "by_fit")
    _, plain_loop, _, _, short_loss, encoded, by_fit = lesson(decoder, *names, seed=0)
    import datasets

    data = datasets.Dataset.from_list([
        {"prompt": "the film was", "response": " good"}, {"prompt": "a cat", "response": " bad"}])
    rows = encoded(data)
    run = by_fit(data, epochs=2, train_sampling_strategy="sequential", batch_size=2)
    fitted = dict(run.model.net.named_parameters())
    for loss in ({}, {"loss": short_loss}):
        net = plain_loop([rows, rows], **loss)
        start = dict(decoder.net.named_parameters())
        pairs = [(weights, fitted[name], start[name]) for name, weights in net.named_parameters()]
        apart = sum((mine - theirs).abs().sum().item() for mine, theirs, _ in pairs)
        moved = sum((mine - begun).abs().sum().item() for mine, _, begun in pairs)
        assert 0 < moved and apart < moved / 20  # Adam makes whole steps of mere rounding


def test_logits_behind_a_shared_prefix_are_those_of_the_whole_text(decoder):
    next_logits, behind_prefix = lesson(decoder, "next_logits", "behind_prefix")
    prefix, rows = [5, 6, 7, 8], [[9, 10], [11, 12, 13], [14]]
    whole = next_logits([prefix + row for row in rows])
    for one, row in zip(whole, rows, strict=True):
        with torch.no_grad():
            alone = decoder.net(input_ids=torch.tensor([prefix + row])).logits[0, -1]
        torch.testing.assert_close(one, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(behind_prefix(prefix, rows), whole, rtol=1e-4, atol=1e-5)


def test_a_ratio_is_taken_within_each_round():
    ratio = from_lesson("20", "ratio")
    found = ratio({"slow": [4.0, 40.0, 6.0], "fast": [2.0, 10.0, 2.0]}, "slow", "fast")
    assert (found.value, found.low, found.high) == (3.0, 2.0, 4.0)


def test_arms_run_in_turn():
    ran = []
    in_turn = from_lesson("20", "in_turn", size=SIZE, device=torch.device("cpu"))
    seconds = in_turn({"A": lambda i: ran.append(("A", i)), "B": lambda i: ran.append(("B", i))})
    assert ran == [("A", 0), ("B", 0), ("A", 1), ("B", 1), ("A", 2), ("B", 2)]
    assert all(len(each) == 3 for each in seconds.values())


def test_the_claims_on_speed_ask_for_more_than_nothing():
    """ft.claim takes the slowest round, so one slow round in three is enough to fail it."""
    assert not ft.claim("x", ft.Estimate(3.0, 1.4, 4.0), at_least=1.5, expect="open").held
