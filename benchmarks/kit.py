"""The kit's own way through each work, and a loop by hand that uses the same optimizations."""

import numpy as np
import torch
from common import load, matrix_peak, result, train_by_hand
from datasets import Dataset
from worker import timed

import ftkit as ft
from ftkit.speed import attention, feature_cache
from ftkit.speed.allocator import keep_freed_memory
from ftkit.speed.dropout import fast_dropout
from ftkit.speed.logits_to_keep import LogitsToKeep
from ftkit.tasks import batching


def _begin(folder, seed):
    """The work, its model and its training data; nothing is left from an earlier round."""
    feature_cache.clear()
    work = load(folder)
    model = ft.load_model(work["name"], task=work["task"], labels=work["labels"], seed=seed)
    return work, model, Dataset.from_list(work["texts"]["train"])


def _fit(folder, seed, disable=(), *, method=None, share=False):
    work, model, data = _begin(folder, seed)
    with timed() as found:
        run = ft.fit(model, data, method=method and method(work), epochs=work["epochs"],
                     learning_rate=work["rate"], batch_size=work["batch"], warmup=0, seed=seed,
                     disable=disable, quiet=True)
    precision = run.plan.dtype
    more = _share_of_peak(work, run.model.net, found, precision) if share else {}
    return result(work, found, run.model.net, precision=precision, **more)


def _share_of_peak(work, net, found, precision):
    """The products that a training step of these texts must do, over the measured peak.

    Three products a weight and token (forward, and two backward); the head at labelled positions.
    """
    body = sum(p.numel() for p in net.model.layers.parameters() if p.dim() == 2)
    tokens = sum(len(row["input_ids"]) for row in work["train"])
    labelled = sum(sum(i >= 0 for i in row["labels"][1:]) for row in work["train"])
    operations = 6 * work["epochs"] * (body * tokens + net.lm_head.weight.numel() * labelled)
    peak = matrix_peak(precision)
    return {"share_of_peak": operations / found.seconds / peak, "peak": peak}


def full(folder, seed, disable=()):
    return _fit(folder, seed, disable, share=True)


def classify(folder, seed, disable=()):
    return _fit(folder, seed, disable)


def lora(folder, seed, disable=()):
    return _fit(folder, seed, disable, method=lambda work: ft.LoRA(
        rank=work["rank"], alpha=work["alpha"], target_modules=tuple(work["targets"])))


def frozen(folder, seed, disable=()):
    return _fit(folder, seed, disable, method=lambda work: ft.Freeze(unfreeze_last=work["depth"]))


def loop(folder, seed):
    """Full fine-tuning by hand with the kit's parts: what `fit` adds to it is its overhead."""
    work, model, data = _begin(folder, seed)
    with timed() as found:
        torch.manual_seed(seed)
        net = model.copy().net
        net.set_attn_implementation(attention.best(net.config, "eager"))
        rows = batching.encode(data, model)
        collate, size = LogitsToKeep(batching.Collator(model, seed), net), work["batch"]
        sampler = batching.LengthGroupedSampler(rows.lengths, size, seed)

        def batches():
            order = list(sampler)
            for start in range(0, len(order), size):
                yield collate([rows[i] for i in order[start : start + size]])

        with fast_dropout(True), keep_freed_memory():
            train_by_hand(net, work, batches)
    return result(work, found, net, precision="float32")


def score(folder, seed, apart=False):
    """All prompts in one call, or each in a call of its own, which can share no beginning."""
    feature_cache.clear()
    work = load(folder)
    model = ft.load_model(work["name"])
    calls = [[prompt] for prompt in work["prompts"]] if apart else [work["prompts"]]
    with timed() as found:
        scores = np.concatenate([ft.log_likelihood(model, call, work["answers"]) for call in calls])
    right = float((scores.argmax(1) == np.array(work["right"])).mean())
    return {"seconds": found.seconds, "peak_memory": found.peak_memory, "loss": None,
            "accuracy": right, "scores": scores[:20].tolist(), "precision": "float32"}


def sweep(folder, seed):
    work, model, data = _begin(folder, seed)
    test = Dataset.from_list(work["texts"]["test"])
    found_losses, precisions = [], set()
    with timed() as found:
        for trial in work["trials"]:
            run = ft.fit(
                model,
                data,
                method=ft.Freeze(unfreeze_last=trial["depth"]),
                epochs=work["epochs"],
                learning_rate=trial["rate"],
                batch_size=work["batch"],
                warmup=0,
                seed=seed,
                quiet=True,
            )
            found_losses.append(ft.evaluate(run.model, test)["loss"].value)
            precisions.add(run.plan.dtype)
    return {"seconds": found.seconds, "peak_memory": found.peak_memory, "loss": min(found_losses),
            "precision": " and ".join(sorted(precisions))}
