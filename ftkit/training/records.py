"""The record of a run, one folder each, and a table over many."""

import json
import os
import time
import uuid
from pathlib import Path

from ftkit.assets import atomic, fetch
from ftkit.assets.versions import versions
from ftkit.models import hardware


def runs_home():
    """The folder that records go to: FTKIT_RUNS, else `runs` in the cache. It may not exist yet."""
    return Path(os.environ.get("FTKIT_RUNS") or fetch.cache_home() / "runs")


def write(run, *, name=None, data=None, energy=None):
    """Write run.json and history.jsonl of a finished training. Returns their folder.

    energy: joules, or None where it could not be read. Where the folder cannot be written, the
    run itself is not lost: a warning names the folder, and None is returned.
    """
    import torch

    stamp = time.strftime("%Y%m%d-%H%M%S")
    machine = hardware.this_machine()
    record = {
        "name": name or run.model.name,
        "time": stamp,
        "profile": hardware.current_profile(),
        "model": run.model.name,
        "task": run.model.task,
        "data": getattr(data, "name", None),
        "data_hash": getattr(data, "hash", None),
        "settings": run.settings,
        "dtype": getattr(run.plan, "dtype", None),
        "metrics": run.metrics,
        "trainable": run.trainable,
        "seconds": run.seconds,
        "peak_memory": run.peak_memory,
        "added_memory": run.added_memory,
        "energy_joules": energy,
        "hardware": {
            "device": machine.device,
            "name": machine.name,
            "cores": machine.cores,
            "memory": machine.memory,
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
    }
    folder = runs_home() / f"{stamp}-{uuid.uuid4().hex[:8]}"
    try:
        with atomic.new_folder(folder) as scratch:
            run.history.to_json(scratch / "history.jsonl", orient="records", lines=True)
            (scratch / "run.json").write_text(json.dumps(record, indent=1, default=str))
    except OSError as error:
        import warnings

        warnings.warn(
            f"the run was not recorded in {folder}: {error}. Set FTKIT_RUNS to a folder "
            "that can be written.",
            stacklevel=2,
        )
        return None
    return folder


def runs(folder=None):
    """All recorded runs as a pandas DataFrame, the newest last; nested entries as a.b columns.

    folder: where the records are; by default FTKIT_RUNS, else `runs` in the cache.
    """
    import pandas as pd

    found = sorted(Path(folder or runs_home()).glob("[!.]*/run.json"))
    rows = [json.loads(path.read_text()) | {"folder": str(path.parent)} for path in found]
    return pd.json_normalize(rows)
