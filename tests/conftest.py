"""What all tests share: few threads, no traces outside the test's folder, small notebooks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def pytest_configure(config):
    """Before torch is loaded: the workers of a parallel run share the cores."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers == 1 and getattr(config.option, "numprocesses", None):
        return  # this process only hands out the tests, and its workers would inherit its number
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture(autouse=True)
def _no_traces(tmp_path_factory, monkeypatch):
    """Runs are recorded in a temporary folder, and figures open no window."""
    monkeypatch.setenv("FTKIT_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The package's own wheel, built once from what a build needs and from nothing else."""
    pytest.importorskip("setuptools", reason="builds the wheel")
    root, folder = Path(__file__).parents[1], tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("ftkit", "data", "docs", "notebooks"):
        shutil.copytree(root / name, folder / "source" / name, ignore=skip)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(root / name, folder / "source")
    build = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "-w", str(folder), str(folder / "source")],
        capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
    (made,) = folder.glob("ftkit-*.whl")
    return made


@pytest.fixture
def float32(monkeypatch):
    """Trainings in float32, whatever is forced outside: two of them are compared number by number.

    In 16 bits another order of the same sums moves a weight by the bits that were rounded away.
    """
    monkeypatch.setenv("FTKIT_DTYPE", "float32")


@pytest.fixture(params=["float32", "bf16"])
def each_precision(request, monkeypatch):
    """The test runs twice, with trainings in float32 and in bf16, on any machine."""
    monkeypatch.setenv("FTKIT_DTYPE", request.param)
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _quick_trainings():
    """Each training collects garbage twice, which mostly looks at what the libraries made."""
    import gc

    import ftkit.training.fit  # noqa: F401 - before the freeze

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def notebook_file(path, *cells):
    """Write a notebook and return its path; a cell is code, (code, [tags]) or "#md text"."""
    made = []
    for number, cell in enumerate(cells):
        text, tags = cell if isinstance(cell, tuple) else (cell, [])
        markdown = text.startswith("#md ")
        made.append({
            "cell_type": "markdown" if markdown else "code", "id": f"cell{number}",
            "metadata": {"tags": tags} if tags else {},
            "source": text.removeprefix("#md ").splitlines(keepends=True),
            **({} if markdown else {"outputs": [], "execution_count": None}),
        })
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "metadata": {"kernelspec": kernel},
                                "nbformat": 4, "nbformat_minor": 5}, indent=1))
    return path


@pytest.fixture(scope="session")
def write_notebook():
    """The function `notebook_file`."""
    return notebook_file


@pytest.fixture(scope="session")
def _store(tmp_path_factory):
    """Of a worker: making its database takes some seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def store(_store, monkeypatch):
    """The folder of an MLflow store that no other program sees."""
    pytest.importorskip("mlflow", reason="needs the extra: pip install 'ftkit[track]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_store / 'mlflow.db'}")
    return _store


@pytest.fixture(scope="module")
def browser():
    """A real browser without a window, where Playwright and Chromium are installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("needs Chromium, such as: apt install chromium")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
