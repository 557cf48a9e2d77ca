"""Low-rank adaptation: learn a small difference to chosen matrices, W + (alpha / rank) B A.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

from dataclasses import dataclass

from ftkit.errors import SettingError


@dataclass(frozen=True)
class LoRA:
    """Train low-rank differences to the linear layers; the base weights stay as they are.

    rank: size of the bottleneck. alpha: scale of the difference. dropout: on its input.
    targets: names of the layers, or None for every linear layer of the blocks.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None

    def apply(self, model):
        """Wrap `model.net` in a peft model with fresh LoRA weights. Returns the same model."""
        import peft

        if self.rank < 1:
            raise SettingError(
                f"LoRA(rank={self.rank}) is no rank; choose 1 or more, often 4 to 64."
            )
        kinds = {
            "classification": "SEQ_CLS",
            "regression": "SEQ_CLS",
            "tagging": "TOKEN_CLS",
            "causal-lm": "CAUSAL_LM",
            "seq2seq-lm": "SEQ_2_SEQ_LM",
        }
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(self.targets) if self.targets else "all-linear",
            task_type=kinds.get(model.task, "FEATURE_EXTRACTION"),
        )
        if getattr(model.net, "is_loaded_in_4bit", False):
            model.net = peft.prepare_model_for_kbit_training(model.net)
        model.net = peft.get_peft_model(model.net, config)
        return model
