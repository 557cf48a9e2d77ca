"""Every use of a library's private interface, in one place: what it is for and what breaks.

Read in transformers 5.23, torch 2.13, datasets 5.2; tests/test_compat.py says in words what a
release has changed. Imports stand inside the functions, so that this module costs nothing.
"""

import os


def attention_kernel(config):
    """The name of the attention that a transformers configuration has chosen, such as "sdpa".

    transformers: `_attn_implementation`; there is a public way to set it, and none to read it.
    """
    return config._attn_implementation


def fingerprint(dataset):
    """What identifies the rows of a datasets.Dataset and their order; None for anything else.

    datasets: `_fingerprint`, which `map` and `select` keep up; no public name.
    """
    return getattr(dataset, "_fingerprint", None)


def multiplies_bf16():
    """Whether this processor has units that multiply bfloat16 (AMX, AVX512-BF16).

    torch: `torch.cpu._is_amx_tile_supported`, `_is_avx512_bf16_supported`; they ask the processor,
    where reading its name would guess. On a release without them the answer is False, which costs
    speed and no result: training in bf16 is then not tried.
    """
    import torch

    reports = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, report, lambda: False)() for report in reports)


def cuda_before_fork():
    """Whether this process has used a CUDA card, so that no process forked from it can.

    torch: `torch.cuda._is_in_bad_fork`, which speaks of the process that asks; `is_initialized`
    does not tell that cards have been counted, which is enough. A child asks, and ends.
    """
    import torch

    child = os.fork()
    if not child:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    used = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return bool(used) and torch.cuda.is_available()


def uncompile(module):
    """Undo module.compile().

    torch: `_compiled_call_impl`; `compile` has no public opposite.
    """
    module._compiled_call_impl = None


def zero_all(tensors):
    """Fill many tensors with zeros in one kernel.

    torch: `_foreach_zero_`, which its own optimizers use; a loop of `zero_()` is a kernel each.
    """
    import torch

    torch._foreach_zero_(tensors)


def add_all(tensors, others):
    """Add to each of many tensors another one of its format, in one kernel.

    torch: `_foreach_add_`.
    """
    import torch

    torch._foreach_add_(tensors, others)


def copy_all(tensors, others):
    """Copy many tensors into others, which may be of another format, in one kernel.

    torch: `_foreach_copy_`.
    """
    import torch

    torch._foreach_copy_(tensors, others)


def use_one_device(arguments):
    """Keep a Trainer outside torchrun from spreading each batch over all cards.

    transformers: `TrainingArguments._n_gpu`; DataParallel, which it turns on, is slower than one
    card and has no public switch. arguments: TrainingArguments, which are changed.
    """
    arguments._n_gpu = 1


def prepared(trainer, inputs):
    """A batch of a transformers.Trainer on its device, as its own steps see it.

    transformers: `Trainer._prepare_inputs`.
    """
    return trainer._prepare_inputs(inputs)


def chat_app(net, tokenizer, name):
    """The web application of `transformers serve` for a network that is in memory already.

    transformers: `transformers.cli.serving`, from which the command of that name is made; it has
    no public interface in Python, and the command itself loads models by name, for anybody, asks
    the hub, and has no token. Only the route /v1/chat/completions is given a handler. name: the
    only model that it answers as.
    """
    import logging

    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.model_manager import ModelManager, TimedModel
    from transformers.cli.serving.server import build_server
    from transformers.cli.serving.utils import GenerationState

    # It would write a line for every request.
    logging.getLogger("transformers.cli.serving.chat_completion").setLevel(logging.ERROR)
    manager = ModelManager(device="cpu")  # where it would load to; this network stays where it is
    kept = TimedModel(net, timeout_seconds=-1, processor=tokenizer)  # never let go by time
    manager.loaded_models[manager.process_model_name(name)] = kept
    manager.force_model, manager.model_timeout = name, -1
    state = GenerationState()
    handler = ChatCompletionHandler(model_manager=manager, generation_state=state)
    return build_server(manager, handler, completion_handler=None, response_handler=None,
                        transcription_handler=None, systemone_handler=None, generation_state=state)
