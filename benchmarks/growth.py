"""How the kit's time grows: with the length of texts, the amount of data, and the processes.

    python benchmarks/growth.py ROUNDS     all of it, as a line "RESULT {json}"

Under torchrun it does the last part alone, as one of the processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from worker import PREFIX, machine_name

LENGTHS, TOKENS, BLOCKS = (64, 128, 256, 512, 1024), 2048, 10
REVIEWS, BATCH = (40, 80, 160, 320), 8
SHARED = 160  # reviews that one or two processes train on


def lengths(rounds):
    """Seconds for 1,000 tokens of SmolLM2's lowest blocks, by tokens in a text; all weights."""
    from datasets import Dataset

    import ftkit as ft

    model = ft.load_model("smollm2-135m-instruct")
    body, words = model.net.model, model.tokenizer
    body.layers = body.layers[:BLOCKS]
    model.net.config.num_hidden_layers = BLOCKS
    texts = ft.load_data("phenotype-definitions", form="text", n_train=200, seed=0)["train"]["text"]
    ids = words(" ".join(texts))["input_ids"]

    def run(length):
        rows = []  # three quarters of a text are its prompt, as in questions and definitions
        for start in range(0, TOKENS, length):
            text, cut = ids[start : start + length - 1], length * 3 // 4
            rows.append({"prompt": words.decode(text[:cut]), "response": words.decode(text[cut:])})
        done = ft.fit(model, Dataset.from_list(rows), epochs=1, batch_size=len(rows), warmup=0,
                      max_length=2 * length, learning_rate=1e-4, quiet=True)
        return done.seconds / TOKENS * 1000

    run(LENGTHS[0])
    found = {length: [] for length in LENGTHS}
    for _ in range(rounds):
        for length in LENGTHS:
            found[length].append(run(length))
    return {length: median(values) for length, values in found.items()}


def _reviews(count):
    import ftkit as ft

    data = ft.load_data("rotten-tomatoes", n_train=count, n_test=10, seed=0)
    return ft.load_model("minilm-l6", task="classification", labels=data.labels), data["train"]


def amounts(rounds):
    """Seconds of an epoch of MiniLM, all weights, by the number of reviews."""
    import ftkit as ft

    model, data = _reviews(max(REVIEWS))
    found = {count: [] for count in REVIEWS}
    for seed in range(-1, rounds):
        for count in REVIEWS:
            run = ft.fit(model, data.select(range(count)), epochs=1, batch_size=BATCH, warmup=0,
                         learning_rate=1e-4, seed=max(seed, 0), quiet=True)
            if seed >= 0:  # the first round warms up
                found[count].append(run.seconds)
    return {count: median(values) for count, values in found.items()}


def processes(rounds):
    """Seconds of an epoch of MiniLM with one thread a process, by the number of processes."""
    found = {}
    for count in (1, 2):
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
             str(count), str(Path(__file__)), str(rounds)],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        lines = [x for x in done.stdout.splitlines() if x.startswith(PREFIX)]
        if not lines:
            raise RuntimeError(f"{count} processes by torchrun failed:\n{done.stderr[-2000:]}")
        found[count] = json.loads(lines[0].removeprefix(PREFIX))
    return found


def share(rounds):
    """One process's part of processes(); the first of them prints the median."""
    import ftkit as ft

    model, data = _reviews(SHARED)
    seconds = [ft.fit(model, data, epochs=1, batch_size=2 * BATCH, warmup=0, learning_rate=1e-4,
                      seed=max(seed, 0), quiet=True).seconds for seed in range(-1, rounds)]
    if os.environ["RANK"] == "0":
        print(PREFIX + json.dumps(median(seconds[1:])), flush=True)


def sentences(found):
    """What was found, in words."""
    lengths, amounts, shared = (list(found[k].values()) for k in ("lengths", "amounts", "shared"))
    return (f"On {found['machine']}, {found['date']}: a token in texts of {LENGTHS[-1]:,} takes "
            f"{lengths[-1] / lengths[0]:.2f} times as long as in texts of {LENGTHS[0]} ({BLOCKS} "
            f"of SmolLM2's blocks, all weights, {TOKENS:,} tokens an update); "
            f"{REVIEWS[-1] // REVIEWS[0]} times the reviews take {amounts[-1] / amounts[0]:.2f} "
            "times as long (MiniLM, all weights); two processes of one thread each are "
            f"{shared[0] / shared[1]:.2f} times as fast as one.")


def plot(found, path):
    """Draw what was found beside the ideal lines, into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for axes, key, title, label in (
        (left, "lengths", "length of texts", "tokens a text"),
        (middle, "amounts", "amount of data", "reviews an epoch"),
        (right, "shared", "processes, one thread each", "processes"),
    ):
        x, y = [int(k) for k in found[key]], list(found[key].values())
        ideal = [y[0] * {"lengths": 1, "amounts": n / x[0], "shared": x[0] / n}[key] for n in x]
        axes.plot(x, y, "o-", color="black", label="measured")
        axes.plot(x, ideal, "--", color="grey", label="ideal")
        axes.set(title=title, xlabel=label, ylim=(0, 1.15 * max(y + ideal)),
                 ylabel="seconds for 1,000 tokens" if key == "lengths" else "seconds an epoch")
        if key != "shared":
            axes.set_xscale("log", base=2)
        axes.set_xticks(x, [f"{n:,}" for n in x])
        axes.minorticks_off()
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    asked = int(sys.argv[1])
    if "RANK" in os.environ:
        share(asked)
    else:
        print(PREFIX + json.dumps({"lengths": lengths(asked), "amounts": amounts(asked),
                                   "shared": processes(asked), "machine": machine_name()}),
              flush=True)
