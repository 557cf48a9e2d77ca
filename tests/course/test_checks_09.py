"""Without these, lesson 9 could accept a wrong merge, and its cell for a card break unseen."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from lessons import from_lesson
from test_checks_04_05 import checked

import ftkit as ft

TEXTS = Dataset.from_dict({"text": ["the film was good", "dull plot", "a warm cat", "bad music"],
                           "label": [1, 0, 1, 0]})


def count(shapes, rank):
    return sum(rank * (outputs + inputs) for outputs, inputs in shapes)


@pytest.mark.parametrize(("answer", "right"), [
    (count, True),
    (lambda shapes, rank: sum(rank * a * b for a, b in shapes), False),
    (lambda shapes, rank: sum(2 * rank * a for a, _ in shapes), False),
    (lambda shapes: 0, False),
    (20, False),
])
def test_the_weights_of_lora_are_counted_by_both_sides(answer, right):
    lora_model = ft.LoRA(rank=8).apply(tiny.encoder())
    assert bool(checked("09", 1, answer, lora_model=lora_model)) == right


def merge(W, A, B, scale, transposed):
    difference = scale * B @ A
    return W + (difference.T if transposed else difference)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda W, A, B, scale, t: merge(W, A, B, scale, False), "turn the difference"),
    (lambda W, A, B, scale, t: merge(W, A, B, 1, t), "scale is missing"),
    (lambda W, A, B, scale, t: W + scale * A @ B, "ValueError"),
    (lambda W, A, B, scale, t: merge(W, A, B, scale, not t), "outputs are not"),
    (lambda *_: None, "shape"),
    ("W + B A", "raised TypeError"),
])
def test_a_wrong_merge_is_explained(answer, said):
    assert checked("09", 2, merge, seed=0)
    found = checked("09", 2, answer, seed=0)
    assert not found and said in found.message


def factors(difference, rank):
    U, strength, V = torch.linalg.svd(difference, full_matrices=False)
    return U[:, :rank] * strength[:rank], V[:rank]


@pytest.fixture(scope="module")
def after_the_fact():
    """What exercise 3 reads: a tuned classifier, its matrices before, and what was added."""
    start = tiny.encoder(labels=("bad", "good"))
    run = ft.fit(start, TEXTS, epochs=2, learning_rate=1e-2, dtype="float32", quiet=True)
    before, after = (dict(m.net.named_parameters()) for m in (start, run.model))
    differences = {n: (after[n] - w).detach() for n, w in before.items()
                   if "attention" in n and w.dim() == 2}
    space = dict(torch=torch, runs={"full fine-tuning": run}, before=before,
                 differences=differences, judged=lambda model: ft.evaluate(model, TEXTS))
    cut = run.model.copy()
    for name, weight in cut.net.named_parameters():
        if name in differences:
            B, A = factors(differences[name], 8)
            weight.data = before[name].data + B @ A
    return space, ft.evaluate(cut, TEXTS)["accuracy"].value


def check_3(function, left, space):
    return ft.check((function, left), from_lesson("09", "factors_well", **space))


def test_the_best_factors_and_their_accuracy_are_taken(after_the_fact):
    space, left = after_the_fact
    assert check_3(factors, left, space)


@pytest.mark.parametrize(("function", "off", "said"), [
    (lambda d, r: tuple(reversed(factors(d, r))), 0, "RuntimeError"),
    (lambda d, r: (torch.linalg.svd(d)[0][:, :r], torch.linalg.svd(d)[2][:r]), 0, "scale each"),
    (lambda d, r: factors(d, r)[0], 0, "no matrices"),
    (lambda d, r: factors(d, 2), 0, "not (outputs, 8)"),
    (factors, 0.25, "accuracy with them"),
])
def test_wrong_factors_or_another_accuracy_are_explained(after_the_fact, function, off, said):
    space, left = after_the_fact
    found = check_3(function, left + off, space)
    assert not found and said in found.message


def test_qlora_side_by_side_trains_on_each_stored_format(tmp_path):
    """The cell that only a card runs whole: here with the formats that a processor has, too."""
    tiny.decoder().save(tmp_path / "base")
    rows = Dataset.from_dict({"prompt": ["Q: the film\nA:"] * 8, "response": [" film"] * 8})
    _, side_by_side = from_lesson(
        "09", "lora", "side_by_side", decoder_name=tmp_path / "base", seed=0,
        decoder_rates={"LoRA, rank 8": 1e-2}, size=SimpleNamespace(epochs=(1, 2)))
    table = list(side_by_side(("float32", "bf16"), rows, rows))
    assert [row["base"] for row in table] == ["float32", "bf16"]
    assert table[1]["base (MB)"] == pytest.approx(table[0]["base (MB)"] / 2, rel=0.05)
    for row in table:
        before, after = (float(row[f"loss {when}"].split()[0]) for when in ("before", "after"))
        assert after < before - 0.1
        assert row["peak memory (MB)"] > row["base (MB)"]


def test_a_mean_of_samples_comes_with_its_range():
    mean_and_range = from_lesson("09", "mean_and_range")
    found = [ft.from_scores("accuracy", np.full(4, share)) for share in (0.5, 0.75, 1.0)]
    assert mean_and_range(found) == "0.750 (0.500 to 1.000)"
