"""The layers of a network from the bottom up: its blocks, and what is below and above them."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from ftkit.errors import SettingError

IGNORED = -100  # the label that no loss looks at


def inner(net):
    """The transformers model inside a peft model; a plain model is returned as it is."""
    return net.get_base_model() if hasattr(net, "get_base_model") else net


def backbone(net):
    """The part of a language model below its head: gives hidden states (batch, tokens, hidden)."""
    return inner(net).base_model


def head(net):
    """The output embedding of a language model: hidden states to logits over the vocabulary."""
    return inner(net).get_output_embeddings()


@contextmanager
def at_rest(net):
    """While open, a network is in evaluation mode; then in the mode that it was in before."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


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


def blocks(net):
    """The transformer blocks of a network, lowest first (its longest list of modules).

    Of an encoder-decoder those of the decoder, which are nearest the output; its whole encoder is
    below them. Raises SettingError for a network without blocks.
    """
    config = getattr(net, "config", None)
    top = net.get_decoder() if getattr(config, "is_encoder_decoder", False) else net
    lists = [module for _, module in stacks(top)]
    if not lists:
        raise SettingError(f"{type(net).__name__} has no list of blocks, so layers cannot be "
                           "chosen.")
    return max(lists, key=len)


def stacks(net):
    """The lists of blocks, [(path, list)]; not those inside of a block (the sub-layers of T5)."""
    lists = [(name, module) for name, module in net.named_modules()
             if isinstance(module, torch.nn.ModuleList) and len(module)]
    inside = {f"{name}." for name, _ in lists}
    return [(n, m) for n, m in lists if not any(n.startswith(outer) for outer in inside)]


def around(net):
    """The modules before the blocks (embeddings) and after them (final norm, pooler, head)."""
    layers = blocks(net)
    inside = {id(m) for m in layers.modules()} | {id(layers)}
    path = [m for m in net.modules() if any(child is layers for child in m.modules())]
    before, after = [], []
    for parent in path:
        seen = False
        for name, child in parent.named_children():
            if id(child) in inside or any(m is layers for m in child.modules()):
                seen = True
            else:  # BART names the norm of its embeddings after its blocks
                (after if seen and name != "layernorm_embedding" else before).append(child)
    return before, after


def check_layerwise_lr_decay(method):
    """Raise SettingError unless a method's `layerwise_lr_decay` is above 0 and at most 1."""
    if not 0 < method.layerwise_lr_decay <= 1:
        raise SettingError(
            f"{type(method).__name__}(layerwise_lr_decay={method.layerwise_lr_decay}) is no share "
            "of a learning rate; choose a number above 0 and up to 1, often 0.5 to 0.95."
        )


def layerwise_learning_rates(net, decay):
    """The share of the learning rate that each parameter gets, {id(parameter): share}.

    1 above the blocks and in the highest of them, `decay` times less in each block below, and once
    more in what is below them: the embeddings, and the encoder of an encoder-decoder
    (discriminative rates, Howard and Ruder 2018).
    """
    layers, (below, above) = blocks(net), around(net)
    steps = [*((module, 0) for module in above)]
    steps += [(block, len(layers) - 1 - i) for i, block in enumerate(layers)]
    steps += [(module, len(layers)) for module in below]
    share = {}
    for module, step in steps:
        for parameter in module.parameters():
            # A head that is tied to the input embedding learns as slowly as that.
            share[id(parameter)] = min(decay**step, share.get(id(parameter), 1.0))
    return {id(p): share.get(id(p), 1.0) for p in net.parameters()}


def free(net):
    """Make every weight trainable but those that the library computes (sinusoidal positions)."""
    model = inner(net)
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    net.requires_grad_(True)
    if frozen and hasattr(model, "config"):
        with torch.device("meta"):
            fresh = type(model)(model.config)
        for name, parameter in fresh.named_parameters():
            if name in frozen and not parameter.requires_grad:
                frozen[name].requires_grad_(False)


def without_dropout(module):
    """Switch off a module's dropout, be it a module or a number, also in training."""
    for part in module.modules():
        _switch_off(part)


def without_dropout_around(net):
    """Switch off what modules that hold the blocks drop themselves: embeddings, whole blocks."""
    layers = blocks(net)
    for part in net.modules():
        if any(child is layers for child in part.modules()):
            _switch_off(part)


def _switch_off(part):
    names = ("p",) if isinstance(part, torch.nn.Dropout) else ("dropout", "layerdrop")
    off = {n: v for n, v in vars(part).items() if n.endswith(names) and isinstance(v, float) and v}
    if off:
        part.dropout_before = off
        for name in off:
            setattr(part, name, 0.0)


def with_dropout(module):
    """Undo without_dropout and without_dropout_around, everywhere in a module."""
    for part in module.modules():
        if hasattr(part, "dropout_before"):
            for name, value in part.dropout_before.items():
                setattr(part, name, value)
            del part.dropout_before
