"""Without these, lesson 8 could send a row through the wrong bottleneck, or accept one."""

import ast

import numpy as np
import pytest
import tiny
import torch
from lessons import ROOT, from_lesson

import ftkit as ft
from ftkit.batch import notebook as nb
from ftkit.evaluation.resampling import Estimate


def test_rows_come_back_in_the_order_of_the_batch():
    torch.manual_seed(0)
    modules = {name: torch.nn.Linear(4, 3) for name in ("a", "b", "c")}
    routed = from_lesson("08", "Routed")(modules)
    for routed.rows in (["b", "a", "b", "c", "a"], ["c"] * 5):
        for shape in ((5, 4), (5, 2, 4)):  # a head reads texts, a bottleneck their tokens
            x = torch.randn(shape)
            alone = [modules[name](x[i : i + 1]) for i, name in enumerate(routed.rows)]
            torch.testing.assert_close(routed(x), torch.cat(alone))


@pytest.mark.parametrize("low, high, said", [
    (-0.02, 0.01, "within 3 points"), (-0.029, -0.001, "within 3 points, and worse"),
    (-0.06, -0.01, "worse"), (-0.06, 0.02, "cannot be told"),
])
def test_worse_is_said_where_zero_lies_outside(low, high, said):
    assert from_lesson("08", "verdict")(Estimate((low + high) / 2, low, high)) == said


@pytest.fixture
def base():
    return tiny.encoder()


def run_exercise(text, answer, **space):
    """Run the cell of an exercise with an answer in place of None. Returns what it shows last."""
    (path,) = (ROOT / "notebooks").glob("08*.ipynb")
    (cell,) = [nb.source(c) for _, c in nb.code_cells(nb.read(path)) if text in nb.source(c)]
    body = ast.parse(cell).body
    space |= {"ft": ft, "np": np, "torch": torch, text.split(" ")[0]: answer}
    exec(compile(ast.Module(body[1:-1], []), str(path), "exec"), space)
    return eval(compile(ast.Expression(body[-1].value), str(path), "eval"), space)


def test_weights_are_counted_on_the_network(base):
    width, depth = base.net.config.hidden_size, base.net.config.num_hidden_layers
    one = 2 * width * 8 + 8 + width
    for answer, said in [
        (depth * one, "right"),
        (depth * 2 * width * 8, "biases, too"),
        (2 * depth * one, "Houlsby"),
        (one, "in each block"),
        (1, "too low"),
        ("many", "a number was expected"),
    ]:
        assert said in repr(run_exercise("answer_1 = None", answer, base={"law": base}))


def test_a_bottleneck_adds_to_what_was_there():
    for answer, said in [
        (lambda x, down, up: x + up @ np.maximum(down @ x, 0), "right"),
        (lambda x, down, up: up @ np.maximum(down @ x, 0), "it should be"),  # no residual
        (lambda x, down, up: x + np.maximum(up @ down @ x, 0), "it should be"),  # ReLU too late
        (lambda x, down, up: x + up @ down @ x, "it should be"),  # linear
        (lambda x, down, up: x + down @ up @ x, "it should be"),
            (lambda x: x, "raised"),
        ("x + up", "function was expected"),
    ]:
        assert said in repr(run_exercise("answer_2 = None", answer))


def silenced(model, blocks, end=""):
    copy = model.copy()
    with torch.no_grad():
        for name, weight in copy.net.named_parameters():
            if f".bottleneck.up.{end}" in name and any(f"layer.{i}." in name for i in blocks):
                weight.zero_()
    return copy


def test_only_one_half_may_be_silenced_and_all_of_it(base):
    method = ft.Adapter(bottleneck_size=2, init_std=0.3)
    tuned, rows = method.apply(base.copy()), tiny.reviews(8)["train"]
    with torch.no_grad():
        for name, weight in tuned.net.named_parameters():
            if ".bottleneck." in name:
                weight.add_(0.01)  # biases begin at zero
    depth = tuned.net.config.num_hidden_layers
    lower, upper = range(depth // 2), range(depth // 2, depth)
    right = {"lower silenced": silenced(tuned, lower), "upper silenced": silenced(tuned, upper)}
    check = from_lesson("08", "half_silenced", adapters={"order": tuned}, depth=depth,
                        test={"order": rows}, cut={})
    assert ft.check(right, check)
    for wrong, said in [
        (dict(zip(right, reversed(right.values()), strict=True)), "is not zero"),
        (right | {"lower silenced": silenced(tuned, lower, "weight")}, "is not zero"),
        (right | {"lower silenced": silenced(tuned, range(depth))}, "has changed"),
        (right | {"upper silenced": tuned}, "is not zero"),
        (right | {"upper silenced": base}, "copy of adapters"),
        (right | {"upper silenced": 0.6}, "copy of adapters"),
        ((0.7, 0.6), "A dict"),
        ("lower", "A dict"),
    ]:
        found = ft.check(wrong, check)
        assert not found and said in repr(found), repr(found)
