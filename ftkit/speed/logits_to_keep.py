"""Logits at labelled positions only: a collator that says to a decoder's own forward where.

transformers makes the logits of chosen positions (`logits_to_keep`) and takes labels that stand
beside them (`shift_labels`); head, loss and whatever a family does to either are the library's.
"""

import inspect

import torch
import torch.nn.functional as F

from ftkit.models import capabilities
from ftkit.models.learned_prompt import behind_prompt, learned_tokens
from ftkit.models.structure import IGNORED, inner

MASK, POSITIONS = "mask", "positions"


class LogitsToKeep:
    """A collator after which a decoder's head is applied to labelled positions only.

    collate: any collator whose batches have `labels` of shape (rows, tokens). net: the network that
    will read them. Works in a plain transformers.Trainer:

        Trainer(net, args, data_collator=LogitsToKeep(collate, net), train_dataset=rows)

    Loss and gradients are those of the whole logits. A batch that says itself what to keep stays as
    it is, and so does every batch of a network that cannot do it (see `label_form`). For what reads
    the logits of every position (metrics, label smoothing) use `collate` alone.
    """

    def __init__(self, collate, net, *, ahead=0, wanted=True):
        """ahead: positions that the network puts before a text itself, as peft's prompts are.

        wanted=False keeps the logits of all positions, and only sees to the text's first token.
        """
        self.collate, self.ahead = collate, ahead
        self.form = label_form(net) if wanted else None

    def __call__(self, rows):
        """A batch, with `logits_to_keep` and `shift_labels` added."""
        return at_labels(self.collate(rows), self.form, self.ahead)


def label_form(net):
    """How a decoder makes the logits of chosen positions alone.

    Returns "mask" where its forward takes `logits_to_keep` as booleans, one for each token of each
    row; "positions" where it takes numbers that count for all rows (transformers before 5.23); None
    where it takes neither, or its own loss does not go with them.
    """
    return capabilities.once(_label_form, net)


def _label_form(model):
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return None
    ids = capabilities.two_texts(model)
    labels = ids.clone()
    labels[0, :2], labels[1, 3] = IGNORED, IGNORED
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    whole = model(**batch, use_cache=False)
    for form in (MASK, POSITIONS):
        fewer = at_labels(batch, form)
        try:
            some = model(**fewer, use_cache=False)
        except capabilities.FAILURES:
            continue
        kept = fewer["logits_to_keep"]
        wanted = whole.logits[kept] if form == MASK else whole.logits[:, kept]
        pairs = ((wanted, some.logits), (whole.loss, some.loss))
        if all(capabilities.same(model, *pair) for pair in pairs):
            return form
    return None


def at_labels(batch, form, ahead=0):
    """A batch with what makes a decoder apply its head at labelled positions only.

    batch: with `labels`, (rows, tokens), IGNORED where no loss counts. form: of label_form. Adds
    `logits_to_keep`, booleans (rows, ahead + tokens) or numbers (kept,), and `shift_labels`, the
    next tokens at these positions, (labelled,) or (rows, kept). Returns a new dict.
    """
    labels = batch.get("labels")
    if labels is None or labels.dim() != 2 or "shift_labels" in batch or "logits_to_keep" in batch:
        return batch
    if form is None:
        if not ahead:
            return batch
        # A text's first token is not scored, as without a prompt.
        return {**batch, "labels": F.pad(labels[:, 1:], (1, 0), value=IGNORED)}
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    keep = following != IGNORED
    if form == MASK:
        kept, said = F.pad(keep, (ahead, 0)), following[keep]
    else:
        columns = keep.any(0).nonzero()[:, 0]
        kept, said = columns + ahead, following[:, columns]
    return {**batch, "logits_to_keep": kept, "shift_labels": said}


def logits_at(net, keep, *, wanted=True, **inputs):
    """A decoder's own logits at chosen positions, shape (chosen, vocabulary), row by row.

    keep: booleans (rows, tokens). wanted=False makes those of all positions first. inputs: of the
    transformers model, without labels.
    """
    form = label_form(net) if wanted else None
    model = inner(net)
    inputs = {**inputs, **capabilities.without_routing(model)}
    if form == MASK:
        return model(**inputs, logits_to_keep=keep).logits
    if form == POSITIONS:
        columns = keep.any(0).nonzero()[:, 0]
        return model(**inputs, logits_to_keep=columns).logits[keep[:, columns]]
    return model(**inputs).logits[keep]


def text_logits(net, keep, *, disable=(), **given):
    """A decoder's own logits at chosen positions of texts, also behind a learned prompt.

    As logits_at; given: input_ids and attention_mask (rows, tokens), or what `past_key_values` of
    a beginning ask for, which then has the prompt. disable: names of optimizations.OPTIMIZATIONS:
    "logits_to_keep", and "prefix_caching", with which peft reads a learned prompt before each text.
    """
    wanted = "logits_to_keep" not in disable
    if "past_key_values" in given:
        return logits_at(net, keep, wanted=wanted, **given)
    if not learned_tokens(net):
        return logits_at(net, keep, wanted=wanted, use_cache=False, **given)
    if "prefix_caching" not in disable and capabilities.continues(net):
        return logits_at(net, keep, wanted=wanted, **behind_prompt(net, **given))
    return net(**given, use_cache=False).logits[:, -keep.shape[1] :][keep]


def next_token_losses(net, batch, *, disable=()):
    """The loss of each labelled token, from the decoder's own logits.

    batch: of a collator, with labels (rows, tokens). disable: as in text_logits.
    Returns (losses, rows): float32 losses in nats, and the batch row of each, both (labelled,).
    """
    given = {k: v for k, v in batch.items() if k != "labels"}
    following = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    keep = following != IGNORED
    logits = text_logits(net, keep, disable=disable, **given)
    losses = F.cross_entropy(logits.float(), following[keep], reduction="none")
    return losses, keep.nonzero()[:, 0]
