"""Evaluate a model on held-out data: metrics with intervals, and what each example contributed."""

import html
from dataclasses import dataclass, field

import numpy as np
import torch

from ftkit import compat, tasks
from ftkit.data.templates import as_prompt_and_response
from ftkit.errors import DataError, SettingError
from ftkit.evaluation import generation, metrics, resampling
from ftkit.evaluation.predict import logits_of, reading
from ftkit.models import structure
from ftkit.models.hardware import Computed, this_machine
from ftkit.speed import optimizations
from ftkit.speed.logits_to_keep import next_token_losses
from ftkit.tasks.batching import Collator, by_length, encode
from ftkit.tasks.tagging import words_tags

BATCH = 32
TOKENS = 512  # of a batch on a CPU: what more need, its own memory does not hold
LOGITS = 1 << 28  # numbers that a head over a vocabulary makes at a time: a gigabyte in float32


@dataclass
class Evaluation:
    """What a model did on held-out data.

    ev["accuracy"] is an Estimate with its 95% interval; ev.metrics has them all.
    predictions, references: arrays of shape (n,) of class numbers, values, texts or lists of tags.
    probabilities: (n, classes) or None. texts: generated answers or None. dataset: the examples,
    in the same order. computed: in which numbers, on what; None of answers from elsewhere.
    undefined: where the model's output was NaN, shape (n,), or None; with one such example every
    metric is NaN, also one that a rule would make of it (the first class).
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
    computed: Computed | None = None
    undefined: np.ndarray | None = None
    _found: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if self.groups is None:
            self.groups = _groups(self.dataset)

    def __len__(self):
        return len(next(iter(self.parts.values())).parts)

    def __getitem__(self, metric):
        if metric not in self.parts:
            known = ", ".join(self.parts)
            raise SettingError(f"metric {metric!r} was not measured; choose one of {known}.")
        if metric not in self._found:
            # All at once: the resamples are drawn anew each time, since they are too many to keep.
            self._found |= resampling.estimates(
                self.parts, self.groups, len(self), seed=self.seed, undefined=self.undefined
            )
        return self._found[metric]

    @property
    def metrics(self):
        """Every metric's Estimate, by name."""
        return {name: self[name] for name in self.parts}

    @property
    def absent(self):
        """The labels that no example has."""
        present = set() if self.labels is None else set(np.asarray(self.references).tolist())
        return [label for i, label in enumerate(self.labels or ()) if i not in present]

    def per_example(self, metric):
        """Each example's own value of a metric, shape (n,); None where it has no meaning alone."""
        self[metric]
        single = self.parts[metric].single
        if single is None or self.undefined is None:
            return single
        return np.where(self.undefined, np.nan, single)

    def same_examples(self, other):
        """Whether two evaluations are of the same examples in the same order."""
        if len(self) != len(other):
            return False
        one, two = (compat.fingerprint(e.dataset) for e in (self, other))
        if one is not None and one == two:
            return True
        if self.references is not None and other.references is not None:
            return bool(np.array_equal(self.references, other.references))
        return one is None or two is None

    def confusion(self):
        """Counts of (reference, prediction), shape (classes, classes)."""
        from sklearn.metrics import confusion_matrix

        if self.predictions is None or self.labels is None:
            raise SettingError("a confusion matrix needs predicted classes; this evaluation has "
                               "none.")
        return confusion_matrix(self.references, self.predictions, labels=range(len(self.labels)))

    def __repr__(self):
        rows = "\n".join(f"{name:>18}  {value}" for name, value in self.metrics.items())
        return f"{'; '.join(resampling.notes(self))}\n{rows}"

    def _repr_html_(self):
        rows = "".join(
            f"<tr><td style='text-align:left'>{html.escape(n)}</td><td>{v.value:.3f}</td>"
            f"<td>{v.low:.3f} to {v.high:.3f}</td></tr>" for n, v in self.metrics.items()
        )
        head = "<tr><th style='text-align:left'>metric</th><th>value</th><th>95% interval</th></tr>"
        return f"<table>{head}{rows}</table><p>{html.escape('; '.join(resampling.notes(self)))}</p>"


