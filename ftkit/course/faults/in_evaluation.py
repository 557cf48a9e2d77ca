"""Faults of what comes after the training: metrics, intervals, precision, caches, saving."""

from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch
from uuid import uuid4

import numpy as np
import peft
import torch

from ftkit.course.faults.in_training import head_weights
from ftkit.course.faults.registry import CLASSES, TEXTS, plants
from ftkit.evaluation import evaluate, metrics
from ftkit.models import precision
from ftkit.models.model import Model
from ftkit.speed import feature_cache


@plants("mean of means", check="tokens count alike", tasks=(TEXTS,),
        symptom="a loss and a perplexity that no other program finds",
        mend="sum the loss over all tokens and divide once")
def mean_of_means():
    original = metrics.loss_metrics

    def changed(nll, tokens):
        some = np.maximum(tokens, 1)
        return original(nll / some, (tokens > 0).astype(float))

    return patch.object(metrics, "loss_metrics", changed)


@plants("dropout in evaluation", check="evaluation repeats itself", tasks=(CLASSES,),
        symptom="a worse number, and another one each time",
        mend="net.eval() before, net.train() behind; evaluate twice")
def dropout_in_evaluation():
    original = evaluate._forward

    def forward(model, *args):
        model.net.eval = model.net.train
        try:
            return original(model, *args)
        finally:
            del model.net.eval
            model.net.eval()

    return patch.object(evaluate, "_forward", forward)


@plants("other precision", check="evaluated in the weights' precision",
        symptom="a difference in the third digit, which is mistaken for progress",
        mend="compare in one precision, and write it beside the number")
def other_precision():
    original = precision.computing

    def computing(model, dtype=None):
        half = "bf16" if precision.own(model.net) == "float32" else None
        return original(model, dtype or half)

    return patch.object(precision, "computing", computing)


@plants("absent classes counted", check="right answers score 1", tasks=(CLASSES,),
        symptom="a macro F1 that cannot reach 1 on a small test set",
        mend="leave out classes that neither the labels nor the predictions have, and name them")
def absent_classes_counted():
    original = metrics.class_metrics

    def changed(predictions, references, labels):
        parts = original(predictions, references, labels)

        def macro(sums):
            found = metrics.f1(*np.split(sums, 3, axis=-1))
            return np.nan_to_num(found).mean(-1)

        return parts | {"macro_f1": replace(parts["macro_f1"], finish=macro)}

    return patch.object(metrics, "class_metrics", changed)


@plants("groups ignored", check="intervals know the groups",
        symptom="narrow intervals, and results that do not repeat on other films or customers",
        mend="resample whole groups: keep the column `group`")
def groups_ignored():
    return patch.object(evaluate, "_groups", lambda dataset: None)


@plants(
    "stale cache", check="caches are fresh",
    symptom="a changed model that gives the numbers of the old one",
    mend="make the cache's key of all that decides the result: weights, text, settings, versions",
)
def stale_cache():
    """The key of the cache of frozen blocks says nothing of their weights."""
    return _stale()


@contextmanager
def _stale():
    key = f"fault-{uuid4().hex}"  # of this block alone, so that nobody reads it later
    with (
        patch.object(feature_cache, "_fingerprint", lambda *parts: key),
        patch.object(feature_cache, "LONG", float("inf")),  # and no file is written
    ):
        try:
            yield
        finally:
            feature_cache._kept.pop(key, None)
            feature_cache._stores.pop(key, None)


@plants("head not saved", check="loaded as saved", tasks=(CLASSES,),
        symptom="good in the notebook, and at chance level after it was loaded again",
        mend="load it in a fresh process and compare its answers before the notebook is closed")
def head_not_saved():
    """What is loaded has a new head, as the library makes one where a file has none."""
    original = Model.save

    def save(self, folder):
        copy = self.copy()
        with torch.no_grad():
            for weight in head_weights(copy.net):
                weight.normal_(0, 0.02)
        return original(copy, folder)

    return patch.object(Model, "save", save)


@plants("merged at another scale", check="merged as trained",
        symptom="good with the adapter beside the base, weaker when it is merged",
        mend="compare logits before and after merging; merge in float32")
def merged_at_another_scale():
    """The difference is added without its factor, alpha / rank."""
    original = peft.tuners.lora.Linear.get_delta_weight

    def delta(self, adapter):
        return original(self, adapter) / self.scaling[adapter]

    return patch.object(peft.tuners.lora.Linear, "get_delta_weight", delta)


@plants("reward for length", check="the reward cannot be cheated", tasks=(TEXTS,),
        symptom="a reward that rises and answers that become longer and worse",
        mend="give the reward what a cheat would write; read the best-paid answers")
def reward_for_length():
    """ROUGE-L as recall alone: whoever writes every word gets all of it."""
    original = metrics._longest_common

    def common(one, two):
        # The score is 2 x common / (both lengths). With this in its place it is common / len(two).
        return original(one, two) * (len(one) + len(two)) / (2 * max(1, len(two)))

    return patch.object(metrics, "_longest_common", common)
