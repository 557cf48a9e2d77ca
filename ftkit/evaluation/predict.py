"""What a model says to texts that have no labels."""

import re

import numpy as np
import torch
from datasets import Dataset

from ftkit.data.templates import as_prompt_and_response
from ftkit.errors import DataError, SettingError
from ftkit.evaluation import generation
from ftkit.speed import feature_cache
from ftkit.tasks import multiple_choice
from ftkit.tasks.batching import Collator, by_length, encode
from ftkit.tasks.encode import columns_of

BATCH = 32
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # "Ada's" is one, a comma is one
# Of each task: the column a plain text stands for, and a row as it may be given instead.
COLUMNS = {
    "classification": ("text", '"a text", or ("a text", "its pair")'),
    "regression": ("text", '"a text", or ("a text", "its pair")'),
    "tagging": ("tokens", '"a text", or ["its", "words"]'),
    "choice": ("question", '{"question": "…", "choices": ["…", "…"]}'),
    "causal-lm": ("prompt", '"a prompt", or {"messages": […]}, {"instruction": "…"}'),
    "seq2seq-lm": ("source", '"a text", or {"source": "…"}'),
    "masked-lm": ("text", '"a text with one {mask} in it"'),
}
_RIGHT = (
    "label", "tags", "answer", "response", "output", "target", "answers", "chosen", "rejected",
)


def predict(model, texts, *, max_length=None, max_new_tokens=32, stop=None, top=5):
    """What a model says to texts, without labels to compare with.

    model: of load_model or run.model. texts: one or a list of them, or a Dataset, whose labels are
    not looked at. A text is a string; (text, text_pair); a list of words for tagging; or a dict
    with the task's columns, such as {"question": …, "choices": […]}. A string for a decoder is
    continued as it is; {"messages": […]} and {"instruction": …} go through the template, as in
    training.
    max_length: tokens. max_new_tokens and stop: as in generate. top: words for each mask.
    Returns for one text a dict, for several a list of dicts: "label", its "probability", and
    "probabilities" by label (classification) or by choice (choice); "value" (regression); "words",
    "tags" and "entities", pairs of type and text (tagging); "text" (what a language model writes);
    "words" with their probability, a list for each mask (masked-lm).
    Raises SettingError for a model without a head, DataError, naming the row, for what is no text.
    """
    if model.task not in COLUMNS:
        raise SettingError(
            f"{model.name} was loaded for {model.task!r} and has no head to answer with; load it "
            'with task="classification" or another, and train it.'
        )
    single = isinstance(texts, str | dict | tuple)
    rows = _rows([texts] if single else texts, model)
    if model.task in ("causal-lm", "seq2seq-lm"):
        chat = model.task == "causal-lm"
        prompts, _ = as_prompt_and_response(rows, model.tokenizer, chat=chat)
        said = generation.generate(model, prompts, max_new_tokens=max_new_tokens, stop=stop)
        found = [{"text": text.strip()} for text in said]
    else:
        encoded = encode(rows, model, max_length=max_length)
        found = _SAID[model.task](model, rows, encoded, _logits(model, encoded), top)
    return found[0] if single else found


def _rows(texts, model):
    """The texts as a Dataset with the columns that the task reads."""
    if hasattr(texts, "column_names"):
        columns_of(texts)
        texts = texts.remove_columns([c for c in _RIGHT if c in texts.column_names])
        return _with_answers(texts.to_list(), model)
    column, form = COLUMNS[model.task]
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
    if model.task in ("causal-lm", "seq2seq-lm"):
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
def _logits(model, encoded):
    """The logits of each row, in the weights' own precision, as numpy arrays."""
    collate, found = Collator(model), [None] * len(encoded)
    training = model.net.training
    model.net.eval()
    try:
        with feature_cache.trunk(model.net, wanted=feature_cache.suits(model.task)):
            for index in by_length(encoded, BATCH):
                batch = collate([encoded[i] for i in index])
                if model.task == "masked-lm":  # the masks are those of the text
                    batch = collate.ids([encoded[i]["input_ids"] for i in index])
                batch = {k: v.to(model.device) for k, v in batch.items()}
                batch.pop("labels", None)
                logits = (multiple_choice.choice_logits(model.net, batch) if model.task == "choice"
                          else model.net(**batch).logits)
                for i, row in zip(index, logits.float().cpu().numpy(), strict=True):
                    found[i] = row
    finally:
        model.net.train(training)
    return found


def _shares(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def _chosen(names, logits, key):
    """The likeliest of several names, with the probability of each."""
    shares = _shares(logits[: len(names)]).tolist()
    best = int(np.argmax(shares))
    return {key: names[best], "probability": shares[best],
            "probabilities": dict(zip(names, shares, strict=True))}


def _classes(model, rows, encoded, logits, top):
    return [_chosen(list(map(str, model.labels)), row, "label") for row in logits]


def _values(model, rows, encoded, logits, top):
    return [{"value": float(row[0])} for row in logits]


def _choices(model, rows, encoded, logits, top):
    return [_chosen(names, row, "choice")
            for names, row in zip(rows["choices"], logits, strict=True)]


def _tags(model, rows, encoded, logits, top):
    """A tag for each word; O, where the model has it, for words that the limit cut off."""
    from ftkit.tasks.tagging import entities

    unread = "O" if "O" in model.labels else model.labels[0]
    found = []
    for words, row, scores in zip(rows["tokens"], encoded.rows, logits, strict=True):
        tags = [unread] * len(words)
        for place, word in row["words"]:
            tags[word] = model.labels[int(scores[place].argmax())]
        named = [(kind, " ".join(words[a:b])) for kind, a, b in entities(tags)]
        found.append({"words": words, "tags": tags, "entities": named})
    return found


def _fillings(model, rows, encoded, logits, top):
    """The likeliest words in the place of each mask."""
    mask, found = model.tokenizer.mask_token_id, []
    for i, (row, scores) in enumerate(zip(encoded.rows, logits, strict=True)):
        places = [place for place, token in enumerate(row["input_ids"]) if token == mask]
        if not places:
            raise DataError(f"text {i} has no {model.tokenizer.mask_token} to fill.")
        shares = _shares(scores[places])
        best = np.argsort(-shares, axis=1)[:, :top]
        found.append({"words": [
            [(model.tokenizer.decode([int(token)]).strip(), float(own[token])) for token in tokens]
            for own, tokens in zip(shares, best, strict=True)
        ]})
    return found


_SAID = {"classification": _classes, "regression": _values, "tagging": _tags, "choice": _choices,
         "masked-lm": _fillings}
