"""What is computed once: the outputs of a model's frozen lower blocks, kept for each text.

When only the blocks from number k up are trained, those below give the same output for the same
text in every epoch and in every evaluation. They run once; training and evaluation start above.
What took long is also kept in files, for other runs, seeds and notebooks (disk_cache.py).
Nothing else changes: the result is equal up to the rounding of a differently padded batch.
"""

import json
import time
from contextlib import contextmanager

import numpy as np
import torch
import xxhash

from ftkit.assets.disk_cache import LONG, Store, config_text
from ftkit.models import structure
from ftkit.models.hardware import Choice
from ftkit.models.learned_prompt import learned_tokens
from ftkit.models.structure import blocks as blocks_of

LIMIT = 1 << 30  # bytes of activations kept in memory, over all models
# The module whose output is the first block's input, by kind of model. In these decoders positions
# enter inside the blocks (rotary); others scale the embeddings or add positions on the way.
ENTRANCES = dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3"), "embed_tokens")
ENTRANCES |= dict.fromkeys(("bert", "roberta", "xlm-roberta"), "embeddings")
EACH_TOKEN = ("input_ids", "token_type_ids", "position_ids")  # arguments with a number a token

_kept = {}  # fingerprint of a backbone: {text: activations at the input of the first trained block}
_stores = {}  # fingerprint of a backbone: the same in files


def clear():
    """Free the memory of all kept activations; those in files stay."""
    _kept.clear()
    _stores.clear()


def cached_bytes():
    """Bytes of activations that are kept now."""
    return sum(hidden.nbytes for rows in _kept.values() for hidden in rows.values())


def suits(spec):
    """Whether a task reads the same texts again: masked words are drawn anew each time."""
    return not spec.masked and not spec.target


def frozen_depth(net, *, training=False):
    """A Choice of how many blocks from the bottom run once; no reason where none is frozen."""
    if learned_tokens(net):
        return Choice(0, "no backbone cache: what every block computes follows the learned prompt")
    reader, kind = structure.backbone(net), structure.inner(net).config.model_type
    lists = any(isinstance(module, torch.nn.ModuleList) for module in reader.modules())
    if not lists or _trained(reader.get_input_embeddings()):
        return Choice(0, "")
    blocks = blocks_of(reader)
    depth = next((i for i, block in enumerate(blocks) if _trained(block)), len(blocks))
    if not depth:
        return Choice(0, "")
    frozen = f"{depth} of {len(blocks)} blocks are frozen"
    if kind not in ENTRANCES:
        known = ", ".join(ENTRANCES)
        return Choice(0, f"no backbone cache: {frozen}, but it knows {known} models only")
    entrance = getattr(reader, ENTRANCES[kind])
    if _trained(entrance):
        return Choice(0, "")
    below = (entrance, *blocks[:depth])
    if training and (name := _random_part(below)):
        return Choice(0, f"no backbone cache: {frozen}, but there is dropout in them ({name})")
    adapters = ("base_layer", "bottleneck")
    if any(hasattr(m, name) for part in below for m in part.modules() for name in adapters):
        return Choice(0, f"no backbone cache: {frozen}, but there are adapters in them")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Choice(0, f"no backbone cache: {frozen}, but several processes share the work")
    if any("forward" in vars(module) for module in (reader, entrance, *blocks)):
        return Choice(0, f"no backbone cache: {frozen}, but something else has wrapped them")
    return Choice(depth, f"backbone cache: {frozen} and run once for each text")


@contextmanager
def frozen_features(net, *, wanted=True, training=False):
    """While open, frozen lower blocks are not run again for a text that went through them before.

    net: a decoder or an encoder. wanted=False switches it off. Yields the Choice that was made.
    Calls that are no plain reading of whole texts (generation, a key-value cache, padding on the
    left, activation checkpointing) run through all blocks as always.
    """
    choice = frozen_depth(net, training=training) if wanted else Choice(0, "")
    if not choice.value:
        yield choice
        return
    model = structure.backbone(net)
    reader = _Reader(model, choice.value)
    entrance, blocks = reader.entrance, reader.blocks
    before = getattr(model.config, "use_cache", None)
    try:
        if reader.decodes and structure.head(net) is None:
            model.config.use_cache = False  # a head for classes has no use for it, and does not say
        entrance.forward = reader.entering(entrance.forward)
        for number, block in enumerate(blocks):
            block.forward = reader.passing(number, block.forward)
        model.forward = reader
        if found := reader.store.earlier:
            choice = Choice(choice.value, f"{choice.why}; files of earlier runs hold {found:,}")
        yield choice
    finally:
        reader.close()
        if reader.decodes:
            model.config.use_cache = before
        for module in (model, entrance, *blocks):
            vars(module).pop("forward", None)


