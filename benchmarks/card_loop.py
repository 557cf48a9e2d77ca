"""A training loop by hand at its best: what a person who knows PyTorch well would write."""

import random

import torch
import torch.nn.functional as F
from card_common import DEVICE
from common import IGNORED, padded

POOL = 50  # batches in whose texts similar lengths are looked for


def order(lengths, size, draw):
    """Batches of numbers of texts: of similar length, in a random order."""
    numbers = list(range(len(lengths)))
    draw.shuffle(numbers)
    batches = []
    for start in range(0, len(numbers), POOL * size):
        pool = sorted(numbers[start : start + POOL * size], key=lambda i: lengths[i])
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    draw.shuffle(batches)
    return batches


def loop(net, work, seed, micro, clock, compiled=True):
    """Train `net` on a work. Returns the number of updates.

    bf16 by autocast over float32 weights, fused AdamW, batches of similar length, attention that
    needs no mask (a decoder never looks to the right, where the padding is), logits at labelled
    positions only, and no waiting for the card in a step. compiled: blocks and loss, for any
    length.
    """
    weights = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=work["rate"], weight_decay=0, fused=True)
    steps = -(-len(work["train"]) // work["batch"]) * work["epochs"]
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    draw = random.Random(seed)
    lengths = [len(row["input_ids"]) for row in work["train"]]
    options = {"dynamic": True} | ({"backend": "eager"} if work["tiny"] else {})
    causal = work["kind"] == "causal"
    plain = net.get_base_model() if hasattr(net, "get_base_model") else net
    blocks = next(m for m in plain.modules() if isinstance(m, torch.nn.ModuleList))
    loss_of, uncompiled = _loss_at_labels, list(blocks)
    if compiled:
        loss_of = torch.compile(loss_of, **options)
        for i, block in enumerate(uncompiled):
            blocks[i] = torch.compile(block, **options)
    net.train()
    try:
        for _ in range(work["epochs"]):
            for numbers in order(lengths, work["batch"], draw):
                rows = [work["train"][i] for i in numbers]
                count = _supervised(rows, causal)
                for start in range(0, len(rows), micro):
                    batch = _to_card(padded(rows[start : start + micro], work["pad"]), causal)
                    with torch.autocast(DEVICE, torch.bfloat16):
                        if causal:
                            hidden = plain.model(input_ids=batch["input_ids"],
                                                 use_cache=False).last_hidden_state
                            loss = loss_of(hidden, plain.lm_head.weight, batch["places"],
                                           batch["targets"])
                        else:
                            labels = batch.pop("labels")
                            loss = F.cross_entropy(net(**batch).logits.float(), labels,
                                                   reduction="sum")
                    (loss / count).backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            clock.on_epoch_end()
        clock.on_train_end()
    finally:
        for i, block in enumerate(uncompiled):  # the judge reads the plain network
            blocks[i] = block
    return steps


def _loss_at_labels(hidden, head, places, targets):
    chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, places)
    return F.cross_entropy(F.linear(chosen, head.to(chosen.dtype)).float(), targets,
                           reduction="sum")


def _supervised(rows, causal):
    if not causal:
        return len(rows)
    return sum(label != IGNORED for row in rows for label in row["labels"][1:])


def _to_card(batch, causal):
    """Tensors on the card, copied while it works; of a decoder, where its labels are."""
    if causal:
        targets = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
        places = (targets != IGNORED).nonzero().squeeze(1)
        batch = {"input_ids": batch["input_ids"], "places": places, "targets": targets[places]}
    if DEVICE == "cuda":
        batch = {k: v.pin_memory().to(DEVICE, non_blocking=True) for k, v in batch.items()}
    return batch
