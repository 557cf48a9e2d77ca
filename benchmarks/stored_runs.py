"""Trains the runs that come with the kit, for `ft.explore_runs()`: learning rate by depth.

`python benchmarks/stored_runs.py` writes ftkit/course/stored_runs.json, a row for each of 32 short
trainings of a small encoder, some minutes on two cores. Times and memory are left out: they are
those of a machine, and the rows are to be the same on any.
"""

import json
import os
import tempfile
from unittest.mock import patch

import ftkit as ft
from ftkit.assets import atomic
from ftkit.assets.versions import versions
from ftkit.course import explore_runs

MODEL, DATA = "minilm-l6", "rotten-tomatoes"
DEPTHS = (0, 1, 3, 6)  # blocks that are trained, from the top; the embeddings are frozen
RATES = (1e-4, 5e-4, 2e-3, 1e-2)
SEEDS = (0, 1)  # of the head's first weights and of the order; the reviews are the same
ROWS = dict(n_train=160, n_validation=150, n_test=1)
SETTINGS = dict(epochs=3, batch_size=16, max_length=40, dtype="float32", quiet=True)
KEPT = ("name", "model", "task", "data", "settings.method", "settings.learning_rate",
        "settings.seed", "trainable.trained", "trainable.share", "trainable.bytes",
        "trainable.blocks")  # and what is measured on the validation rows after the training


def trained(depths=DEPTHS, rates=RATES, seeds=SEEDS):
    """The rows, one for each training: dicts of the columns in KEPT, the loss and the accuracy."""
    measured = {}
    data = ft.load_data(DATA, **ROWS, seed=0)
    with (tempfile.TemporaryDirectory() as folder,
          patch.dict(os.environ, {"FTKIT_RUNS": folder})):
        for seed in seeds:
            base = ft.load_model(MODEL, task="classification", labels=data.labels, seed=seed,
                                 pooling="mean")
            for depth in depths:
                for rate in rates:
                    name = f"{depth} blocks, {rate:g}, seed {seed}"
                    run = ft.fit(base, data["train"], method=ft.Freeze(unfreeze_last=depth),
                                 learning_rate=rate, seed=seed, name=name, **SETTINGS)
                    found = ft.evaluate(run.model, data["validation"],
                                        max_length=SETTINGS["max_length"])
                    measured[name] = {"metrics.eval_loss": found["loss"].value,
                                      "metrics.eval_accuracy": found["accuracy"].value}
                    print(f"{name}: validation loss {found['loss']}", flush=True)
        rows = ft.runs(folder)[list(KEPT)].to_dict("records")
    return [row | {"data": DATA} | measured[row["name"]] for row in rows]


def main():
    """Train them all, and write the file."""
    rows = trained()
    about = {"made by": "python benchmarks/stored_runs.py", "model": MODEL, "data": DATA, **ROWS,
             **{name: SETTINGS[name] for name in ("epochs", "batch_size", "max_length", "dtype")},
             "versions": versions()}
    lines = ",\n".join(json.dumps(row) for row in rows)
    atomic.write(explore_runs.STORED,
                 f'{{"about": {json.dumps(about)},\n"runs": [\n{lines}\n]}}\n')
    print(f"{explore_runs.STORED} holds {len(rows)} runs")


if __name__ == "__main__":
    main()
