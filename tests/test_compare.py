"""Without these, the comparison could repeat hours of work, or believe half a record."""

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
from datasets import Dataset

ROOT = Path(__file__).parents[1]
TEXTS = ["the film was good", "a bad plot", "warm and great music", "a dull and terrible film"]


@pytest.fixture(scope="module")
def compare():
    """The program, without running it."""
    spec = importlib.util.spec_from_file_location("compare", ROOT / "benchmarks" / "compare.py")
    module = sys.modules["compare"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compare"]


@pytest.fixture(scope="module")
def tasks(compare, tmp_path_factory):
    """Both tasks on tiny models, with eight labels at most and one update."""
    folder = tmp_path_factory.mktemp("models")
    tiny.encoder("encoder").save(folder / "encoder")
    tiny.decoder().save(folder / "decoder")
    small = dict(prompted_name=str(folder / "decoder"), labels=(8,), sample=8, updates=1,
                 batch=4, largest=4, validation=4, test=4, blocks=1)

    @dataclass(frozen=True)
    class Sentiment(compare.Sentiment):
        def data(self):
            rows = Dataset.from_dict({"text": TEXTS * 2, "label": [2, 0, 2, 0] * 2,
                                      "group": list("abcdabcd")})
            return [rows] * 3, rows.select(range(4)), rows.select(range(4))

    @dataclass(frozen=True)
    class Index(compare.Index):
        def data(self):
            rows = self.rows(["Ada Lovelace", "Alan Turing", "Marie Curie", "Frida Kahlo"] * 2)
            return [rows] * 3, rows.select(range(4)), rows.select(range(4))

    return (Sentiment(model_name=str(folder / "encoder"), **small),
            Index(model_name=str(folder / "decoder"), **small))


FEW = ("word counts", "frozen encoder, linear", "zero-shot prompt", "largest prompt", "full",
       "LoRA")


def names(compare, task):
    return [name for name, method in compare.METHODS.items() if task.key in method.tasks]


@pytest.fixture(scope="module")
def few(compare):
    """The comparison of one or two methods of each sort; the others take too long for a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "METHODS", {name: compare.METHODS[name] for name in FEW})
        patch.setattr(compare, "TRIALS", 3)
        yield compare


@pytest.fixture(scope="module")
def records(few, tasks, tmp_path_factory):
    """The folder after the comparison on the first task."""
    folder = tmp_path_factory.mktemp("records")
    few.work(tasks[:1], folder)
    return folder


@pytest.mark.parametrize("key", ["classification", "causal-lm"])
def test_every_method_answers_the_test_rows(compare, tasks, key):
    (task,) = [task for task in tasks if task.key == key]
    for name in set(names(compare, task)) - set(FEW):
        method = compare.METHODS[name]
        n, seed = method.cells(task)[0]
        found = method.run(task, n, seed, method.settings(task)[1], compare.pieces(task)[2])
        assert len(found["hits"]) == 4, name
        assert name == "four examples" or found["updates"] == 1 and 0 < found["share"] <= 1


def test_a_comparison_can_be_read_by_advise(few, tasks, records, tmp_path):
    from ftkit.course import advise

    found, path = few.collect(tasks[:1], records), tmp_path / "comparison.json"
    path.write_text(json.dumps(found))
    methods = advise.comparison(path)[1]["classification"]
    assert list(methods) == list(FEW)
    for name, method in methods.items():
        assert method.values.shape == (1, 3), name
    trained = [cell for cell in found["cells"] if cell["share"]]
    assert {cell["updates"] for cell in trained} == {1}, "equal budgets"
    assert {len(trial["tried"]) for trial in found["tuned"]} == {3}, "equal tuning"
    assert methods["full"].whole and not methods["LoRA"].whole
    assert methods["LoRA"].stored < methods["full"].stored


def test_what_was_measured_is_not_repeated_and_half_a_record_is_none(few, tasks, records,
                                                                      monkeypatch):
    compare, task, ran = few, tasks[0], []
    real = compare.run_cell

    def counted(*arguments):
        ran.append(arguments[1:4])
        return real(*arguments)

    monkeypatch.setattr(compare, "run_cell", counted)
    compare.work([task], records)
    assert ran == []
    half = compare.record_of(task, "word counts", 8, 1, records)
    half.write_bytes(half.read_bytes()[:-20])
    compare.record_of(task, "word counts", 8, 2, records).unlink()
    compare.work([task], records)
    assert ran == [("word counts", 8, 1), ("word counts", 8, 2)]


def test_a_rate_at_the_end_of_those_tried_is_followed_by_the_next(compare, tasks, monkeypatch):
    monkeypatch.setattr(compare, "TRIALS", 4)
    method = compare.METHODS["full"]

    def after(*right):
        rates = [1, 3, 9, 27, 81]
        tried = [{"setting": rates[i], "right": r, "loss": 1.0} for i, r in enumerate(right)]
        return compare.next_settings(method, tasks[0], tried)

    assert after() == method.settings(tasks[0])
    assert after(0.5, 0.6, 0.7) == [27] and after(0.5, 0.7, 0.6) == []
    assert after(0.7, 0.6, 0.5) == [1 / 3]
    assert after(0.1, 0.2, 0.3, 0.4) == [], "four trials at most, for everybody"
    worded = [{"setting": "a", "right": 1.0, "loss": 0.0}]
    assert compare.next_settings(compare.METHODS["largest prompt"], tasks[0], worded) == []


def test_a_training_chooses_its_wording_and_then_its_rate(compare, tasks, monkeypatch):
    """With one wording for all trainings and three for prompts, the prompts won by it."""
    monkeypatch.setattr(compare, "TRIALS", 4)
    method, index = compare.METHODS["full"], tasks[1]
    tried = []

    def after(right):
        for setting in compare.next_settings(method, index, tried):
            tried.append({"setting": setting, "right": right(**setting), "loss": 1.0})
        return [one["setting"] for one in tried]

    def right(rate, wording):
        return rate if wording.startswith("Q") else rate / 2

    first = after(right)
    assert [one["wording"] for one in first] == list(index.wordings)
    assert {one["rate"] for one in first} == {method.rate}
    rest = after(right)[3:]
    assert [one["rate"] for one in rest] == [method.rate / 3, method.rate * 3]
    assert after(right)[5:] == [{"rate": method.rate * 9, "wording": "Q: {}\nA:"}]
    assert after(right)[6:] == [], "as many rates as every other training has"


def test_a_training_reads_the_wording_that_is_asked_later(compare, tasks):
    index = tasks[1]
    rows = compare.pieces(index)[0][0].select(range(2))
    made = index.to_train(rows, "Q: {}\nA:")
    assert made["prompt"][:] == ["Q: Ada Lovelace\nA:", "Q: Alan Turing\nA:"]
    assert made["response"][:] == [" Lovelace, A.", " Turing, A."]


def test_one_task_is_measured_anew_beside_the_stored_other(compare):
    def found(task, machine):
        return {"tasks": {task: {"machine": machine}}, "tuned": [{"task": task, "on": machine}],
                "cells": [{"task": task, "on": machine}]}

    both = compare.with_others(found("causal-lm", "old"), found("classification", "old"))
    assert list(both["tasks"]) == ["classification", "causal-lm"]
    new = compare.with_others(found("causal-lm", "new"), both)
    assert {name: about["machine"] for name, about in new["tasks"].items()} == {
        "classification": "old", "causal-lm": "new"}
    assert new["cells"] == [{"task": "classification", "on": "old"},
                            {"task": "causal-lm", "on": "new"}]


def test_a_method_with_other_settings_is_measured_again(few, tasks, records, monkeypatch):
    compare, task = few, tasks[0]
    assert compare.missing(task, "LoRA", records) == []
    import ftkit as ft

    changed = compare.Trained(lambda task: ft.LoRA(rank=2), 1e-3)
    monkeypatch.setitem(compare.METHODS, "LoRA", changed)
    assert len(compare.missing(task, "LoRA", records)) == 3


def test_a_comparison_that_was_stopped_says_so_and_keeps_whole_methods(few, tasks, records,
                                                                        tmp_path, monkeypatch):
    compare = few
    compare.record_of(tasks[0], "LoRA", 8, 1, records).unlink()
    monkeypatch.setattr(compare, "TASKS", tasks[:1])
    monkeypatch.setattr(sys, "argv", ["compare", "--workers", "1", "--minutes", "0", "--records",
                                      str(records), "--out", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit, match="1 cells are left out"):
        compare.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert {cell["method"] for cell in found["cells"]} == {*FEW} - {"LoRA"}
