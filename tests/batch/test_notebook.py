"""Committed outputs must belong to their source and carry nothing of the machine."""

import copy
import json
from pathlib import Path

import pytest

from ftkit.batch import notebook as nb
from ftkit.errors import DataError, FtkitError

WIDGET = "application/vnd.jupyter.widget-view+json"


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


@pytest.fixture
def lesson(tmp_path, write_notebook):
    """A lesson's file and the notebook as papermill leaves it after a run."""
    path = write_notebook(tmp_path / "01_a.ipynb", "#md # A", "x = 1", "x")
    executed = nb.read(path)
    executed["metadata"].update(papermill={"input_path": "/home/me/01_a.ipynb"},
                                widgets={"state": {}})
    for number, cell in enumerate(executed["cells"][1:]):
        cell["execution_count"] = number + 1
        cell["metadata"].update(papermill={"start_time": "2026-01-01"}, execution={"x": 1})
        cell["outputs"] = [stream(["10%\r", "50%\r100%\n"]), stream(["done\n"]),
                           {"output_type": "display_data", "metadata": {}, "data": {WIDGET: {}}}]
    return path, executed


def test_scrub_removes_timings_paths_and_widgets_and_joins_streams(lesson):
    clean = nb.scrub(lesson[1])
    text = json.dumps(clean)
    assert not any(word in text for word in ("papermill", "/home/me", "2026", "widget", "50%"))
    assert clean["cells"][1]["outputs"] == [stream(["100%\n", "done\n"])]


def test_commit_copies_outputs_and_leaves_the_source_as_it_was(lesson):
    path, executed = lesson
    before = nb.read(path)
    nb.commit(executed, path, profile="cpu")
    after = nb.read(path)
    assert after["metadata"]["ftkit"] == {"source_hash": nb.source_hash(before), "profile": "cpu"}
    assert [c["execution_count"] for _, c in nb.code_cells(after)] == [1, 2]
    for old, new in zip(before["cells"], after["cells"], strict=True):
        assert (old["id"], old["source"], old["metadata"]) == (
            new["id"], new["source"], new["metadata"])


def test_commit_writes_what_jupyter_would_write(lesson):
    nbformat = pytest.importorskip("nbformat")
    path, executed = lesson
    nb.commit(executed, path)
    ours = path.read_text()
    nbformat.write(nbformat.read(path, as_version=4), path)
    assert path.read_text() == ours


def test_commit_refuses_what_is_not_this_source_or_failed(lesson):
    path, executed = lesson
    other = copy.deepcopy(executed)
    other["cells"].insert(1, copy.deepcopy(other["cells"][1]))
    with pytest.raises(FtkitError, match="cells differ"):
        nb.commit(other, path)
    stopped = copy.deepcopy(executed)
    stopped["cells"][2]["execution_count"] = None
    with pytest.raises(FtkitError, match="never executed"):
        nb.commit(stopped, path)


@pytest.mark.parametrize("text", ["saved in {home}/runs", "'/tmp/abc'", "at /home/ana/x.py",
                                  "/Users/ana", "/srv/kit/notebooks"])
def test_commit_refuses_paths_of_this_machine(lesson, text):
    path, executed = lesson
    executed["cells"][2]["outputs"] = [stream([text.format(home=Path.home())])]
    with pytest.raises(FtkitError, match="cell 3 shows a path"):
        nb.commit(executed, path, forbidden=["/srv/kit"])


@pytest.mark.parametrize("text", ["https://x.org/tmp/a", "a/tmp/b", "/temporary", "notebooks/home"])
def test_ordinary_words_are_not_taken_for_paths(lesson, text):
    executed = lesson[1]
    executed["cells"][2]["outputs"] = [stream([text])]
    assert nb.machine_paths(executed) == []


def test_the_hash_changes_with_code_and_not_with_prose(lesson):
    notebook = lesson[1]
    first = nb.source_hash(notebook)
    notebook["cells"][0]["source"] = ["# Another title"]
    assert nb.source_hash(notebook) == first
    notebook["cells"][1]["source"] = ["x = 2"]
    assert nb.source_hash(notebook) != first


def shown(notebook, *claims):
    """The notebook, with a claim in the output of each code cell."""
    for cell, claim in zip(notebook["cells"][1:], claims, strict=False):
        data = {nb.CLAIM: claim}
        cell["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": data}]
    return notebook


PART = {"value": 0.5, "low": "nan", "high": None}
WHOLE = {"claim": "same", "held": True, "judged": True, "metric": None, "relative": False,
         "before": None, "after": PART, "difference": PART}


def test_of_two_claims_with_the_same_words_the_later_counts(lesson):
    assert nb.claims(shown(lesson[1], WHOLE | {"held": False}, WHOLE)) == [WHOLE]


@pytest.mark.parametrize("claim", [
    "a word", {}, {"claim": "x"}, {k: v for k, v in WHOLE.items() if k != "held"},
    WHOLE | {"claim": 3}, WHOLE | {"after": {"value": 1}}, WHOLE | {"after": PART | {"low": "x"}},
    WHOLE | {"difference": [1]},
])
def test_what_only_says_to_be_a_claim_is_named(lesson, claim):
    with pytest.raises(DataError, match="cell 2 shows a claim without what one has"):
        nb.claims(shown(lesson[1], claim))
