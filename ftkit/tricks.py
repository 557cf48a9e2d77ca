"""What makes fit fast, chosen for each training; `without` leaves any of it off by name.

Each is explained and measured in docs/speed.md, and switched on one by one in lesson 20.
"""

from contextlib import ExitStack, contextmanager

import transformers

from ftkit import attention, cache, compiling, hardware, losses
from ftkit.dropout import quick_dropout
from ftkit.hardware import Choice
from ftkit.methods.prompt import learned_tokens
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
    before = getattr(net.config, "_attn_implementation", None)
    if not own_batches and (packed := _packing(model, machine, without)).value:
        trainer.data_collator = transformers.DataCollatorWithFlattening()
        kernel = "flash_attention_2"
        said.append(packed.why)
    if hasattr(net, "set_attn_implementation"):
        net.set_attn_implementation(attention.best(net.config, kernel))
    with ExitStack() as stack:
        if (
            model.task == "causal-lm"
            and not whole_logits
            and "label_logits" not in without
            and losses.scores_labels_only(model.net)
        ):
            stack.enter_context(losses.label_only_head(model.net))
        noisy = trainer.args.neftune_noise_alpha  # other embeddings for a text each time
        wanted = plain and not noisy and cache.suits(model.task) and "trunk_cache" not in without
        trunk = stack.enter_context(cache.trunk(model.net, wanted=wanted, training=True))
        if trunk.why:
            said.append(trunk.why)
        compiled = Choice(False, "")
        if plain and not trunk.value and "compiled_blocks" not in without:
            compiled, seconds = compiling.choose(
                machine, hardware.shape_of(net), tokens, plan.dtype
            )
            if compiled.value or seconds > LONG:
                said.append(compiled.why)
        stack.enter_context(compiling.compiled_blocks(net, compiled.value))
        plain = plain and not compiled.value
        stack.enter_context(kept_pages(machine.device == "cpu" and "kept_pages" not in without))
        stack.enter_context(quick_dropout(plain and "quick_dropout" not in without))
        try:
            yield said
        finally:
            if kernel == "flash_attention_2":  # it cannot read the float32 weights elsewhere
                net.set_attn_implementation(before)


def _packing(model, machine, without):
    if "packing" in without or learned_tokens(model.net):
        return Choice(False, "")
    return hardware.choose_packing(machine, model.task)
