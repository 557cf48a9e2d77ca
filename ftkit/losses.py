"""The loss of each task, with the head applied only where there are labels."""

from contextlib import contextmanager
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutput

from ftkit.errors import SettingError
from ftkit.methods.prompt import learned_tokens, prompt_cache

IGNORED = -100
LOGITS = 1 << 27  # numbers that the head makes at a time: half a gigabyte in float32
TEXTS = 40  # of a batch of choices that are padded to their own longest
SCALE = 20.0  # cosines are multiplied by this before the softmax over choices
# Models that change the logits after the head; for them the library's own loss is used.
CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def inner(net):
    """The transformers model inside a peft model; a plain model is returned as it is."""
    return net.get_base_model() if hasattr(net, "get_base_model") else net


def backbone(net):
    """The part of a language model below its head: gives hidden states (batch, tokens, hidden)."""
    return inner(net).base_model


def head(net):
    """The output embedding of a language model: hidden states to logits over the vocabulary."""
    return inner(net).get_output_embeddings()


def scores_labels_only(net):
    """Whether the head can be applied to chosen positions without changing the result."""
    config = inner(net).config
    changed = any(getattr(config, name, None) not in (None, 1, 1.0) for name in CHANGED_LOGITS)
    return (
        not changed
        and not config.is_encoder_decoder
        and head(net) is not None
        and isinstance(head(net), torch.nn.Linear)
        and backbone(net) is not inner(net)
    )


def token_losses(net, hidden, labels):
    """Next-token losses at labelled positions only.

    hidden: shape (batch, tokens, hidden). labels: (batch, tokens), IGNORED where no loss counts.
    Where there are many, their logits are made in portions, and made again in the backward pass,
    so that no more than LOGITS numbers of them exist at a time.
    Returns (losses, rows): float32 losses in nats, and the batch row of each, both (labelled,).
    """
    target = labels[:, 1:]
    rows, columns = (target != IGNORED).nonzero(as_tuple=True)
    hidden, target, layer = hidden[rows, columns], target[rows, columns], head(net)

    def cross_entropy(hidden, target):
        return F.cross_entropy(layer(hidden).float(), target, reduction="none")

    size = max(1, LOGITS // layer.weight.shape[0])
    if len(target) <= size:
        return cross_entropy(hidden, target), rows
    parts = zip(hidden.split(size), target.split(size), strict=True)
    return torch.cat([checkpoint(cross_entropy, *p, use_reentrant=False) for p in parts]), rows


def after_prompt(net, input_ids, attention_mask):
    """Hidden states (batch, tokens, hidden) of texts that a decoder reads after its learned prompt.

    The prompt is the same before every text and sees none of them, so it runs once for the whole
    batch; its gradient is the sum over the texts.
    """
    cache = prompt_cache(net)
    cache.batch_repeat_interleave(len(input_ids))
    seen = attention_mask.new_ones(len(input_ids), learned_tokens(net))
    return backbone(net)(
        input_ids=input_ids,
        attention_mask=torch.cat([seen, attention_mask], dim=1),
        past_key_values=cache,
        use_cache=True,
    )[0]


@contextmanager
def label_only_head(net):
    """While open, a causal model's forward scores labelled positions only when it is given labels.

    The forward of the innermost model is replaced, so peft, autocast and data-parallel wrappers
    around it keep working; under a learned prompt, peft's own, so that the prompt is run once for
    a batch. Equal to the library's loss and gradients, at a fraction of its cost.
    """
    prompt = learned_tokens(net)
    model = net if prompt else inner(net)
    original = model.forward

    def forward(*args, labels=None, num_items_in_batch=None, **kwargs):
        if labels is None:
            return original(*args, **kwargs)
        if prompt and _checkpointed(net):
            return _without_cache(net, original, labels, num_items_in_batch, **kwargs)
        kwargs.pop("logits_to_keep", None)
        lower = ()
        if prompt:
            hidden = after_prompt(net, kwargs["input_ids"], kwargs["attention_mask"])
        else:
            out = model.base_model(*args, **{"use_cache": False, **kwargs})
            hidden, lower = out[0], (out.hidden_states or ())[:-1]
        losses, _ = token_losses(model, hidden, labels)
        count = len(losses) if num_items_in_batch is None else num_items_in_batch
        # Without any label the sum is an empty one: zero, and still connected to the weights.
        loss = (losses.sum() + 0 * hidden.sum()) / max(count, 1)
        # A method with a loss of its own finds here what it can apply the head to.
        return CausalLMOutput(loss=loss, hidden_states=(*lower, hidden))

    before = vars(model).get("forward")
    model.forward = forward
    try:
        yield
    finally:
        # The replacement, and any wrapper that was put around it meanwhile, goes.
        vars(model).pop("forward", None)
        if before is not None:
            model.forward = before


def _checkpointed(net):
    return net.training and any(getattr(m, "gradient_checkpointing", False) for m in net.modules())


def _without_cache(net, forward, labels, count, **kwargs):
    """The library's own way: activation checkpointing drops every key-value cache on its way."""
    if net.active_peft_config.peft_type == "PREFIX_TUNING":
        raise SettingError(
            "activation checkpointing would drop the keys and values of the prefix; give fit a "
            "smaller batch_size and activation_checkpointing=False, or use PromptTuning."
        )
    # A text's first token is not scored, as without a prompt.
    labels = torch.cat([torch.full_like(labels[:, :1], IGNORED), labels[:, 1:]], dim=1)
    return forward(labels=labels, num_items_in_batch=count, use_cache=False, **kwargs)


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
