"""Every method on an encoder task and a decoder task: `make compare` writes what lesson 19 reads.

A cell is a method with a number of labels and a seed; what it found is a file of its own, written
whole or not at all, so a comparison that was stopped goes on where it was. A new method joins by
one line in METHODS.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import filelock
import numpy as np
import torch

import ftkit as ft
from ftkit.assets import atomic
from ftkit.course import advise
from ftkit.models import hardware

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)  # each its own training sample, head, order and examples in the prompt
STEPS = (1 / 3, 1, 3)  # the rates that are tried, times the one of the method's lesson
# Trials on validation: one more where the best is the least or the largest rate, but no more than
# so many rates. The wording is a setting of a training, too, and is tried before its rates.
TRIALS = 4
PACKAGES = ("torch", "transformers", "peft", "scikit-learn", "ftkit")


def of_words(split, most):
    """The rows whose text has at most so many words: every token costs time."""
    count = [len(text.split()) for text in split["text"]]
    return split.select([i for i, words in enumerate(count) if words <= most])


def hash_of(rows):
    """The sha256 of rows, in hex: the same texts and answers in the same order, the same hash."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Sentiment:
    """Tweets and sentences: negative, neutral or positive? The task of lesson 1, on short texts."""

    key = "classification"
    title = "sentiment of short texts"
    metric = "accuracy"
    model_name: str = "minilm-l6"
    prompted_name: str = "smollm2-135m-instruct"
    labels: tuple = (32, 96, 256)
    sample: int = 256  # rows of a training sample, of which a cell takes the first
    updates: int = 32
    batch: int = 12
    validation: int = 80
    test: int = 240
    largest: int = 128  # examples of the largest prompt, as far as they fit into
    room: int = 2000  # tokens
    blocks: int = 2  # a third of them
    pooling: str = "mean"  # how a head reads the text: as this encoder was trained to be read
    rule = "Is what this text says negative, neutral or positive?\n"
    wordings = ("Review: {}\nSentiment:", "Text: {}\nFeeling:",
                "{}\nThis text is negative, neutral or positive:")

    def data(self):
        """Three training samples, validation and test rows."""
        data = ft.load_data("vader", seed=0)
        most = self.sample
        train, validation, test = (of_words(data[part], 12).select_columns(
            ["text", "label", "group"]) for part in ("train", "validation", "test"))
        samples = [train.select(range(seed * most, (seed + 1) * most)) for seed in SEEDS]
        return samples, validation.select(range(self.validation)), test.select(range(self.test))

    classes = ("negative", "neutral", "positive")
    training_wordings = (None,)  # a head reads the text as it is

    def base(self, seed):
        """The model to train, with a new head."""
        return ft.load_model(self.model_name, task="classification", labels=list(self.classes),
                             seed=seed, pooling=self.pooling)

    def to_train(self, rows, wording):
        """Rows as `fit` and `evaluate` read them."""
        return rows.select_columns(["text", "label"])

    def hits(self, model, rows, wording):
        """Which rows a trained model gets right, and the loss: to choose between equals."""
        found = ft.evaluate(model, rows)
        return found.per_example("accuracy"), found["loss"].value

    def solved(self, row, wording):
        """A row as an example in a prompt."""
        return f"{wording.format(row['text'])} {self.classes[row['label']]}\n\n"

    def asked(self, decoder, rows, prefix, wording):
        """Which rows a prompted model gets right: the likeliest of the three words counts."""
        scores = ft.log_likelihood(decoder, [wording.format(text) for text in rows["text"]],
                                   [f" {name}" for name in self.classes], prefix=prefix)
        return scores.argmax(1) == np.array(rows["label"])


