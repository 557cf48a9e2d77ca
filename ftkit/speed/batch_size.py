"""The batch that fits on a card: tried with the longest texts, not guessed."""

from contextlib import nullcontext

import torch

from ftkit.errors import SettingError
from ftkit.models.hardware import GIB

MARGIN = 0.05  # of what a batch needs, that must be free beside it
STATE = 8  # bytes that AdamW keeps for each trained weight, from the first update on


def divisors(size):
    """The sizes that a batch can be split into evenly, largest first: 12, 6, 4, 3, 2, 1."""
    return [part for part in range(size, 0, -1) if size % part == 0]


def fit_batch(trainer, rows):
    """Split a Trainer's batches until one of the longest texts fits in the card's memory.

    rows: of batching.encode. A batch is split evenly and its gradients are accumulated. Parameters,
    gradients and random numbers are as before. Returns what was done, in words; "" where the batch
    fits as it is. Raises SettingError when not even one text fits.
    """
    arguments, net = trainer.args, trainer.model
    whole = arguments.per_device_train_batch_size
    order = sorted(range(len(rows)), key=lambda i: -rows.lengths[i])
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    for size in divisors(whole):
        texts = [rows[i] for i in order[:size]]
        used = _used(trainer, texts, STATE * trained)
        # Once more with some memory taken away: no two steps come to quite the same.
        if used and _used(trainer, texts, STATE * trained + int(MARGIN * used)):
            break
    else:
        free, total = torch.cuda.mem_get_info()
        raise SettingError(f"a text of {int(rows.lengths.max())} tokens does not fit: "
                           f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free on this card. "
                           "Train fewer weights (Freeze, LoRA), shorten max_length, set "
                           "activation_checkpointing=True, or choose a smaller model.")
    if size == whole:
        return ""
    arguments.per_device_train_batch_size = size
    arguments.per_device_eval_batch_size = min(size, arguments.per_device_eval_batch_size)
    arguments.gradient_accumulation_steps *= whole // size
    return (
        f"batches of {whole} do not fit in this card's memory with the longest texts: each update "
        f"is made of {whole // size} batches of {size}"
    )


def _used(trainer, texts, taken):
    """Bytes that forward and backward passes of some rows use, beside `taken` bytes; None where
    they do not fit."""
    net, training = trainer.model, trainer.model.training
    device = next(net.parameters()).device
    batch = trainer.data_collator(texts)
    batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
    held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            reserved = torch.empty(taken, dtype=torch.uint8, device=device)
            net.train()
            for _ in range(2):  # the second finds the gradients of the first, and other gaps
                # Packed rows see to their format themselves; twice would be compiled twice.
                half = nullcontext() if trainer.packed_loss else trainer.accelerator.autocast()
                with half:
                    trainer.compute_loss(net, batch).backward()
            del reserved
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else held + 1
        return max(1, peak - held - taken)
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        batch.clear()
        net.zero_grad(set_to_none=True)
        net.train(training)
        if device.type == "cuda":
            torch.cuda.empty_cache()
