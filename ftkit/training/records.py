"""The record of a run, one folder each, and a table over many."""

import hashlib
import json
import os
import time
import uuid
from pathlib import Path

from ftkit.assets import atomic, fetch
from ftkit.assets.versions import versions
from ftkit.data.fingerprint import hash_of_split
from ftkit.errors import DataError
from ftkit.methods.plain import as_plain, is_plain
from ftkit.models import hardware, precision
from ftkit.models.model import UNSAVED
from ftkit.models.pooling import pooling_of

FILE, HISTORY = "run.json", "history.jsonl"
# What a training is made again from; a record of an earlier version of the kit lacks it.
NEEDED = {
    "fit": ("method", "arguments", "left_out", "epochs", "learning_rate", "batch_size", "seed",
            "max_length", "patience", "schedule", "warmup", "loss_on", "dtype", "disable",
            "compile_blocks"),
    "base": ("name", "source", "task", "labels", "dtype", "seed", "pooling", "hash",
             "tokenizer"),
    "splits": ("train",),
    "hardware": ("device", "name", "threads"),
    "weights": (),
}


def runs_home():
    """The folder that records go to: FTKIT_RUNS, else `runs` in the cache. It may not exist yet."""
    return Path(os.environ.get("FTKIT_RUNS") or fetch.cache_home() / "runs")


def told(method, arguments, **settings):
    """What fit was told, as JSON: the settings, "method" as a dict of as_plain, "arguments".

    arguments: those for TrainingArguments and Trainer; what JSON cannot hold, such as a function,
    stands by name in "left_out". Tokens of a hub are in neither; bf16 and fp16 come to the "dtype".
    """
    given = {k: v for k, v in arguments.items() if not is_secret(k) and k not in ("bf16", "fp16")}
    plain = {k: v for k, v in given.items() if is_plain(v)}
    left = sorted(set(given) - set(plain))
    # A number of NumPy's would be written as a text.
    numbers = {k: v.item() if hasattr(v, "item") else v for k, v in settings.items()}
    return {**numbers, "method": as_plain(method), "arguments": plain, "left_out": left}


def is_secret(name):
    """Whether a setting is a key to something, such as hub_token, and does not go into a record."""
    return name.endswith(("token", "password", "secret", "api_key"))


def of_model(model):
    """What a base model is loaded again by, and the hash of its weights.

    "source": a name, a folder or a registered version; None where it was in memory only.
    """
    source = model.net.config.name_or_path
    return {"name": model.name, "source": None if source == UNSAVED else source or None,
            "task": model.task, "labels": model.labels, "dtype": precision.own(model.net),
            "seed": model.settings.get("seed"), "pooling": pooling_of(model.net),
            "hash": model.fingerprint(), "tokenizer": tokenizer_hash(model.tokenizer)}


def tokenizer_hash(tokenizer):
    """The sha256, in hex, of a tokenizer's vocabulary, special tokens, cut side and template."""
    parts = [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map,
             tokenizer.truncation_side, getattr(tokenizer, "chat_template", None)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def of_splits(splits):
    """{split: {"rows": how many, "hash": of all}} of what a training reads; without empty ones."""
    return {name: {"rows": len(split), "hash": hash_of_split(split)}
            for name, split in splits.items() if split is not None}


def read(folder):
    """The record of a run and its history: a dict, and a list of dicts of what was logged.

    Raises DataError where the folder holds none.
    """
    try:
        record = json.loads((Path(folder) / FILE).read_text())
        lines = (Path(folder) / HISTORY).read_text().splitlines()
        return dict(record), [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder} holds no record of a run ({error}); give a Run of ft.fit or its "
                        f"folder, with {FILE} and {HISTORY}. `ftkit runs` lists them.") from None


def write(run, *, name=None, data=None, energy=None, base=None, told=None, splits=None):
    """Write run.json and history.jsonl of a finished training. Returns their folder.

    energy: joules, or None where it could not be read. base: the Model that was given to fit.
    told: what fit was told, of `told`. splits: the data it read, by name. Where the folder cannot
    be written, the run itself is not lost: a warning names the folder, and None is returned.
    """
    import torch

    stamp = time.strftime("%Y%m%d-%H%M%S")
    machine = hardware.this_machine()
    record = {"name": name or run.model.name,
              "time": stamp,
              "profile": hardware.current_profile(),
              "model": run.model.name,
              "task": run.model.task,
              "data": getattr(data, "name", None),
              "data_hash": getattr(data, "hash", None),
              "origin": origin if is_plain(origin := getattr(data, "origin", None)) else None,
              "splits": of_splits(splits or {}),
              "base": base and of_model(base),
              "weights": run.model.fingerprint(),
              "fit": told,
              "settings": run.settings,
              "dtype": getattr(run.plan, "dtype", None),
              "metrics": run.metrics,
              "trainable": run.trainable,
              "seconds": run.seconds,
              "peak_memory": run.peak_memory,
              "added_memory": run.added_memory,
              "energy_joules": energy,
              "hardware": {"device": machine.device, "name": machine.name, "cores": machine.cores,
                           "memory": machine.memory, "threads": torch.get_num_threads(),
                           "processes": int(os.environ.get("WORLD_SIZE", 1))},
              "versions": versions()}
    folder = runs_home() / f"{stamp}-{uuid.uuid4().hex[:8]}"
    try:
        with atomic.new_folder(folder) as scratch:
            run.history.to_json(scratch / HISTORY, orient="records", lines=True)
            (scratch / FILE).write_text(json.dumps(record, indent=1, default=str))
    except OSError as error:
        import warnings

        warnings.warn(f"the run was not recorded in {folder}: {error}. Set FTKIT_RUNS to a folder "
                      "that can be written.", stacklevel=2)
        return None
    return folder


def runs(folder=None):
    """All recorded runs as a pandas DataFrame, the newest last; nested entries as a.b columns.

    folder: where the records are; by default FTKIT_RUNS, else `runs` in the cache.
    """
    import pandas as pd

    found = sorted(Path(folder or runs_home()).glob(f"[!.]*/{FILE}"))
    rows = [json.loads(path.read_text()) | {"folder": str(path.parent)} for path in found]
    return pd.json_normalize(rows)
