"""Sends the record of a training to MLflow, where runs are set side by side. Off by default."""

import json
import math
import os
import warnings
from numbers import Real

from ftkit.assets import mlflow_store
from ftkit.errors import FtkitError


def wanted(track):
    """Whether to track, by fit or FTKIT_TRACK; SettingError before training, without MLflow."""
    if track is None:
        track = os.environ.get("FTKIT_TRACK", "") not in ("", "0")
    if track:
        mlflow_store.client()
    return bool(track)


def send(run):
    """Put the record of a Run into the store, as a run of MLflow's. Returns its id.

    Parameters: the settings. Metrics: losses and learning rate over the updates, and once seconds,
    bytes of memory, joules, parameters. Tags: hashes of data and weights, versions, hardware.
    Artifacts: run.json and history.jsonl. Where the store fails, the run itself is not lost: a
    warning says so, and None is returned.
    """
    if run.folder is None:
        warnings.warn("the run has no record (see above), so that it was not tracked", stacklevel=2)
        return None
    record = json.loads((run.folder / "run.json").read_text())
    try:
        with mlflow_store.said_plainly("the run was not tracked"):
            return _sent(run, record)
    except (FtkitError, OSError) as error:
        warnings.warn(f"{error}. Its record is in {run.folder}.", stacklevel=2)
        return None


def _sent(run, record):
    flat = {f"{group}.{key}": value for group in ("versions", "hardware")
            for key, value in record[group].items()}
    # The hash that a registered version of these weights has, too; the record's is a quicker one.
    tags = flat | {"ftkit.weights": run.model.hash(), "ftkit.folder": str(run.folder)} | {
        f"ftkit.{key}": record[key] for key in ("model", "task", "data", "data_hash", "profile",
                                               "dtype")}
    return mlflow_store.put(record["name"], into=mlflow_store.experiment(), tags=tags,
                            params=record["settings"], metrics=list(_numbers(run, record)),
                            folder=run.folder, folder_name="record",
                            seconds=record["seconds"])


def _numbers(run, record):
    """Each number of a run as (name, value, update)."""
    for row in run.history.to_dict("records"):
        for name in ("loss", "eval_loss", "learning_rate"):
            value = row.get(name)
            if value is not None and math.isfinite(value):
                yield name, float(value), int(row["step"])
    once = {"seconds": record["seconds"], "peak_memory_bytes": record["peak_memory"],
            "added_memory_bytes": record["added_memory"], "joules": record["energy_joules"],
            **{f"parameters_{key}": value for key, value in record["trainable"].items()},
            **{f"final_{key}": value for key, value in record["metrics"].items()}}
    for name, value in once.items():
        if isinstance(value, Real) and math.isfinite(value):
            yield name, float(value), 0
