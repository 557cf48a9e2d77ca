"""Low-rank adaptation: learn a small difference to chosen matrices, W + (alpha / rank) B A.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

from collections import Counter
from dataclasses import dataclass

import torch

from ftkit.errors import SettingError
from ftkit.models.model import UNSAVED, check_model, quiet_peft


@dataclass(frozen=True)
class LoRA:
    """Train low-rank differences to linear layers; the base weights stay as they are.

    A layer's output W x becomes W x + (alpha / rank) B A x. A, of shape (rank, inputs), starts
    random and B, of shape (outputs, rank), at zero, so that training begins at the base model
    (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"). By peft.

    rank: of the difference. alpha: its scale. dropout: on its input. target_modules: layers by the
    end of their names, such as ("query", "value"); None for every linear layer of the blocks. dora:
    learn the length of each row of W apart from its direction (Liu et al. 2024, "DoRA:
    Weight-Decomposed Low-Rank Adaptation"); a slower step. rslora: scale by alpha / sqrt(rank)
    (Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA"). On a base
    loaded with dtype="nf4" this is QLoRA (Dettmers et al. 2023, "QLoRA: Efficient Finetuning of
    Quantized LLMs"). The head of a classifier or tagger is trained whole and stored with the
    difference.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None
    dora: bool = False
    rslora: bool = False

    learning_rate = 5e-4  # fit's default: the few weights bear larger steps than all of them

    lesson = "09_lora"
    when = "a large model on a small machine; merged, it costs nothing to run"
    example = {}  # settings in the table of methods

    def apply(self, model):
        """Wrap `model.net` in a peft model with fresh LoRA weights. Returns the same model.

        Raises SettingError for a setting out of range, for targets that name no layer, and for a
        model that carries an adapter already.
        """
        import peft
        from peft.utils.error import NoMatchingPeftModuleError

        self._check(model)
        net = model.net
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(self.target_modules) if self.target_modules else "all-linear",
            exclude_modules=None if self.target_modules else _past_their_module(net),
            use_dora=self.dora,
            use_rslora=self.rslora,
            modules_to_save=_head(net) if model.spec.own_head else None,
            # GPT-2 keeps its matrices transposed, in layers called Conv1D.
            fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in net.modules()),
            task_type=model.spec.peft or "FEATURE_EXTRACTION",
        )
        if _bits(net):
            # fit decides on checkpointing, by what fits; peft would switch it on.
            net = peft.prepare_model_for_kbit_training(net, use_gradient_checkpointing=False)
        try:
            with quiet_peft():
                model.net = peft.get_peft_model(net, config)
        except NoMatchingPeftModuleError as error:
            linear = {n.rsplit(".", 1)[-1] for n, m in net.named_modules()
                      if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D"}
            raise SettingError(f"LoRA(target_modules={self.target_modules}) names no layer of "
                               f"{model.name}; its linear layers end in "
                               f"{', '.join(sorted(linear))}.") from error
        return model

    def _check(self, model):
        if not isinstance(self.rank, int) or self.rank < 1:
            raise SettingError(f"LoRA(rank={self.rank}) is no rank; choose 1 or more, often 4 to "
                               "64.")
        if not 0 <= self.dropout < 1:
            raise SettingError(f"LoRA(dropout={self.dropout}) is no share; choose 0 to below 1.")
        if isinstance(self.target_modules, str):
            raise SettingError(f"LoRA(target_modules={self.target_modules!r}) is one string; give "
                               f"names in a tuple, such as ({self.target_modules!r},).")
        if hasattr(model.net, "peft_config"):
            raise SettingError(f"{model.name} carries an adapter already; merge it into the "
                               "weights first (ft.merge), or begin with the base model.")


def merge(model):
    """Add what LoRA learned to the base weights: the same answers from a plain model.

    model: trained with LoRA (also DoRA, rsLoRA), such as run.model; it stays as it is.
    Returns a Model without peft, as fast as its base, that is saved whole and needs no base to be
    loaded. In float32 its logits are the same up to rounding (below 1e-3 of their size; see the
    tests); on a base in 16 bits each sum is rounded to that format.
    Raises SettingError for a model without LoRA, and for a base in 8 or 4 bits. There peft turns
    the weights back into numbers, adds the difference and rounds the sum to the few levels again,
    by steps that are larger than most of the difference.
    """
    check_model(model)
    config = getattr(model.net, "peft_config", {}).get("default")
    if getattr(config, "peft_type", None) != "LORA":
        raise SettingError(f"{model.name} carries no LoRA weights, so there is nothing to merge; "
                           "give a model that was trained with LoRA, such as run.model.")
    if bits := _bits(model.net.get_base_model()):
        raise SettingError(f"the base of {model.name} is held in {bits} bits, and merging would "
                           "round the sum to them again, which loses most of what was learned. "
                           "Save the adapter, load it on weights of 16 bits, ft.load_model(folder, "
                           'dtype="bf16"), merge that, and evaluate it anew: its base is not '
                           "rounded as the one in training was.")
    merged = model.copy()
    _untie(merged.net)
    with quiet_peft():
        merged.net = merged.net.merge_and_unload().requires_grad_(True).eval()
    merged.net.name_or_path = UNSAVED
    return merged


def _bits(net):
    """4 or 8 for a network held in so few bits, else 0."""
    return 4 * getattr(net, "is_loaded_in_4bit", False) or (
        8 * getattr(net, "is_loaded_in_8bit", False))


def _past_their_module(net):
    """Names of layers that peft refuses, for the kernel of Mamba reads their weights itself."""
    mamba = any(isinstance(m, torch.nn.Conv1d) for m in net.modules())
    return ["conv1d", "out_proj"] if mamba else None


def _head(net):
    """Names of what stands beside the encoder or decoder: the new layers of a task."""
    return [name for name, child in net.named_children()
            if name != net.base_model_prefix and any(True for _ in child.parameters())]


def _untie(net):
    """Give layers with a difference a matrix of their own where they share it with another."""
    plain = [m for m in net.modules() if not hasattr(m, "base_layer")]
    users = Counter(id(m.weight) for m in plain if getattr(m, "weight", None) is not None)
    for layer in (m.get_base_layer() for m in net.modules() if hasattr(m, "lora_A")):
        if users[id(layer.weight)] > 1:
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
            net.config.tie_word_embeddings = False
