"""Metrics as sums over examples, so that an interval is one matrix product."""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ftkit.tasks.tagging import spelled

BINS = 10  # of the calibration error
SHARE, POSITIVE = (0, 1), (0, np.inf)  # spans
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Metric:
    """A metric as sums over examples and a finish, so that resampling is a matrix product.

    parts: shape (n, k), each example's share, bool where it is only counted. finish: sums of shape
    (..., k) to values (...).
    single: each example's own value, shape (n,), where that has a meaning. weights: how much each
    example counts, shape (n,), where they differ. span: the least and greatest possible value.
    share: whether it is a share of right answers. terms: of a sum of absolute values, sums to what
    is added, shape (..., t). least: of its terms the least variance, as of absolute.ends.
    """

    parts: np.ndarray
    finish: object
    single: np.ndarray | None = None
    weights: np.ndarray | None = None
    span: tuple = (-np.inf, np.inf)
    share: bool = False
    terms: object = None
    least: object = None


def mean_metric(values, weights=None, *, span=None, share=False):
    """The (weighted) mean of one number an example. span: by default found for 0 and 1 alone."""
    values = np.asarray(values, dtype=float)
    if span is None:
        binary = share or weights is None and np.isin(values, (0, 1)).all()
        span = SHARE if binary else (-np.inf, np.inf)
    weights = None if weights is None else np.asarray(weights, dtype=float)
    counts = np.ones(len(values)) if weights is None else weights
    with np.errstate(invalid="ignore", divide="ignore"):
        single = values / counts
    return Metric(np.stack([values, counts], 1), lambda s: s[..., 0] / s[..., 1], single, weights,
                  span, share)


def loss_metrics(nll, tokens):
    """Loss in nats a token and perplexity, from each text's summed loss and number of tokens."""
    loss = mean_metric(nll, tokens, span=POSITIVE)
    return {"loss": loss,
            "perplexity": Metric(loss.parts, lambda s: np.exp(s[..., 0] / s[..., 1]),
                                 weights=loss.weights, span=(1, np.inf))}


def softmax(logits):
    """Probabilities from a list of rows of logits; shorter rows have 0 at their end."""
    width = max(map(len, logits))
    full = np.full((len(logits), width), -np.inf)
    for i, row in enumerate(logits):
        full[i, : len(row)] = row
    with np.errstate(invalid="ignore"):  # of logits that are NaN or infinite
        full -= full.max(1, keepdims=True)
    return np.exp(full) / np.exp(full).sum(1, keepdims=True)