def evaluate(model, dataset, *, batch_size=None, max_length=None, generate=False, max_new_tokens=32,
             stop=None, loss_on="response", dtype=None, disable=()):
    """Measure a model on a held-out split.

    model: of load_model or run.model. dataset: one split with the task's columns. By task:
    classification gives accuracy, macro_f1, f1_<label>, loss, calibration_error; tagging accuracy
    over words, and precision, recall, f1 and f1_<type> over entities (seqeval's default); choice
    accuracy and loss; regression rmse, mae, pearson; language models loss (nats a token) and
    perplexity; generate=True adds exact_match, chrf and rouge_l of greedy answers. batch_size:
    examples run side by side. max_length: tokens. dtype: "float32", "bf16" or "fp16" to compute in;
    by default the weights' own, on every machine alike. disable: what to leave off of the things
    that make it fast, names of optimizations.OPTIMIZATIONS: "feature_cache" (blocks below the
    lowest trained one are run once for each text, also over several evaluations),
    "group_by_length", "logits_to_keep" (a decoder's head is applied at labelled positions only),
    "eager_attention", "prefix_caching" (what generate=True asks, and a learned prompt). Returns an
    Evaluation. Where the data has a column `group`, intervals resample whole groups. Where the
    model's output is NaN for any example, every metric is NaN. Raises DataError when columns are
    missing or there are no rows.
    """
    task = tasks.of(model)
    if task.spec.answer is None:
        raise SettingError("an encoder without a head has nothing to evaluate; load it with "
                           'task="classification", "choice" or another.')
    disable = optimizations.disabled(disable)
    rows = encode(dataset, model, max_length=max_length, loss_on=loss_on)
    if task.spec.answer in ("class", "number") and "label" not in dataset.column_names:
        raise DataError("column 'label' is missing; evaluation compares with the right answers.")
    size = batch_size or BATCH * (4 if task.spec.answer == "choice" else 1)
    tokens = TOKENS if this_machine().device == "cpu" else None
    if tokens is None and task.spec.language:
        tokens = LOGITS // model.net.get_input_embeddings().num_embeddings
    batches = by_length(rows, size, tokens, sort="group_by_length" not in disable)
    with reading(model, int(rows.lengths.max()), dtype, disable) as computed:
        found = _forward(model, rows, batches, disable)
    writing = {"max_new_tokens": max_new_tokens, "stop": stop, "dtype": dtype, "disable": disable}
    evaluation = _measure(model, dataset, rows, found, writing if generate else None)
    evaluation.computed = computed
    # NaN, or an infinity that softmax turns into it; a class shut out may have minus infinity.
    undefined = np.isnan(found["nll"]) | [row is not None and not (row < np.inf).all()
                                          for row in found["logits"]]
    evaluation.undefined = undefined if undefined.any() else None
    return evaluation


def _measure(model, dataset, rows, found, writing):
    """The Evaluation of what a forward pass found, by task."""
    if model.spec.language:
        return _language(model, dataset, found, writing)
    if model.spec.answer == "number":
        values = np.nan_to_num(np.concatenate(found["logits"]).ravel(), posinf=0.0)
        return from_values(values, dataset["label"], dataset=dataset)
    if model.spec.answer == "tags":
        said = words_tags(model.labels, rows.rows, found["logits"], dataset["tags"][:])
        return from_tags(said, dataset["tags"][:], dataset=dataset)
    probabilities = metrics.softmax(found["logits"])
    references = np.array([r["labels"] for r in rows.rows])
    return from_predictions(probabilities.argmax(1), references, probabilities=probabilities,
                            labels=model.labels, dataset=dataset)


