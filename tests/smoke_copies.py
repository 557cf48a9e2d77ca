"""Writes copies of all lessons and solutions that run on the smoke profile, for nbval to test.

python tests/smoke_copies.py FOLDER
The copies keep the committed outputs, so that cells marked NBVAL_CHECK_OUTPUT are compared.
"""

import sys
from pathlib import Path

import nbformat
from papermill.parameterize import parameterize_notebook

from ftkit import notebook as nb

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def write_copies(folder):
    """Copy every notebook to the folder, with profile="smoke" where it has that parameter."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(NOTEBOOKS.rglob("[0-9][0-9]_*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        copy = nbformat.read(path, as_version=4)
        copy.metadata["papermill"] = {}  # papermill expects a place for its notes
        if "profile" in nb.parameters(nb.read(path), path.name):
            copy = parameterize_notebook(copy, {"profile": "smoke"}, kernel_name="python3",
                                         language="python")
        target = folder / path.relative_to(NOTEBOOKS)
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(copy, target)


if __name__ == "__main__":
    write_copies(Path(sys.argv[1]))