class _Reader:
    """A model's forward that looks the backbone's output up and runs only the blocks above it."""

    def __init__(self, model, depth):
        self.model, self.depth, self.original = model, depth, model.forward
        self.entrance = getattr(model, ENTRANCES[model.config.model_type])
        self.blocks = blocks_of(model)
        # Decoders answer with a key-value cache unless they are told not to.
        self.decodes = isinstance(self.entrance, torch.nn.Embedding)
        self.part, self.caught, self.hidden = None, None, None  # part: below, above, or all blocks
        fingerprint = _fingerprint(self.entrance, self.blocks[:depth], model)
        self.kept = _kept.setdefault(fingerprint, {})
        if fingerprint not in _stores:
            _stores[fingerprint] = Store("backbone", fingerprint, hold=False)
        self.store, self.seconds = _stores[fingerprint], 0.0
        limit = _limit(next(model.parameters()).device)
        self.room = limit - cached_bytes()
        for other, rows in list(_kept.items()):  # texts of other backbones give way
            if self.room <= 0 and rows is not self.kept:
                rows.clear()
                _stores.pop(other, None)
                self.room = limit - cached_bytes()

    def close(self):
        """Write what is new to a file where it took long to compute."""
        if self.seconds >= LONG:
            self.store.write()

    def entering(self, forward):
        """The entrance's forward, which gives what was looked up where there is no need for it."""

        def run(*args, **kwargs):
            return self.hidden if self.part == "above" else forward(*args, **kwargs)

        return run

    def passing(self, number, forward):
        """A block's forward that hands its input on where the block is not to run."""

        def run(hidden_states, *args, **kwargs):
            below = number < self.depth
            if self.part == ("above" if below else "below"):
                return hidden_states
            out = forward(hidden_states, *args, **kwargs)
            if self.part == "below" and number == self.depth - 1:
                self.caught = out
            return out

        return run

    def __call__(self, *args, **kwargs):
        named = {"input_ids": args[0], **kwargs} if args else kwargs  # first in all of these models
        lengths = None if self.part or len(args) > 1 else self._lengths(**named)
        if lengths is None:
            return self.original(*args, **kwargs)
        self.hidden = self._hidden(named, lengths)
        try:
            return self._only("above", **named)
        finally:
            self.hidden = None

    def _only(self, part, **kwargs):
        self.part = part
        try:
            return self.original(**kwargs)
        finally:
            self.part = None

    def _lengths(self, input_ids=None, attention_mask=None, use_cache=None, **rest):
        """Each row's number of tokens; None where the call is no plain reading of whole texts."""
        branched = attention_mask is not None and attention_mask.dim() == 4
        # Of the two last, which Trainer and collators give, only the loss function reads anything.
        plain = ("token_type_ids", "return_dict", "position_ids" if branched else "")
        plain += ("num_items_in_batch", "shift_labels")
        if input_ids is None or any(v is not None for k, v in rest.items() if k not in plain):
            return None
        unsaid = self.model.config.use_cache if self.decodes and use_cache is None else False
        if use_cache or unsaid:
            return None
        if self.model.training and any(
            getattr(block, "gradient_checkpointing", False) for block in self.blocks
        ):
            return None
        if attention_mask is None:
            return [input_ids.shape[1]] * len(input_ids)
        if branched:
            return _branched_lengths(attention_mask)
        if attention_mask.dim() != 2 or (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
            return None
        lengths = attention_mask.sum(1).tolist()
        return lengths if all(lengths) else None

    def _hidden(self, named, lengths):
        """Outputs of the backbone, shape (rows, tokens, hidden), zero at the padding."""
        ids, mask = named["input_ids"], named.get("attention_mask")
        tag = _autocast(ids.device).encode()
        cells = [named[k].cpu().numpy() for k in EACH_TOKEN if named.get(k) is not None]
        texts = [
            tag + b"|".join(rows[i, :n].tobytes() for rows in cells) for i, n in enumerate(lengths)
        ]
        if mask is not None and mask.dim() == 4:
            seen = mask[:, 0].cpu().numpy() == 0
            texts = [text + np.packbits(seen[i, :n, :n]).tobytes()
                     for i, (text, n) in enumerate(zip(texts, lengths, strict=True))]
        texts = [xxhash.xxh3_128_hexdigest(text) for text in texts]
        found = {text: self.kept.get(text) for text in texts}
        found = {text: self.store.get(text) if hidden is None else hidden
                 for text, hidden in found.items()}
        if new := [i for i, text in enumerate(texts) if found[text] is None]:
            for i, hidden in zip(new, self._run_frozen(named, lengths, new), strict=True):
                found[texts[i]] = hidden
                if hidden.device.type == "cpu":  # on a card it is quicker to compute than to read
                    self.store.put(texts[i], hidden)
                if (size := hidden.nbytes) <= self.room and texts[i] not in self.kept:
                    self.kept[texts[i]] = hidden
                    self.room -= size
        width = found[texts[0]].shape[-1]
        hidden = torch.zeros(*ids.shape, width, dtype=self.model.dtype, device=ids.device)
        for i, text in enumerate(texts):
            hidden[i, : lengths[i]] = found[text]
        return hidden

    def _run_frozen(self, named, lengths, rows):
        """Run the lower blocks over some rows of a batch. Returns a tensor for each, on the CPU."""
        width = max(lengths[i] for i in rows)
        given = named.get("attention_mask")
        if given is not None and given.dim() == 4:
            mask = given[rows, :, :width, :width]
        else:
            mask = torch.zeros(len(rows), width, dtype=torch.long, device=named["input_ids"].device)
            for place, i in enumerate(rows):
                mask[place, : lengths[i]] = 1
        extra = {k: named[k][rows, :width] for k in EACH_TOKEN if named.get(k) is not None}
        if self.decodes:
            extra["use_cache"] = False
        start = time.perf_counter()
        with torch.no_grad():
            self._only("below", attention_mask=mask, **extra)
        self.seconds += time.perf_counter() - start
        caught, self.caught = self.caught.detach(), None
        if torch.is_autocast_enabled(caught.device.type):  # computed no more exactly than this
            caught = caught.to(torch.get_autocast_dtype(caught.device.type))
        # What is kept stays where it will be read: on a card, no step waits for a transfer.
        return [caught[place, : lengths[i]].clone() for place, i in enumerate(rows)]


def _limit(device):
    """Bytes that may be kept: on a card no more than an eighth of what is free there."""
    if device.type != "cuda":
        return LIMIT
    return min(LIMIT, torch.cuda.mem_get_info(device)[0] // 8)


def _branched_lengths(mask):
    """Lengths of rows whose mask says who sees whom, shape (rows, 1, tokens, tokens), 0 for seen.

    None unless every token of a row sees its first one, and none sees what stands behind the row.
    """
    seen = mask[:, 0] == 0
    real = seen[:, :, 0]
    if (real[:, 1:] > real[:, :-1]).any() or (seen & real[:, :, None] & ~real[:, None, :]).any():
        return None
    lengths = real.sum(1).tolist()
    return lengths if all(lengths) else None


def _trained(module):
    return any(p.requires_grad for p in module.parameters())


def _random_part(modules):
    """The name of something random in these modules while training, or None."""
    for name, module in (pair for part in modules for pair in part.named_modules()):
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            return name
        if getattr(module, "attention_dropout", 0):
            return "attention_dropout"
    return None


def _autocast(device):
    enabled = torch.is_autocast_enabled(device.type)
    return str(torch.get_autocast_dtype(device.type)) if enabled else ""


def _fingerprint(entrance, blocks, model):
    """What a backbone's output depends on beside the text: weights, configuration, and how it runs.

    The code and the packages are those of the store.
    """
    asked = [config_text(model.config), len(blocks), str(model.device.type),
             torch.get_float32_matmul_precision()]
    digest = xxhash.xxh3_128(json.dumps(asked).encode())
    above = {id(buffer) for block in blocks_of(model)[len(blocks):] for buffer in block.buffers()}
    parts = [pair for module in (entrance, *blocks) for pair in module.state_dict().items()]
    parts += [(n, buffer) for n, buffer in model.named_buffers() if id(buffer) not in above]
    for name, tensor in parts:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
