"""A training made again from its record: the same base, rows and settings, or a word why not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from ftkit.data.fingerprint import row_hashes, split_hash
from ftkit.data.load import load_data
from ftkit.errors import DataError, FtkitError, SettingError
from ftkit.methods.plain import from_plain
from ftkit.models.load import load_model
from ftkit.models.model import Model
from ftkit.training import records
from ftkit.training.fit import fit

# Of what may be passed on to the Trainer, all that a record may set: a record can come from
# somebody else, and other arguments name files to be read, or places to send something to.
PASSED = frozenset(
    "adam_beta1 adam_beta2 adam_epsilon weight_decay max_grad_norm max_steps warmup_steps "
    "lr_scheduler_kwargs label_smoothing_factor neftune_noise_alpha optim data_seed "
    "gradient_accumulation_steps per_device_train_batch_size per_device_eval_batch_size "
    "dataloader_drop_last train_sampling_strategy eval_strategy eval_steps eval_delay "
    "logging_steps logging_strategy full_determinism activation_checkpointing "
    "gradient_checkpointing".split())
# What changes no weight.
OF_NO_EFFECT = ("save_", "report_to", "run_name", "log_level", "disable_tqdm", "compute_metrics",
                "logging_first_step", "dataloader_num_workers", "dataloader_pin_memory")


@dataclass(frozen=True)
class Recorded:
    """A run as its folder tells of it. history: what was logged, a dict for each time."""

    record: dict[str, Any]
    history: list[dict[str, Any]]
    folder: Path

    @property
    def missing(self) -> list[str]:
        """What a training is made again from and this record lacks, as one of an older kit."""
        found = []
        for part, names in records.NEEDED.items():
            given = self.record.get(part)
            if not given or names and not isinstance(given, dict):
                found.append(part)
            else:
                found += [f"{part}.{name}" for name in names if name not in given]
        return found

    def logged(self) -> list[tuple[int, float]]:
        """(update, training loss) as they were logged; each is a mean since the one before."""
        return [(int(row["step"]), float(row["loss"])) for row in self.history
                if row.get("loss") is not None]


def recorded(run: Any) -> Recorded:
    """The record of a Run, or in a folder. Raises SettingError or DataError where there is none."""
    folder = getattr(run, "folder", run)
    if folder is None:
        raise SettingError("the run has no record: its folder could not be written when it ended. "
                           "Set FTKIT_RUNS to a folder that can be, and train again.")
    if not isinstance(folder, str | Path):
        raise SettingError(f"{run!r:.60} is neither a Run of ft.fit nor the folder of its record.")
    record, history = records.read(folder)
    return Recorded(record, history, Path(folder))


def arguments(told: Mapping[str, Any], base_dtype: str) -> dict[str, Any]:
    """What ft.fit is given to train as it was told then; without model and data.

    told: the part "fit" of a record. base_dtype: of the base's weights; where these have 16 bits,
    the numbers to compute in follow from them.
    Raises SettingError where something was given that no record holds, or none may set.
    """
    left = [name for name in told["left_out"] if not name.startswith(OF_NO_EFFECT)]
    wanted = {k: v for k, v in told["arguments"].items() if not k.startswith(OF_NO_EFFECT)}
    if outside := left or sorted(set(wanted) - PASSED):
        raise SettingError(f"fit was given {outside[0]}=, which is not taken from a record; train "
                           "it by your own code.")
    names = ("epochs", "learning_rate", "batch_size", "seed", "max_length", "patience", "schedule",
             "warmup", "loss_on", "compile_blocks")
    found = {name: told[name] for name in names}
    return found | wanted | {"method": from_plain(told["method"]), "disable": told["disable"],
                             "dtype": None if base_dtype in ("bf16", "fp16") else told["dtype"]}


def base_model(record: Mapping[str, Any], given: Any = None) -> Model:
    """The base of a run: `given`, or loaded. given: a Model, or what ft.load_model takes, in place
    of the recorded source. Raises DataError for one that was in memory only, and what ft.load_model
    does; whether it is the one, other_base says.
    """
    if isinstance(given, Model):
        return given
    base = record["base"]
    if not (given or base["source"]):
        raise DataError(f"the base {base['name']} was in memory only, and a record has only the "
                        "hash of its weights. Give it as a Model, or save it and give its folder.")
    return load_model(given or base["source"], base["task"], labels=base["labels"],
                      dtype=base["dtype"], seed=base["seed"] or 0, pooling=base["pooling"])


def other_base(record: Mapping[str, Any], model: Model) -> str:
    """In which way a model is not the base of a run; "" where it is."""
    found, wanted = model.fingerprint(), record["base"]["hash"]
    if found != wanted:
        return (f"the weights of {model.name} have the hash {found[:12]}, and the run began from "
                f"{wanted[:12]}")
    same = records.tokenizer_hash(model.tokenizer) == record["base"]["tokenizer"]
    return "" if same else (f"the tokenizer of {model.name} has another vocabulary, other special "
                            "tokens or another chat template than that of the run")


def rows_of(record: Mapping[str, Any], given: Any = None) -> Mapping[str, Any]:
    """The splits of a run: `given`, or loaded. given: splits, a single Dataset for "train", or the
    name or path that ft.load_data takes in place of the recorded one; other_rows says whether they
    are the ones. Raises DataError where they came from memory, and what ft.load_data does.
    """
    origin = record.get("origin") or {}
    if isinstance(given, str | Path):
        return load_data(**{**origin, "source": given})
    if given is not None:
        return given if isinstance(given, Mapping) else {"train": given}
    if not origin:
        raise DataError(f"the rows of {record.get('data') or 'this run'} came from memory, and a "
                        "record has only their hash. Give them as data.")
    return load_data(**origin)


def other_rows(record: Mapping[str, Any], splits: Mapping[str, Any]) -> str:
    """In which way splits are not those of a run; "" where they are."""
    for name, known in record["splits"].items():
        if name not in splits:
            return f"the run had a split {name!r}, and the data has none"
        found = split_hash(row_hashes(splits[name])["train"])
        if found != known["hash"]:
            return (f"the split {name!r} has {len(splits[name]):,} rows with the hash "
                    f"{found[:12]}, and the run had {known['rows']:,} with {known['hash'][:12]}")
    return ""


@contextmanager
def apart(threads: int | None = None) -> Iterator[Path]:
    """While open, trainings leave no record among others and follow what they are told alone.

    threads: of the processor. Yields a folder for what is written meanwhile; it goes at the end.
    """
    before = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="ftkit-") as folder, patch.dict(
            os.environ, FTKIT_RUNS=folder):
        for name in ("FTKIT_DTYPE", "FTKIT_DISABLE", "FTKIT_TRACK"):
            os.environ.pop(name, None)
        try:
            torch.set_num_threads(threads or before)
            yield Path(folder)
        finally:
            torch.set_num_threads(before)


def refused(error: FtkitError) -> str:
    """The first sentence of an error, for a cell of a table."""
    return str(error).split(". ")[0].rstrip(".")


def train(model: Model, data: Any, given: Mapping[str, Any]) -> Any:
    """Train as a record says, silently. Returns the Run. Raises what ft.fit raises."""
    return fit(model, data, quiet=True, track=False, **given)
