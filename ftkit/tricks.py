"""What makes fit fast, chosen for each training; `without` leaves any of it off by name.

Each is explained and measured in docs/speed.md, and switched on one by one in lesson 20.
"""

from contextlib import ExitStack, contextmanager

import transformers

from ftkit import abilities, attention, cache, compiling, hardware, losses
from ftkit.dropout import quick_dropout
from ftkit.errors import SettingError
from ftkit.hardware import Choice
from ftkit.label_logits import LabelLogits
from ftkit.losses import learned_tokens
from ftkit.pages import kept_pages

LONG = 600  # seconds of training from which on fit says why it does not compile


@contextmanager
def applied(model, trainer, plan, *, tokens, without, own_batches=False, whole_logits=False):
    """While open, a training uses everything that suits it. Yields what it chose, in words.

    tokens: of the training data, over all epochs. without: names. own_batches: the caller collates
    batches in a way of its own. whole_logits: something reads the logits of every position.
    """
    net, machine = losses.inner(model.net), hardware.this_machine()
    plain = not trainer.args.torch_compile  # compiled as a whole, a network must be the library's
    said = []
    kernel = "sdpa" if "plain_attention" in without else plan.attention
    if not own_batches and (packed := _packing(model, machine, without)).value:
        trainer.data_collator = transformers.DataCollatorWithFlattening()
        kernel = "flash_attention_2"
        said.append(packed.why)
    with ExitStack() as stack:
        stack.enter_context(attention.kernel(net, kernel))
        if model.task == "causal-lm" and not whole_logits and not _own_loss(trainer):
            stack.enter_context(_label_logits(model.net, trainer, "label_logits" not in without))
        noisy = trainer.args.neftune_noise_alpha  # other embeddings for a text each time
        wanted = plain and not noisy and cache.suits(model.task) and "trunk_cache" not in without
        trunk = stack.enter_context(cache.trunk(model.net, wanted=wanted, training=True))
        if trunk.why:
            said.append(trunk.why)
        compiled = Choice(False, "")
        if plain and not trunk.value and "compiled_blocks" not in without:
            compiled, seconds = compiling.choose(machine, hardware.shape_of(net), tokens)
            if compiled.value or seconds > LONG:
                said.append(compiled.why)
        stack.enter_context(compiling.compiled_blocks(net, compiled.value))
        plain = plain and not compiled.value
        stack.enter_context(kept_pages(machine.device == "cpu" and "kept_pages" not in without))
        stack.enter_context(quick_dropout(plain and "quick_dropout" not in without))
        yield said


@contextmanager
def _label_logits(net, trainer, wanted):
    """While open, a decoder's head is applied at labels only, and its learned prompt runs once."""
    learned = learned_tokens(net)
    prefix = learned and net.active_peft_config.peft_type == "PREFIX_TUNING"
    checkpointing = trainer.args.activation_checkpointing or trainer.args.gradient_checkpointing
    if prefix and checkpointing:
        raise SettingError(
            "activation checkpointing would drop the keys and values of the prefix; give fit a "
            "smaller batch_size and activation_checkpointing=False, or use PromptTuning."
        )
    # A router's loss wants to know about the prompt's tokens, too.
    whole = checkpointing or getattr(losses.inner(net).config, "output_router_logits", False)
    once = bool(learned) and not prefix and not whole and abilities.continues(net)
    ahead = 0 if once or prefix else learned
    collate = trainer.data_collator
    if wanted or ahead:
        trainer.data_collator = LabelLogits(collate, net, ahead=ahead, wanted=wanted)
    try:
        with losses.prompt_once(net, once):
            yield
    finally:
        trainer.data_collator = collate


def _own_loss(trainer):
    """Whether something reads the logits of every position to make a loss of its own."""
    return trainer.compute_loss_func is not None or trainer.args.label_smoothing_factor


def _packing(model, machine, without):
    if "packing" in without or learned_tokens(model.net):
        return Choice(False, "")
    return hardware.choose_packing(machine, model.task)
