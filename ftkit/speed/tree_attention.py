"""Several answers side by side behind one prompt, in one row: a mask keeps them apart.

The prompt is read once for all of them, without any copy of its keys and values. The idea is known
as tree attention (Miao et al. 2023, "SpecInfer").
"""

import torch

from ftkit import compat
from ftkit.models import capabilities
from ftkit.models.structure import inner
from ftkit.tasks.batching import pad


def supported(net, longest):
    """Whether answers may stand side by side behind their prompt, kept apart by a mask.

    No window may end within the row, and the model must obey the mask and positions: that is tried.
    """
    flash = "flash" in str(compat.attention_kernel(inner(net).config))
    return sees_all(net, longest) and not flash and capabilities.keeps_apart(net)


def sees_all(net, longest):
    """Whether each token of so long a text sees all before it: none is outside of a window.

    A window counts what stands in the row, padding between a shared beginning and a text included.
    """
    config = inner(net).config.get_text_config()
    widths = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return all(longest <= width for width in widths if width)


def tree_attention_inputs(net, rows, answers, ids, skip):
    """The attention mask and, where prompts have several answers, the position of each token.

    ids: token ids of each prompt and, behind it, of its answers without their last tokens.
    skip: how many positions every row has in its key-value cache. Returns arguments for the model:
    a mask (rows, tokens), or (rows, 1, tokens, skip + tokens) with positions (rows, tokens).
    """
    device = next(net.parameters()).device
    if all(len(own) == 1 for own in answers):
        return {"attention_mask": pad([[1] * (skip + len(i)) for i in ids], 0).to(device)}
    branch, position = [], []  # of each token; branch 0 is the prompt
    for row, own in zip(rows, answers, strict=True):
        spans = [(0, range(skip, skip + len(row)))]
        spans += [(j, range(skip + len(row), skip + len(row) + len(answer) - 1))
                  for j, answer in enumerate(own, start=1)]
        branch.append([j for j, span in spans for _ in span])
        position.append([p for _, span in spans for p in span])
    branch, position = pad(branch, -1).to(device), pad(position, 0).to(device)
    width = branch.shape[1]
    seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    seen &= torch.ones(width, width, dtype=torch.bool, device=device).tril()
    # Padding sees padding alone, so that no row of the mask is empty.
    seen &= (branch[:, None, :] >= 0) | (branch[:, :, None] < 0)
    seen = torch.cat([seen.new_ones(len(rows), width, skip), seen], dim=2)
    mask = torch.zeros(seen.shape, dtype=net.dtype, device=device)
    mask = mask.masked_fill(~seen, torch.finfo(net.dtype).min)
    return {"attention_mask": mask[:, None], "position_ids": position}
