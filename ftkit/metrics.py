"""Metrics as sums over examples, so that an interval is one matrix product."""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ftkit.tagging import entities, is_bio

BINS = 10  # of the calibration error
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Metric:
    """A metric as sums over examples and a finish, so that resampling is a matrix product.

    parts: shape (n, k), each example's share. finish: sums of shape (..., k) to values (...).
    single: each example's own value, shape (n,), where that has a meaning.
    """

    parts: np.ndarray
    finish: object
    single: np.ndarray | None = None


def mean_metric(values, weights=None):
    """The (weighted) mean of one number an example."""
    values = np.asarray(values, dtype=float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Metric(
            np.stack([values, weights], 1), lambda s: s[..., 0] / s[..., 1], values / weights
        )


def class_metrics(predictions, references, labels):
    """Macro and per-class F1, from counts of true positives, predictions and references."""
    classes = np.arange(len(labels))
    guessed, real = predictions[:, None] == classes, references[:, None] == classes
    parts = np.concatenate([guessed & real, guessed, real], 1).astype(float)

    def each(sums):
        hit, guess, truth = np.split(sums, 3, axis=-1)
        return 2 * hit / np.maximum(guess + truth, 1e-12)

    def one(column):
        return lambda sums: each(sums)[..., column]

    return {
        "macro_f1": Metric(parts, lambda s: each(s).mean(-1)),
        **{f"f1_{label}": Metric(parts, one(i)) for i, label in enumerate(labels)},
    }


def calibration(confidence, right):
    """Expected calibration error: the gap of confidence and accuracy, averaged over ten bins."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    inside = bins[:, None] == np.arange(BINS)
    parts = np.concatenate([inside * (confidence - right)[:, None], np.ones((len(right), 1))], 1)
    return Metric(parts, lambda s: abs(s[..., :-1]).sum(-1) / s[..., -1])


def value_metrics(values, references):
    """Root of the mean squared error, mean absolute error, Pearson's correlation."""
    error = values - references
    # Centred, so that a constant prediction has no variance at all: its correlation is undefined.
    x, y = values - values.mean(), references - references.mean()
    sums = np.stack([np.ones(len(x)), x, y, x**2, y**2, x * y], 1)

    def pearson(s):
        n, x, y, xx, yy, xy = np.moveaxis(s, -1, 0)
        return (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2))

    squared = mean_metric(error**2)
    return {
        "rmse": Metric(squared.parts, lambda s: np.sqrt(s[..., 0] / s[..., 1])),
        "mae": mean_metric(abs(error)),
        "pearson": Metric(sums, pearson),
    }


def tag_metrics(predictions, references):
    """Accuracy over words; for BIO tags precision, recall and F1 over entities, and F1 by type.

    predictions, references: lists of tags, one list a sentence. An entity counts when type, first
    and last word are right, over all sentences together (seqeval's default, micro average).
    """
    pairs = list(zip(predictions, references, strict=True))
    right = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in pairs]
    parts = {"accuracy": mean_metric(right, [len(truth) for truth in references])}
    if not is_bio({tag for pair in pairs for tags in pair for tag in tags}):
        return parts
    guessed = [set(entities(tags)) for tags in predictions]
    real = [set(entities(tags)) for tags in references]
    kinds = sorted({kind for found in (*guessed, *real) for kind, *_ in found})
    counts = np.stack(
        [
            [[Counter(kind for kind, *_ in found)[kind] for kind in kinds] for found in each]
            for each in ([g & r for g, r in zip(guessed, real, strict=True)], guessed, real)
        ],
        axis=1,
    ).astype(float)  # (sentences, 3, kinds)
    every = counts.sum(-1)

    def ratio(top, *below):
        return lambda s: len(below) * s[..., top] / np.maximum(s[..., list(below)].sum(-1), 1e-12)

    return parts | {
        "precision": Metric(every, ratio(0, 1)),
        "recall": Metric(every, ratio(0, 2)),
        "f1": Metric(every, ratio(0, 1, 2)),
        **{f"f1_{kind}": Metric(counts[..., i], ratio(0, 1, 2)) for i, kind in enumerate(kinds)},
    }


def text_metrics(texts, references):
    """Of each answer: whether it is the reference, chrF (0 to 100) and ROUGE-L (0 to 1)."""
    return {
        "exact_match": mean_metric([t == r for t, r in zip(texts, references, strict=True)]),
        "chrf": mean_metric(chrf(texts, references)),
        "rouge_l": mean_metric(rouge_l(texts, references)),
    }


def chrf(texts, references):
    """Character F-score of each text, 0 to 100 (Popović 2015, by sacrebleu)."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    return [metric.sentence_score(t, [r]).score for t, r in zip(texts, references, strict=True)]


def rouge_l(texts, references):
    """F1 of the longest common subsequence of words, 0 to 1, for each text and its reference.

    Words are runs of letters and digits in lower case, without stemming: on English text the same
    as the package rouge-score. Source: Lin 2004, "ROUGE", section 3.
    """
    values = []
    for text, reference in zip(texts, references, strict=True):
        one, two = (_WORD.findall(t.lower()) for t in (text, reference))
        common = _longest_common(one, two)
        values.append(2 * common / (len(one) + len(two)) if common else 0.0)
    return values


def _longest_common(one, two):
    """Length of the longest common subsequence, a row of the usual table at a time."""
    row = [0] * (len(two) + 1)
    for a in one:
        above = row[:]
        for j, b in enumerate(two, 1):
            row[j] = above[j - 1] + 1 if a == b else max(above[j], row[j - 1])
    return row[-1]
