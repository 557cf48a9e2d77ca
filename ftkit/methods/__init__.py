"""One short file per method: what becomes trainable, or what the loss adds."""

from ftkit.methods.adapter import Adapter
from ftkit.methods.freeze import Freeze
from ftkit.methods.full import Full
from ftkit.methods.lora import LoRA, merge
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
    "Freeze",
    "Full",
    "LoRA",
    "MultiTask",
    "PrefixTuning",
    "PromptTuning",
    "Reinforce",
    "begin_alike",
    "joint_labels",
    "merge",
    "mixture",
    "nearest_words",
    "reinforce_loss",
    "single_task",
]
