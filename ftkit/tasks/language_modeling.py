"""Language modeling: the next token, of texts, of prompts with their answers, of conversations."""

import warnings

from ftkit.data.conversations import answer_ends, beginning, begun, conversation_tokens
from ftkit.data.templates import as_prompt_and_response
from ftkit.errors import DataError, DataWarning
from ftkit.models.structure import IGNORED
from ftkit.tasks.base import Task
from ftkit.tasks.tokens import columns_of, need, strings, supervised, tokenized


class LanguageModeling(Task):
    """Columns text; or prompt and response; or messages, of which the assistant's turns count."""

    name = "causal-lm"
    column, form = "prompt", '"a prompt", or {"messages": […]}, {"instruction": "…"}'

    def records(self, wanted, whole):
        return any(w < n for w, n in zip(wanted, whole, strict=True))

    def encode(self, dataset, model, limit, loss_on):
        names = columns_of(dataset)
        if "text" in names and not {"response", "messages"} & set(names):
            need(dataset, "text")
            if "label" in names:
                warnings.warn("the labels are not read: a language model learns the texts alone. "
                              'For the labels load it with task="classification", '
                              "labels=data.labels; to say that the texts are meant, give "
                              'data.select_columns("text").', DataWarning, stacklevel=2)
            texts = strings(dataset, "text", filled=True)
            tokens, whole = tokenized(model, texts, limit)
            rows = [{"input_ids": i, "labels": list(i)}
                    for i in begun(tokens["input_ids"], model.tokenizer)]
            return rows, whole, whole
        if "messages" in names:
            need(dataset, "messages")
            chats = dataset["messages"][:]  # row by row, datasets takes longer than all else
            found = list(zip(*conversation_tokens(chats, model.tokenizer), strict=True))
        else:
            found = _answered(dataset, model)
        rows, whole, wanted = [], [], []
        left = model.tokenizer.truncation_side == "left"
        keep = len(beginning(model.tokenizer)) if left else None
        for ids, learned in found:
            masked = [token if on or loss_on == "all" else IGNORED
                      for token, on in zip(ids, learned, strict=True)]
            whole.append(len(ids))
            wanted.append(supervised(masked))
            rows.append({"input_ids": _shortened(ids, limit, keep),
                         "labels": _shortened(masked, limit, keep)})
        return rows, whole, wanted


def _answered(dataset, model):
    """(ids, learned) of prompts and their answers, each answer with the token that ends it."""
    prompts, responses = as_prompt_and_response(dataset, model.tokenizer)
    for name, texts in (("prompt", prompts), ("response", responses)):
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"row {i} has the {name} {text!r:.60}; a text was expected. Fill "
                                "it in or take the row out.")
    ends = answer_ends(prompts, model.tokenizer)
    options = {"add_special_tokens": False, "verbose": False}
    first = begun(model.tokenizer(prompts, **options)["input_ids"], model.tokenizer)
    second = model.tokenizer(responses, **options)["input_ids"]
    return [(a + b + end, [False] * len(a) + [True] * len(b + end))
            for a, b, end in zip(first, second, ends, strict=True)]


def _shortened(ids, limit, keep):
    """At most `limit` of the tokens: the first, or the last behind the `keep` that begin a text."""
    if len(ids) <= limit:
        return ids
    return ids[:limit] if keep is None else ids[:keep] + ids[len(ids) - limit + keep :]
