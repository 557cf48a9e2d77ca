"""Without these, an exercise of lessons 4 and 5 could accept an answer that is wrong."""

import ast
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

import ftkit as ft
from ftkit.batch import notebook as nb

ROOT = Path(__file__).parents[2]


def checked(lesson, number, answer, **space):
    """What the lesson's own cell says to an answer."""
    (path,) = (ROOT / "notebooks").glob(f"{lesson}*.ipynb")
    (cell,) = [nb.source(cell) for _, cell in nb.code_cells(nb.read(path))
               if f"answer_{number} = None" in nb.source(cell)]
    *body, last = ast.parse(cell).body
    body = [node for node in body if ast.unparse(node) != f"answer_{number} = None"]
    space = {"ft": ft, "np": np, f"answer_{number}": answer, **space}
    exec(compile(ast.Module(body, []), "cell", "exec"), space)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), space)


def share(before, without, with_remedy):
    rise = without.mean() - before.mean()
    return None if rise <= 0 else 1 - (with_remedy.mean() - before.mean()) / rise


def masked(turns, end):
    said = [tokens + [end] * (who == "assistant") for who, tokens in turns]
    labels = [s if who == "assistant" else [-100] * len(s)
              for s, (who, _) in zip(said, turns, strict=True)]
    return sum(said, []), sum(labels, [])


def only_own(request, reply):
    words = reply.replace(".", " ").replace(",", " ").split()
    return all(w in request for w in words if w.startswith("FW-"))


@pytest.mark.parametrize(("lesson", "number", "right", "wrong"), [
    ("04", 1, float(np.exp(110 / 40)), (2.75, float(np.exp(2.5)))),
    ("04", 2, only_own, (lambda q, r: "FW-" in r, lambda q, r: q.split("FW-")[1][:5] in r)),
    ("04", 3, share, (
        lambda b, p, m: (p.mean() - m.mean()) / ((p.mean() - b.mean()) or np.inf),
        lambda b, p, m: None if (p == b).all() else float(np.mean((p - m) / (p - b + 1e-9))),
    )),
    ("05", 2, masked, (
        lambda t, end: (masked(t, end)[0], masked(t, end)[0]),
        lambda t, end: masked([(w, s) for w, s in t if w == "assistant"], end),
    )),
])
def test_the_check_takes_the_right_answer_and_explains_wrong_ones(lesson, number, right, wrong):
    assert checked(lesson, number, right)
    for answer in wrong:
        found = checked(lesson, number, answer)
        assert not found and len(repr(found)) > 20
    assert "not answered" in repr(checked(lesson, number, None))


def test_the_share_of_supervised_tokens():
    sizes = {"read": 900, "written": 100}
    assert checked("05", 1, 0.1, **sizes)
    assert "prompt tokens" in repr(checked("05", 1, 100 / 900, **sizes))
    assert "masked" in repr(checked("05", 1, 0.9, **sizes))


def test_one_wording_of_each_kind_is_all_its_rows():
    rows = [{"kind": kind, "instruction": f"{kind} {i % 2}", "input": str(i)}
            for kind in ("a", "b") for i in range(6)]
    data = {"train": Dataset.from_list(rows)}

    def first(rows):
        return rows.filter(lambda row: row["instruction"].endswith("0"))

    assert checked("05", 3, first, data=data)
    for wrong in (lambda rows: rows, lambda rows: first(rows).select(range(3)),
                  lambda rows: first(rows).select([0, 3]), lambda rows: 1 / 0, 3):
        found = checked("05", 3, wrong, data=data)
        assert not found and len(repr(found)) > 20
