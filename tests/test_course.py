"""A user who looks for a method finds its lesson, its solution, its paper and its plain code."""

import ast
import inspect
from pathlib import Path

import methods_page as table
import pytest

import ftkit as ft

ROOT = Path(__file__).parents[1]
# Each method, the lesson that teaches it, and the test that holds the lesson's plain code against
# the package's.
METHODS = {
    "Full": ("01_supervised", "test_full.py"),
    "Freeze": ("07_freezing", "test_freeze.py"),
    "Adapter": ("08_adapters", "test_adapter.py"),
    "LoRA": ("09_lora", "test_lora.py"),
    "PromptTuning": ("10_prompt_and_prefix", "test_prompt.py"),
    "PrefixTuning": ("10_prompt_and_prefix", "test_prompt.py"),
    "EWC": ("12_continual", "test_ewc.py"),
    "Mixup": ("15_regularization", "test_mixup.py"),
    "MultiTask": ("11_multi_task", "test_multi_task.py"),
    "Distill": ("13_distillation", "test_distill.py"),
    "Reinforce": ("14_reinforcement", "test_reinforce.py"),
}


def test_every_method_is_listed():
    assert {method.__name__ for method in table.methods()} == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_what_a_reader_looks_for(name):
    lesson, twin = METHODS[name]
    method = getattr(ft, name)
    assert method.lesson == lesson and method.when
    assert table.papers(method), "its docstring names no paper"
    assert inspect.getdoc(method.apply), "apply says what it does and raises"
    for folder in ("notebooks", "notebooks/solutions"):
        assert (ROOT / folder / f"{lesson}.ipynb").exists()
    if twin:
        tests = ast.parse((ROOT / "tests" / "methods" / twin).read_text(encoding="utf-8"))
        names = [node.name for node in ast.walk(tests) if isinstance(node, ast.FunctionDef)]
        assert any("lesson" in test and test.startswith("test_") for test in names)


def test_the_table_of_methods_is_current():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert text == table.rewritten(text), "run `python tools/methods_page.py docs/methods.md`"
