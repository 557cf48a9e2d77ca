"""What a decoder's own forward can do, found out by trying it on a few tokens.

Families differ in what their forward takes, and a list of them would always be behind. So each
ability is tried once for a kind of network, and counts only where the result is the library's own.
"""

import inspect

import torch
import torch.nn.functional as F

from ftkit import compat
from ftkit.models.structure import IGNORED, at_rest, inner

FAILURES = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
_known = {}  # (what was tried, class of network, its configuration, type of weights): the answer


def once(ability, net):
    """What the function `ability` finds out of a network, which is tried once for each kind.

    It is called with the transformers model inside, at rest: no gradients, dropout or autocast.
    """
    model = inner(net)
    config = repr({name: v for name, v in vars(model.config).items() if not name.startswith("_")})
    flash = "flash" in str(compat.attention_kernel(model.config))
    key = (ability, type(model), config, flash, model.dtype)
    if key not in _known:
        with at_rest(model), torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            _known[key] = ability(model)
    return _known[key]


def two_texts(model):
    """Two texts of four tokens that begin with the same two, shape (2, 4)."""
    first = min(7, model.config.get_text_config().vocab_size - 6)
    ids = torch.arange(first, first + 4, device=model.device).repeat(2, 1)
    ids[1, 2:] += 2
    return ids


def same(model, one, two):
    """Whether tensors that a model gave are equal up to rounding, measured by the largest number.

    Weights of 16 bits round coarsely; there a small difference of a real cause may be missed.
    """
    if one.shape != two.shape:
        return False
    room = 0.03 if torch.finfo(model.dtype).bits == 16 else 1e-5
    return bool((one - two).abs().max() <= room * one.abs().max())


def without_routing(model):
    """Arguments that keep a mixture of experts from adding up a loss that nobody asked for."""
    asked = "output_router_logits" in inspect.signature(model.forward).parameters
    return {"output_router_logits": False} if asked else {}


def predicts_next(net):
    """Whether a network reads from left to right, and its own loss is that of the next token."""
    return once(_predicts_next, net)


def _predicts_next(model):
    ids = two_texts(model)
    labels = ids.clone()
    labels[0, 1] = IGNORED
    plain = without_routing(model)
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, **plain)
    logits = out.logits[:, :-1].float()
    loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
    return same(model, logits[0, :2], logits[1, :2]) and same(model, loss, out.loss.float())


def continues(net):
    """Whether a text can be read in parts: its beginning once for many, and token by token.

    That takes a key-value cache to be copied for more rows, positions by number, and padding on the
    left that changes nothing; a network with a state (Mamba) has none of that.
    """
    return once(_continues, net)


def _continues(model):
    ids = two_texts(model)
    mask, plain = torch.ones_like(ids), without_routing(model)
    whole = model(input_ids=ids, attention_mask=mask, use_cache=False, **plain).logits
    plain["use_cache"] = True
    try:
        past = model(input_ids=ids[:1, :2], **plain).past_key_values
        past.batch_repeat_interleave(2)
        rest = {"input_ids": ids[:, 2:], "past_key_values": past, **plain}
        behind = model(**rest, attention_mask=mask).logits
        padded, left = F.pad(ids[:, :3], (1, 0), value=0), F.pad(mask[:, :3], (1, 0))
        places = (left.cumsum(-1) - 1).clamp(min=0)
        out = model(input_ids=padded, attention_mask=left, position_ids=places, **plain)
        out.past_key_values.batch_select_indices(torch.tensor([1], device=ids.device))
        step = model(input_ids=ids[1:, 3:], attention_mask=F.pad(left, (0, 1), value=1)[1:],
                     position_ids=places[1:, -1:] + 1, past_key_values=out.past_key_values, **plain)
    except FAILURES:
        return False
    return (same(model, behind, whole[:, 2:]) and same(model, out.logits[:, 1:], whole[:, :3])
            and same(model, step.logits, whole[1:, 3:]))


def keeps_apart(net):
    """Whether two endings can stand behind one beginning in a row, kept apart by a mask alone."""
    return once(_keeps_apart, net)


def _keeps_apart(model):
    ids, plain = two_texts(model), {"use_cache": False, **without_routing(model)}
    whole = model(input_ids=ids, attention_mask=torch.ones_like(ids), **plain).logits
    row = torch.cat([ids[:1], ids[1:, 2:]], dim=1)
    seen = torch.ones(6, 6, dtype=torch.bool, device=ids.device).tril()
    seen[4:, 2:4] = False
    mask = torch.zeros(1, 1, 6, 6, dtype=model.dtype, device=ids.device)
    mask.masked_fill_(~seen, torch.finfo(model.dtype).min)
    places = torch.tensor([[0, 1, 2, 3, 2, 3]], device=ids.device)
    try:
        found = model(input_ids=row, attention_mask=mask, position_ids=places, **plain)
    except FAILURES:
        return False
    one, other = found.logits[0, :4], found.logits[0, 4:]
    return same(model, one, whole[0]) and same(model, other, whole[1, 2:])
