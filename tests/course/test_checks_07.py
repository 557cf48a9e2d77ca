"""Without these, lesson 7 would accept a model of which other weights than biases were trained."""

import pytest
import tiny
import torch
from lessons import ROOT, from_lesson

import ftkit as ft
from ftkit.batch import notebook as nb


@pytest.fixture
def base():
    return tiny.encoder()


@pytest.fixture
def check(base):
    """Exercise 3, with the profile in which accuracy is asked for or not."""

    def answered(model, profile="smoke"):
        test = from_lesson("07", "only_biases_moved", base=base, limit={}, profile=profile,
                           validation=tiny.reviews(8)["train"])
        return ft.check(model, test, name="3")

    return answered


def trained(base, wanted):
    """A copy in which the weights whose names are wanted have moved."""
    model = base.copy()
    with torch.no_grad():
        for name, weight in model.net.named_parameters():
            if wanted(name):
                weight.add_(0.01)
    return model


def test_a_model_whose_biases_and_head_moved_is_right(base, check):
    assert check(trained(base, lambda name: name.endswith(".bias") or "classifier" in name))


@pytest.mark.parametrize("wanted, said", [
    (lambda name: True, "has moved: only biases"),
    (lambda name: "classifier" in name, "No bias in the blocks"),
    (lambda name: name.endswith(".bias") and "classifier" not in name, "The head is new"),
    (lambda name: "layer.2" in name or "classifier" in name, "has moved: only biases"),
], ids=["everything", "head", "no-head", "top-block"])
def test_other_trainings_are_explained(base, check, wanted, said):
    found = check(trained(base, wanted))
    assert not found and said in repr(found)


def test_what_is_no_model_of_the_lesson_is_explained(base, check):
    assert "run.model" in repr(check("biases"))
    assert "copy of `base`" in repr(check(tiny.decoder()))


def test_biases_that_learned_nothing_are_told_to_go_faster(base, check):
    same = trained(base, lambda name: name.endswith(".bias") or "classifier" in name)
    assert "higher rate" in repr(check(same, profile="cpu"))


def schedule():
    return from_lesson("07", "steps")


@pytest.mark.parametrize("wrong, said", [
    (lambda epoch, blocks, every: round(epoch / every), "should be"),
    (lambda epoch, blocks, every: epoch // every, "should be"),
    (lambda epoch, blocks, every: min(blocks, epoch // every + 1), "should be"),
    (lambda epoch, blocks, every: None, "forget `return`"),
], ids=["rounded", "no-limit", "one-too-many", "nothing"])
def test_wrong_schedules_are_told_a_case(wrong, said):
    assert said in repr(ft.check(wrong, schedule(), name="2"))
    assert ft.check(lambda epoch, blocks, every: min(blocks, epoch // every), schedule(), name="2")


def test_the_share_of_computing_is_counted_and_explained(base):
    """By the lesson's own cell, on three blocks: 3 + 2 * 2 of 3 + 2 * 3 passes."""
    lesson = nb.read(next((ROOT / "notebooks").glob("07*.ipynb")))
    cell = next(nb.source(c) for _, c in nb.code_cells(lesson) if "answer_1 = None" in nb.source(c))

    def said(answer):
        words = base.tokenizer(["the film was good"], return_tensors="pt")
        code = cell.replace("answer_1 = None", f"answer_1 = {answer!r}")
        code = code.replace("ft.check(answer_1", "result = ft.check(answer_1")
        space = {"base": base, "batch": words, "ft": ft}
        exec(code, space)
        return space["result"]

    assert said((3 + 2 * 2) / (3 + 2 * 3))
    assert "forward" in repr(said(1 / 3))
    assert "not a percentage" in repr(said(77.8))
    assert not said("a half")
