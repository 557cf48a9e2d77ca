"""Without these, lesson 12 could measure forgetting wrongly, or accept what forgets."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from lessons import from_lesson

import ftkit as ft

NOT_YET = np.nan
THREE_MONTHS = [[0.7, NOT_YET, NOT_YET], [0.8, 0.85, NOT_YET], [0.6, 0.8, 0.9]]


def test_the_measures_are_those_of_the_papers():
    found = from_lesson("12", "measures")(THREE_MONTHS)
    assert found["mean final accuracy"] == pytest.approx((0.6 + 0.8 + 0.9) / 3)
    assert found["backward transfer"] == pytest.approx((-0.1 - 0.05) / 2)
    assert found["forgetting"] == pytest.approx((0.2 + 0.05) / 2)
    assert found["new tasks"] == pytest.approx((0.85 + 0.9) / 2)


@pytest.mark.parametrize("wrong, said", [
    (0.075, "sign"), (0.125, "forgetting"), (-0.125, "best accuracy"), (-0.05, "leave it out"),
    (0.7667, "mean final accuracy"), ("a text", "a number was expected"),
])
def test_wrong_backward_transfers_are_explained(wrong, said):
    found = from_lesson("12", "measures")(THREE_MONTHS)
    hints, names = _hints_of_exercise_1(found)
    answer = ft.check(wrong, found["backward transfer"], tolerance=0.001, hints=hints, name="1")
    assert not answer and said in repr(answer), names
    assert ft.check(-0.075, found["backward transfer"], tolerance=0.001, hints=hints, name="1")


def _hints_of_exercise_1(found):
    """The hints as the lesson's cell writes them."""
    import ast

    from lessons import ROOT

    from ftkit.batch import notebook as nb

    (path,) = (ROOT / "notebooks").glob("12*.ipynb")
    (cell,) = [nb.source(c) for _, c in nb.code_cells(nb.read(path)) if "R_1 =" in nb.source(c)]
    call = next(node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)
                and ast.unparse(node.func) == "ft.check")
    hints = next(word.value for word in call.keywords if word.arg == "hints")
    return eval(ast.unparse(hints), {"found": found}), ast.unparse(hints)


def state(seed):
    torch.manual_seed(seed)
    name = "classifier.weight"
    return SimpleNamespace(fisher={name: torch.rand(3, 8) * 1e-5},
                           anchors={name: torch.randn(3, 8)})


def one_for_two(f1, a1, f2, a2):
    f = f1 + f2
    return f, torch.where(f > 0, (f1 * a1 + f2 * a2) / f.clamp(min=1e-30), a2)


def test_one_penalty_for_two_must_pull_alike():
    check = from_lesson("12", "same_pull", old=[state(0), state(1)])
    assert ft.check(one_for_two, check)
    for wrong, said in [
        (lambda f1, a1, f2, a2: (f1 + f2, (a1 + a2) / 2), "cancel"),
        (lambda f1, a1, f2, a2: (f1 + f2, a2), "cancel"),
        (lambda f1, a1, f2, a2: ((f1 + f2) / 2, one_for_two(f1, a1, f2, a2)[1]), "cancel"),
        (lambda f1, a1, f2, a2: (f1 + f2, (f1 * a1 + f2 * a2) / (f1 + f2)), "no number"),
        (lambda f1, a1, f2, a2: None, "Two tensors"),
        (lambda f1, a1, f2, a2: (1.0, 2.0), "shape"),
        (lambda f1: f1, "Two tensors"),
        ("f1 + f2", "function was expected"),
    ]:
        answer = ft.check(wrong, check)
        assert not answer and said in repr(answer), repr(answer)


def rows(texts):
    return Dataset.from_dict({"text": texts, "label": [0] * len(texts),
                              "group": ["g"] * len(texts)})


def test_half_of_the_rows_must_be_old_and_none_made_up():
    new, kept = rows([f"new {i}" for i in range(12)]), rows([f"old {i}" for i in range(4)])
    learned, half = [], SimpleNamespace(value=0.5)
    before = {task: {"accuracy": half} for task in ("legal", "questions")}

    def learn(start, data, i):
        learned.append(data)
        return SimpleNamespace(model=None)

    check = from_lesson("12", "half_old", kept_legal=kept, train=[{"questions": new}],
                        months_1=[None], learn=learn, tasks=["legal", "questions"],
                        accuracy=lambda model, data: 0.5, kept="replay of 4", test=dict.fromkeys(
                            ["legal", "questions"]), seen={"replay of 4": [[None, before]]})
    right = concatenate_datasets([new] + [kept] * 3)
    assert ft.check(right, check) and learned == [right]
    for wrong, said in [
        (concatenate_datasets([new, kept]), "25%"),
        (concatenate_datasets([new] + [rows([f"old {i}" for i in range(9)])]), "neither"),
        (concatenate_datasets([new.select(range(4)), kept]), "missing"),
        (right["text"], "Dataset"),
        (0.5, "Dataset"),
    ]:
        answer = ft.check(wrong, check)
        assert not answer and said in repr(answer), repr(answer)
    assert len(learned) == 1, "a wrong answer costs no training"
