"""Whether a model's weights are what they should be: all there, and fit to be trained."""

import warnings

import torch

from ftkit.errors import DataError, NotANumber, SettingError
from ftkit.models.specs import SPECS

SHOWN = 4  # names in a message


def check_loaded(net, found, task, folder, *, whole=False):
    """Compare a network with the checkpoint that it was loaded from.

    found: of from_pretrained(output_loading_info=True). whole: the checkpoint was saved for this
    task, so that its head must be there. Else a new head may be missing, as a whole, and so may a
    pooler that the task does not need or learns anew. Raises DataError for weights that are missing
    and would be random; warns of weights of the body that the network has no place for.
    """
    # Without those of a pooler that mean pooling has taken out.
    missing = sorted(set(found["missing_keys"]) & net.state_dict().keys())
    if not whole:
        new = _new(net, task, set(missing))
        missing = [name for name in missing if name not in new]
    if missing:
        raise DataError(f"{len(missing)} weights of {type(net).__name__} are not in {folder}: "
                        f"{_some(missing)}. They would be random numbers. The files are "
                        "incomplete, or the configuration is not theirs; fetch or save the model "
                        "again.")
    prefix = f"{net.base_model_prefix}."
    known = {_outer(name.removeprefix(prefix)) for name, _ in net.base_model.named_parameters()}
    left = sorted(
        name for name in found["unexpected_keys"] if _outer(name.removeprefix(prefix)) in known
    )
    if left:
        warnings.warn(f"{len(left)} weights in {folder} have no place in {type(net).__name__} and "
                      f"were left out: {_some(left)}. If its configuration names fewer layers than "
                      "were trained, the model is not the one that was saved.", stacklevel=4)


def head_apart(net):
    """Give a T5 that was built from its configuration the head that the configuration says.

    transformers 5 ties the head to the embedding when it builds a T5, whatever the configuration;
    that the head is apart (T5 1.1, Flan-T5) it keeps as `scale_decoder_outputs` only.
    """
    apart = getattr(net.config, "scale_decoder_outputs", True) is False
    if apart and getattr(net, "lm_head", None) and net.lm_head.weight is net.shared.weight:
        weight = torch.empty_like(net.shared.weight)
        torch.nn.init.normal_(weight, std=net.config.initializer_factor)
        net.lm_head.weight = torch.nn.Parameter(weight)
        net.all_tied_weights_keys.pop("lm_head.weight", None)
    return net


def no_answer(model, what):
    """The NotANumber of a model whose output `what` is NaN: of which an argmax would be 0."""
    wrong = [name for name, p in model.net.named_parameters() if not p.isfinite().all()]
    if wrong:
        reason = (f"of its weights {_some(wrong)} hold NaN or infinity, as after a training that "
                  "diverged. Load the model from before, or train it again at a tenth of the rate")
    else:
        reason = (
            "its weights are numbers, so one grew too large on the way. Compute in float32, as in "
            'load_model(..., dtype="float32")'
        )
    return NotANumber(f"{what} of {model.name} is NaN, so nothing can be told from it: {reason}.")


def check_trained(net):
    """Raise SettingError where weights of 16 bits are to be trained.

    An optimizer's small steps are lost in them (bf16 holds three digits), and fp16's gradients
    cannot be scaled; training in 16 bits keeps float32 weights and computes in 16.
    """
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            kind = str(parameter.dtype).removeprefix("torch.")
            raise SettingError(f"{name} is stored in {kind} and is to be trained: most of an "
                               "update would be lost in rounding. Load the model with "
                               'dtype="float32" (fit computes in 16 bits where that is faster), or '
                               "train LoRA on it, whose own weights are float32.")


def _new(net, task, missing):
    """The missing names that a task's own new head, or a pooler, explains."""
    body = {id(p) for p in net.base_model.parameters()}
    heads, found, new = {}, set(), set()
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if "pooler" in name and not SPECS[task].language:
            new.add(name)
        elif id(parameter) not in body and SPECS[task].new_head:
            heads.setdefault(_outer(name), set()).add(name)
            if name not in missing:
                found.add(_outer(name))
    return new.union(*(names for outer, names in heads.items() if outer not in found))


def _outer(name):
    return name.partition(".")[0]


def _some(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
