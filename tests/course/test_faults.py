"""Without these, a check would cry wolf, or be silent about the fault that it is there for."""

import re
import sys
from contextlib import nullcontext

import numpy as np
import peft
import pytest
import tiny
import transformers
import worlds
from lessons import from_lesson
from test_checks_04_05 import checked

import ftkit as ft
from ftkit.course.faults import in_data
from ftkit.course.faults.registry import FAULTS
from ftkit.course.sanity.run import ORDER
from ftkit.speed import feature_cache
from ftkit.tasks.batching import Collator, encode

TASKS = {"classification": "classification", "causal-lm": "response"}


def pipeline(task):
    """What a learner has in hand: a model, and data that was loaded now."""
    return worlds.model(task), ft.load_data(worlds.tables(task), task=TASKS[task])


@pytest.mark.parametrize("task", TASKS)
def test_a_sound_pipeline_passes_every_check(task):
    found = ft.sanity_checks(*pipeline(task))
    assert found.failed == [], found
    asked = {row["check"] for row in found.rows if row["result"] == "ok"}
    faults = {fault.check for fault in FAULTS.values() if task in fault.tasks}
    assert faults <= asked, f"these were not asked: {faults - asked}"


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_fails_its_own_check_and_no_other(name):
    """The full matrix: all checks are run under each fault, and its own for its other task, too."""
    fault = FAULTS[name]
    first, *others = fault.tasks
    with ft.fault(name):
        found = ft.sanity_checks(*pipeline(first))
        other = [ft.sanity_checks(*pipeline(task), only=fault.check).failed for task in others]
    assert found.failed == [fault.check], found
    assert other == [[fault.check]] * len(others)


def test_each_check_is_there_for_one_fault():
    wanted = [fault.check for fault in FAULTS.values()]
    assert sorted(wanted) == sorted(ORDER)
    assert len(FAULTS) >= 20


def state():
    """Everything that a fault may replace: what the kit's modules and classes hold, and peft's."""
    found = {}
    for name, module in list(sys.modules.items()):
        if module is None or name.split(".")[0] != "ftkit":
            continue
        for key, value in list(vars(module).items()):
            found[name, key] = id(value)
            if isinstance(value, type) and value.__module__ == name:
                found |= {(name, key, inner): id(part) for inner, part in vars(value).items()}
    layer = peft.tuners.lora.Linear
    found |= {("peft", key): id(part) for key, part in vars(layer).items()}
    found["transformers", "set_seed"] = id(transformers.set_seed)
    found["cache"] = tuple(feature_cache._kept), tuple(feature_cache._stores)
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_there_inside_of_the_block_and_gone_behind_it(name):
    """Left behind, it would spoil every training of the session that follows."""
    fault = ft.fault(name)
    before = state()
    with pytest.raises(KeyError), fault:
        assert state() != before
        raise KeyError
    assert state() == before


def test_labels_that_were_shuffled_are_told_from_labels_in_another_order(monkeypatch):
    """By chance a shuffle gives many rows of a class one other label, which looks like a name."""
    asked = ["labels can be learned", "labels mean the same"]
    model, failed = worlds.model("classification"), []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        monkeypatch.setattr(in_data.np.random, "default_rng", lambda *_, g=generator: g)
        with ft.fault("shuffled labels"):
            data = ft.load_data(worlds.tables("classification"))
        monkeypatch.undo()
        failed.append(ft.sanity_checks(model, data, only=asked).failed)
    assert failed.count(asked[:1]) >= 19
    assert all("labels mean the same" not in names for names in failed)


def test_faults_can_be_planted_together():
    with ft.fault("answers cut"), ft.fault("doubled BOS"):
        found = ft.sanity_checks(*pipeline("causal-lm"))
    assert found.failed == ["one beginning", "answers are whole"]


def test_a_model_is_left_as_it_was_and_no_run_is_recorded():
    model, data = pipeline("classification")
    before, recorded = model.hash(), len(ft.runs())
    ft.sanity_checks(model, data)
    assert model.hash() == before and not model.net.training
    assert len(ft.runs()) == recorded


def test_a_mystery_keeps_its_name_and_knows_it():
    puzzle, again = ft.fault.mystery(3), ft.fault.mystery(3)
    name = puzzle.reveal()
    assert again.reveal() == name and "classification" in FAULTS[name].tasks
    assert name not in repr(puzzle) and name not in map(str, vars(puzzle).keys())
    assert puzzle.is_it(f" {name} ") is True
    other = next(one for one in FAULTS if one != name)
    assert FAULTS[other].check in puzzle.is_it(other)
    assert "no fault of that name" in puzzle.is_it("something else")
    with puzzle:
        found = ft.sanity_checks(*pipeline("classification"), only=FAULTS[name].check)
    assert found.failed == [FAULTS[name].check]
    drawn = {ft.fault.mystery(seed).reveal() for seed in range(100)}
    assert len(drawn) > 15