def object_array(values):
    """An array of shape (n,), also of lists that are all of one length."""
    values = list(values)
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def f1(hit, guessed, real):
    """F1 from counts; NaN where there is nothing to find and nothing was said."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * hit / (guessed + real)


def class_metrics(predictions, references, labels):
    """Macro and per-class F1, from counts of true positives, predictions and references.

    A class that neither side has is left out of the mean (its own F1 is NaN), in each resample as
    well, as in scikit-learn without labels=: a missing example is no wrong answer.
    """
    classes = np.arange(len(labels))
    guessed, real = predictions[:, None] == classes, references[:, None] == classes
    parts = np.concatenate([guessed & real, guessed, real], 1)

    def each(sums):
        return f1(*np.split(sums, 3, axis=-1))

    def macro(sums):
        found = each(sums)
        occur = np.isfinite(found)
        return np.where(occur, found, 0).sum(-1) / np.maximum(occur.sum(-1), 1)

    def one(column):
        return lambda sums: each(sums)[..., column]

    return {"macro_f1": Metric(parts, macro, span=SHARE),
            **{f"f1_{label}": Metric(parts, one(i), span=SHARE) for i, label in enumerate(labels)}}


def calibration(confidence, right):
    """Expected calibration error: the gap of confidence and accuracy, averaged over ten bins.

    Source: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning".
    Its interval (see absolute.ends) contains its value. In simulations (300 data sets of each of
    three to eight kinds; tests/evaluation/test_metrics.py has some) it contained the truth in 95 to
    99 of 100 cases with 100 single rows, in 93 to 99 with 5 to 100 groups.
    """
    n = len(right)
    bins = np.minimum((np.nan_to_num(confidence) * BINS).astype(int), BINS - 1)
    inside = bins[:, None] == np.arange(BINS)
    parts = np.concatenate([inside * (confidence - right)[:, None], np.ones((n, 1))], 1)
    count, some = inside.sum(0), np.maximum(inside.sum(0), 1)
    sure = (inside * np.asarray(confidence)[:, None]).sum(0) / some

    def gaps(sums):
        return sums[..., :-1] / sums[..., -1:]

    def least(gaps):
        """Of answers as often right as these gaps say, and one more that is as its confidence."""
        accuracy = np.clip(sure - gaps * n / some, 0, 1)
        accuracy = (accuracy * count + sure) / (count + 1)
        accuracy = np.clip(accuracy, 0.05 / some, 1 - 0.05 / some)  # certainty is never had
        return count * accuracy * (1 - accuracy) / n**2

    return Metric(parts, lambda s: abs(gaps(s)).sum(-1), span=SHARE, terms=gaps, least=least)


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
    return {"rmse": Metric(squared.parts, lambda s: np.sqrt(s[..., 0] / s[..., 1]), span=POSITIVE),
            "mae": mean_metric(abs(error), span=POSITIVE),
            "pearson": Metric(sums, pearson, span=(-1, 1))}


def tag_metrics(predictions, references):
    """Accuracy over words; where tags spell entities precision, recall, F1 of these, F1 by type.

    predictions, references: lists of tags, one list a sentence. An entity counts when type, first
    and last word are right, over all sentences together (seqeval's default, micro average). Tags in
    IOBES or BILOU are read as the BIO tags that they stand for.
    """
    pairs = list(zip(predictions, references, strict=True))
    right = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in pairs]
    parts = {"accuracy": mean_metric(right, [len(truth) for truth in references], share=True)}
    found = spelled([*predictions, *references])
    if found is None:
        return parts
    found = list(map(set, found))
    guessed, real = found[: len(pairs)], found[len(pairs) :]
    kinds = sorted({kind for found in (*guessed, *real) for kind, *_ in found})
    counts = np.stack(
        [[[Counter(kind for kind, *_ in found)[kind] for kind in kinds] for found in each]
         for each in ([g & r for g, r in zip(guessed, real, strict=True)], guessed, real)],
        axis=1,
    ).astype(float)  # (sentences, 3, kinds)
    every = counts.sum(-1)

    def ratio(top, *below):
        if not every[:, list(below)].sum():  # seqeval's 0, where there is nothing at all
            return lambda sums: np.zeros(sums.shape[:-1])

        def of(sums):  # NaN of a resample that happens to have none
            with np.errstate(invalid="ignore", divide="ignore"):
                return len(below) * sums[..., top] / sums[..., list(below)].sum(-1)
        return of

    def of_kind(sums):
        return f1(*np.moveaxis(sums, -1, 0))

    return parts | {
        "precision": Metric(every, ratio(0, 1), span=SHARE),
        "recall": Metric(every, ratio(0, 2), span=SHARE),
        "f1": Metric(every, ratio(0, 1, 2), span=SHARE),
        **{f"f1_{k}": Metric(counts[..., i], of_kind, span=SHARE) for i, k in enumerate(kinds)},
    }


def text_metrics(texts, references):
    """Of each answer: whether it is the reference, chrF (0 to 100) and ROUGE-L (0 to 1)."""
    exact = [t == r for t, r in zip(texts, references, strict=True)]
    return {"exact_match": mean_metric(exact, share=True),
            "chrf": mean_metric(chrf(texts, references), span=(0, 100)),
            "rouge_l": mean_metric(rouge_l(texts, references), span=SHARE)}


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
