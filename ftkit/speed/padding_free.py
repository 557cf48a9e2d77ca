"""Batches of a decoder without padding: the texts stand in one row, and attention keeps them apart.

A batch of texts of different lengths, padded to its longest, is mostly padding. Behind each other
in one row nothing is wasted, as long as no text sees its neighbours: positions begin anew with
each, and attention is told where each begins (the variable-length kernels of FlashAttention, Dao
2023, which PyTorch brings along). `document_attention` is registered with transformers under NAME,
and `PackedCollator` makes the batches; both work with a plain transformers.Trainer, too.
"""

from contextlib import contextmanager
from inspect import signature

import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention.varlen import varlen_attn

from ftkit.models.precision import FORMATS
from ftkit.models.structure import IGNORED, at_rest, backbone, inner
from ftkit.speed.attention import kernel
from ftkit.speed.packed_loss import PackedLoss, read

NAME = "documents"
HALF = (torch.bfloat16, torch.float16)

# Before PyTorch 2.12 heads that share keys and values need no word.
SHARED = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}


def document_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0,
                       sliding_window=None, cu_seq_lens_q=None, max_length_q=None, **kwargs):
    """Causal attention over texts that stand behind each other in one row.

    query: shape (1, heads, tokens, width). key, value: (1, shared heads, tokens, width).
    cu_seq_lens_q: int32, (texts + 1,), where each text begins, and the end of the last.
    max_length_q: tokens of the longest text. Returns (1, tokens, heads, width), and None: no
    weights. Raises ValueError without cu_seq_lens_q, and for what it cannot compute.
    """
    if cu_seq_lens_q is None or query.shape[0] != 1:
        raise ValueError(f"{NAME!r} attention reads one row of texts with cu_seq_lens_q, which "
                         f"says where each begins; it got {query.shape[0]} rows. Set another "
                         "attn_implementation for padded batches.")
    if dropout or kwargs.get("softcap") or attention_mask is not None:
        raise ValueError(f"{NAME!r} attention has no dropout, no softcap and no mask.")
    query, key, value = (part.transpose(1, 2)[0] for part in (query, key, value))
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    device = query.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    query, key, value = (part.to(kind) for part in (query, key, value))
    if device == "cuda" and kind in HALF:
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        out = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q,
                          max_length_q, scale=scaling, window_size=window, **SHARED)
        return out[None], None
    return _one_by_one(query, key, value, cu_seq_lens_q, scaling, sliding_window)[None], None


def _one_by_one(query, key, value, starts, scaling, window):
    """The same text by text, for any device and number format; it waits for the device."""
    parts, places = [], starts.tolist()
    for start, end in zip(places, places[1:], strict=False):
        if start == end:
            continue
        q, k, v = (part[start:end].transpose(0, 1)[None] for part in (query, key, value))
        mask = None
        if window is not None and end - start > window:
            age = torch.arange(end - start, device=q.device)
            age = age[:, None] - age[None]
            mask = (age >= 0) & (age < window)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
        )
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


# Without a mask function of its own, transformers makes no mask for it: the texts' ends say it all.
transformers.AttentionInterface.register(NAME, document_attention)


