"""Dropout on a CPU from sixteen random bits a number, where the library draws a whole float.

Beside its matrix products, drawing is much of what an encoder's training step costs. The result is
as random as before: the probability is rounded to a 65,536th, and the scale goes with it.
"""

import threading
from contextlib import contextmanager

import torch

LEVELS = 1 << 16
_lock, _mine = threading.Lock(), threading.local()
_state = {"open": 0, "library": None}  # over all threads


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


def _dropout(input, p=0.5, training=True, inplace=False):
    dropped = round(p * LEVELS)
    quick = getattr(_mine, "open", 0) and training and not inplace and 0 < dropped < LEVELS
    if not quick or input.device.type != "cpu":
        return _state["library"](input, p, training, inplace)
    return _Dropout.apply(input, dropped)


@contextmanager
def fast_dropout(wanted=True):
    """While open, dropout on the CPU draws fewer random bits, in this thread alone.

    wanted=False changes nothing. torch.nn.functional.dropout is the library's again when the last
    of several that overlap, in whatever order and threads, is closed.
    """
    if not wanted:
        yield
        return
    with _lock:
        if not _state["open"]:
            _state["library"] = torch.nn.functional.dropout
            torch.nn.functional.dropout = _dropout
        _state["open"] += 1
    _mine.open = getattr(_mine, "open", 0) + 1
    try:
        yield
    finally:
        _mine.open -= 1
        with _lock:
            _state["open"] -= 1
            # Who has put another in its place meanwhile calls this one, which calls the library's.
            if not _state["open"] and torch.nn.functional.dropout is _dropout:
                torch.nn.functional.dropout = _state["library"]
