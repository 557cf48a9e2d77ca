"""Says what keeps a notebook from being committed: `python tools/check_notebooks.py FILE...`

Without files, all lessons, solutions and templates are checked. pre-commit runs it on those that
are staged.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

from ftkit.batch import notebook as nb
from ftkit.errors import DataError

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
# Where machines keep what is theirs; the homes of users are known to machine_paths.
FOLDERS = ("/root", "/tmp", "/var", "/private", "/mnt", "/opt", "/content", "/kaggle", "/workspace")
# What GitHub keeps of HTML (the list of its html-pipeline, as far as the kit could use it). Scripts
# and forms, frames and style sheets are not in it.
KEPT = set("""h1 h2 h3 h4 h5 h6 br b i strong em a pre code img div ins del sup sub p ol ul li table
    thead tbody tfoot tr td th caption blockquote dl dt dd kbd q samp var hr s span summary details
    figure figcaption abbr cite dfn mark small time wbr""".split())
_CODE = re.compile(r"^```.*?^```|^~~~.*?^~~~|`[^`\n]*`", re.DOTALL | re.MULTILINE)
SHOWN = {"text/plain", "text/html", "text/markdown", "image/png", "image/svg+xml"}
_FORMULA = re.compile(r"(?<![\w$\\])\$[^$\n]+\$(?!\w)")
_PLAIN_TAG = re.compile(r"</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>")


def faults(path: Path) -> list[str]:
    """What is wrong with a notebook file, a sentence each; [] when it can be committed.

    Looked for are widget state, timings and progress bars, paths of a machine in cells or outputs,
    cells that were not run or failed, figures without a text alternative, and what GitHub would
    leave out. Whether the
    outputs are of the code beside them is for tests/test_notebooks.py: a change may be committed
    before its run.
    """
    try:
        notebook = nb.read(path)
    except DataError as error:
        return [str(error)]
    found = []
    if "widgets" in notebook["metadata"] or any(
        kind in output.get("data", {})
        for _, cell in nb.code_cells(notebook) for output in cell["outputs"] for kind in nb.WIDGETS
    ):
        found.append("it holds the state of widgets, which shows nothing once the kernel is gone")
    elif nb.scrub(notebook) != notebook:
        found.append("its outputs or metadata hold timings or steps of a progress bar")
    for position, text in nb.machine_paths(notebook, FOLDERS):
        found.append(f"an output of cell {position + 1} names a path of a machine: …{text}…")
    for position, text in nb.machine_paths(_sources(notebook), FOLDERS):
        found.append(f"cell {position + 1} itself names a path of a machine: …{text}…")
    found += [f"a figure of cell {position + 1} has no text alternative; run with ftkit imported, "
              "it gets one" for position, _ in unworded(notebook)]
    found += lost_on_github(notebook)
    # Solutions may be without outputs, but not with half of them.
    bare = path.parent.name == "solutions" and _never_ran(notebook)
    if (failed := nb.failure(notebook)) and not bare:
        found.append(f"cell {failed['cell'] + 1} has no outputs of a good run: "
                     f"{failed['error']}: {failed['message']}")
    return found


def unworded(notebook: dict) -> list[tuple[int, dict]]:
    """The position of the cell and the output, for each picture without a text alternative."""
    return [(position, output) for position, cell in nb.code_cells(notebook)
            for output in cell["outputs"]
            for kind in output.get("data", {}) if kind.startswith("image/")
            and not output["metadata"].get(kind, {}).get("alt", "").strip()]


class _Html(HTMLParser):
    """What GitHub would not show of a piece of HTML, in words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.lost: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of one element."""
        own = dict(attrs)
        if tag not in KEPT:
            self.lost.append(f"<{tag}>")
        if tag == "img" and not (own.get("alt") or "").strip():
            self.lost.append("a picture without alternative text")
        for name, value in own.items():
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.lost.append(f"{name}= of <{tag}>")


def lost_on_github(notebook: dict) -> list[str]:
    """What GitHub would not show of a notebook, a sentence for each cell; [] when it shows all."""
    found = []
    for position, cell in enumerate(notebook["cells"]):
        text, lost = _CODE.sub("", nb.source(cell)), []
        if cell["cell_type"] == "markdown":
            lost += _Html(" ".join(_PLAIN_TAG.findall(text))).lost
            if re.search(r"!\[\s*\]\(", text):
                lost.append("a picture without alternative text")
            # Between two dollar signs a blank at the border makes a price of it, and no formula.
            lost += [f"the formula {one}" for one in _FORMULA.findall(text)
                     if one[1].isspace() or one[-2].isspace()]
        for output in cell.get("outputs", ()) if cell["cell_type"] == "code" else ():
            data = output.get("data", {})
            if "text/html" in data:
                lost += _Html("".join(data["text/html"])).lost
            if data and not SHOWN & set(data):
                lost.append(f"an output of the kind {', '.join(data)}")
        found += [f"cell {position + 1}: GitHub does not show {what}" for what in
                  dict.fromkeys(lost)]
    return found


def _sources(notebook):
    """The notebook with what its cells say in place of what they show, where paths are sought."""
    return {"cells": [
        {"cell_type": "code", "source": "shown", "outputs": [{"text": nb.source(cell)}]}
        for cell in notebook["cells"]
    ]}


def _never_ran(notebook):
    return not any(cell["outputs"] or cell["execution_count"]
                   for _, cell in nb.code_cells(notebook))


def main(arguments: list[str]) -> int:
    """Check the files and print what is wrong. Returns 1 when anything is, else 0."""
    paths = [Path(name) for name in arguments] or [
        path for pattern in ("[0-9][0-9]_*.ipynb", "templates/*.ipynb")
        for path in sorted(NOTEBOOKS.rglob(pattern)) if ".ipynb_checkpoints" not in path.parts
    ]
    wrong = {path: found for path in paths if (found := faults(path))}
    for path, found in wrong.items():
        for fault in found:
            print(f"{path}: {fault}")
    if wrong:
        print("Run `ftkit batch FILE --profile cpu --commit-to notebooks` and commit what it "
              "writes (CONTRIBUTING.md, A lesson).")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