@dataclass(frozen=True)
class Index:
    """The index of a book, as in lesson 10: "Sarah Jessica Parker" becomes "Parker, S. J."."""

    key = "causal-lm"
    title = "names for an index"
    metric = "exact match"
    model_name: str = "smollm2-135m-instruct"
    prompted_name: str = "smollm2-135m-instruct"
    labels: tuple = (64,)
    sample: int = 64
    updates: int = 24
    batch: int = 4
    validation: int = 32
    test: int = 100
    largest: int = 64
    room: int = 2000
    blocks: int = 10
    rule = "Write the surname first, then a comma, then the initials of the other names.\n"
    wordings = training_wordings = ("{} ->", "Q: {}\nA:", "Name: {}\nIndex:")

    def data(self):
        """As of Sentiment; a row has prompt and response."""
        splits = ft.load_data("nq-open", seed=0)
        names = {part: self.names(splits[part]) for part in splits}
        unseen = [n for n in names["test"] if n not in {*names["train"], *names["validation"]}]
        most = self.sample
        drawn = random.Random(0).sample(names["train"], len(SEEDS) * most)
        samples = [drawn[seed * most : (seed + 1) * most] for seed in SEEDS]
        held = [name for name in names["validation"] if name not in set(names["train"])]
        return ([self.rows(sample) for sample in samples], self.rows(held[: self.validation]),
                self.rows(random.Random(0).sample(unseen, self.test)))

    @staticmethod
    def names(split):
        """Answers to questions for a person that look like a name of two or three words."""
        answers = [a for row in split if row["question"].startswith("who") for a in row["answers"]]
        return [a for a in dict.fromkeys(answers)
                if re.fullmatch("[A-Z][a-z]+( [A-Z][a-z]+){1,2}", a)]

    @staticmethod
    def rows(names):
        """Names as records with their entries."""
        from datasets import Dataset

        def index(name):
            *first, last = name.split()
            return f"{last}, " + " ".join(f"{word[0]}." for word in first)

        return Dataset.from_dict({"text": names, "response": [f" {index(n)}" for n in names]})

    def base(self, seed):
        """The model to train; it has no new head."""
        return ft.load_model(self.model_name)

    def to_train(self, rows, wording):
        """Rows as `fit` and `evaluate` read them."""
        from datasets import Dataset

        return Dataset.from_dict({"prompt": [wording.format(name) for name in rows["text"]],
                                  "response": rows["response"][:]})

    def hits(self, model, rows, wording):
        """Which rows a trained model gets right to the letter, and the loss of the answers."""
        loss = ft.evaluate(model, self.to_train(rows, wording))["loss"].value
        return self.asked(model, rows, "", wording), loss

    def solved(self, row, wording):
        """A row as an example in a prompt."""
        return f"{wording.format(row['text'])}{row['response']}\n"

    def asked(self, decoder, rows, prefix, wording):
        """Which rows a prompted model gets right to the letter, decoding greedily."""
        texts = ft.generate(decoder, [wording.format(name) for name in rows["text"]],
                            prefix=prefix, max_new_tokens=10, stop="\n", batch_size=64)
        return np.array([text.strip() == right.strip()
                         for text, right in zip(texts, rows["response"], strict=True)])


@cache
def pieces(task):
    """The task's data, read once."""
    return task.data()


@cache
def decoder(name):
    """The model that is only prompted, loaded once."""
    return ft.load_model(name)


def weight_bytes(model):
    """What a model's weights take in memory."""
    return sum(p.numel() * p.element_size() for p in model.net.parameters())


def speed(size=512, repeats=40):
    """Products of matrices that this process gets done now, in billions of operations a second."""
    a, start = torch.randn(size, size), time.perf_counter()
    for _ in range(repeats):
        a @ a
    return 2 * size**3 * repeats / (time.perf_counter() - start) / 1e9


class Trained:
    """A method of the kit. make: a function of the task; rate: what its lesson found to be good."""

    def __init__(self, make, rate, *tasks):
        self.make, self.rate, self.tasks = make, rate, tasks or (Sentiment.key, Index.key)

    def cells(self, task):
        """Numbers of labels and seeds."""
        return [(n, seed) for n in task.labels for seed in SEEDS]

    def settings(self, task):
        """What is tried on validation first: rates, or the wordings at the lesson's rate."""
        if len(task.training_wordings) == 1:
            return [self.rate * step for step in STEPS]
        return [{"rate": self.rate, "wording": words} for words in task.training_wordings]

    def further(self, task, tried):
        """The rates of the best wording, then a rate beyond where the best of them is at an end."""
        if len(task.training_wordings) == 1:
            return beyond(tried, 3)
        words = best_of(tried)["wording"]
        rates = [one | {"setting": one["setting"]["rate"]} for one in tried
                 if one["setting"]["wording"] == words]
        known = [one["setting"] for one in rates]
        wanted = ([self.rate * step for step in STEPS if self.rate * step not in known]
                  or beyond(rates, 3))
        return [{"rate": rate, "wording": words} for rate in wanted]

    def run(self, task, n, seed, setting, rows):
        """Train with n labels and answer `rows`. Returns hits, loss, and what it cost."""
        setting = setting if isinstance(setting, dict) else {"rate": setting, "wording": None}
        sample = task.to_train(pieces(task)[0][seed].select(range(n)), setting["wording"])
        base = task.base(seed)
        run = ft.fit(base, sample, method=self.make(task), learning_rate=setting["rate"],
                     batch_size=task.batch, max_steps=task.updates, seed=seed, dtype="float32",
                     quiet=True)
        start = time.perf_counter()
        hits, loss = task.hits(run.model, rows, setting["wording"])
        return {"hits": hits, "loss": loss, "seconds": run.seconds, "updates": task.updates,
                "answer_seconds": time.perf_counter() - start,
                "trained": run.trainable["trained"], "share": run.trainable["share"],
                "stored": run.trainable["bytes"],
                "memory": weight_bytes(base) + run.added_memory}


