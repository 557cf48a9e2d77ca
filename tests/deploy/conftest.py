"""A store of versions for the tests of a worker: making its database takes some seconds."""

import pytest


@pytest.fixture(scope="session")
def _store(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def store(_store, monkeypatch):
    """The folder of an MLflow store that no other program sees."""
    pytest.importorskip("mlflow", reason="needs the extra: pip install 'ftkit[track]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_store / 'mlflow.db'}")
    return _store
