"""Learned prompts of a decoder: how long they are, and how a text is read behind one."""

from contextlib import contextmanager

import torch

from ftkit.models.structure import another_forward, inner


def learned_tokens(net):
    """How many positions a learned prompt takes before the text: 0 for a net without one."""
    config = getattr(net, "active_peft_config", None)
    return config.num_virtual_tokens if getattr(config, "is_prompt_learning", False) else 0


def prompt_cache(net):
    """The learned prompt of a decoder as the key-value cache that it leaves in every layer.

    That is all that a text sees of it. Returns one row and learned_tokens(net) positions.
    """
    if net.active_peft_config.peft_type == "PREFIX_TUNING":
        return net.get_prompt(batch_size=1)
    body = net.get_base_model().base_model
    vectors = net.get_prompt(batch_size=1).to(body.dtype)
    return body(inputs_embeds=vectors, use_cache=True).past_key_values


def behind_prompt(net, input_ids, attention_mask, **given):
    """What a decoder is given to read texts after its learned prompt: arguments for `inner(net)`.

    The prompt sees no text and runs once for the batch; its gradient is the sum over the texts.
    input_ids, attention_mask: of the texts alone, (texts, tokens); so are the logits.
    """
    cache = prompt_cache(net)
    cache.batch_repeat_interleave(len(input_ids))
    seen = attention_mask.new_ones(len(input_ids), learned_tokens(net))
    return {**given, "input_ids": input_ids,
            "attention_mask": torch.cat([seen, attention_mask], dim=1), "past_key_values": cache,
            "use_cache": True}


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
