"""Evaluate a model on held-out data: metrics with intervals, and what each example contributed."""

from dataclasses import dataclass, field

import numpy as np
import torch

from ftkit import cache, evidence, losses
from ftkit.batching import Collator, by_length, encode
from ftkit.errors import DataError, SettingError
from ftkit.hardware import choose_dtype, this_machine
from ftkit.methods.prompt import learned_tokens

BATCH = 32
BINS = 10  # of the calibration error


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


@dataclass
class Evaluation:
    """What a model did on held-out data.

    ev["accuracy"] is an Estimate with its 95% interval; ev.metrics has them all.
    predictions, references: arrays of shape (n,). probabilities: (n, classes) or None. texts:
    generated answers or None. dataset: the examples, in the same order.
    """

    parts: dict
    predictions: np.ndarray | None = None
    references: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    texts: list | None = None
    labels: list | None = None
    dataset: object = None
    groups: list | None = None
    seed: int = 0
    _found: dict = field(default_factory=dict, repr=False)
    _counts: object = field(default=None, repr=False)

    def __len__(self):
        return len(next(iter(self.parts.values())).parts)

    def __getitem__(self, metric):
        if metric not in self.parts:
            raise SettingError(
                f"metric {metric!r} was not measured; choose one of {', '.join(self.parts)}."
            )
        if metric not in self._found:
            self._found[metric] = self._estimate(self.parts[metric])
        return self._found[metric]

    def _estimate(self, metric):
        if self._counts is None:
            self._counts = evidence.resample_counts(self.groups, len(self), seed=self.seed)
        numbers, counts = self._counts
        sums = np.zeros((counts.shape[1], metric.parts.shape[1]))
        np.add.at(sums, numbers, metric.parts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return evidence.interval(metric.finish(sums.sum(0)), metric.finish(counts @ sums))

    @property
    def metrics(self):
        """Every metric's Estimate, by name."""
        return {name: self[name] for name in self.parts}

    def per_example(self, metric):
        """Each example's own value of a metric, shape (n,); None where it has no meaning alone."""
        self[metric]
        return self.parts[metric].single

    def same_examples(self, other):
        """Whether two evaluations are of the same examples in the same order."""
        if len(self) != len(other):
            return False
        one, two = (getattr(e.dataset, "_fingerprint", None) for e in (self, other))
        if one is not None and one == two:
            return True
        if self.references is not None and other.references is not None:
            return bool(np.array_equal(self.references, other.references))
        return one is None or two is None

    def confusion(self):
        """Counts of (reference, prediction), shape (classes, classes)."""
        from sklearn.metrics import confusion_matrix

        if self.predictions is None or self.labels is None:
            raise SettingError(
                "a confusion matrix needs predicted classes; this evaluation has none."
            )
        return confusion_matrix(self.references, self.predictions, labels=range(len(self.labels)))

    def __repr__(self):
        rows = "\n".join(f"{name:>18}  {value}" for name, value in self.metrics.items())
        return f"{len(self)} examples, 95% intervals\n{rows}"

    def _repr_html_(self):
        rows = "".join(
            f"<tr><td style='text-align:left'>{n}</td><td>{v.value:.3f}</td>"
            f"<td>{v.low:.3f} to {v.high:.3f}</td></tr>"
            for n, v in self.metrics.items()
        )
        return (
            f"<table><tr><th style='text-align:left'>metric</th><th>value</th>"
            f"<th>95% interval</th></tr>{rows}</table><p>{len(self)} examples</p>"
        )


def evaluate(
    model,
    dataset,
    *,
    batch_size=None,
    max_length=None,
    generate=False,
    max_new_tokens=32,
    stop=None,
    loss_on="response",
    trunk_cache=True,
):
    """Measure a model on a held-out split.

    model: of load_model or run.model. dataset: one split with the task's columns. By task:
    classification gives accuracy, macro_f1, f1_<label>, loss, calibration_error; tagging accuracy
    over words; choice accuracy and loss; regression rmse, mae, pearson; language models
    loss (nats a token) and perplexity; generate=True adds exact_match and chrf of greedy answers.
    batch_size: examples run side by side. max_length: tokens. trunk_cache: run the blocks below
    the lowest trainable one once for each text, also over several evaluations (cache.py).
    Returns an Evaluation. Where the data has a column `group`, intervals resample whole groups.
    Raises DataError when columns are missing or there are no rows.
    """
    if model.task == "encoder":
        raise SettingError(
            "an encoder without a head has nothing to evaluate; load it with "
            'task="classification", "choice" or another.'
        )
    rows = encode(dataset, model, max_length=max_length, loss_on=loss_on)
    with cache.trunk(model.net, wanted=trunk_cache and model.task == "causal-lm"):
        found = _forward(model, rows, batch_size or BATCH)
    common = {"dataset": dataset, "groups": _groups(dataset)}
    if model.task in ("causal-lm", "masked-lm", "seq2seq-lm"):
        return _language(model, dataset, found, generate, max_new_tokens, stop, common)
    if model.task == "regression":
        references = np.asarray(dataset["label"], dtype=float)
        values = np.concatenate(found["logits"]).ravel()
        return Evaluation(_regression(values, references), values, references, **common)
    if model.task == "tagging":
        return _tags(model, rows, found, common)
    probabilities = _softmax(found["logits"])
    references = np.array([r["labels"] for r in rows.rows if "labels" in r])
    if len(references) != len(rows):
        raise DataError("column 'label' is missing; evaluation compares with the right answers.")
    return from_predictions(
        probabilities.argmax(1),
        references,
        probabilities=probabilities,
        labels=model.labels,
        **common,
    )


def from_predictions(
    predictions,
    references,
    *,
    labels=None,
    probabilities=None,
    dataset=None,
    groups=None,
    texts=None,
):
    """An Evaluation of answers that came from anywhere: a rule, a majority, a prompt.

    predictions, references: class numbers, or strings (then a match counts). labels: class names.
    probabilities: shape (n, classes), adds loss and calibration_error.
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    if len(predictions) != len(references) or not len(references):
        raise DataError(
            f"{len(predictions)} predictions for {len(references)} references; "
            "one is needed for each example, and at least one."
        )
    right = predictions == references
    parts = {"accuracy": mean_metric(right)}
    if labels is not None:
        parts |= _f1(predictions, references, labels)
    if probabilities is not None:
        rows = np.arange(len(references))
        parts["loss"] = mean_metric(-np.log(np.clip(probabilities[rows, references], 1e-12, 1)))
        parts["calibration_error"] = _calibration(probabilities.max(1), right)
    groups = _groups(dataset) if groups is None else groups
    return Evaluation(parts, predictions, references, probabilities, texts, labels, dataset, groups)


def from_scores(name, values, weights=None, *, groups=None, dataset=None):
    """An Evaluation of one number an example; weights (token counts) make it a weighted mean.

    With weights, `values` are the sums over each example, such as its summed loss in nats.
    """
    groups = _groups(dataset) if groups is None else groups
    return Evaluation({name: mean_metric(values, weights)}, dataset=dataset, groups=groups)


def _groups(dataset):
    names = getattr(dataset, "column_names", None) or []
    return list(dataset["group"]) if "group" in names else None


@torch.inference_mode()
def _forward(model, rows, batch_size):
    """Logits of each example, or for language models its summed loss and number of tokens."""
    collate = Collator(model)
    keep = model.net.training
    model.net.eval()
    out = {"logits": [None] * len(rows), "nll": np.zeros(len(rows)), "tokens": np.zeros(len(rows))}
    bf16 = choose_dtype(this_machine()).value
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(bf16)
    device = this_machine().device
    for index in by_length(rows, batch_size):
        batch = {k: v.to(model.device) for k, v in collate([rows[i] for i in index]).items()}
        with torch.autocast(device, dtype=kind, enabled=kind is not None):
            _run(model, batch, index, out)
    model.net.train(keep)
    return out


def _run(model, batch, index, out):
    if model.task in ("causal-lm", "masked-lm", "seq2seq-lm"):
        values, members = _token_losses(model, batch)
        members = members.cpu().numpy()
        np.add.at(out["nll"], np.asarray(index)[members], values.float().cpu().numpy())
        np.add.at(out["tokens"], np.asarray(index)[members], 1)
        return
    batch.pop("labels", None)
    logits = (
        losses.choice_logits(model.net, batch)
        if model.task == "choice"
        else model.net(**batch).logits
    )
    for i, row in zip(index, logits.float().cpu().numpy(), strict=True):
        out["logits"][i] = row


def _token_losses(model, batch):
    labels = batch.pop("labels")
    if model.task == "causal-lm" and losses.scores_labels_only(model.net):
        hidden = (
            losses.after_prompt(model.net, **batch)
            if learned_tokens(model.net)
            else losses.backbone(model.net)(**batch, use_cache=False)[0]
        )
        return losses.token_losses(model.net, hidden, labels)
    extra = {"labels": labels} if model.task == "seq2seq-lm" else {}
    logits = model.net(**batch, **extra).logits
    if model.task == "causal-lm":
        logits, labels = logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:]
    rows, columns = (labels != losses.IGNORED).nonzero(as_tuple=True)
    picked = logits[rows, columns].float()
    return torch.nn.functional.cross_entropy(picked, labels[rows, columns], reduction="none"), rows


def _softmax(logits):
    width = max(map(len, logits))
    full = np.full((len(logits), width), -np.inf)
    for i, row in enumerate(logits):
        full[i, : len(row)] = row
    full -= full.max(1, keepdims=True)
    return np.exp(full) / np.exp(full).sum(1, keepdims=True)


def _language(model, dataset, found, generate, max_new_tokens, stop, common):
    nll, tokens = found["nll"], found["tokens"]
    if not tokens.sum():
        raise DataError(
            "no token carries a loss: every text is shorter than two tokens, or "
            "max_length cut all responses away."
        )
    loss = mean_metric(nll, tokens)
    parts = {
        "loss": loss,
        "perplexity": Metric(loss.parts, lambda s: np.exp(s[..., 0] / s[..., 1]), None),
    }
    texts = references = None
    if generate:
        from ftkit.prompting import as_prompt_and_response
        from ftkit.prompting import generate as write

        prompts, references = as_prompt_and_response(
            dataset, model.tokenizer, chat=model.task == "causal-lm"
        )
        texts = [t.strip() for t in write(model, prompts, max_new_tokens=max_new_tokens, stop=stop)]
        references = np.array([r.strip() for r in references], dtype=object)
        parts["exact_match"] = mean_metric([t == r for t, r in zip(texts, references, strict=True)])
        parts["chrf"] = mean_metric(chrf(texts, references))
    predictions = None if texts is None else np.array(texts, dtype=object)
    return Evaluation(parts, predictions, references, texts=texts, **common)


def chrf(texts, references):
    """Character F-score of each text, 0 to 100 (Popović 2015, by sacrebleu)."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    return [metric.sentence_score(t, [r]).score for t, r in zip(texts, references, strict=True)]


def _regression(values, references):
    error = values - references
    sums = np.stack(
        [np.ones(len(values)), values, references, values**2, references**2, values * references], 1
    )

    def pearson(s):
        n, x, y, xx, yy, xy = np.moveaxis(s, -1, 0)
        return (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2))

    squared = mean_metric(error**2)
    return {
        "rmse": Metric(squared.parts, lambda s: np.sqrt(s[..., 0] / s[..., 1])),
        "mae": mean_metric(abs(error)),
        "pearson": Metric(sums, pearson),
    }


def _tags(model, rows, found, common):
    right, count = [], []
    for row, logits in zip(rows.rows, found["logits"], strict=True):
        labels = np.array(row["labels"])
        kept = labels != losses.IGNORED
        right.append((logits[: len(labels)].argmax(1) == labels)[kept].sum())
        count.append(kept.sum())
    return Evaluation({"accuracy": mean_metric(right, count)}, labels=model.labels, **common)


def _f1(predictions, references, labels):
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


def _calibration(confidence, right):
    """Expected calibration error: the gap of confidence and accuracy, averaged over ten bins."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    inside = bins[:, None] == np.arange(BINS)
    parts = np.concatenate([inside * (confidence - right)[:, None], np.ones((len(right), 1))], 1)
    return Metric(parts, lambda s: abs(s[..., :-1]).sum(-1) / s[..., -1])
