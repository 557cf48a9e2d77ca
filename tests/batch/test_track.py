"""A batch that is tracked must be found again by what it claimed, and never be lost by a store."""

import json
import uuid
import warnings

import pytest

import ftkit as ft
from ftkit.assets import mlflow_store
from ftkit.batch import track

DRAWN = ("import matplotlib.pyplot as plt\nimport ftkit as ft\nplt.plot([1, 2])\nplt.show()\n"
         "ft.claim('it is so', 0.5 + C, metric='accuracy', at_least=0.6)")


@pytest.fixture
def store(store, monkeypatch):
    monkeypatch.setattr(track, "EXPERIMENT", f"ftkit-{uuid.uuid4()}")
    return mlflow_store.client()


def tracked(store):
    return {run.info.run_name: run
            for run in store.search_runs([mlflow_store.experiment(track.EXPERIMENT)])}


def test_the_runs_of_a_grid_stand_side_by_side_with_claims_figures_and_notebook(
        store, tmp_path, write_notebook, monkeypatch):
    lesson = write_notebook(tmp_path / "01_a.ipynb", ("C = 0.2", ["parameters"]), DRAWN)
    monkeypatch.setenv("FTKIT_TRACK", "1")
    ft.batch(lesson, grid={"C": [0.2, 0.05]}, out=tmp_path / "out")
    found = tracked(store)
    good, bad = found["01_a--C=0.2"], found["01_a--C=0.05"]
    assert (good.info.status, bad.info.status) == ("FINISHED", "FAILED")
    assert good.data.params == {"C": "0.2"} and bad.data.tags["ftkit.status"] == "claim not held"
    assert good.data.metrics["it is so/value"] == pytest.approx(0.7)
    assert (good.data.metrics["it is so/held"], bad.data.metrics["it is so/held"]) == (1, 0)
    assert good.data.metrics["seconds"] > 0 and good.data.metrics["peak_memory_bytes"] > 0
    files = {file.path for file in store.list_artifacts(good.info.run_id)}
    assert files == {"figures", "notebook.ipynb", "record.json"}
    figures = [file.path for file in store.list_artifacts(good.info.run_id, "figures")]
    assert figures == ["figures/cell-02.png"]
    local = mlflow_store.local(good.info.artifact_uri)
    assert json.loads((local / "record.json").read_text())["claims"][0]["claim"] == "it is so"

    ft.batch(lesson, grid={"C": [0.2, 0.05]}, out=tmp_path / "out")  # what was done is not repeated
    ft.batch(lesson, out=tmp_path / "quiet", track=False)
    assert len(store.search_runs([mlflow_store.experiment(track.EXPERIMENT)])) == 3


def test_a_store_that_fails_loses_no_run(store, tmp_path, write_notebook, monkeypatch):
    def fails(*given, **more):
        raise OSError("No space left on device")
    monkeypatch.setattr(store, "log_artifacts", fails)
    lesson = write_notebook(tmp_path / "01_a.ipynb", ("C = 0.2", ["parameters"]), "1 + 1")
    with pytest.warns(UserWarning, match="No space left on device. Its record is in"):
        results = ft.batch(lesson, out=tmp_path / "out", track=True)
    assert results["all_held"] and tracked(store)["01_a"].info.status == "FAILED"


def test_a_run_that_failed_or_measured_nothing_finite_is_tracked_as_such(store, tmp_path):
    claim = {"claim": "it: is, so?", "judged": True, "held": False,
             "after": {"value": None, "low": None, "high": float("nan")}}
    record = {"name": "01_a", "lesson": "01_a", "status": "dead kernel", "key": "", "attempts": 1,
              "parameters": {"seed": 0}, "claims": [claim], "seconds": None, "peak_memory": None,
              "output": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert track.track_run(record, tmp_path)
    found = tracked(store)["01_a"]
    assert found.data.metrics == {"it_ is_ so_/held": 0} and found.info.status == "FAILED"
