"""Without these, a learner could end the course without a view, or copy a call that fails."""

import ast
import builtins
import inspect
from pathlib import Path

import pytest
from lessons import VIEWS, named_views

import ftkit as ft
from ftkit.batch import notebook as nb

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))

def names(tree, kind):
    """The names that code stores or loads, its arguments and imports among the stored ones."""
    found = {node.id for node in ast.walk(tree)
             if isinstance(node, ast.Name) and isinstance(node.ctx, kind)}
    if kind is ast.Store:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {(one.asname or one.name).partition(".")[0] for one in node.names}
    return found


@pytest.fixture(scope="module")
def told():
    """(lesson, call, what its lesson has defined by then) for each view named in prose or code."""
    found = []
    for path in LESSONS:
        known = set(dir(builtins))
        for cell in nb.read(path)["cells"]:
            text = nb.source(cell)
            if cell["cell_type"] == "code":
                tree = ast.parse(text)
                known |= names(tree, ast.Store)
                found += [(path.stem, tree, None)] if "ft." in text else []
            else:
                found += [(path.stem, ast.parse(code), set(known)) for code in named_views(text)]
    return found


def test_there_are_views():
    assert {"inspect_tokens", "side_by_side", "browse_flips", "build_prompt", "explore_runs",
            "inspect_occlusion", "inspect_attention", "forgetting_map", "which_fault"} <= set(VIEWS)


@pytest.mark.parametrize("view", [*VIEWS, "diagnose"])
def test_a_view_is_named_in_a_lesson(view, told):
    assert any(node.attr == view for _, tree, _ in told for node in ast.walk(tree)
               if isinstance(node, ast.Attribute))


def test_what_a_call_in_prose_names_is_there_by_then(told):
    for lesson, tree, known in told:
        if known is not None:
            missing = names(tree, ast.Load) - names(tree, ast.Store) - known
            assert not missing, f"{lesson}: {ast.unparse(tree)} needs {missing}"


def test_a_call_in_prose_has_arguments_that_the_view_takes(told):
    for lesson, tree, known in told:
        for node in ast.walk(tree) if known is not None else ():
            name = getattr(getattr(node, "func", None), "attr", None)
            if name in VIEWS:
                signature = inspect.signature(getattr(ft, name))
                more = {word.arg: None for word in node.keywords}
                try:
                    signature.bind(*node.args, **more)
                except TypeError as error:
                    raise AssertionError(f"{lesson}: {ast.unparse(node)}: {error}") from None


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_leads_to_its_hints_and_questions(path):
    prose = "\n".join(nb.source(cell) for cell in nb.read(path)["cells"]
                      if cell["cell_type"] == "markdown")
    assert "(questions/hints.md)" in prose and f"(questions/{path.stem}.md)" in prose
