"""Sends the runs of a batch to MLflow: a grid's runs side by side. Off by default."""

import base64
import json
import math
import re
import tempfile
import warnings
from pathlib import Path

from ftkit.assets import mlflow_store
from ftkit.batch import notebook as nb
from ftkit.errors import FtkitError

EXPERIMENT = "ftkit batch"


def track_run(record, out):
    """Put a run of a batch into the store, as a run of MLflow's. Returns its id.

    record: as `run_batch` gives it; out: the batch's folder. Parameters: the notebook's. Metrics:
    seconds, peak memory in bytes and of each claim value, low, high (of the difference, where
    there is one) and whether it held. Artifacts: the executed notebook, its figures and
    record.json with claims and failure. Where the store fails nothing of the batch is lost: a
    warning says so, and None is returned.
    """
    try:
        with mlflow_store.said_plainly(f"{record['name']} was not tracked"):
            return _sent(record, Path(out))
    except (FtkitError, OSError) as error:
        warnings.warn(f"{error}. Its record is in {out}.", stacklevel=2)
        return None


def _sent(record, out):
    tags = {f"ftkit.{key}": record[key] for key in ("lesson", "status", "key", "attempts")}
    with tempfile.TemporaryDirectory(prefix="ftkit-track-") as folder:
        _write_files(record, out, Path(folder))
        return mlflow_store.put(
            record["name"], into=mlflow_store.experiment(EXPERIMENT), params=record["parameters"],
            metrics=_numbers(record), tags=tags, folder=folder, seconds=record["seconds"],
            status="FINISHED" if record["status"] == "ok" else "FAILED")


def _numbers(record):
    """Each number of a run as (name, value, 0)."""
    found = {"seconds": record["seconds"], "peak_memory_bytes": record["peak_memory"]}
    for claim in record["claims"]:
        name = re.sub(r"[^\w\-. ]+", "_", claim["claim"])[:120]  # a group of charts on the page
        found |= {f"{name}/{part}": (claim.get("difference") or claim["after"])[part]
                  for part in ("value", "low", "high")}
        found |= {f"{name}/held": int(claim["held"])} if claim["judged"] else {}
    return [(name, float(value), 0) for name, value in found.items()
            if value is not None and math.isfinite(value)]


def _write_files(record, out, folder):
    (folder / "record.json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    if not record["output"]:
        return
    notebook = nb.read(out / record["output"])
    (folder / "notebook.ipynb").write_bytes((out / record["output"]).read_bytes())
    for number, cell in nb.code_cells(notebook):
        for output in cell["outputs"]:
            if png := output.get("data", {}).get("image/png"):
                place = folder / "figures" / f"cell-{number + 1:02}.png"
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(base64.b64decode("".join(png)))