class Prompted:
    """Nothing is trained: examples from the sample stand in the prompt, as many as fit, or few."""

    def __init__(self, shots):
        self.shots, self.tasks = shots, (Sentiment.key, Index.key)

    def cells(self, task):
        """Zero-shot is the same for all samples; the others show a part of each."""
        return [(0, 0)] if not self.shots else [
            (min(self.shots, task.largest), seed) for seed in SEEDS]

    def settings(self, task):
        """Three wordings, tried on validation."""
        return list(task.wordings)

    def further(self, task, tried):
        """Nothing."""
        return []

    def run(self, task, n, seed, wording, rows):
        """Answer `rows` after the examples; the rule in words stands before them."""
        model, sample = decoder(task.prompted_name), pieces(task)[0][seed].select(range(n))
        shown, tokens = [], 0
        for row in sample.select(range(min(n, self.shots))):
            text = task.solved(row, wording)
            tokens += len(model.tokenizer(text).input_ids)
            if tokens > task.room:
                break
            shown.append(text)
        start = time.perf_counter()
        hits = task.asked(model, rows, task.rule + "".join(shown), wording)
        return {"hits": hits, "seconds": 0.0, "answer_seconds": time.perf_counter() - start,
                "trained": 0, "share": 0.0, "stored": len("".join(shown).encode()),
                "shown": len(shown), "memory": weight_bytes(model)}


