"""Sequence to sequence: a text from a text, by an encoder and a decoder."""

from ftkit.data.conversations import answer_ends
from ftkit.data.templates import as_prompt_and_response
from ftkit.tasks.base import Task
from ftkit.tasks.tokens import tokenized


class Seq2Seq(Task):
    """Columns source and target, or others that mean a prompt and its answer."""

    name = "seq2seq-lm"
    column, form = "source", '"a text", or {"source": "…"}'

    def records(self, wanted, whole):
        return True

    def encode(self, dataset, model, limit, loss_on):
        sources, targets = as_prompt_and_response(dataset, model.tokenizer, chat=False)
        first, whole = tokenized(model, sources, limit)
        second = model.tokenizer(text_target=targets, verbose=False)["input_ids"]
        # T5's tokenizer ends a text by itself; another must not leave the model without an end.
        [end] = answer_ends([""], model.tokenizer)[0]
        second = [b if b[-1:] == [end] else [*b, end] for b in second]
        rows = [{"input_ids": a, "labels": b if len(b) <= limit else [*b[: limit - 1], end]}
                for a, b in zip(first["input_ids"], second, strict=True)]
        whole = [max(n, len(b)) for n, b in zip(whole, second, strict=True)]
        return rows, whole, list(map(len, second))
