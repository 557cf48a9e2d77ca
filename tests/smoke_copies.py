"""Writes copies of all lessons and solutions that run on the smoke profile, for nbval to test.

python tests/smoke_copies.py FOLDER
A call of a view that a lesson's text invites to type is a cell of the copy. The copies keep the
committed outputs, so that cells marked NBVAL_CHECK_OUTPUT are compared.
"""

import sys
from pathlib import Path

from lessons import named_views
from papermill import execute_notebook

from ftkit.batch import notebook as nb

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def write_copies(folder):
    """Copy every notebook to the folder, with profile="smoke" where it has that parameter."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(NOTEBOOKS.rglob("[0-9][0-9]_*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        target = folder / path.relative_to(NOTEBOOKS)
        target.parent.mkdir(parents=True, exist_ok=True)
        known = nb.parameters(nb.read(path), path.name)
        execute_notebook(path, target, {"profile": "smoke"} if "profile" in known else {},
                         prepare_only=True, kernel_name="python3", language="python")
        nb.write(with_calls(nb.read(target)), target)


def with_calls(notebook):
    """The notebook, and below each Markdown cell a code cell for each call of a view in it."""
    cells = []
    for cell in notebook["cells"]:
        calls = named_views(nb.source(cell)) if cell["cell_type"] == "markdown" else []
        cells += [cell, *({"cell_type": "code", "id": f"{cell['id']}-{i}", "metadata": {},
                           "source": call, "outputs": [], "execution_count": None}
                          for i, call in enumerate(calls))]
    return notebook | {"cells": cells}


if __name__ == "__main__":
    write_copies(Path(sys.argv[1]))
