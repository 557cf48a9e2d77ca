"""Bottlenecks (Houlsby et al. 2019): what they are, and where they go in each kind of network."""

import torch

from ftkit.errors import SettingError
from ftkit.models.structure import blocks, stacks

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
_ENDINGS = tuple(f".{end}" for end in ENDS)


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


def parts(model, size, placement, init_std=0.01):
    """Fresh bottlenecks, {path of the module that they follow: Bottleneck}, not in place yet."""
    width = model.net.config.hidden_size
    return {path: Bottleneck(width, size, init_std).to(model.device)
            for path in hosts(model.net, placement)}


def hosts(net, placement):
    """The paths of the modules whose outputs go through a bottleneck, lowest first."""
    blocks(net)  # explains a network without any
    if placement == "pfeiffer":
        return [f"{stack}.{i}" for stack, list_ in stacks(net) for i in range(len(list_))]
    found = []
    for stack, list_ in stacks(net):
        for i, block in enumerate(list_):
            ends = [n for n, _ in block.named_modules() if f".{n}".endswith(_ENDINGS)]
            if len(ends) < 2:
                raise SettingError(f"where the sub-layers of a {net.config.model_type} model end "
                                   'is not known here; use placement="pfeiffer", which asks for '
                                   "whole blocks only.")
            found += [f"{stack}.{i}.{end}" for end in ends]
    return found
