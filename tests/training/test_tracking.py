"""Without these, a tracked run would lack what it is compared by, or cost those who track none."""

import subprocess
import sys
import uuid

import pytest
import tiny
from datasets import Dataset

import ftkit as ft
from ftkit.assets import mlflow_store

ROWS = Dataset.from_dict({"text": [f"the film was {word}" for word in tiny.WORDS]})


@pytest.fixture
def store(store, monkeypatch):
    """Its runs are those of one test, whichever tests the worker ran before."""
    monkeypatch.setattr(mlflow_store, "EXPERIMENT", f"ftkit-{uuid.uuid4()}")
    return mlflow_store.client()


def trained(**options):
    return ft.fit(tiny.decoder(), {"train": ROWS, "validation": ROWS}, epochs=2, batch_size=8,
                  quiet=True, **options)


def tracked(store):
    return store.search_runs([mlflow_store.experiment()])


def test_a_run_is_tracked_with_what_it_is_compared_by(store):
    run = trained(track=True, learning_rate=1e-3, name="one try")
    [found] = tracked(store)
    assert found.info.run_name == "one try" and found.info.status == "FINISHED"
    assert found.data.params["learning_rate"] == "0.001" and "Full" in found.data.params["method"]
    assert found.data.tags["ftkit.weights"] == run.model.hash()
    assert found.data.tags["versions.torch"] and found.data.tags["ftkit.dtype"]
    steps = store.get_metric_history(found.info.run_id, "loss")
    logged = run.history["loss"].dropna().tolist()
    assert [round(one.value, 6) for one in sorted(steps, key=lambda one: one.step)] == [
        round(value, 6) for value in logged]
    assert found.data.metrics["final_eval_loss"] == pytest.approx(run.metrics["eval_loss"])
    assert found.data.metrics["seconds"] > 0 and found.data.metrics["parameters_trained"] > 0
    files = {file.path for file in store.list_artifacts(found.info.run_id, "record")}
    assert files == {"record/run.json", "record/history.jsonl"}


def test_the_environment_asks_for_it_and_nothing_is_tracked_otherwise(store, monkeypatch):
    before = len(tracked(store))
    trained()
    assert len(tracked(store)) == before
    monkeypatch.setenv("FTKIT_TRACK", "1")
    trained()
    trained(track=False)
    assert len(tracked(store)) == before + 1


def test_a_store_that_fails_loses_no_training(store, monkeypatch):
    def fails(*given, **more):
        raise OSError("No space left on device")
    monkeypatch.setattr(store, "log_artifacts", fails)
    with pytest.warns(UserWarning, match="No space left on device. Its record is in"):
        run = trained(track=True)
    assert run.folder.is_dir() and tracked(store)[0].info.status == "FAILED"


def test_who_tracks_nothing_loads_nothing_and_who_cannot_is_told_at_once():
    code = ("import sys\nsys.path.insert(0, 'tests')\nimport tiny, ftkit as ft\n"
            "rows = tiny.reviews(4)\nft.fit(tiny.encoder(), rows, epochs=1, quiet=True)\n"
            "assert 'mlflow' not in sys.modules\nsys.modules['mlflow.tracking'] = None\n"
            "try:\n    ft.fit(tiny.encoder(), rows, track=True)\n"
            "except ft.SettingError as error:\n    print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'ftkit[track]'" in done.stdout, done.stderr
