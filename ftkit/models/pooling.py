"""Mean pooling: a head that reads the mean over a text's tokens in place of the first token.

Reimers and Gurevych 2019, "Sentence-BERT". Most sentence encoders were trained to be read so.
"""

import dataclasses

from ftkit.errors import SettingError

POOLINGS = ("mean",)
SETTING = "ftkit_pooling"  # of a network's configuration, which is stored with it


def pooling_of(net):
    """What a network's head reads: "mean", or None for what its architecture reads."""
    return getattr(net.config, SETTING, None)


def with_pooling(net):
    """Let a network's head read the mean where its configuration says so; returns the network."""
    if pooling_of(net) == "mean":
        if getattr(net.base_model, "pooler", None) is not None:
            net.base_model.pooler = None
        net.base_model.register_forward_hook(_mean, with_kwargs=True)
    return net


def set_pooling(config, pooling, spec):
    """Write into a configuration what the head for a task will read; None leaves what was saved.

    Raises SettingError for a pooling that does not exist, or that the task's head cannot read.
    """
    whole = spec.answer in ("class", "number") and not config.is_encoder_decoder
    if pooling is None:
        if not whole and hasattr(config, SETTING):
            setattr(config, SETTING, None)  # the body of a classifier, loaded for another task
    elif pooling not in POOLINGS:
        raise SettingError(f"pooling {pooling!r} does not exist; choose "
                           f"{' or '.join(map(repr, POOLINGS))}, or leave it out for what the "
                           "architecture reads (an encoder's first token).")
    elif not whole:
        raise SettingError(f"pooling={pooling!r} is for a head that gives a whole text one answer "
                           '(task="classification" or "regression"), on an encoder or a decoder; '
                           f"this is a {config.model_type} model for another task. Leave it out.")
    else:
        setattr(config, SETTING, pooling)


def _mean(backbone, args, kwargs, output):
    """A forward hook: the mean over real tokens stands wherever a head may look for it."""
    hidden, mask = output.last_hidden_state, kwargs.get("attention_mask")
    if mask is None:
        mean = hidden.mean(1)
    else:  # a prefix, which is keys and values alone, is in the mask and has no hidden states
        real = mask[:, -hidden.shape[1]:].unsqueeze(-1).to(hidden.dtype)  # 1: token, 0: padding
        mean = (hidden * real).sum(1) / real.sum(1)
    found = {"last_hidden_state": mean.unsqueeze(1).expand_as(hidden), "pooler_output": mean}
    known = {field.name for field in dataclasses.fields(output)}
    return dataclasses.replace(output, **{k: v for k, v in found.items() if k in known})
