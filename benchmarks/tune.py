"""Chooses the rate and the epochs of the works that classify: python benchmarks/tune.py [WORK ...].

The choice is by the loss on validation rows, which no work trains on or is judged by, and it is the
same for all contenders. What came out is written down in prepare.py, by hand.
"""

import sys
from statistics import mean

from datasets import Dataset
from prepare import WORKS

import ftkit as ft

SEEDS = (0, 1)
GRID = {
    "classify": [(rate, 3) for rate in (5e-5, 1e-4, 2e-4, 4e-4)],
    "top": [(rate, epochs) for epochs in (3, 5) for rate in (5e-5, 1e-4, 2e-4, 4e-4)],
    "head": [(rate, epochs) for epochs in (5, 10, 20) for rate in (1e-4, 3e-4, 1e-3, 3e-3)],
    "optimizations-frozen": [(rate, 6) for rate in (1e-4, 3e-4, 1e-3, 3e-3)],
}


def validation_loss(name, rate, epochs, seed):
    """The loss on 200 validation rows after a training with these numbers, in nats a text."""
    work = WORKS[name]
    data = ft.load_data(work["data"], n_train=work["train"], n_validation=200, seed=0)
    model = ft.load_model(work["model"], task="classification", labels=data.labels, seed=seed)
    method = ft.Freeze(unfreeze_last=work["depth"]) if "depth" in work else None
    train = Dataset.from_list(list(data["train"]))
    run = ft.fit(model, train, method=method, epochs=epochs, learning_rate=rate, warmup=0,
                 batch_size=work["batch"], seed=seed, quiet=True)
    return ft.evaluate(run.model, data["validation"])["loss"].value


def main(names):
    for name in names or GRID:
        for rate, epochs in GRID[name]:
            losses = [validation_loss(name, rate, epochs, seed) for seed in SEEDS]
            print(f"{name}: rate {rate:g}, {epochs} epochs: {mean(losses):.3f} "
                  f"({', '.join(f'{loss:.3f}' for loss in losses)})", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
