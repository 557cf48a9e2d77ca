"""Several small trained parts for one network: which of them is in place, and how one is stored.

A part is a module at a path of the network: a bottleneck, or the head of a task. The network holds
the parts of one name at a time, the registry those of all names. To change the task is to put other
modules in place; no weight of the base moves.
"""

import copy
from pathlib import Path

import torch

from ftkit.errors import DataError, FetchError, SettingError
from ftkit.models import bottleneck
from ftkit.models.saving import read_card
from ftkit.models.specs import SPECS

BASE = "base"  # the network without any adapter, with the head it was loaded with
FILE = "adapter.safetensors"
UNSAVED = "weights that were never saved"  # net.name_or_path where nothing can be loaded again
SLOT = "bottleneck"  # the attribute of a host that its output goes through


class AdapterRegistry:
    """What a network's adapters need beside the network: plain attributes, copied with it.

    parts: {name: {path: module}}. about: {name: task, labels and settings}. active: whose parts are
    in place. base: hash of the weights they were made for. hosts: paths that have a hook.
    """

    def __init__(self, model):
        self.base = model.hash("base")
        self.parts = {BASE: head_of(model)}
        self.about = {BASE: {"task": model.task, "labels": model.labels, "settings": None}}
        self.active, self.hosts = BASE, set()


def head_of(model):
    """The modules of a task's own head, {path: module}; empty where the head was pretrained."""
    net = model.net
    if model.spec.writes or net.base_model is net:
        return {}
    return {name: module for name, module in net.named_children()
            if module is not net.base_model and any(True for _ in module.parameters())}


def body_of(model):
    """The weights of the base, {name: tensor}: without a task's head, adapters or LoRA."""
    net = model.net.get_base_model() if hasattr(model.net, "get_base_model") else model.net
    net = net if model.spec.writes else net.base_model
    return {name.replace(".base_layer", ""): tensor for name, tensor in net.state_dict().items()
            if f".{SLOT}." not in name and "lora_" not in name}


def add(model, name, parts, settings, task, labels):
    """Put the parts of a new name into the registry, with a head of its own; none is set yet.

    parts: {path of a host: module}. The head is a copy of the present one, or new, without
    meaningful weights, for another number of labels. Raises SettingError for the name of the
    network without adapters, or a network that peft has changed.
    """
    if name == BASE or not name:
        raise SettingError(f"an adapter cannot have name={name!r}: it is needed for the network "
                           "without any adapter; choose another, such as the task's.")
    if hasattr(model.net, "get_base_model"):
        raise SettingError(f"{model.name} carries a peft adapter (LoRA or a prompt); apply one "
                           "method or the other to the base.")
    registry = getattr(model.net, "adapter_registry", None) or AdapterRegistry(model)
    model.net.adapter_registry = registry
    for path in parts.keys() - registry.hosts:
        model.net.get_submodule(path).register_forward_hook(_through)
    registry.hosts |= parts.keys()
    slots = {f"{path}.{SLOT}": module for path, module in parts.items()}
    registry.parts[name] = slots | _new_head(model, task, labels)
    registry.about[name] = {"task": task, "labels": labels, "settings": settings}


def _through(host, _, output):
    """A hook: the output of a host goes through its own bottleneck, also in a deep copy."""
    part = getattr(host, SLOT, None)
    if part is None:
        return output
    return (part(output[0]), *output[1:]) if isinstance(output, tuple) else part(output)


def _new_head(model, task, labels):
    net = model.net
    outputs = len(labels or []) if SPECS[task].labelled else 1
    if not SPECS[task].own_head or outputs == net.config.num_labels:
        # Weights that the head shares with the embedding stay shared.
        return copy.deepcopy(head_of(model), {id(p): p for p in net.base_model.parameters()})
    config = copy.deepcopy(net.config)
    config.num_labels = outputs
    with torch.device("meta"):
        other = type(net)(config)
    fresh = {path: getattr(other, path) for path in head_of(model)}
    return {p: m.to_empty(device=model.device).to(net.dtype) for p, m in fresh.items()}


