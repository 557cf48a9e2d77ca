"""Cross-entropy over a large vocabulary in portions: the whole logits never exist.

A head over 150,000 words makes 600 kB of float32 logits a token, several times what the rest of a
small decoder needs. Here a portion of the positions is scored, its loss and its gradients are
taken, and its logits are forgotten (Hsu et al. 2024, "Liger Kernel"; Wijmans et al. 2025, "Cut
Your Losses").
"""

import torch
import torch.nn.functional as F

NUMBERS = 1 << 28  # logits that exist at a time: half a gigabyte in 16 bits


def portion(logits, target):
    """The loss of some positions, and its gradient by their logits.

    logits: shape (positions, words). target: (positions,), negative where nothing counts.
    Returns the summed float32 loss in nats, and the gradient in the format of the logits.
    """
    counts = (target >= 0)[:, None]
    place = target.clamp(min=0)[:, None]
    logs = F.log_softmax(logits, dim=-1, dtype=torch.float32)
    loss = -(logs.gather(-1, place) * counts).sum()
    slope = logs.exp_().scatter_add_(-1, place, -torch.ones_like(logs[:, :1]))
    return loss, slope.mul_(counts).to(logits.dtype)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, portion):
        kind = hidden.dtype
        if torch.is_autocast_enabled(hidden.device.type):
            kind = torch.get_autocast_dtype(hidden.device.type)
        size = max(64, NUMBERS // weight.shape[0])
        with torch.autocast(hidden.device.type, enabled=False):
            rows, table = hidden.to(kind), weight.to(kind)
            shift = None if bias is None else bias.to(kind)
            total = torch.zeros((), device=hidden.device)
            by_hidden = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
            by_weight, by_bias = (
                torch.zeros_like(given, dtype=torch.float32) if needed else None
                for given, needed in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
            )
            for start in range(0, len(rows), size):
                part, right = rows[start : start + size], target[start : start + size]
                loss, slope = portion(F.linear(part, table, shift), right)
                total += loss
                if by_hidden is not None:
                    by_hidden[start : start + size] = slope @ table
                if by_weight is not None:
                    by_weight += slope.T @ part
                if by_bias is not None:
                    by_bias += slope.sum(0, dtype=torch.float32)
        ctx.formats = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.save_for_backward(by_hidden, by_weight, by_bias)
        return total

    @staticmethod
    def backward(ctx, gradient):
        found = (None if slope is None else (slope * gradient).to(kind)
                 for slope, kind in zip(ctx.saved_tensors, ctx.formats, strict=True))
        return (*found, None, None)


def summed_cross_entropy(hidden, weight, bias, target, portion=portion):
    """The summed cross-entropy of positions that a linear head scores, in nats.

    hidden: shape (positions, width). weight: (words, width). bias: (words,) or None. target:
    (positions,), a word's number, negative where nothing counts. portion: what takes the loss of
    some positions, such as the compiled function of that name. Gradients reach hidden, weight and
    bias; they are made in the forward pass, so that no logits are made twice.
    Returns a float32 scalar.
    """
    return _Summed.apply(hidden, weight, bias, target, portion)
