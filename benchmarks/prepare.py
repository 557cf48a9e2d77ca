"""Write what a work needs into a folder, so that all contenders read the same tokens.

    python benchmarks/prepare.py WORK FOLDER
"""

import json
import random
import sys
from pathlib import Path

from worker import WARM

import ftkit as ft

DECODER, ENCODER = "smollm2-135m-instruct", "minilm-l6"
# The sizes are such that all works take less than an hour on 2 cores without bf16. Batches count
# examples; the rate is the same for everyone, and falls linearly. Rates and epochs of the works
# that classify were chosen by the loss on validation rows (tune.py).
PAIRS = {"data": "phenotype-definitions", "options": {"form": "choice"}, "model": DECODER,
         "kind": "causal", "train": 32, "test": 24, "batch": 8, "epochs": 1}
REVIEWS = {"data": "rotten-tomatoes", "options": {}, "model": ENCODER, "kind": "classes",
           "test": 200, "batch": 16}
SCORE = {"data": "boolq", "options": {}, "model": DECODER, "kind": "causal",
         "shots": 8, "questions": 120, "answers": [" yes", " no"]}
WORKS = {
    "full": PAIRS | {"rate": 1e-4},
    "lora": PAIRS | {"rate": 1e-3, "rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]},
    "classify": REVIEWS | {"train": 320, "epochs": 3, "rate": 1e-4},
    "top": REVIEWS | {"train": 320, "epochs": 5, "rate": 2e-4, "depth": 1},
    "head": REVIEWS | {"train": 320, "epochs": 10, "rate": 3e-4, "depth": 0},
    "sweep": REVIEWS | {"train": 128, "test": 128, "epochs": 2, "trials": 20},
    "optimizations-decoder": PAIRS | {"rate": 1e-4},
    "optimizations-encoder": REVIEWS | {"train": 320, "epochs": 3, "rate": 1e-4},
    "optimizations-frozen": REVIEWS | {"train": 160, "epochs": 6, "rate": 1e-3, "depth": 0},
    "optimizations-score": SCORE | {"questions": 40},
    "score": SCORE,
}


def prepare(name, folder):
    """Write work.json for one of WORKS into a folder. Returns what it says."""
    from common import constant_loss

    from ftkit.assets import catalog, fetch
    from ftkit.tasks.batching import encode

    work = dict(WORKS[name])
    work["name"] = work["model"]
    work["model"] = str(fetch.model_folder(catalog.find(work["name"])))
    if "shots" in work:
        work |= questions(work)
    else:
        data = ft.load_data(work["data"], n_train=work["train"], n_test=work["test"], seed=0,
                            **work["options"])
        labels = data.labels
        if work["kind"] == "causal":
            data = data.map(pair, remove_columns=data["train"].column_names)
        task = "classification" if work["kind"] == "classes" else "causal-lm"
        model = ft.load_model(work["name"], task=task, labels=labels)
        work |= {"pad": model.tokenizer.pad_token_id, "task": task, "labels": labels,
                 "texts": {part: list(data[part]) for part in ("train", "test")}}
        for part in ("train", "test"):
            rows = encode(data[part], model)
            work[part] = [{k: row[k] for k in ("input_ids", "labels")} for row in rows.rows]
        work["constant"] = constant_loss(work["test"])
    if name == "sweep":
        draw = random.Random(0)
        work["trials"] = [{"depth": draw.randint(0, 1), "rate": 10 ** draw.uniform(-4, -2)}
                          for _ in range(work["trials"])]
    for target, content in ((Path(folder), work), (Path(folder) / WARM, a_little_of(work))):
        target.mkdir(parents=True, exist_ok=True)
        (target / "work.json").write_text(json.dumps(content))
    return work


def a_little_of(work):
    """The same work with a batch of rows, one epoch, two questions and one trial."""
    few = {"train": 2 * work.get("batch", 0), "test": 8, "prompts": 2, "right": 2, "trials": 1}
    little = {key: value[: few[key]] if key in few else value for key, value in work.items()}
    if "texts" in work:
        little["texts"] = {part: rows[: few[part]] for part, rows in work["texts"].items()}
    return little | ({"epochs": 1} if "epochs" in work else {})


def pair(row):
    """A term's question and its definition, from a row that asks for the term among others."""
    return {"prompt": f"What is {row['choices'][row['answer']]}?\n", "response": row["question"]}


def questions(work):
    """Prompts of eight solved questions and an open one: yes or no, from what the model knows."""
    data = ft.load_data(work["data"], n_train=work["shots"], n_test=work["questions"], seed=0)
    names = [" no", " yes"]
    shown = [(row["text"], names[row["label"]].strip()) for row in data["train"]]
    return {"prompts": [ft.few_shot(shown, row["text"]) for row in data["test"]],
            "right": [work["answers"].index(names[row["label"]]) for row in data["test"]]}


if __name__ == "__main__":
    prepare(*sys.argv[1:])
