"""Plain attention for models whose query heads share keys and values, without copying those.

Llama-type models have fewer key-value heads than query heads (Ainslie et al. 2023, "GQA"). The
library repeats keys and values for every query head first; here the query heads of a group are
stacked as if they were further positions, which gives the same products without any copy.
"""

import threading
import weakref
from contextlib import contextmanager

import torch
import transformers
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from ftkit import compat
from ftkit.models.hardware import choose_attention, this_machine

NAME = "grouped"
# For each network that has another kernel for a while: what it had, and then what was asked for.
_lock = threading.Lock()
_open: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
MODELS = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # plain attention and nothing else


def best(config, kernel):
    """The attention to set for a kernel: "grouped" in place of "eager" where heads share keys."""
    if kernel != "eager" or config.model_type not in MODELS:
        return kernel
    return NAME if config.num_key_value_heads < config.num_attention_heads else kernel


def chosen(net, length, disable=()):
    """While open, a network attends as suits `length` tokens here. disable: names, to leave it."""
    plain = "eager_attention" not in disable
    return kernel(net, choose_attention(this_machine(), length).value if plain else "sdpa")


@contextmanager
def kernel(net, name):
    """While open, a network attends with the kernel `name` ("eager", "flash_attention_2").

    net: a transformers model. "sdpa" is what the library chooses by itself, for a family that has
    it, and changes nothing. Yields nothing; what was set before is set again when the last of
    several that overlap, in whatever order and threads, is closed.
    """
    if name == "sdpa" or not hasattr(net, "set_attn_implementation"):
        yield
        return
    mine = [best(net.config, name)]  # found again by what it is, not by what it holds
    with _lock:
        now = _open.setdefault(net, [[compat.attention_kernel(net.config)]])
        now.append(mine)
        net.set_attn_implementation(mine[0])
    try:
        yield
    finally:
        with _lock:
            now[:] = [one for one in now if one is not mine]
            net.set_attn_implementation(now[-1][0])
            if len(now) == 1:
                _open.pop(net, None)


def grouped_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0,
                      **kwargs):
    """Attention over shared heads.

    query: shape (rows, heads, tokens, width). key, value: (rows, shared heads, seen, width).
    Returns the output, (rows, tokens, heads, width), and the weights, (rows, heads, tokens, seen).
    """
    rows, heads, tokens, width = query.shape
    _, shared, seen, _ = key.shape
    scaling = width**-0.5 if scaling is None else scaling
    stacked = query.reshape(rows, shared, heads // shared * tokens, width)
    weights = torch.matmul(stacked, key.transpose(2, 3)).view(rows, heads, tokens, seen) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask[..., :seen]
    weights = torch.nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = torch.nn.functional.dropout(weights, p=dropout, training=module.training)
    out = torch.matmul(weights.view(rows, shared, -1, seen), value)
    return out.view(rows, heads, tokens, width).transpose(1, 2).contiguous(), weights


transformers.AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, eager_mask)
