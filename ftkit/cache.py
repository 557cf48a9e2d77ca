"""What is computed once: the outputs of a decoder's frozen lower blocks, kept for each text.

When only the blocks from number k up are trained, those below give the same output for the same
text in every epoch and in every evaluation. They run once; training and evaluation start above.
Nothing else changes: the result is equal up to the rounding of a differently padded batch.
"""

from contextlib import contextmanager

import torch
import xxhash

from ftkit import losses
from ftkit.hardware import Choice
from ftkit.methods.prompt import learned_tokens

LIMIT = 1 << 30  # bytes of activations kept in memory, over all models
# Decoders in which the first block gets the token embeddings as they are, and positions enter
# inside the blocks (rotary). Others scale the embeddings or add positions to them.
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")

_kept = {}  # fingerprint of a trunk: {text: activations at the input of the first trained block}


def forget():
    """Free the memory of all kept activations."""
    _kept.clear()


def kept_bytes():
    """Bytes of activations that are kept now."""
    return sum(hidden.nbytes for rows in _kept.values() for hidden in rows.values())


def trunk_depth(net, *, training=False):
    """How many blocks from the bottom are frozen and can be run once: a Choice of 0 or more.

    The reason is empty where nothing is frozen, so that there is nothing to choose.
    """
    if learned_tokens(net):
        return Choice(0, "no trunk cache: what every block computes follows the learned prompt")
    model = losses.inner(net)
    decoder = losses.backbone(net)
    blocks = getattr(decoder, "layers", None)
    if blocks is None or _trained(decoder.get_input_embeddings()):
        return Choice(0, "")
    depth = next((i for i, block in enumerate(blocks) if _trained(block)), len(blocks))
    if not depth:
        return Choice(0, "")
    frozen = f"{depth} of {len(blocks)} blocks are frozen"
    if model.config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        return Choice(0, f"no trunk cache: {frozen}, but it knows {known} models only")
    if training and (name := _random_part(blocks[:depth], model.config)):
        return Choice(0, f"no trunk cache: {frozen}, but there is dropout in them ({name})")
    if any(hasattr(m, "base_layer") or hasattr(m, "bottleneck") for m in blocks[:depth].modules()):
        return Choice(0, f"no trunk cache: {frozen}, but there are adapters in them")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Choice(0, f"no trunk cache: {frozen}, but several processes share the work")
    if any("forward" in vars(module) for module in (decoder, *blocks)):
        return Choice(0, f"no trunk cache: {frozen}, but something else has wrapped them")
    return Choice(depth, f"trunk cache: {frozen} and run once for each text")


@contextmanager
def trunk(net, *, wanted=True, training=False):
    """While open, frozen lower blocks are not run again for a text that went through them before.

    net: a causal model. wanted=False switches it off. Yields the Choice that was made.
    Calls that are no plain reading of whole texts (generation, a key-value cache, padding on the
    left, activation checkpointing) run through all blocks as always.
    """
    choice = trunk_depth(net, training=training) if wanted else Choice(0, "")
    if not choice.value:
        yield choice
        return
    decoder = losses.backbone(net)
    reader = _Reader(decoder, choice.value)
    try:
        for number, block in enumerate(decoder.layers):
            block.forward = reader.passing(number, block.forward)
        decoder.forward = reader
        yield choice
    finally:
        for module in (decoder, *decoder.layers):
            vars(module).pop("forward", None)


class _Reader:
    """A decoder's forward that looks the trunk's output up and runs only the blocks above it."""

    def __init__(self, decoder, depth):
        self.decoder, self.depth, self.original = decoder, depth, decoder.forward
        self.part, self.caught = None, None  # which part of the blocks runs: below, above or all
        self.kept = _kept.setdefault(_fingerprint(decoder, depth), {})
        self.room = LIMIT - kept_bytes()
        for rows in list(_kept.values()):  # texts of other trunks give way
            if self.room <= 0 and rows is not self.kept:
                rows.clear()
                self.room = LIMIT - kept_bytes()

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
        lengths = None if args or self.part else self._lengths(**kwargs)
        if lengths is None:
            return self.original(*args, **kwargs)
        ids, kwargs = kwargs["input_ids"], {k: v for k, v in kwargs.items() if k != "input_ids"}
        return self._only("above", inputs_embeds=self._hidden(ids, lengths), **kwargs)

    def _only(self, part, **kwargs):
        self.part = part
        try:
            return self.original(**kwargs)
        finally:
            self.part = None

    def _lengths(self, input_ids=None, attention_mask=None, use_cache=None, **rest):
        """Each row's number of tokens; None where the call is no plain reading of whole texts."""
        if input_ids is None or use_cache is not False or any(v is not None for v in rest.values()):
            return None
        if self.decoder.training and _checkpointed(self.decoder):
            return None
        if attention_mask is None:
            return [input_ids.shape[1]] * len(input_ids)
        if attention_mask.dim() != 2 or (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
            return None
        lengths = attention_mask.sum(1).tolist()
        return lengths if all(lengths) else None

    def _hidden(self, ids, lengths):
        """Outputs of the trunk, shape (rows, tokens, hidden), zero at the padding."""
        tag = _autocast(ids.device).encode()
        cells = ids.cpu().numpy()
        texts = [tag + row[:n].tobytes() for row, n in zip(cells, lengths, strict=True)]
        found = {text: self.kept[text] for text in texts if text in self.kept}
        if new := [i for i, text in enumerate(texts) if text not in found]:
            for i, hidden in zip(new, self._run_trunk(ids, lengths, new), strict=True):
                found[texts[i]] = hidden
                if (size := hidden.nbytes) <= self.room and texts[i] not in self.kept:
                    self.kept[texts[i]] = hidden
                    self.room -= size
        first = found[texts[0]]
        hidden = torch.zeros(*ids.shape, first.shape[-1], dtype=first.dtype, device=ids.device)
        for i, text in enumerate(texts):
            hidden[i, : lengths[i]] = found[text]
        return hidden

    def _run_trunk(self, ids, lengths, rows):
        """Run the lower blocks over some rows of a batch. Returns a tensor for each, on the CPU."""
        width = max(lengths[i] for i in rows)
        mask = torch.zeros(len(rows), width, dtype=torch.long, device=ids.device)
        for place, i in enumerate(rows):
            mask[place, : lengths[i]] = 1
        with torch.no_grad():
            self._only("below", input_ids=ids[rows, :width], attention_mask=mask, use_cache=False)
        caught, self.caught = self.caught.detach(), None
        return [caught[place, : lengths[i]].to("cpu", copy=True) for place, i in enumerate(rows)]


def _trained(module):
    return any(p.requires_grad for p in module.parameters())


def _random_part(blocks, config):
    """The name of something random in these blocks while training, or None."""
    if getattr(config, "attention_dropout", 0):
        return "attention_dropout"
    modules = (pair for block in blocks for pair in block.named_modules())
    return next((name for name, m in modules if isinstance(m, torch.nn.Dropout) and m.p > 0), None)


def _checkpointed(decoder):
    return any(getattr(block, "gradient_checkpointing", False) for block in decoder.layers)


def _autocast(device):
    enabled = torch.is_autocast_enabled(device.type)
    return str(torch.get_autocast_dtype(device.type)) if enabled else ""


def _fingerprint(decoder, depth):
    """What a trunk's output depends on beside the text: its weights and how it sees positions."""
    positions = getattr(decoder.config, "rope_parameters", None)
    digest = xxhash.xxh3_128(f"{depth} {positions}".encode())
    for module in (decoder.get_input_embeddings(), *decoder.layers[:depth]):
        for name, tensor in module.state_dict().items():
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