def set_adapter(model, name):
    """Put the adapter `name` and its head in place, or take all off again with name="base".

    The base is neither loaded again nor changed. The task and the labels of `model` become those
    of the adapter. Returns the same model. Raises SettingError for a name that it does not have.
    """
    net = model.net
    registry = getattr(net, "adapter_registry", None)
    if registry is None or name not in registry.parts:
        known = ", ".join(registry.parts) if registry else (
            "none: load a saved one first, with ft.load_adapter")
        raise SettingError(f"{model.name} has no adapter {name!r}; it has {known}.")
    for path in registry.parts[registry.active]:
        if path.endswith(f".{SLOT}"):
            delattr(net.get_submodule(path.rpartition(".")[0]), SLOT)
    for path, module in registry.parts[name].items():
        host, _, place = path.rpartition(".")
        setattr(net.get_submodule(host), place, module.to(model.device).train(net.training))
    registry.active, about = name, registry.about[name]
    model.task, model.labels = about["task"], about["labels"]
    if model.spec.own_head:
        named = dict(enumerate(model.labels if model.spec.labelled else ["LABEL_0"]))
        net.config.id2label = named
        net.config.label2id = {label: i for i, label in named.items()}
        net.config.problem_type = model.spec.problem
        net.num_labels = len(named)
    return model


def load_adapter(model, folder, name=None):
    """Put a saved adapter beside those that a model has; the base is not loaded again.

    folder: where Model.save stored an adapter. name: what `set_adapter` will call it, by default
    the name it was saved with. Nothing is activated yet. Returns the same model. Raises FetchError
    when the folder holds no adapter, DataError when it was trained on another base, SettingError
    when the name is taken or the task needs another kind of network.
    """
    folder = Path(folder)
    card = read_card(folder)
    if "adapter" not in card:
        raise FetchError(f"{folder} holds no bottleneck adapter; save one with model.save(folder).")
    if SPECS[card["task"]].auto != model.spec.auto:
        raise SettingError(f"the adapter in {folder} is for {card['task']!r}, and {model.name} was "
                           f"loaded for {model.task!r}; load the base with task={card['task']!r}.")
    settings = card["adapter"] | ({"name": name} if name else {})
    name = settings["name"]
    present = getattr(model.net, "adapter_registry", None)
    if present is not None and name in present.parts:
        raise SettingError(f"{model.name} has an adapter {name!r} already; load this one with "
                           "another name=.")
    need_base(model, folder, card)
    parts = bottleneck.parts(model, settings["bottleneck_size"], settings["placement"])
    add(model, name, parts, settings, card["task"], card["labels"])
    fill(model, name, folder)
    return model


def own(model, name):
    """The parameters of a name, {path: parameter}: without those that the base has too."""
    shared = {id(p) for n, p in model.net.base_model.named_parameters() if f".{SLOT}." not in n}
    return {f"{path}.{key}": parameter
            for path, module in model.net.adapter_registry.parts[name].items()
            for key, parameter in module.named_parameters() if id(parameter) not in shared}


def write(model, folder):
    """Store the active adapter and its head in `folder`. Returns what load_model must know."""
    from safetensors.torch import save_file

    registry = model.net.adapter_registry
    if registry.active == BASE:
        raise SettingError(f"no adapter of {model.name} is active, so there is nothing to save; "
                           "set one with ft.set_adapter: "
                           f"{', '.join(n for n in registry.parts if n != BASE)}.")
    if model.hash("base") != registry.base:
        raise SettingError(f"the base of {model.name} was changed after its adapter was added, and "
                           "an adapter's folder stores no base; train the adapter on a saved model "
                           "instead.")
    base = str(model.net.config.name_or_path or "")
    if not base or model.net.name_or_path == UNSAVED:
        raise SettingError(f"the adapter's base {model.name} has no folder or name to be loaded "
                           "from again; save it with model.save(folder), load it from there and "
                           "train on that.")
    parameters = own(model, registry.active)
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    return {"adapter": registry.about[registry.active]["settings"],
            "base": str(Path(base).resolve()) if Path(base).exists() else base,
            "base_hash": registry.base, "base_dtype": _dtype(model)}


def need_base(model, folder, card):
    """Raise DataError unless `model` has the base weights that a saved adapter was trained on."""
    if _dtype(model) == card["base_dtype"] and model.hash("base") != card["base_hash"]:
        raise DataError(f"the adapter in {folder} was trained on {card['base']}, and the weights "
                        f"of {model.name} are others; load it beside that base, as it was then.")


def fill(model, name, folder):
    """Give the parts of a name, fresh on the registry, the weights stored in `folder`."""
    from safetensors.torch import load_file

    stored, wanted = load_file(folder / FILE), own(model, name)
    wrong = [key for key in sorted(wanted.keys() | stored.keys())
             if key not in wanted or key not in stored or wanted[key].shape != stored[key].shape]
    if wrong:
        del model.net.adapter_registry.parts[name]
        raise DataError(f"the adapter in {folder} does not fit {model.name}: {wrong[0]} is missing "
                        "in one of them, or has another shape.")
    with torch.no_grad():
        for key, parameter in wanted.items():
            parameter.copy_(stored[key]).requires_grad_(False)


def _dtype(model):
    return str(next(iter(body_of(model).values())).dtype)
