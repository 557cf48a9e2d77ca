"""A smaller model made of a large one: some of its blocks."""

import torch

from ftkit.errors import SettingError
from ftkit.models import structure
from ftkit.models.adapters import UNSAVED
from ftkit.models.pooling import with_pooling
from ftkit.models.structure import blocks as blocks_of

DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")  # as the families call it


def drop_layers(model, blocks):
    """A copy of a model that has some of its blocks alone: a student to begin with.

    blocks: their numbers from 0, as in (0, 5); of an encoder-decoder, those of the decoder, whose
    encoder stays whole. The embeddings and the head are kept. Returns a Model; raises SettingError
    for numbers it has not, and for blocks that the family has in this place only.
    Source: Sanh et al. 2019, "DistilBERT, a distilled version of BERT".
    """
    small, wanted = model.copy(), sorted(set(blocks))
    stack = blocks_of(small.net)
    if not wanted or not all(i in range(len(stack)) for i in wanted):
        raise SettingError(f"blocks={tuple(blocks)} of {model.name} cannot be kept; choose some of "
                           f"0 to {len(stack) - 1}.")
    config, deep = structure.inner(small.net).config, len(stack)
    _hand_over(stack[0], stack[wanted[0]])
    for i in reversed(range(deep)):
        if i not in wanted:
            del stack[i]
    for i, block in enumerate(stack):
        for module in block.modules():
            if hasattr(module, "layer_idx"):  # the place of its keys and values while generating
                module.layer_idx = i
    depths = ("decoder_layers", "num_decoder_layers") if config.is_encoder_decoder else DEPTHS
    for name in depths:
        if hasattr(config, name):
            setattr(config, name, len(wanted))
    for name, value in config.to_dict().items():  # such as what kind each layer is
        if isinstance(value, list | tuple) and len(value) == deep and name != "architectures":
            setattr(config, name, [value[i] for i in wanted])
    _need_the_same(small.net, config, tuple(wanted))
    small.net.name_or_path = UNSAVED
    return small


def _hand_over(old, new):
    """Give the block that becomes the first what only a first one has: T5's relative positions."""
    ours = dict(new.named_modules())
    for name, module in old.named_modules():
        if getattr(module, "has_relative_attention_bias", False):
            ours[name].has_relative_attention_bias = True
            ours[name].relative_attention_bias = module.relative_attention_bias


def _need_the_same(net, config, wanted):
    """Raise SettingError unless the configuration describes this very network."""
    net = structure.inner(net)
    with torch.device("meta"):
        other = with_pooling(type(net)(config))
    shapes = [{n: t.shape for n, t in each.state_dict().items()} for each in (net, other)]
    if shapes[0] != shapes[1]:
        odd = sorted(shapes[0].items() ^ shapes[1].items())[0][0]
        raise SettingError(f"blocks={wanted} cannot stand alone: {config.model_type} has other "
                           f"parts in its first block than in the rest ({odd}), so the smaller "
                           "model could not be loaded again. Keep block 0.")