class PackedCollator:
    """Make one row of a batch's texts, with where each begins and what is to be predicted.

    unit: the row is filled up to a multiple of so many tokens, and the labelled positions as well,
    so that few sizes occur; the filling is texts of its own, without labels. 1 fills nothing.
    longest: tokens that no text exceeds; what the kernel is told, so that it is always the same.
    labelled: the share of the row that labelled positions seldom exceed; they are filled up to it.

    Gives input_ids, position_ids and labels, shape (1, tokens); cu_seq_lens_q and cu_seq_lens_k,
    (texts + 1,), int32, with max_length_q and max_length_k; logits_to_keep, (labelled,), the
    positions whose next token carries loss; and shift_labels, (1, labelled), those tokens, IGNORED
    in the filling. A decoder's own forward takes all of that, and its loss is that of the texts.
    """

    def __init__(self, pad_token_id, *, unit=1, longest=None, labelled=1.0):
        self.pad, self.unit, self.longest = pad_token_id or 0, unit, longest
        self.labelled = labelled

    def __call__(self, rows):
        ids = [token for row in rows for token in row["input_ids"]]
        lengths = [len(row["input_ids"]) for row in rows]
        most = max(self.longest or 0, max(lengths))
        gap = -len(ids) % self.unit
        # As many filling texts as there may ever be, empty ones last: the shapes stay the same.
        fill = [min(most, max(0, gap - i * most)) for i in range(-(-(self.unit - 1) // most))]
        shift = []
        for row in rows:  # what a text's first token would be predicted from is not there
            shift += [*row["labels"][1:], IGNORED]
        shift += [IGNORED] * gap
        keep = [place for place, label in enumerate(shift) if label != IGNORED]
        target = [shift[place] for place in keep]
        spare = max(0, self._room(len(ids) + gap, len(keep)) - len(keep))
        positions = torch.cat([torch.arange(n) for n in (*lengths, *fill)])
        shift = torch.tensor([shift])
        starts = torch.tensor([0, *lengths, *fill]).cumsum(0).to(torch.int32)
        return {"input_ids": torch.tensor([ids + [self.pad] * gap]),
                "position_ids": positions[None], "cu_seq_lens_q": starts, "cu_seq_lens_k": starts,
                "max_length_q": most, "max_length_k": most,
                "logits_to_keep": torch.tensor(keep + [0] * spare),
                "shift_labels": torch.tensor([target + [IGNORED] * spare]),
                "labels": torch.cat([torch.tensor([[IGNORED]]), shift[:, :-1]], dim=1)}

    def _room(self, tokens, labelled):
        """Labelled positions of a row of so many tokens, with the filling."""
        if self.unit == 1:
            return max(1, labelled)
        usual = -(-int(tokens * self.labelled) // self.unit) * self.unit
        return usual if labelled <= usual else tokens


def text_states(net, *texts):
    """The hidden states of the last of several texts, lists of token ids, that share a row."""
    batch = PackedCollator(0)([{"input_ids": ids, "labels": ids} for ids in texts])
    given = read(batch, next(net.parameters()).device)
    return backbone(net)(use_cache=False, **given)[0][0][-len(texts[-1]) :].float()


@torch.no_grad()
def keeps_apart(net):
    """Whether a decoder gives texts in one row exactly what it gives each of them alone.

    Tried: with another text before it, a text's hidden states must stay the same to the last bit,
    and be those of the text alone within rounding.
    """
    words = inner(net).config.get_text_config().vocab_size
    device, draw = next(net.parameters()).device, torch.Generator().manual_seed(0)
    first, other, text = (torch.randint(words, (n,), generator=draw).tolist() for n in (9, 9, 7))
    try:
        with at_rest(net):
            with kernel(inner(net), NAME):
                one, two = text_states(net, first, text), text_states(net, other, text)
            ids = torch.tensor([text], device=device)
            alone = backbone(net)(input_ids=ids, use_cache=False)[0][0].float()
    except (ValueError, TypeError, RuntimeError, NotImplementedError):
        return False
    near = 1e-4 if next(net.parameters()).dtype == torch.float32 else 3e-2
    return torch.equal(one, two) and (one - alone).norm() <= near * alone.norm()


def unit(trainer):
    """What rows are filled up to: about an eighth of a usual one.

    Each size is captured once, which takes as long as some steps, and half of the filling costs
    less.
    """
    rows, size = trainer.train_dataset, trainer.args.per_device_train_batch_size
    tokens = float(rows.lengths.mean()) * min(size, len(rows))
    return max(64, int(tokens / 8) // 64 * 64)


@contextmanager
def packed(model, trainer, dtype):
    """While open, a Trainer's batches of a decoder are rows without padding, drawn at random.

    dtype: a name of precision.FORMATS, what products are computed in.
    """
    rows = trainer.train_dataset
    labels = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    card = model.device.type == "cuda"
    collate = PackedCollator(model.tokenizer.pad_token_id, unit=unit(trainer) if card else 1,
                             longest=-(-int(rows.lengths.max()) // 128) * 128 if card else None,
                             labelled=min(1.0, labels / rows.lengths.sum() + 0.05))
    before = trainer.data_collator
    half = FORMATS[dtype] if FORMATS[dtype] in HALF else None
    trainer.packed_loss = PackedLoss(model.net, half)
    trainer.data_collator, trainer.group_by_length = collate, False
    try:
        with kernel(inner(model.net), NAME):
            yield
    finally:
        trainer.data_collator, trainer.packed_loss = before, None
