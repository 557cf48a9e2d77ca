"""Multiple choice: which of several answers fits a question, by vectors of an encoder."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from ftkit.errors import DataError
from ftkit.models.structure import IGNORED
from ftkit.tasks.base import Task, chosen
from ftkit.tasks.tokens import need, strings, tokenized

TEXTS = 40  # of a batch of choices that are padded to their own longest
SCALE = 20.0  # cosines are multiplied by this before the softmax over choices


def sentence_vectors(net, input_ids, attention_mask, **embedded):
    """Unit vectors of texts: the mean of their token vectors. Returns shape (texts, hidden)."""
    given = embedded or {"input_ids": input_ids}
    hidden = net(**given, attention_mask=attention_mask)[0]
    weights = attention_mask[..., None].to(hidden.dtype)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return F.normalize(mean.float(), dim=-1)


def _vectors_by_length(net, input_ids, attention_mask):
    """sentence_vectors, on a CPU in parts of similar length: a question is far longer than a term,
    and padding every term to it would double the work."""
    if input_ids.device.type != "cpu":
        return sentence_vectors(net, input_ids, attention_mask)
    lengths = attention_mask.sum(1)
    order = lengths.argsort()
    table, flat = net.get_input_embeddings(), None
    if table.weight.requires_grad and torch.is_grad_enabled():
        # Looked up at once: each look-up costs its gradient a table of zeros, tens of megabytes.
        flat = table(input_ids[attention_mask.bool()])
        place = (attention_mask.flatten().cumsum(0) - 1).view_as(input_ids).clamp(min=0)
    parts = []
    for part in order.chunk(max(1, len(order) // TEXTS)):
        cut = (part, slice(int(lengths[part].max())))
        embedded = {} if flat is None else {"inputs_embeds": flat[place[cut]]}
        parts.append(sentence_vectors(net, input_ids[cut], attention_mask[cut], **embedded))
    return torch.cat(parts)[order.argsort()]


def choice_logits(net, batch):
    """Scores of the choices of each question: cosines of bi-encoder vectors, times SCALE.

    batch: of batching.Collator for task "choice". Returns shape (questions, choices), -inf at
    padding. Source: Reimers and Gurevych 2019, "Sentence-BERT".
    """
    vectors = _vectors_by_length(net, batch["input_ids"], batch["attention_mask"])
    index = batch["index"]
    questions, choices = vectors[: len(index)], vectors[len(index) :]
    scores = SCALE * torch.einsum("qd,qcd->qc", questions, choices[index.clamp(min=0)])
    return scores.masked_fill(index < 0, -torch.inf)


def choice_loss(net, batch):
    """Cross-entropy of the right choice. Returns an output with loss and logits."""
    logits = choice_logits(net, batch)
    return SimpleNamespace(loss=F.cross_entropy(logits, batch["labels"]), logits=logits)


class MultipleChoice(Task):
    """Columns question, choices, and answer, the number of the right one."""

    name = "choice"
    column, form = "question", '{"question": "…", "choices": ["…", "…"]}'

    def encode(self, dataset, model, limit, loss_on):
        need(dataset, "question", "choices")
        questions, whole = tokenized(model, strings(dataset, "question"), limit)
        distinct = sorted({choice for row in dataset["choices"] for choice in row})
        choices, longest = tokenized(model, distinct, limit)
        known = dict(zip(distinct, choices["input_ids"], strict=True))
        uncut = dict(zip(distinct, longest, strict=True))
        whole = [max(own, *map(uncut.get, row)) if row else own
                 for own, row in zip(whole, dataset["choices"], strict=True)]
        rows = []
        for i, (question, row) in enumerate(zip(questions["input_ids"], dataset, strict=True)):
            answer = row.get("answer", 0)  # without one, the model can still choose
            if answer is None or not 0 <= answer < len(row["choices"]):
                raise DataError(f"row {i} answers {row['answer']!r} with {len(row['choices'])} "
                                "choices; answer is the number of the right choice, from 0.")
            rows.append({"question": question, "choices": [known[c] for c in row["choices"]],
                         "labels": answer})
        return rows, whole, None

    def choice_sets(self, rows):
        number = {}
        keys = (tuple(sorted(map(tuple, row["choices"]))) for row in rows)
        return np.array([number.setdefault(key, len(number)) for key in keys])

    def collate(self, rows, collator):
        """Questions and the batch's distinct choices, each encoded once; `index` says whose."""
        place, index = {}, []
        for row in rows:
            index.append([place.setdefault(tuple(c), len(place)) for c in row["choices"]])
        batch = collator.ids([row["question"] for row in rows] + [list(c) for c in place])
        width = max(map(len, index))
        return batch | {
            "index": torch.tensor([row + [IGNORED] * (width - len(row)) for row in index]),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    def logits(self, net, batch):
        return choice_logits(net, batch)

    def loss(self, net, batch):
        return choice_loss(net, batch)

    def predictions(self, model, rows, encoded, logits, top):
        return [chosen(names, row, "choice")
                for names, row in zip(rows["choices"], logits, strict=True)]
