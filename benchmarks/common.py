"""What all contenders share, with torch and transformers alone: the data, the judge, the peak."""

import json
import math
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F

IGNORED = -100


def load(folder):
    """What prepare.py wrote for a work: settings, and encoded rows of the splits."""
    return json.loads((Path(folder) / "work.json").read_text())


def network(work, **options):
    """A fresh copy of the work's pretrained network, float32, for its task."""
    import transformers

    kinds = {"causal": transformers.AutoModelForCausalLM,
             "classes": transformers.AutoModelForSequenceClassification}
    if work["kind"] == "classes":
        options |= {"num_labels": 2}
    return kinds[work["kind"]].from_pretrained(work["model"], dtype=torch.float32, **options)


def tokenizer(work):
    """The tokenizer of the work's network; one without a padding token pads with its end."""
    import transformers

    found = transformers.AutoTokenizer.from_pretrained(work["model"])
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


def padded(rows, pad_token_id):
    """A batch of tensors, padded on the right to its longest row."""
    width = max(len(row["input_ids"]) for row in rows)
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        ids, gap = row["input_ids"], width - len(row["input_ids"])
        batch["input_ids"].append(ids + [pad_token_id] * gap)
        batch["attention_mask"].append([1] * len(ids) + [0] * gap)
        labels = row["labels"]
        batch["labels"].append(labels + [IGNORED] * gap if isinstance(labels, list) else labels)
    return {name: torch.tensor(values) for name, values in batch.items()}


def train_by_hand(net, work, batches):
    """A plain loop. batches: a function that gives the batches of one epoch, in a new order."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=work["rate"], weight_decay=0, fused=True)
    steps = -(-len(work["train"]) // work["batch"]) * work["epochs"]
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    net.train()
    for _ in range(work["epochs"]):
        for batch in batches():
            net(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


@torch.no_grad()
def held_out_loss(logits_of, rows, pad_token_id):
    """Mean loss on the held-out rows, in nats a labelled token or a text, by the plain library.

    logits_of: a function of a batch; it returns logits (rows, tokens, vocabulary) or (rows, 2).
    """
    total, count = 0.0, 0
    for start in range(0, len(rows), 8):
        batch = padded(rows[start : start + 8], pad_token_id)
        logits, labels = logits_of(batch).float(), batch["labels"]
        if logits.dim() == 3:
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        total += F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED).item()
        count += (labels != IGNORED).sum().item()
    return total / count


def result(work, timed, net=None, *, precision, epochs=None, logits_of=None, **more):
    """What a training is reported as: seconds, memory, useful tokens a second, held-out loss.

    precision: the numbers that it computed in, "float32" or "bf16". The loss is in float32.
    """
    epochs = epochs or work["epochs"]
    tokens = epochs * sum(len(row["input_ids"]) for row in work["train"])
    if net is not None:
        net.eval()

        def logits_of(batch):
            return net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    loss = held_out_loss(logits_of, work["test"], work["pad"])
    return {"seconds": timed.seconds, "peak_memory": timed.peak_memory, "loss": loss,
            "tokens_per_second": tokens / timed.seconds, "precision": precision, **more}


def matrix_peak(precision="float32", size=2048, repeats=6):
    """The best rate of a square product in this process, in operations a second."""
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, best = torch.randn(size, size, dtype=dtype), float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def constant_loss(rows):
    """The loss of the best answer that is the same for all rows, in nats: hindsight frequencies.

    rows: encoded, held out. An answer is a class, or each labelled token of a text.
    """
    labels = [row["labels"][1:] if isinstance(row["labels"], list) else [row["labels"]]
              for row in rows]
    counts = Counter(label for each in labels for label in each if label != IGNORED)
    total = sum(counts.values())
    return -sum(count * math.log(count / total) for count in counts.values()) / total
