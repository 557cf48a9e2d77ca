"""Dropout on a CPU from sixteen random bits a number, where the library draws a whole float.

Beside its matrix products, drawing is much of what an encoder's training step costs. The result is
as random as before: the probability is rounded to a 65,536th, and the scale goes with it.
"""

from contextlib import contextmanager

import torch

LEVELS = 1 << 16


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, dropped):
        size = values.numel()
        bits = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(1 << 63), None)
        kept = bits.view(torch.int16)[:size].view(values.shape) >= dropped - LEVELS // 2
        ctx.scale = LEVELS / (LEVELS - dropped)
        ctx.save_for_backward(kept)
        return values * kept.to(values.dtype).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, gradient):
        (kept,) = ctx.saved_tensors
        return gradient * kept.to(gradient.dtype).mul_(ctx.scale), None


@contextmanager
def quick_dropout(wanted=True):
    """While open, dropout on the CPU draws fewer random bits. wanted=False changes nothing."""
    library = torch.nn.functional.dropout

    def dropout(input, p=0.5, training=True, inplace=False):
        dropped = round(p * LEVELS)
        if not training or inplace or input.device.type != "cpu" or not 0 < dropped < LEVELS:
            return library(input, p, training, inplace)
        return _Dropout.apply(input, dropped)

    if wanted:
        torch.nn.functional.dropout = dropout
    try:
        yield
    finally:
        torch.nn.functional.dropout = library