def from_predictions(predictions, references, *, labels=None, probabilities=None, dataset=None,
                     groups=None, texts=None):
    """An Evaluation of answers that came from anywhere: a rule, a majority, a prompt.

    predictions, references: class numbers, or strings (then a match counts). labels: class names.
    probabilities: shape (n, classes), adds loss and calibration_error. Where predictions or
    probabilities are NaN, every metric is.
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    _need_pairs(predictions, references, "predictions")
    right = predictions == references
    parts = {"accuracy": metrics.mean_metric(right, share=True)}
    wrong = predictions != predictions  # NaN, as of an average of nothing
    if labels is not None:
        parts |= metrics.class_metrics(predictions, references, labels)
    if probabilities is not None:
        rows = np.arange(len(references))
        losses_of = -np.log(np.clip(probabilities[rows, references], 1e-12, 1))
        parts["loss"] = metrics.mean_metric(losses_of, span=metrics.POSITIVE)
        parts["calibration_error"] = metrics.calibration(probabilities.max(1), right)
        wrong = wrong | np.isnan(probabilities).any(1)
    return Evaluation(parts, predictions, references, probabilities, texts, labels, dataset,
                      groups, undefined=wrong if wrong.any() else None)


def from_values(values, references, *, dataset=None, groups=None):
    """An Evaluation of numbers that came from anywhere, such as the mean of the training set.

    values, references: one number an example. Gives rmse, mae and pearson.
    Raises DataError for unequal lengths, and for a value or reference that is no finite number.
    """
    values, references = (np.array([*each], dtype=float) for each in (values, references))
    _need_pairs(values, references, "values")
    for name, found in (("value", values), ("reference", references)):
        if not np.isfinite(found).all():
            i = int(np.flatnonzero(~np.isfinite(found))[0])
            raise DataError(f"{name} {i} is {found[i]}; a finite number was expected.")
    parts = metrics.value_metrics(values, references)
    return Evaluation(parts, values, references, dataset=dataset, groups=groups)


def from_tags(predictions, references, *, dataset=None, groups=None):
    """An Evaluation of tags that came from anywhere: a dictionary, a rule, another library.

    predictions, references: a list of tags for each sentence, of equal lengths. Gives accuracy over
    words and, where all tags are O, B-type or I-type, precision, recall, f1 and f1_<type> over
    entities as seqeval defines them by default.
    """
    said, right = (metrics.object_array(map(list, tags)) for tags in (predictions, references))
    _need_pairs(said, right, "tagged sentences")
    for i, (one, two) in enumerate(zip(said, right, strict=True)):
        if len(one) != len(two):
            raise DataError(f"sentence {i}: {len(one)} tags for {len(two)} words.")
    return Evaluation(metrics.tag_metrics(said, right), said, right, dataset=dataset, groups=groups)


def from_texts(texts, references, *, dataset=None, groups=None):
    """An Evaluation of answers in words, by whomever: exact_match, chrf and rouge_l.

    texts, references: one string an example; white space around them does not count.
    """
    texts, references = ([t.strip() for t in each] for each in (texts, references))
    _need_pairs(texts, references, "texts")
    return Evaluation(metrics.text_metrics(texts, references), metrics.object_array(texts),
                      metrics.object_array(references), texts=texts, dataset=dataset, groups=groups)


def from_scores(name, values, weights=None, *, groups=None, dataset=None):
    """An Evaluation of one number an example; weights (token counts) make it a weighted mean.

    With weights, `values` are the sums over each example, such as its summed loss in nats.
    """
    _need_pairs(values, values if weights is None else weights, "values", "weights")
    return Evaluation({name: metrics.mean_metric(values, weights)}, dataset=dataset, groups=groups)


def _need_pairs(answers, references, what, against="references"):
    if len(answers) != len(references) or not len(references):
        raise DataError(f"{len(answers)} {what} for {len(references)} {against}; one is needed for "
                        "each example, and at least one.")


def _groups(dataset):
    names = getattr(dataset, "column_names", None) or []
    return list(dataset["group"]) if "group" in names else None


@torch.inference_mode()
def _forward(model, rows, batches, disable):
    """Logits of each example, or for language models its summed loss and number of tokens."""
    out = {"logits": [None] * len(rows), "nll": np.zeros(len(rows)), "tokens": np.zeros(len(rows))}
    if not model.spec.language:
        return out | {"logits": logits_of(model, rows, batches)}
    collate = Collator(model)
    with structure.at_rest(model.net):
        for index in batches:
            batch = {k: v.to(model.device) for k, v in collate([rows[i] for i in index]).items()}
            values, members = _token_losses(model, batch, disable)
            places = np.asarray(index)[members.cpu().numpy()]
            np.add.at(out["nll"], places, values.float().cpu().numpy())
            np.add.at(out["tokens"], places, 1)
    return out


def _token_losses(model, batch, disable):
    if model.spec.next_token:
        return next_token_losses(model.net, batch, disable=disable)
    labels = batch.pop("labels")
    extra = {"labels": labels} if model.spec.target else {}
    logits = model.net(**batch, **extra).logits
    rows, columns = (labels != structure.IGNORED).nonzero(as_tuple=True)
    picked = logits[rows, columns].float()
    return torch.nn.functional.cross_entropy(picked, labels[rows, columns], reduction="none"), rows


def _language(model, dataset, found, writing):
    nll, tokens = found["nll"], found["tokens"]
    if not tokens.sum():
        raise DataError("no token carries a loss: every text is shorter than two tokens, or "
                        "max_length cut all responses away.")
    parts = metrics.loss_metrics(nll, tokens)
    if writing is None:
        return Evaluation(parts, dataset=dataset)
    prompts, references = as_prompt_and_response(
        dataset, model.tokenizer, chat=model.spec.next_token
    )
    # Of a model whose losses are NaN every metric will be; there is nothing that it could write.
    lost = np.isnan(nll).any()
    written = [""] * len(prompts) if lost else generation.generate(model, prompts, **writing)
    evaluation = from_texts(written, references, dataset=dataset)
    evaluation.parts = parts | evaluation.parts
    return evaluation
