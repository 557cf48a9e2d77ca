"""A smaller model made of a large one: some of its blocks."""

from ftkit import losses
from ftkit.errors import SettingError
from ftkit.layers import blocks as blocks_of
from ftkit.shelf import UNSAVED


def shrink(model, blocks):
    """A copy of a model that has some of its blocks alone: a student to begin with.

    blocks: their numbers from 0, as in (0, 5); of an encoder-decoder, those of the decoder. The
    embeddings and the head are kept. Returns a Model; raises SettingError for numbers it has not.
    Source: Sanh et al. 2019, "DistilBERT, a distilled version of BERT".
    """
    small, wanted = model.copy(), sorted(set(blocks))
    stack = blocks_of(small.net)
    if not wanted or not all(i in range(len(stack)) for i in wanted):
        raise SettingError(
            f"blocks={tuple(blocks)} of {model.name} cannot be kept; choose some of 0 to "
            f"{len(stack) - 1}."
        )
    for i in reversed(range(len(stack))):
        if i not in wanted:
            del stack[i]
    for i, block in enumerate(stack):
        for module in block.modules():
            if hasattr(module, "layer_idx"):  # the place of its keys and values while generating
                module.layer_idx = i
    config = losses.inner(small.net).config
    deep = "num_decoder_layers" if config.is_encoder_decoder else "num_hidden_layers"
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in wanted]
    setattr(config, deep, len(wanted))
    small.net.name_or_path = UNSAVED
    return small
