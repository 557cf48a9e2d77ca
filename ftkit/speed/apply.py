"""What makes fit fast, chosen for each training; `disable` leaves any of it off by name.

Each is explained and measured in docs/speed.md, and switched on one by one in lesson 20.
"""

from contextlib import ExitStack, contextmanager

from ftkit.errors import SettingError
from ftkit.models import capabilities, hardware, learned_prompt, structure
from ftkit.models.hardware import Choice
from ftkit.models.learned_prompt import learned_tokens
from ftkit.speed import attention, cuda_graphs, feature_cache, padding_free
from ftkit.speed import compile_blocks as compiling
from ftkit.speed.allocator import keep_freed_memory
from ftkit.speed.batch_size import fit_batch
from ftkit.speed.dropout import fast_dropout
from ftkit.speed.logits_to_keep import LogitsToKeep

LONG = 600  # seconds of training from which on fit says why it does not compile


@contextmanager
def applied(model, trainer, plan, *, tokens, disable, own_batches=False, whole_logits=False,
            compile_blocks=None, own_size=False):
    """While open, a training uses everything that suits it. Yields what it chose, in words.

    tokens: of the training data, over all epochs. disable: names. own_batches: the caller collates
    batches in a way of its own. whole_logits: something reads the logits of every position.
    compile_blocks: whether torch.compile is used; None where an estimate says that it pays.
    own_size: the caller says how many texts a batch has, and none is tried.
    """
    net, machine = structure.inner(model.net), hardware.this_machine()
    plain = not trainer.args.torch_compile  # compiled as a whole, a network must be the library's
    said = []
    kernel = "sdpa" if "eager_attention" in disable else plan.attention
    with ExitStack() as stack:
        stack.enter_context(attention.kernel(net, kernel))
        packed = Choice(False, "")
        own_loss = _own_loss(trainer) or hasattr(trainer.method, "loss")
        if plain and not (own_batches or whole_logits or own_loss):
            packed = _padding_free(model, machine, plan.dtype, disable)
        if packed.value:
            stack.enter_context(padding_free.packed(model, trainer, plan.dtype))
        elif model.spec.next_token and not whole_logits and not _own_loss(trainer):
            stack.enter_context(_label_logits(model.net, trainer, disable))
        said.append(packed.why)
        noisy = trainer.args.neftune_noise_alpha  # other embeddings for a text each time
        wanted = plain and not noisy and not packed.value
        wanted = wanted and feature_cache.suits(model.spec) and "feature_cache" not in disable
        wanted = wanted and not getattr(trainer.method, "asks", None)  # of every block
        # Blocks whose activations are computed again are run anew in the backward pass.
        wanted = wanted and not trainer.args.activation_checkpointing
        frozen = feature_cache.frozen_features(model.net, wanted=wanted, training=True)
        backbone = stack.enter_context(frozen)
        if backbone.why:
            said.append(backbone.why)
        compiled = Choice(bool(compile_blocks), "torch.compile of the repeated block, as asked")
        if compile_blocks is None:
            compiled = Choice(False, "")
            if plain and not backbone.value and "compile_blocks" not in disable:
                compiled, seconds = compiling.choose(
                    machine, hardware.shape_of(net), tokens, plan.dtype
                )
                if compiled.value or seconds > LONG:
                    said.append(compiled.why)
        elif compile_blocks:
            said.append(compiled.why)
        stack.enter_context(compiling.compile_blocks(net, compiled.value))
        if compiled.value and packed.value:
            trainer.packed_loss.portion = compiling.compiled(trainer.packed_loss.portion)
        plain = plain and not compiled.value
        on_cpu = machine.device == "cpu"
        stack.enter_context(keep_freed_memory(on_cpu and "keep_freed_memory" not in disable))
        stack.enter_context(fast_dropout(plain and "fast_dropout" not in disable))
        if machine.device == "cuda" and not own_size:
            said.append(fit_batch(trainer, trainer.train_dataset))
            if packed.value:
                trainer.data_collator.unit = padding_free.unit(trainer)
        replayed = _graphs(model, trainer, machine, plan, packed, backbone, own_batches, disable)
        if replayed.value:
            stack.enter_context(cuda_graphs.replayed(model, trainer))
            said.append(replayed.why)
        yield [words for words in said if words]


@contextmanager
def _label_logits(net, trainer, disable):
    """While open, a decoder's head is applied at labels only, and its learned prompt runs once."""
    learned = learned_tokens(net)
    prefix = learned and net.active_peft_config.peft_type == "PREFIX_TUNING"
    checkpointing = trainer.args.activation_checkpointing
    if prefix and checkpointing:
        raise SettingError("activation checkpointing would drop the keys and values of the prefix; "
                           "give fit a smaller batch_size and activation_checkpointing=False, or "
                           "use PromptTuning.")
    # A router's loss wants to know about the prompt's tokens, too.
    whole = checkpointing or getattr(structure.inner(net).config, "output_router_logits", False)
    whole = whole or "prefix_caching" in disable
    once = bool(learned) and not prefix and not whole and capabilities.continues(net)
    wanted = "logits_to_keep" not in disable
    ahead = 0 if once or prefix else learned
    collate = trainer.data_collator
    if wanted or ahead:
        trainer.data_collator = LogitsToKeep(collate, net, ahead=ahead, wanted=wanted)
    try:
        with learned_prompt.prompt_once(net, once):
            yield
    finally:
        trainer.data_collator = collate


def _own_loss(trainer):
    """Whether something reads the logits of every position to make a loss of its own."""
    return trainer.compute_loss_func is not None or trainer.args.label_smoothing_factor


def _padding_free(model, machine, dtype, disable):
    if "padding_free" in disable or learned_tokens(model.net):
        return Choice(False, "")
    choice = hardware.choose_padding_free(machine, model.task, dtype)
    if choice.value and not padding_free.keeps_apart(model.net):
        return Choice(False, "batches are padded: in one row, this model would mix their texts")
    return choice


def _graphs(model, trainer, machine, plan, packed, backbone, own_batches, disable):
    """Whether training steps are replayed as CUDA graphs, a Choice."""
    args = trainer.args
    alone = args.world_size == 1 and not args.torch_compile and not own_batches
    own_loss = _own_loss(trainer) or hasattr(trainer.method, "loss")
    suits = packed.value or model.spec.new_head and not own_loss
    if machine.device != "cuda" or "cuda_graphs" in disable or not (alone and suits):
        return Choice(False, "")
    if plan.dtype == "fp16" or plan.checkpointing or backbone.value or args.neftune_noise_alpha:
        return Choice(False, "")
    return Choice(True, "CUDA graphs: a step is captured once for each shape of batch")
