"""Without these, a notebook could be committed with what only its author's machine has."""

import json
import subprocess
import sys
from pathlib import Path

import check_notebooks
import pytest

from ftkit.batch import notebook as nb

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [path for pattern in ("[0-9][0-9]_*.ipynb", "templates/*.ipynb")
             for path in sorted((ROOT / "notebooks").rglob(pattern))]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if ".ipynb_checkpoints" not in p.parts],
                         ids=lambda path: str(path.relative_to(ROOT / "notebooks")))
def test_committed_notebooks_are_clean(path):
    assert check_notebooks.faults(path) == []


def stream(text):
    """An output that prints a text."""
    return {"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}


@pytest.fixture
def planted(write_notebook, tmp_path):
    """Writes a good lesson, changed by a function of its JSON, and returns its faults."""

    def write(change=lambda notebook: None, folder="notebooks"):
        path = write_notebook(tmp_path / folder / "01_x.ipynb", "#md # A title", "print('one')")
        notebook = json.loads(path.read_text())
        cell = notebook["cells"][1]
        cell["outputs"], cell["execution_count"] = [stream("one\n")], 1
        change(notebook)
        path.write_text(json.dumps(notebook))
        return check_notebooks.faults(path)

    return write


def test_a_good_notebook_has_no_fault(planted):
    assert planted() == []


def outputs(*made):
    """A change that gives the code cell these outputs."""
    return lambda notebook: notebook["cells"][1].update(outputs=list(made))


def html(text):
    """An output that is HTML."""
    return {"output_type": "display_data", "metadata": {},
            "data": {"text/html": [text], "text/plain": ["x"]}}


def prose(text):
    """A change that gives the Markdown cell another text below its title."""
    return lambda notebook: notebook["cells"][0].update(source=["# A title\n", text])


WIDGET = {"output_type": "display_data", "metadata": {},
          "data": {nb.WIDGETS[0]: {"model_id": "1"}, "text/plain": ["Box()"]}}
FIGURE = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0KGgo="}}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
PLANTED = {
    "widget state": (lambda n: n["metadata"].update(widgets={"state": {}}), "state of widgets"),
    "a widget": (outputs(WIDGET), "state of widgets"),
    "timings": (lambda n: n["metadata"].update(papermill={"duration": 1}), "timings"),
    "a bar": (outputs(stream("10%\r100%\n")), "progress bar"),
    "a figure": (outputs(FIGURE), "no text alternative"),
    "an error": (outputs(ERROR), "ValueError"),
    "not run": (lambda n: n["cells"][1].update(outputs=[], execution_count=None), "never executed"),
    "a path in prose": (lambda n: n["cells"][0].update(source=["/home/ann/x"]), "cell 1 itself"),
    "a script": (outputs(html("<script>alert(1)</script>")), "show <script>"),
    "a form": (outputs(html("<form></form>")), "show <form>"),
    "a style sheet": (outputs(html("<style>td { color: red }</style>")), "show <style>"),
    "a handler": (outputs(html("<p onclick='f()'>x</p>")), "show onclick= of <p>"),
    "a silent picture": (outputs(html("<img src='data:,' alt=' '>")), "without alternative text"),
    "an iframe in prose": (prose("See <iframe src='x'></iframe>."), "cell 1: GitHub"),
    "a silent picture in prose": (prose("![](x.png)"), "without alternative text"),
    "a formula with blanks": (prose("By $ x + 1 $ it grows."), "show the formula $ x + 1 $"),
    "an unknown kind": (outputs({"output_type": "display_data", "metadata": {},
                                 "data": {"application/x": "1"}}), "kind application/x"),
    "other language": (lambda n: n["metadata"].update(kernelspec={"language": "R"}), "only Python"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named(planted, fault):
    change, told = PLANTED[fault]
    found = planted(change)
    assert len(found) == 1 and told in found[0]


@pytest.mark.parametrize("path", ["/home/ann/run.json", "/root/.cache/x", "/tmp/a.txt",
                                  "/Users/ann/x", "/var/folders/zz/T", "/content/drive/x",
                                  "/private/tmp", "/mnt/data/a"])
def test_a_path_of_a_machine_is_named(planted, path):
    html = {"output_type": "display_data", "metadata": {},
            "data": {"text/html": [f"<td>{path}</td>"]}}
    for made in (stream(f"written to {path}\n"), stream(f"'{path}'"), html):
        found = planted(outputs(made))
        assert len(found) == 1 and path in found[0]


@pytest.mark.parametrize("text", ["data/home/x", "https://x.org/tmp/a", "and/or", "artifacts/tmp",
                                  "~/runs", "1/2", "/temperature"])
def test_what_is_no_path_of_a_machine_may_stay(planted, text):
    assert planted(outputs(stream(f"{text}\n"))) == []


@pytest.mark.parametrize("text", ["`<script>` runs code", "<https://x.org/a>", "1 < 2 > 0",
                                  "x<br>y, <details><summary>a</summary>b</details>",
                                  "from $5 to $6", "the price is $ 5", "by $x_1$ and $y$"])
def test_what_github_shows_may_stay(planted, text):
    assert planted(prose(text)) == []


def test_a_figure_with_words_may_stay(planted):
    assert planted(outputs(FIGURE | {"metadata": {"image/png": {"alt": "Loss by epoch."}}})) == []


def test_solutions_may_be_without_outputs_and_not_with_half_of_them(planted):
    def unrun(notebook):
        notebook["cells"][1].update(outputs=[], execution_count=None)

    def half(notebook):
        notebook["cells"].append({**notebook["cells"][1], "id": "more"})
        unrun(notebook)

    assert planted(unrun, "solutions") == []
    assert "never executed" in planted(half, "solutions")[0]


def test_the_command_says_which_file_and_what_to_do(planted, tmp_path):
    planted(PLANTED["an error"][0])
    done = subprocess.run([sys.executable, ROOT / "tools" / "check_notebooks.py",
                           tmp_path / "notebooks" / "01_x.ipynb"], capture_output=True, text=True,
                          env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and "01_x.ipynb: cell 2" in done.stdout
    assert "--commit-to notebooks" in done.stdout
