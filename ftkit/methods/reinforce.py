"""REINFORCE: learn one decision from how good it was, without being told what was right.

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning".
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ftkit.errors import SettingError
from ftkit.within import Within


@dataclass(frozen=True)
class Reinforce(Within):
    """Train a classifier as a policy: it draws a label, and a reward says how good that was.

    Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning". reward: a function of (labels, actions), two integer tensors of shape (batch,), that
    returns the rewards as numbers of that shape. kl: nats of divergence from `anchor`, a classifier
    of the same labels, cost so much reward each. within: a method that says which weights learn,
    such as Freeze(top=2); None for all. For texts of many tokens, use trl's GRPO as in the lesson.
    """

    reward: object
    kl: float = 0.0
    anchor: object = field(default=None, repr=False, compare=False)
    within: object = None

    lesson = "14_reinforcement"
    when = "answers can be judged, and nobody can write down the right one"
    example = {"reward": torch.eq}  # settings in the table of methods

    def apply(self, model):
        """Make the weights trainable that `within` says. Returns the model.

        Raises SettingError for a model that is no classifier, and for `kl` without an anchor.
        """
        if model.task != "classification":
            raise SettingError(
                f"Reinforce draws one label, and {model.name} does {model.task}; load it with "
                'task="classification", or use trl\'s GRPO for texts (lesson 14).'
            )
        if self.kl and self.anchor is None:
            raise SettingError(f"Reinforce(kl={self.kl}) needs an anchor, such as the base model.")
        return self.free(model)

    def loss(self, net, inputs, outputs, loss):
        """Minus the reward that the batch's draws can expect, up to its gradient."""
        logits = outputs["logits"].float()
        actions = torch.distributions.Categorical(logits=logits).sample()
        rewards = torch.as_tensor(self.reward(inputs["labels"], actions), device=logits.device)
        anchor = None
        if self.kl:
            with torch.no_grad():
                read = {k: v for k, v in inputs.items() if k != "labels"}
                anchor = self.anchor.net(**read).logits.float()
        return reinforce_loss(logits, actions, rewards.float(), self.kl, anchor)


def reinforce_loss(logits, actions, rewards, kl=0.0, anchor=None):
    """A loss whose gradient is that of minus the expected reward, and of kl times the divergence.

    logits, anchor: (batch, actions). actions: (batch,) drawn from softmax(logits). rewards:
    (batch,); their mean is the baseline. The divergence is that of the policy from the anchor.
    """
    logp = F.log_softmax(logits, dim=-1)
    taken = logp.gather(1, actions[:, None]).squeeze(1)
    loss = -((rewards - rewards.mean()) * taken).mean()
    if kl:
        loss = loss + kl * (logp.exp() * (logp - F.log_softmax(anchor, dim=-1))).sum(1).mean()
    return loss
