"""What a model says to texts that have no labels."""

import re
from contextlib import contextmanager

import numpy as np
import torch
from datasets import Dataset

from ftkit import tasks
from ftkit.data.templates import as_prompt_and_response
from ftkit.errors import DataError, SettingError
from ftkit.evaluation import generation
from ftkit.models import precision
from ftkit.models.structure import at_rest, inner
from ftkit.models.weights import no_answer
from ftkit.speed import attention, feature_cache, optimizations
from ftkit.tasks.batching import Collator, by_length, encode
from ftkit.tasks.tokens import columns_of

BATCH = 32
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # "Ada's" is one, a comma is one
_RIGHT = (
    "label", "tags", "answer", "response", "output", "target", "answers", "chosen", "rejected",
)


def predict(model, texts, *, max_length=None, max_new_tokens=32, stop=None, top=5, dtype=None,
            disable=()):
    """What a model says to texts, without labels to compare with.

    model: of load_model or run.model. texts: one or a list of them, or a Dataset, whose labels are
    not looked at. A text is a string; (text, text_pair); a list of words for tagging; or a dict
    with the task's columns, such as {"question": …, "choices": […]}. A string for a decoder is
    continued as it is; {"messages": […]} and {"instruction": …} go through the template, as in
    training.
    max_length: tokens. max_new_tokens and stop: as in generate. top: words for each mask. dtype,
    disable: as in evaluate.
    Returns for one text a dict, for several a list of dicts: "label", its "probability", and
    "probabilities" by label (classification) or by choice (choice); "value" (regression); "words",
    "tags" and "entities", pairs of type and text (tagging); "text" (what a language model writes);
    "words" with their probability, a list for each mask (masked-lm).
    Raises SettingError for a model without a head, DataError, naming the row, for what is no text,
    NotANumber where the model's output is NaN, of which a rule would make an answer.
    """
    task = tasks.of(model)
    if task.spec.answer is None:
        raise SettingError(f"{model.name} was loaded for {model.task!r} and has no head to answer "
                           'with; load it with task="classification" or another, and train it.')
    single, disable = isinstance(texts, str | dict | tuple), optimizations.disabled(disable)
    rows = _rows([texts] if single else texts, model)
    if task.spec.writes:
        prompts, _ = as_prompt_and_response(rows, model.tokenizer, chat=task.spec.next_token)
        said = generation.generate(model, prompts, max_new_tokens=max_new_tokens, stop=stop,
                                   dtype=dtype, disable=disable)
        found = [{"text": text.strip()} for text in said]
    else:
        encoded = encode(rows, model, max_length=max_length)
        batches = by_length(encoded, BATCH, sort="group_by_length" not in disable)
        with reading(model, int(encoded.lengths.max()), dtype, disable):
            logits = logits_of(model, encoded, batches)
        for i, row in enumerate(logits):
            if np.isnan(row).any():
                raise no_answer(model, f"the output for text {i}")
        found = task.predictions(model, rows, encoded, logits, top)
    return found[0] if single else found


@contextmanager
def reading(model, length, dtype, disable):
    """While open, a model reads texts of up to so many tokens as evaluate and predict do.

    dtype, disable: as in evaluate. Yields the Computed that says in which numbers.
    """
    wanted = feature_cache.suits(model.spec) and "feature_cache" not in disable
    kernel = attention.chosen(inner(model.net), length, disable)
    backbone = feature_cache.frozen_features(model.net, wanted=wanted)
    with precision.computing(model, dtype) as computed, kernel, backbone:
        yield computed


def _rows(texts, model):
    """The texts as a Dataset with the columns that the task reads."""
    if hasattr(texts, "column_names"):
        columns_of(texts)
        texts = texts.remove_columns([c for c in _RIGHT if c in texts.column_names])
        return _with_answers(texts.to_list(), model)
    column, form = tasks.of(model).column, tasks.of(model).form
    rows = []
    for i, text in enumerate(texts):
        if isinstance(text, str):
            row = {column: _WORD.findall(text) if column == "tokens" else text}
        elif isinstance(text, tuple) and len(text) == 2 and column == "text":
            row = dict(zip(("text", "text_pair"), text, strict=True))
        elif isinstance(text, list | tuple) and column == "tokens":
            row = {"tokens": list(text)}
        elif isinstance(text, dict):
            row = {key: value for key, value in text.items() if key not in _RIGHT}
        else:
            form = form.replace("{mask}", model.tokenizer.mask_token or "")
            raise DataError(f"text {i} is {text!r:.60}; for {model.task} expected {form}.")
        if isinstance(text, str) and not text.strip():
            raise DataError(f"text {i} is empty. Give at least a word.")
        rows.append(row)
    if not rows:
        raise DataError("there are no texts; give one string or a list of them.")
    if len({tuple(sorted(row)) for row in rows}) > 1:
        raise DataError("the texts have different columns; give all of them in one form.")
    return _with_answers(rows, model)


def _with_answers(rows, model):
    """Rows as a Dataset; where the encoders expect an answer after a prompt, with an empty one."""
    if model.spec.writes:
        fill = {"prompt": ("response", ""), "instruction": ("output", ""), "source": ("target", ""),
                "question": ("answers", [""])}
        ends = [{"role": "assistant", "content": ""}]
        for row in rows:
            for column, (answer, empty) in fill.items():
                if column in row:
                    row[answer] = empty
            if row.get("messages"):  # up to the assistant's last turn, which is asked for
                asked = row["messages"]
                row["messages"] = [*(asked[:-1] if asked[-1]["role"] == "assistant" else asked),
                                   *ends]
            if "text" in row and "prompt" not in row:
                row |= {"prompt": row["text"], "response": ""}
    return Dataset.from_list(rows)


@torch.inference_mode()
def logits_of(model, encoded, batches):
    """What a model answers to each encoded row, a list of arrays. batches: lists of row numbers."""
    collate, found = Collator(model), [None] * len(encoded)
    with at_rest(model.net):
        for index in batches:
            batch = collate.unlabelled([encoded[i] for i in index])
            batch = {k: v.to(model.device) for k, v in batch.items()}
            logits = tasks.of(model).logits(model.net, batch)
            for i, row in zip(index, logits.float().cpu().numpy(), strict=True):
                found[i] = row
    return found
