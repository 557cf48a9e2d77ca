"""The parts of a network that a loss needs, and the losses that are the kit's own."""

from contextlib import contextmanager
from types import SimpleNamespace

import torch
import torch.nn.functional as F

IGNORED = -100
TEXTS = 40  # of a batch of choices that are padded to their own longest
SCALE = 20.0  # cosines are multiplied by this before the softmax over choices


def inner(net):
    """The transformers model inside a peft model; a plain model is returned as it is."""
    return net.get_base_model() if hasattr(net, "get_base_model") else net


def backbone(net):
    """The part of a language model below its head: gives hidden states (batch, tokens, hidden)."""
    return inner(net).base_model


def head(net):
    """The output embedding of a language model: hidden states to logits over the vocabulary."""
    return inner(net).get_output_embeddings()


def learned_tokens(net):
    """How many positions a learned prompt takes before the text: 0 for a net without one."""
    config = getattr(net, "active_peft_config", None)
    return config.num_virtual_tokens if getattr(config, "is_prompt_learning", False) else 0


def prompt_cache(net):
    """The learned prompt of a decoder as the key-value cache that it leaves in every layer.

    A decoder only looks back, so this is all that a text sees of the prompt, whichever text it is.
    Returns a transformers cache of one row and learned_tokens(net) positions.
    """
    if net.active_peft_config.peft_type == "PREFIX_TUNING":
        return net.get_prompt(batch_size=1)
    body = net.get_base_model().base_model
    vectors = net.get_prompt(batch_size=1).to(body.dtype)
    return body(inputs_embeds=vectors, use_cache=True).past_key_values


def behind_prompt(net, input_ids, attention_mask, **given):
    """What a decoder is given to read texts after its learned prompt: arguments for `inner(net)`.

    The prompt is the same before every text and sees none of them, so it runs once for the whole
    batch; its gradient is the sum over the texts. input_ids, attention_mask: of the texts alone,
    shape (texts, tokens); so are the logits.
    """
    cache = prompt_cache(net)
    cache.batch_repeat_interleave(len(input_ids))
    seen = attention_mask.new_ones(len(input_ids), learned_tokens(net))
    return {
        **given,
        "input_ids": input_ids,
        "attention_mask": torch.cat([seen, attention_mask], dim=1),
        "past_key_values": cache,
        "use_cache": True,
    }


@contextmanager
def prompt_once(net, wanted=True):
    """While open, a decoder's learned prompt is run once for a batch, not before each text.

    net: a peft model; its forward is replaced, and the library's own reads the texts. wanted=False
    leaves it. Loss and gradients are peft's, but that a text's first token is not scored.
    """
    if not wanted:
        yield
        return

    def forward(input_ids=None, attention_mask=None, **kwargs):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        return inner(net)(**behind_prompt(net, input_ids, attention_mask, **kwargs))

    with another_forward(net, forward):
        yield


@contextmanager
def another_forward(net, replacement):
    """While open, a network has another forward of its own; None for that of its class."""
    before = vars(net).pop("forward", None)
    if replacement is not None:
        net.forward = replacement
    try:
        yield
    finally:
        # The replacement, and any wrapper that was put around it meanwhile, goes.
        vars(net).pop("forward", None)
        if before is not None:
            net.forward = before


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
