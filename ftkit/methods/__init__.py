"""One short file per method: what becomes trainable, or what the loss adds.

A method has `apply(model)`, which says what is trained and returns the model, and where it changes
the loss, `loss(net, inputs, outputs, loss)`. There `net` is the network itself, not what spreads it
over processes; `inputs` is a batch, `outputs` what the network gave for it, and `loss` the task's
loss, a mean over the batch's supervised tokens (or rows, where a text has one answer). It returns
a mean over the same; the Trainer weighs it by their share in the update, so that nothing depends
on how an update is split. Besides, a method may have

- `asks`: arguments for the network in training, such as {"output_hidden_states": True}
- `replaces`: the tasks whose own loss is not used, so that label smoothing there is refused
- `draws = True`: `loss` gets `update=`, an updates.Update, whose random numbers and places of rows
  are the same for every split
- `before_update(net, update)`: returns numbers of an update's batches, which are summed over all
  processes and found in `update.found`
"""

from ftkit.methods.adapter import Adapter
from ftkit.methods.distill import Distill
from ftkit.methods.ewc import EWC, fisher
from ftkit.methods.freeze import Freeze
from ftkit.methods.full import Full
from ftkit.methods.lora import LoRA, merge
from ftkit.methods.mixup import Mixup
from ftkit.methods.multi_task import (
    MultiTask,
    extract_task_head,
    joint_labels,
    share_label_init,
    temperature_sampling,
)
from ftkit.methods.prompt import PrefixTuning, PromptTuning, nearest_words
from ftkit.methods.reinforce import Reinforce, reinforce_loss

__all__ = ["Adapter", "Distill", "EWC", "Freeze", "Full", "LoRA", "Mixup", "MultiTask",
           "PrefixTuning", "PromptTuning", "Reinforce", "share_label_init", "fisher",
           "joint_labels", "merge", "temperature_sampling", "nearest_words", "reinforce_loss",
           "extract_task_head"]
