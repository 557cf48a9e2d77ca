"""Without these, advice could say something else than what was measured."""

import json

import numpy as np
import pytest

import ftkit as ft
from ftkit.course import advise as module

SEEDS = (0, 1, 2)


def cells(method, labels, right, *, stored, memory, share=0.01, seconds=1.0, rows=400):
    """Records of a method that gets this share of the easiest rows right, almost by all seeds."""
    made, hard = [], np.random.default_rng(0).normal(size=rows)
    for n, value in zip(labels, right, strict=True):
        for seed in SEEDS if labels != [0] else (0,):
            felt = hard + np.random.default_rng([seed, 1]).normal(scale=0.2, size=rows)
            hits = felt.argsort().argsort() < value * rows
            made.append({"task": "classification", "method": method, "labels": n, "seed": seed,
                         "hits": "".join("01"[int(hit)] for hit in hits), "seconds": seconds,
                         "speed": 30.0, "stored": stored, "memory": memory, "share": share})
    return made


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Four methods: a prompt, a small and a whole training that end alike, and one that fails."""
    small = dict(labels=[32, 128, 512])
    found = {
        "tasks": {"classification": {"title": "a task", "model": "a model", "base_bytes": 90e6,
                                     "seeds": SEEDS, "groups": None, "date": "2026-01-01",
                                     "machine": "float32 on a processor"}},
        "cells": cells("prompt", [0], [0.6], stored=0, memory=500e6, seconds=0.0, share=0)
        + cells("full", **small, right=[0.5, 0.7, 0.8], stored=90e6, memory=400e6, share=1,
                seconds=3.0)
        + cells("LoRA", **small, right=[0.48, 0.69, 0.79], stored=1e6, memory=150e6, seconds=4.0)
        + cells("nothing", **small, right=[0, 0, 0], stored=0, memory=0, seconds=0.1)}
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(found))
    monkeypatch.setattr(module, "STORED", path)


def test_few_labels_are_for_a_prompt_and_many_for_training(stored):
    assert ft.advise("classification", 0).method == "prompt"
    assert ft.advise("classification", 40).method == "prompt"
    assert ft.advise("classification", 500).method == "full"
    told = ft.advise("classification", 40).would_change
    turn = next(int(text.split()[-1]) for text in told if text.startswith("more labels"))
    assert ft.advise("classification", turn).method != "prompt"
    assert ft.advise("classification", turn - 8).method == "prompt"


def test_many_tasks_are_for_what_stores_little(stored):
    assert ft.advise("classification", 500, n_tasks=100).method == "LoRA"
    assert any("tasks: LoRA" in text for text in ft.advise("classification", 500).would_change)


def test_memory_that_full_training_does_not_fit_into_rules_it_out(stored):
    assert ft.advise("classification", 500, memory=200e6).method == "LoRA"
    assert ft.advise("classification", 500, memory=450e6).method == "full"
    with pytest.raises(ft.SettingError, match="no method fits into memory=1e\\+06.*1.5e\\+08"):
        ft.advise("classification", 500, memory=1e6)
    # a hundred copies of all weights do not fit where a hundred small parts do
    assert ft.advise("classification", 500, memory=1e9, n_tasks=100).method == "LoRA"


def test_the_score_lies_on_the_line_between_what_was_measured(stored):
    assert ft.advise("classification", 512).score.value == pytest.approx(0.8)
    assert ft.advise("classification", 256).score.value == pytest.approx(0.75)
    found = ft.advise("classification", 256).score
    assert found.low < 0.75 < found.high


def test_more_labels_than_were_measured_are_called_extrapolated(stored):
    assert "extrapolated: 5,000 labels" in repr(ft.advise("classification", 5000))
    assert "extrapolated" not in repr(ft.advise("classification", 512))


def test_a_near_rival_makes_it_less_sure_than_a_far_one(stored):
    near, far = ft.advise("classification", 62), ft.advise("classification", 0)
    assert far.sure is None and "nothing else that was measured fits" in repr(far)
    assert "not measured with so few labels: full, LoRA" in repr(far)
    assert near.sure < 1 and ("full" in repr(near) or "LoRA" in repr(near))


@pytest.mark.parametrize("call, said", [
    (dict(task="tagging", n_examples=1), "task is 'tagging'; compared were 'classification'"),
    (dict(task="classification", n_examples=-1), "n_examples is -1"),
    (dict(task="classification", n_examples=2.5), "n_examples is 2.5"),
    (dict(task="classification", n_examples=True), "n_examples is True"),
    (dict(task="classification", n_examples=1, n_tasks=0), "n_tasks is 0"),
    (dict(task="classification", n_examples=1, memory="4 GB"), "memory is '4 GB'; bytes"),
    (dict(task="classification", n_examples=1, memory=float("nan")), "memory is nan"),
])
def test_what_cannot_be_is_refused_by_name(stored, call, said):
    with pytest.raises(ft.SettingError, match=said):
        ft.advise(**call)


def test_where_nothing_works_it_says_from_when_on(stored, monkeypatch):
    content = json.loads(module.STORED.read_text())
    content["cells"] = [cell for cell in content["cells"] if cell["method"] != "prompt"]
    module.STORED.with_name("other.json").write_text(json.dumps(content))
    monkeypatch.setattr(module, "STORED", module.STORED.with_name("other.json"))
    with pytest.raises(ft.SettingError, match="n_examples is 5.*below 32 labels"):
        ft.advise("classification", 5)


def test_the_lessons_rule_is_that_of_the_package():
    from lessons import from_lesson

    choose = from_lesson("19_", "choose")
    _, tasks = module.comparison()
    for task, methods in tasks.items():
        for n in (8, 40, 64, 200):
            assert choose({k: m for k, m in methods.items() if m.values.any()}, n) == (
                ft.advise(task, n).method)


def test_the_stored_comparison_gave_every_method_the_same():
    found, tasks = module.comparison()
    assert set(tasks) == {"classification", "causal-lm"}
    for task, about in found["tasks"].items():
        cells = [cell for cell in found["cells"] if cell["task"] == task]
        assert {c["updates"] for c in cells if "updates" in c} == {about["updates"]}
        assert len({len(cell["hits"]) for cell in cells}) == 1
        for name, method in tasks[task].items():
            seeds = [cell["seed"] for cell in cells if cell["method"] == name]
            assert sorted(seeds) == sorted([0] if method.labels == (0,) else
                                           [*about["seeds"]] * len(method.labels)), name


def test_the_page_is_current():
    import choosing_page
    from PIL import Image

    page = choosing_page.PAGE.read_text(encoding="utf-8")
    assert page == choosing_page.rewritten(page), "run `python tools/choosing_page.py`"
    with Image.open(choosing_page.PICTURE) as image:
        assert image.text["ftkit"] == choosing_page.fingerprint()


def test_the_lessons_checks_explain_wrong_answers():
    from lessons import from_lesson

    check = from_lesson("19_", "draws_the_line")

    def line(n, few, right_few, many, right_many, *, scale=np.log, clip=True):
        n = min(max(n, few), many) if clip else n
        share = (scale(n) - scale(few)) / (scale(many) - scale(few))
        return right_few + share * (right_many - right_few)

    assert check(line) == True  # noqa: E712  (a sentence is true as well)
    assert "over its logarithm" in check(lambda *a: line(*a, scale=float))
    assert "Beyond 512" in check(lambda *a: line(*a, clip=False))

    encoder = module.comparison()[1]["classification"]
    judge, choose = from_lesson("19_", "judge_margins", "choose", encoder=encoder)
    margins = (0, 0.02, 0.05, 0.1, 0.2)
    right = {margin: choose(encoder, 256, margin) for margin in margins}
    assert judge(right) is True
    assert "with 32 labels" in judge({m: choose(encoder, 32, m) for m in margins})
    assert "margin of 0 another" in judge(right | {0: "word counts"})
    assert "five margins" in judge({0: "full"})
