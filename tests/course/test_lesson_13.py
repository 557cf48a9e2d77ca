"""Without these, lesson 13 could teach a loss, a size or a check that is not what it says."""

import numpy as np
import pytest
import tiny
import torch
from lessons import from_lesson
from test_checks_04_05 import checked

import ftkit as ft

GIVEN = np.array([0.90, 0.09, 0.01])
SOFTER = np.sqrt(GIVEN) / np.sqrt(GIVEN).sum()


@pytest.mark.parametrize(("wrong", "said"), [
    (GIVEN.tolist(), "at temperature 1"),
    ((GIVEN / 2).tolist(), "add up to"),
    ((GIVEN**2 / (GIVEN**2).sum()).tolist(), "sharper"),
    ([0.75, 0.15, 0.10], "logarithm of the ratio"),
    ([22.5 / 28, 4.5 / 28, 1 / 28], "not the probabilities"),
    ([0.7, 0.3], "Three positive"),
    (0.7, "Three positive"),
    ("flatter", "raised ValueError"),
    ([0.9, 0.1, 0.0], "Three positive"),
])
def test_a_wrong_soft_answer_is_explained(wrong, said):
    assert checked("13", 1, SOFTER.tolist()) and checked("13", 1, [0.709, 0.224, 0.075])
    found = checked("13", 1, wrong)
    assert not found and said in found.message, found.message


def log_softmax(logits):
    moved = logits - logits.max(-1, keepdims=True)
    return moved - np.log(np.exp(moved).sum(-1, keepdims=True))


def divergence(p, q):
    p, q = log_softmax(p), log_softmax(q)
    return (np.exp(p) * (p - q)).sum(-1).mean()


def overflows(student, teacher):
    with np.errstate(all="ignore"):
        p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (student, teacher))
        return (p * np.log(p / q)).sum(-1).mean()


@pytest.mark.parametrize(("wrong", "said"), [
    (lambda s, t: divergence(t, s), "That is KL(teacher || student)"),
    (lambda s, t: len(s) * divergence(s, t), "A mean over the texts"),
    (lambda s, t: divergence(s, t) / s.shape[1], "A mean over the texts"),
    (overflows, "For large logits"),
    (lambda s, t: 0.0, "neither direction"),
    (lambda s, t: None, "raised TypeError"),
    (lambda s: 0.0, "raised TypeError"),
    (0.5, "raised TypeError"),
])
def test_a_wrong_divergence_is_explained(wrong, said):
    assert checked("13", 2, divergence, seed=0, torch=torch)
    found = checked("13", 2, wrong, seed=0, torch=torch)
    assert not found and said in found.message, found.message


def test_a_weak_teacher_is_tried_on_validation_texts():
    labels = np.array([0, 1, 0, 1, 1, 0])

    def said(wrong, sure):
        answers = labels ^ np.isin(np.arange(6), wrong)
        likely = np.where(answers[:, None] == [0, 1], sure, 1 - sure)
        return ft.from_predictions(likely.argmax(1), labels, labels=["a", "b"],
                                   probabilities=likely)

    class Kit:  # what the check asks of the kit about the lesson's own teacher
        evaluate = staticmethod(lambda model, rows, **_: said([], 0.9))
        check, from_predictions = ft.check, ft.from_predictions

    right = {"teacher": said([0, 1], 0.6), "hard": said([0, 2], 0.8), "soft": said([1], 0.7)}
    space = dict(teacher=None, validation={"label": labels.tolist()}, limit={}, ft=Kit)
    assert checked("13", 3, right, **space)
    other = ft.from_predictions([0, 1], [0, 1], probabilities=np.eye(2))
    for wrong, words in [
        (0.83, "A dict is wanted"),
        ({"hard": right["hard"], "soft": right["soft"]}, "A dict is wanted"),
        (right | {"soft": 0.7}, "not a number"),
        (right | {"soft": other}, "never on the test"),
        (right | {"teacher": said([], 0.9)}, "no weaker"),
        (right | {"soft": right["hard"]}, "the same"),
    ]:
        found = checked("13", 3, wrong, **space)
        assert not found and words in found.message, found.message


def test_an_embedding_in_8_bits_is_near_and_reads_other_tokens_as_unknown():
    embedding = from_lesson("13", "Int8Embedding")
    weight = torch.randn(50, 16)
    small = embedding(weight, kept=[0, 1, 3, 7, 40], unknown=1)
    ids = torch.tensor([[0, 3, 40], [7, 1, 2]])
    found = small(ids)
    assert found.shape == (2, 3, 16)
    wanted = weight[torch.tensor([[0, 3, 40], [7, 1, 1]])]
    step = wanted.abs().amax(-1, keepdim=True) / 127
    assert ((found - wanted).abs() <= step / 2 + 1e-6).all()
    assert small.rows.dtype == torch.int8 and small.rows.shape == (5, 16)


def test_a_student_in_8_bits_answers_as_before_and_is_smaller():
    model = tiny.encoder(labels=("bad", "good"))
    rows = tiny.reviews()["train"]
    in_8_bits, megabytes, _ = from_lesson("13", "in_8_bits", "megabytes", "Int8Embedding")
    small = in_8_bits(model, rows)
    batch = model.tokenizer(rows["text"][:8], return_tensors="pt", padding=True)
    with torch.no_grad():
        before, after = (net(**batch).logits.softmax(-1) for net in (model.net.eval(), small))
    assert (before - after).abs().max() < 0.05
    assert megabytes(small) < 0.7 * megabytes(model.net)


def test_the_loss_is_zero_for_a_student_that_says_what_its_teacher_says():
    kd_loss = from_lesson("13", "kd_loss")
    logits = torch.randn(3, 5)
    assert kd_loss(logits, logits, 8.0).abs() < 1e-5
    assert kd_loss(logits, logits.roll(1, 0), 8.0) > 1e-3