def test_some_checks_can_be_asked_alone():
    model, data = pipeline("classification")
    found = ft.sanity_checks(model, data, only=["one label for a text", "no test row in train"])
    assert [row["check"] for row in found.rows] == ["one label for a text", "no test row in train"]
    assert found["no test row in train"]["found"] == "0 rows"
    with pytest.raises(KeyError, match="was not checked"):
        found["the seed is used"]


def test_a_reward_of_ones_own_is_tried_out():
    model, data = pipeline("causal-lm")

    def has_the_word(texts, references):
        return [float(reference.split()[0] in text)
                for text, reference in zip(texts, references, strict=True)]

    name = "the reward cannot be cheated"
    assert ft.sanity_checks(model, data, reward=has_the_word, only=name).failed == [name]
    assert ft.sanity_checks(model, data, only=name).failed == []


@pytest.mark.parametrize("make, says", [
    (lambda: ft.fault("leaked row"), "Did you mean 'leaked rows'"),
    (lambda: ft.fault.mystery(0, task="tagging"), "choose classification or causal-lm"),
    (lambda: ft.sanity_checks(*pipeline("classification"), only="leaks"), "does not exist"),
    (lambda: ft.sanity_checks(tiny.encoder("regression"), {}), "knows classification and"),
    (lambda: ft.sanity_checks(worlds.model("classification"), {"train": [1]}), "'validation'"),
])
def test_what_does_not_exist_is_said(make, says):
    with pytest.raises(ft.FtkitError, match=re.escape(says)):
        make()


def test_the_lessons_own_checks_find_what_the_kits_find():
    """Lesson 21's plain code is a picture of ft.sanity_checks."""
    seen_before, moved, same_order, _ = from_lesson("21", "seen_before", "moved_by_padding",
                                                 "same_order", "plain")
    model, sound = pipeline("classification")
    with ft.fault("leaked rows"):
        leaked = ft.load_data(worlds.tables("classification"))
    for data in (sound, leaked):
        hits = len(seen_before(data["train"]["text"], data["test"]["text"]))
        row = ft.sanity_checks(model, data, only="no test row in train").rows[0]
        assert row["found"].split()[0] == str(hits)
    rows = encode(sound["train"].select(range(2)), model)
    shorter = int(rows.lengths.argmin())
    width = int(rows.lengths.min())
    assert width < rows.lengths.max()
    for name, bad in ((None, False), ("padding attended to", True)):
        with ft.fault(name) if name else nullcontext():
            batch = Collator(model).unlabelled([rows[shorter], rows[1 - shorter]])
        assert (moved(model, batch, width) > 1e-4) == bad
    assert same_order([[1, 2], [1, 2]]) and not same_order([[1, 2], [2, 1]])


def contradictions(texts, labels, plain=lambda text: text.strip().lower(), count=len):
    said = {}
    for text, label in zip(texts, labels, strict=True):
        said.setdefault(plain(text), []).append(label)
    return sum(count(set(found)) > 1 for found in said.values())


def test_the_third_exercise_takes_a_check_that_works_and_explains_others():
    assert checked("21", 3, contradictions)
    as_written = checked("21", 3, lambda t, y: contradictions(t, y, plain=str))
    by_rows = checked("21", 3, lambda t, y: len(t) - len(set(zip(t, y, strict=True))))
    assert not as_written and not by_rows and "should be" in repr(as_written)
    assert "not answered" in repr(checked("21", 3, None))


def test_the_second_exercise_takes_both_names_and_counts_what_is_missing():
    model, data = pipeline("causal-lm")
    space = {"writer": model, "facts": data}
    assert checked("21", 2, ["answers are whole", "one beginning"], **space)
    # Data that was loaded before a fault was planted is sound: only its use is not.
    one = checked("21", 2, ["one beginning"], **space)
    three = checked("21", 2, ["answers are whole", "one beginning", "the seed is used"], **space)
    assert not one and "1 checks fail" in repr(one)
    assert not three and "and 1 that you named" in repr(three)


def test_the_first_exercise_takes_the_name_and_says_why_another_cannot_be():
    puzzle = ft.fault.mystery(5)
    assert checked("21", 1, puzzle.reveal(), puzzle=puzzle)
    for wrong in ("rows skipped", "leaks"):
        found = checked("21", 1, wrong, puzzle=puzzle)
        assert not found and len(repr(found)) > 20
