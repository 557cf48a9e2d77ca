"""Without these, lesson 11 could sort its texts wrongly, or accept a wrong answer."""

import ast
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import tiny
import torch
from lessons import ROOT, from_lesson

import ftkit as ft
from ftkit.batch import notebook as nb

LABELS = ["error", "setting", "action", "measurement"]
PAIR = {"Spanish": LABELS, "French": LABELS}


def run_exercise(text, answer, **space):
    """Run the cell of an exercise with an answer in place of None. Returns what it shows last."""
    (path,) = (ROOT / "notebooks").glob("11*.ipynb")
    (cell,) = [nb.source(c) for _, c in nb.code_cells(nb.read(path)) if text in nb.source(c)]
    body = ast.parse(cell).body
    space |= {"ft": ft, "np": np, "torch": torch, text.split(" ")[0]: answer}
    exec(compile(ast.Module(body[1:-1], []), str(path), "exec"), space)
    return eval(compile(ast.Expression(body[-1].value), str(path), "eval"), space)


@pytest.mark.parametrize("key, label", [
    ("config/error/cannot_connect", 0), ("options/abort/no_device", 0), ("issues/old/title", 0),
    ("exceptions/no_login/message", 0), ("config/step/user/title", 1), ("options/step/init", 1),
    ("config/step/error/title", 0), ("services/error/description", 2),
    ("entity/sensor/voltage/name", 3), ("common/on", None),
])
def test_a_text_is_labelled_by_its_place_in_the_program(key, label):
    label_of = from_lesson("11", "label_of", setup=("config", "options", "config_subentries"))
    assert label_of(key) == label


def texts(n, labels=4):
    return datasets.Dataset.from_dict({
        "text": ["the film was good", "a cat and a dog", "very dull"][: min(n, 3)] * -(-n // 3),
        "label": [i % labels for i in range(3 * -(-n // 3))]})


def start_of(own, i=0, alike=True):
    model = tiny.encoder(labels=ft.joint_labels(own))
    return ft.share_label_init(model, own) if alike else model


def test_a_mixed_gradient_is_the_mean_by_share():
    space = dict(own_task_loss=from_lesson("11", "own_task_loss"), cut=dict(max_length=16))
    model = start_of(PAIR)
    gradient = from_lesson("11", "gradient", **space)
    deeper = tiny.encoder(labels=ft.joint_labels(PAIR)).net.bert.encoder.layer
    model.net.bert.encoder.layer.extend(deeper)  # the lesson's trained blocks are 3 to 5
    parts = {"Spanish": texts(3), "French": texts(6)}
    mixed = gradient(model, PAIR, parts)
    apart = {name: gradient(model, PAIR, {name: rows}) for name, rows in parts.items()}
    torch.testing.assert_close(mixed, apart["Spanish"] / 3 + apart["French"] * 2 / 3)
    assert mixed.norm() > 0


def test_the_weights_of_single_models_are_counted():
    def counted(own):
        made = ft.MultiTask(own, trainable=ft.Freeze(unfreeze_last=3)).apply(start_of(own))
        return ft.trainable_summary(made)

    one = counted({"Spanish": LABELS})
    together = counted({f"task {i}": LABELS for i in range(10)})["trained"]
    for answer, said in [
        (10 * one["trained"], "right"),
        (one["trained"], "one of them"),
        (together, "one shared model"),
        (10 * one["total"], "ten times"),
        (1, "too low"),
        ("many", "a number was expected"),
    ]:
        assert said in repr(run_exercise("answer_1 = None", answer, labels=LABELS,
                                         start_of=start_of))


def project(mine, other, always=False):
    dot = mine @ other
    return mine - dot / (other @ other) * other if dot < 0 or always else mine


def one_after_the_other(first, second):
    first = project(first, second)
    return first + project(second, first)


def test_both_gradients_are_projected_from_their_originals():
    for answer, said in [
        (lambda a, b: project(a, b) + project(b, a), "right"),
        (one_after_the_other, "it should be"),
        (lambda a, b: project(a, b, always=True) + project(b, a, always=True), "it should be"),
        (lambda a, b: a + b, "it should be"),
        (lambda a, b: project(a, b), "it should be"),
        (lambda a: a, "raised"),
        ("a + b", "function was expected"),
    ]:
        assert said in repr(run_exercise("answer_2 = None", answer))


@pytest.fixture(scope="module")
def trained():
    """Rows at each temperature, and a tiny model trained on those of T = 1 for two updates."""
    few, rich = texts(8), texts(60)
    rows = {t: ft.temperature_sampling({"Spanish": few, "French": rich}, PAIR, n=32, temperature=t)
            for t in (1, 3, np.inf)}
    run = ft.fit(start_of(PAIR), rows[1], method=ft.MultiTask(PAIR), epochs=1, batch_size=16,
                 quiet=True)
    return SimpleNamespace(rows=rows, run=run, sizes=[len(few), len(rich)])


def test_other_draws_need_the_same_updates_and_the_asked_for_shares(trained):
    shares = from_lesson("11", "shares")
    measured = from_lesson("11", "measure", cut=dict(max_length=16))
    check = from_lesson(
        "11", "other_draws", size=SimpleNamespace(updates=2), labels=LABELS, shares=shares,
        sizes=trained.sizes, pair=PAIR, test=texts(9), measure=measured,
        kept={"with French": (trained.run, PAIR)})
    rows, run = trained.rows, trained.run
    right = {1: (rows[1], run), 3: (rows[3], run)}
    assert ft.check(right, check)
    for wrong, said in [
        (right | {1: (rows[np.inf], run)}, "Check temperature"),
        (right | {3: (rows[1], run)}, "Check temperature"),
        (right | {3: (rows[3].select(range(16)), run)}, "equal updates need 32"),
        (right | {3: (rows[3], SimpleNamespace(model=run.model, history=[0]))}, "one epoch"),
        (right | {3: (rows[3], SimpleNamespace(
            model=start_of({"Spanish": LABELS}), history=run.history))}, "start_of"),
        (right | {3: run}, "give a pair"),
        (right | {3: (rows[3], 0.5)}, "give a pair"),
        ({1: right[1]}, "A dict with"),
        (0.5, "A dict with"),
    ]:
        found = ft.check(wrong, check)
        assert not found and said in repr(found), repr(found)
