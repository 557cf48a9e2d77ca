"""torch.compile of the repeated block, for runs that are long enough to pay for it."""

import shutil
from contextlib import contextmanager

import torch

from ftkit import compat
from ftkit.models import hardware
from ftkit.models.hardware import Choice
from ftkit.models.peak import rough_peak
from ftkit.models.structure import blocks

BACKEND = "inductor"
SHARE = {"cpu": 0.4, "cuda": 0.12}  # of the peak of matrix products, that a training reaches


def choose(machine, shape, tokens, dtype):
    """A Choice whether to compile for so many tokens, over all epochs, and the seconds expected."""
    body = shape.parameters - shape.vocabulary * shape.hidden
    seconds = 6 * body * tokens / (SHARE.get(machine.device, 0.4) * rough_peak(dtype))
    if machine.device == "cpu" and not (shutil.which("c++") or shutil.which("g++")):
        return Choice(False, "no torch.compile: on a CPU it needs a C++ compiler"), seconds
    return hardware.choose_compile(machine, seconds), seconds


@contextmanager
def compile_blocks(net, wanted):
    """While open, the blocks of a network run compiled, one compilation for all of a kind."""
    layers, hook = blocks(net) if wanted else [], None
    if layers:
        torch.compiler.reset()  # an earlier model's blocks are no one's any more
        if any(p.requires_grad for p in layers[0].parameters()):
            hook = net.get_input_embeddings().register_forward_hook(_with_gradient)
    for block in layers:
        block.compile(dynamic=True, backend=BACKEND)
    try:
        yield
    finally:
        if hook:
            hook.remove()
        for block in layers:
            compat.uncompile(block)


def compiled(function):
    """A function compiled for any length."""
    return torch.compile(function, dynamic=True, backend=BACKEND)


def _with_gradient(module, inputs, hidden):
    """Frozen embeddings ask for no gradient: the first block alone would be compiled once more."""
    if torch.is_grad_enabled() and not hidden.requires_grad:
        hidden.requires_grad_()