class Linear:
    """A linear model on features of the texts; of names for an index, the nearest one's answer."""

    cells = Trained.cells

    def __init__(self, frozen, *tasks):
        self.frozen, self.tasks = frozen, tasks

    def settings(self, task):
        """How strongly weights are regularized, tried on validation."""
        return [0.1, 1, 10]

    def further(self, task, tried):
        """A strength beyond those tried, where the best of them is at an end."""
        return beyond(tried, 10)

    def run(self, task, n, seed, strength, rows):
        """Fit to n labels and answer `rows`."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        sample, held = pieces(task)[0][seed].select(range(n)), 0
        if self.frozen:
            encoder = ft.load_model(task.model_name, task="encoder")
            held = weight_bytes(encoder)

            def features(part):
                return mean_vectors(encoder, part["text"])
        else:
            words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(sample["text"])

            def features(part):
                return words.transform(part["text"])
        start = time.perf_counter()
        known = features(sample)
        if task.key == Sentiment.key:
            model = LogisticRegression(C=strength, max_iter=3000).fit(known, sample["label"])
            trained = time.perf_counter()
            hits = model.predict(features(rows)) == np.array(rows["label"])
            numbers = model.coef_.size + model.intercept_.size
        else:
            trained, numbers = time.perf_counter(), known.nnz
            nearest = np.asarray((features(rows) @ known.T).argmax(axis=1)).ravel()
            hits = [sample[int(i)]["response"] == r for i, r in zip(nearest, rows["response"],
                                                                      strict=True)]
        return {"hits": hits, "seconds": trained - start, "share": 0.0, "trained": numbers,
                "answer_seconds": time.perf_counter() - trained, "stored": 8 * numbers,
                "memory": held + 8 * numbers}


@torch.no_grad()
def mean_vectors(encoder, texts):
    """The mean hidden state of each text: as this encoder was trained to be read."""
    found = []
    for start in range(0, len(texts), 32):
        tokens = encoder.tokenizer(list(texts[start : start + 32]), padding=True,
                                   return_tensors="pt")
        hidden, real = encoder.net(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
        found.append(((hidden * real).sum(1) / real.sum(1)).numpy())
    return np.concatenate(found)


CLASSES = Sentiment.key
TASKS = (Sentiment(), Index())
METHODS = {  # one line each; the rate is the one that its lesson settled on
    "word counts": Linear(False, CLASSES, Index.key),
    "frozen encoder, linear": Linear(True, CLASSES),
    "zero-shot prompt": Prompted(0),
    "four examples": Prompted(4),
    "largest prompt": Prompted(10**6),
    "head alone": Trained(lambda task: ft.Freeze(), 3e-3, CLASSES),
    "LoRA": Trained(lambda task: ft.LoRA(), 1e-3),
    "full": Trained(lambda task: ft.Full(), 2e-4),
    "prompt tuning": Trained(lambda task: ft.PromptTuning(text=task.rule), 2e-2),
    "top third": Trained(lambda task: ft.Freeze(unfreeze_last=task.blocks), 3e-4),
    "adapter": Trained(lambda task: ft.Adapter(), 1e-3),
    "prefix tuning": Trained(lambda task: ft.PrefixTuning(text=task.rule), 1e-2),
    "mixup": Trained(lambda task: ft.Mixup(), 2e-4, CLASSES),
}


def fingerprint(task, name):
    """What a record hangs on: the task, the method, its settings and the packages, as a hash."""
    method = METHODS[name]
    made = re.sub(r" at 0x\w+", "", repr(method.make(task))) if hasattr(method, "make") else ""
    how = [type(method).__name__, made, getattr(method, "shots", None)]
    alike = repr(replace(task, labels=()))  # another number of labels is another cell
    return hash_of([alike, name, how, method.settings(task), data_hash(task), versions()])


@cache
def data_hash(task):
    """The sha256 of all rows of a task, in hex."""
    samples, validation, test = pieces(task)
    return hash_of([part.to_list() for part in (*samples, validation, test)])


@cache
def versions():
    """The versions of the packages that the numbers may depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def read(path, about):
    """A record, or None where there is none, half of one, or one of something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("about") == about else None


def record_of(task, name, n, seed, folder):
    """Where the record of a cell stands; of the trials on validation with seed "tuned"."""
    safe = re.sub(r"\W+", "-", name)
    return folder / f"{task.key}--{safe}--{n}--{seed}.json"


def measure(task, name, n, seed, setting, split):
    """One run of a method, with how fast this process multiplied before and after it."""
    before = speed()
    found = METHODS[name].run(task, n, seed, setting, pieces(task)[split])
    return found | {"speed": (before + speed()) / 2}


def tune(task, name, folder):
    """The setting that gets most validation rows right (of equals the one of lower loss).

    Where that is the least or the largest number, the next one is tried, too, TRIALS in all.
    """
    method, about = METHODS[name], fingerprint(task, name)
    n = max(n for n, _ in method.cells(task))  # with all its labels, of the first sample
    path = record_of(task, name, n, "tuned", folder)
    record = read(path, about) or {"about": about, "task": task.key, "method": name, "labels": n,
                                   "tried": []}
    while wanted := next_settings(method, task, record["tried"]):
        for setting in wanted:
            found = measure(task, name, n, 0, setting, 1)
            loss = found.get("loss", 0.0)
            record["tried"].append({"setting": setting, "right": float(np.mean(found["hits"])),
                                    "loss": loss if np.isfinite(loss) else 1e9})
        record["setting"] = best_of(record["tried"])
        atomic.write(path, json.dumps(record))
    return record


def best_of(tried):
    """The setting of the best of some trials."""
    return max(tried, key=lambda one: (one["right"], -one["loss"]))["setting"]


def next_settings(method, task, tried):
    """What is to be tried next on validation: a list, empty at the end."""
    if not tried:
        return method.settings(task)
    return method.further(task, tried)


def beyond(tried, step):
    """The number beyond the largest or least of those tried, where that is the best; or nothing."""
    known = [one["setting"] for one in tried]
    if len(known) >= TRIALS:
        return []
    best = best_of(tried)
    return [best * step] if best == max(known) else [best / step] if best == min(known) else []


def run_cell(task, name, n, seed, setting, folder):
    """Measure one cell on the test split and keep its record."""
    found = measure(task, name, n, seed, setting, 2)
    found["hits"] = "".join("1" if hit else "0" for hit in found["hits"])
    record = {"about": fingerprint(task, name), "task": task.key, "method": name, "labels": n,
              "seed": seed, "setting": setting, **found}
    atomic.write(record_of(task, name, n, seed, folder), json.dumps(record))
    return record


def missing(task, name, folder):
    """The cells of a method that have no record yet."""
    about, method = fingerprint(task, name), METHODS[name]
    found = {cell: read(record_of(task, name, *cell, folder), about) for cell in method.cells(task)}
    n = max(n for n, _ in found)
    tuned = read(record_of(task, name, n, "tuned", folder), about)
    ready = tuned and not next_settings(method, task, tuned["tried"])
    return [cell for cell, record in found.items()
            if not ready or not record or record["setting"] != tuned["setting"]]


def work(tasks, folder, until=float("inf")):
    """Measure what is missing, a method at a time, beside other processes that do the same."""
    for task in tasks:
        for name in [name for name, method in METHODS.items() if task.key in method.tasks]:
            lock = filelock.FileLock(record_of(task, name, 0, "lock", folder).with_suffix(".lock"))
            try:
                with lock.acquire(blocking=False):
                    for n, seed in METHODS[name].cells(task):
                        if time.monotonic() > until:
                            return
                        if (n, seed) not in missing(task, name, folder):
                            continue
                        setting = tune(task, name, folder)["setting"]
                        if (n, seed) not in missing(task, name, folder):
                            continue  # the trials went on and ended where they were
                        found = run_cell(task, name, n, seed, setting, folder)
                        right = found["hits"].count("1") / len(found["hits"])
                        print(f"{task.key:14}  {name:22}  {n:>4} labels  seed {seed}  "
                              f"{right:.3f} right  {found['seconds']:.0f} s", flush=True)
            except filelock.Timeout:
                continue  # another process has this method


def collect(tasks, folder):
    """All records as one comparison: tasks, trials on validation, and cells."""
    cells, tuned, about = [], [], {}
    for task in tasks:
        base, test = task.base(0), pieces(task)[2]
        about[task.key] = {
            "title": task.title, "metric": task.metric, "model": task.model_name,
            "prompted": task.prompted_name, "labels": task.labels, "updates": task.updates,
            "batch": task.batch, "validation": task.validation, "seeds": SEEDS,
            "data_hash": data_hash(task), "base_bytes": weight_bytes(base),
            "parameters": sum(p.numel() for p in base.net.parameters()),
            "groups": list(test["group"]) if "group" in test.column_names else None,
            "date": time.strftime("%Y-%m-%d"), "versions": versions(),
            "machine": str(hardware.Computed("float32", hardware._cpu_name(),
                                             torch.get_num_threads()))}
        for name in [name for name, method in METHODS.items() if task.key in method.tasks]:
            if missing(task, name, folder):
                continue  # a comparison that was stopped has the methods that were finished
            tuned.append({k: v for k, v in tune(task, name, folder).items() if k != "about"})
            for n, seed in METHODS[name].cells(task):
                record = read(record_of(task, name, n, seed, folder), fingerprint(task, name))
                cells.append({k: round(v, 4) if isinstance(v, float) else v
                              for k, v in record.items() if k != "about"})
    return {"tasks": about, "tuned": tuned, "cells": cells}


def with_others(made, stored):
    """A comparison of some tasks, and of the others what is stored: each has its own machine."""
    tasks = {name: made["tasks"].get(name) or stored["tasks"].get(name)
             for name in (task.key for task in TASKS)}
    return {"tasks": {name: about for name, about in tasks.items() if about}} | {
        part: [row for row in stored[part] if row["task"] not in made["tasks"]] + made[part]
        for part in ("tuned", "cells")}


def main():
    parser = argparse.ArgumentParser(prog="compare", description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing later")
    parser.add_argument("--task", choices=[task.key for task in TASKS],
                        help="this one alone; of the other, what is stored stays")
    parser.add_argument("--records", type=Path, default=ROOT / "build" / "compare")
    parser.add_argument("--out", type=Path, default=advise.STORED)
    options = parser.parse_args()
    options.records.mkdir(parents=True, exist_ok=True)
    tasks = [task for task in TASKS if options.task in (None, task.key)]
    if options.workers > 1:
        one = [sys.executable, __file__, "--workers", "1", "--minutes", str(options.minutes),
               "--records", str(options.records), "--out", os.devnull,
               *(["--task", options.task] if options.task else [])]
        started = [subprocess.Popen(one, env=os.environ | {"OMP_NUM_THREADS": "1"})
                   for _ in range(options.workers)]
        if any([process.wait() for process in started]):
            sys.exit("a process failed; what was measured is kept, and the same command goes on")
        torch.set_num_threads(1)  # as all that was measured, for what is said of the machine
    else:
        work(tasks, options.records, time.monotonic() + 60 * options.minutes)
    if str(options.out) == os.devnull:
        return
    made = collect(tasks, options.records)
    if options.task:
        made = with_others(made, json.loads(advise.STORED.read_text(encoding="utf-8")))
    atomic.write(options.out, json.dumps(made, indent=0) + "\n")
    left = sum(len(missing(task, name, options.records)) for task in tasks
               for name, method in METHODS.items() if task.key in method.tasks)
    print(f"wrote {options.out}")
    if left:
        sys.exit(f"{left} cells are left out; the same command goes on with them")


if __name__ == "__main__":
    main()
