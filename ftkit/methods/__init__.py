"""One short file per method: what becomes trainable, or what the loss adds."""

from ftkit.methods.adapter import Adapter
from ftkit.methods.distill import Distill
from ftkit.methods.ewc import EWC, fisher
from ftkit.methods.freeze import Freeze
from ftkit.methods.full import Full
from ftkit.methods.lora import LoRA, merge
from ftkit.methods.mixup import Mixup
from ftkit.methods.multi_task import (
    MultiTask,
    begin_alike,
    joint_labels,
    mixture,
    single_task,
)
from ftkit.methods.prompt import PrefixTuning, PromptTuning, nearest_words
from ftkit.methods.reinforce import Reinforce, reinforce_loss

__all__ = [
    "Adapter",
    "Distill",
    "EWC",
    "Freeze",
    "Full",
    "LoRA",
    "Mixup",
    "MultiTask",
    "PrefixTuning",
    "PromptTuning",
    "Reinforce",
    "begin_alike",
    "fisher",
    "joint_labels",
    "merge",
    "mixture",
    "nearest_words",
    "reinforce_loss",
    "single_task",
]
