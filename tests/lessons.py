"""What the lessons define and name, so that tests can hold it against the package."""

import ast
import inspect
import re
from pathlib import Path

import ftkit as ft
from ftkit.batch import notebook as nb

ROOT = Path(__file__).parents[1]
# The functions that make a View, by their own code.
VIEWS = [name for name in ft.__all__ if inspect.isfunction(made := getattr(ft, name))
         and " View(" in inspect.getsource(inspect.unwrap(made)).replace("(View(", " View(")]
CODE = re.compile(r"```python\n(.+?)```|`([^`\n]+)`", re.DOTALL)


def named_views(text):
    """The pieces of Python in a Markdown cell that name a view."""
    return [found for both in CODE.findall(text) if re.search(
        rf"\bft\.({'|'.join(VIEWS)})\b", found := "".join(both))]


def from_lesson(lesson, *names, **space):
    """What a lesson's cells define under these names: one object, or a list of them.

    lesson: the beginning of its file name. The lesson's imports are run, nothing else of it; what
    the definitions need beside those comes in `space`.
    """
    (path,) = (ROOT / "notebooks").glob(f"{lesson}*.ipynb")
    wanted, defined = [], set()
    for _, cell in nb.code_cells(nb.read(path)):
        for node in ast.parse(nb.source(cell)).body:
            targets = [getattr(t, "id", None) for t in getattr(node, "targets", [])]
            here = {getattr(node, "name", None), *targets} & set(names)
            if here or isinstance(node, ast.Import | ast.ImportFrom):
                wanted.append(node)
                defined |= here
    assert defined == set(names), f"{path.name} does not define {set(names) - defined}"
    exec(compile(ast.Module(wanted, []), str(path), "exec"), space)
    found = [space[name] for name in names]
    return found if len(found) > 1 else found[0]
