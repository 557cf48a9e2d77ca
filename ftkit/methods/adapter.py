"""Bottleneck adapters: small trained modules in a frozen network, one set for each task.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP"; Pfeiffer et al. 2021,
"AdapterFusion: Non-Destructive Task Composition for Transfer Learning".
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ftkit import shelf
from ftkit.errors import FetchError, SettingError
from ftkit.layers import blocks
from ftkit.models import AUTO, CARD

PLACEMENTS = ("houlsby", "pfeiffer")
# What transformers calls the layer that ends a sub-layer: attention, then feed-forward.
ENDS = (
    "attention.output.dense", "output.dense",  # BERT, RoBERTa, ELECTRA
    "attention.out_lin", "ffn.lin2",  # DistilBERT
    "attn.Wo", "mlp.Wo",  # ModernBERT
    "self_attn.o_proj", "mlp.down_proj",  # Llama, Mistral, Qwen, Gemma
    "attn.c_proj", "mlp.c_proj",  # GPT-2
    "self_attn.out_proj", "encoder_attn.out_proj", "fc2",  # BART, OPT
    "SelfAttention.o", "EncDecAttention.o", "DenseReluDense.wo",  # T5
)


class Bottleneck(torch.nn.Module):
    """x + up(gelu(down(x))): a detour through few numbers, which begins as nearly nothing.

    x: (..., width), and so is the result. init_std: of the first weights of both projections.
    """

    def __init__(self, width, size, init_std=0.01):
        super().__init__()
        self.down = torch.nn.Linear(width, size)
        self.up = torch.nn.Linear(size, width)
        for layer in (self.down, self.up):
            torch.nn.init.normal_(layer.weight, std=init_std)
            torch.nn.init.zeros_(layer.bias)

    def forward(self, x):
        small = torch.nn.functional.gelu(self.down(x.to(self.down.weight.dtype)))
        return x + self.up(small).to(x.dtype)


@dataclass(frozen=True)
class Adapter:
    """Train bottlenecks between frozen layers and the task's head: many tasks on one base.

    Houlsby et al. 2019 and Pfeiffer et al. 2021. size: numbers in the bottleneck. placement:
    "houlsby" puts one at the end of each sub-layer, before its result is added to the stream;
    "pfeiffer" one after each whole block, half as many or fewer. init_std: of the first weights;
    at 0.01 or less the network begins as it was, at 1 it is destroyed. name: for `activate`.
    A model that has an adapter of this name already goes on training it.
    """

    size: int = 16
    placement: str = "houlsby"
    init_std: float = 0.01
    name: str = "adapter"
    learning_rate: ClassVar[float] = 1e-3  # fit's default: few weights, far from their goal

    lesson = "08_adapters"
    when = "many tasks on one base, swapped while it runs"
    example = {}  # settings in the table of methods

    def apply(self, model):
        """Freeze `model`, put this adapter in place and make it trainable. Returns the model.

        Raises SettingError for bad settings, or a network whose sub-layers are not known.
        """
        present = getattr(model.net, "shelf", None)
        if present is None or self.name not in present.parts:
            self.add(model, model.task, model.labels)
        elif present.about[self.name]["settings"] != asdict(self):
            had = Adapter(**present.about[self.name]["settings"])
            raise SettingError(
                f"{model.name} has an adapter {self.name!r} already, {had}; go on with these "
                "settings, or give the new one another name=."
            )
        shelf.activate(model, self.name)
        model.net.requires_grad_(False)
        for parameter in shelf.own(model, self.name).values():
            parameter.requires_grad_(True)
        return model

    def add(self, model, task, labels):
        """Put a fresh adapter for a task on the shelf of `model`, without activating it."""
        self._check(model)
        width = model.net.config.hidden_size
        parts = {
            path: Bottleneck(width, self.size, self.init_std).to(model.device)
            for path in self.hosts(model.net)
        }
        shelf.add(model, self.name, parts, asdict(self), task, labels)

    def hosts(self, net):
        """The paths of the modules whose outputs go through a bottleneck, lowest first."""
        blocks(net)  # explains a network without any
        if self.placement == "pfeiffer":
            return [f"{stack}.{i}" for stack, list_ in _stacks(net) for i in range(len(list_))]
        found = []
        for stack, list_ in _stacks(net):
            for i, block in enumerate(list_):
                ends = [n for n, _ in block.named_modules() if f".{n}".endswith(_ENDINGS)]
                if len(ends) < 2:
                    raise SettingError(
                        f"where the sub-layers of a {net.config.model_type} model end is not "
                        'known here; use placement="pfeiffer", which asks for whole blocks only.'
                    )
                found += [f"{stack}.{i}.{end}" for end in ends]
        return found

    def _check(self, model):
        if self.placement not in PLACEMENTS:
            raise SettingError(
                f"Adapter(placement={self.placement!r}) does not exist; choose one of "
                f"{', '.join(PLACEMENTS)}."
            )
        if not isinstance(self.size, int) or self.size < 1:
            raise SettingError(
                f"Adapter(size={self.size!r}) is no size; choose 1 or more, often 8 to 64."
            )
        if self.name == shelf.BASE or not self.name:
            raise SettingError(
                f"Adapter(name={self.name!r}): the name is needed for the network without any "
                "adapter; choose another, such as the task's."
            )
        if hasattr(model.net, "get_base_model"):
            raise SettingError(
                f"{model.name} carries a peft adapter (LoRA or a prompt); apply one method or "
                "the other to the base."
            )


_ENDINGS = tuple(f".{end}" for end in ENDS)


def _stacks(net):
    """The lists of blocks with their paths: one, or two in an encoder-decoder."""
    lists = [
        (name, module)
        for name, module in net.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module)
    ]
    inside = {f"{name}." for name, _ in lists}
    return [(n, m) for n, m in lists if not any(n.startswith(outer) for outer in inside)]


def attach(model, folder, name=None):
    """Put a saved adapter beside those that a model has; the base is not loaded again.

    folder: where Model.save stored an adapter. name: what `activate` will call it, by default the
    name it was saved with. Nothing is activated yet. Returns the same model.
    Raises FetchError when the folder holds no adapter, DataError when it was trained on another
    base, SettingError when the name is taken or the task needs another kind of network.
    """
    folder = Path(folder)
    card = json.loads((folder / CARD).read_text()) if (folder / CARD).exists() else {}
    if "adapter" not in card:
        raise FetchError(f"{folder} holds no bottleneck adapter; save one with model.save(folder).")
    if AUTO[card["task"]] != AUTO[model.task]:
        raise SettingError(
            f"the adapter in {folder} is for {card['task']!r}, and {model.name} was loaded for "
            f"{model.task!r}; load the base with task={card['task']!r}."
        )
    method = Adapter(**card["adapter"] | ({"name": name} if name else {}))
    present = getattr(model.net, "shelf", None)
    if present is not None and method.name in present.parts:
        raise SettingError(
            f"{model.name} has an adapter {method.name!r} already; attach this one with another "
            "name=."
        )
    shelf.need_base(model, folder, card)
    method.add(model, card["task"], card["labels"])
    shelf.fill(model, method.name, folder)
    return model
