"""REINFORCE: learn one decision from how good it was, without being told what was right.

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning".
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ftkit.errors import SettingError
from ftkit.methods.base import WrappedMethod


@dataclass(frozen=True)
class Reinforce(WrappedMethod):
    """Train a classifier as a policy: it draws a label, and a reward says how good that was.

    Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning". reward: a function of (labels, actions), two integer tensors of shape (batch,), that
    returns the rewards as numbers of that shape. kl: nats of divergence from `reference_model`, a
    classifier of the same labels, cost so much reward each. trainable: a method that says which
    weights learn, such as Freeze(unfreeze_last=2); None for all. For texts of many tokens, use
    trl's GRPO as in the lesson.
    """

    reward: object
    kl: float = 0.0
    reference_model: object = field(default=None, repr=False, compare=False)
    trainable: object = None

    lesson = "14_reinforcement"
    when = "answers can be judged, and nobody can write down the right one"
    example = {"reward": torch.eq}  # settings in the table of methods
    replaces = ("classification",)  # whose own loss is not used
    draws = True

    def apply(self, model):
        """Make the weights trainable that `trainable` says. Returns the model.

        Raises SettingError for a model that is no classifier, and for `kl` without a
        reference_model.
        """
        if model.spec.answer != "class":
            raise SettingError(f"Reinforce draws one label, and {model.name} does {model.task}; "
                               'load it with task="classification", or use '
                               "trl\'s GRPO for texts (lesson 14).")
        if self.kl and self.reference_model is None:
            raise SettingError(f"Reinforce(kl={self.kl}) needs a reference_model, such as the base "
                               "model.")
        return self.free(model)

    def before_update(self, net, update):
        """The rewards of the whole update, whose mean is the baseline: (their sum, their number).

        Nothing where one batch is the update, which finds its mean by itself.
        """
        if update.whole:
            return 0.0, 0
        found = [self._draw(batch, net(**_read(batch)).logits.float(), update, i)[1]
                 for i, batch in enumerate(update.batches) if update.counts[i]]
        return sum(part.sum().item() for part in found), sum(map(len, found))

    def loss(self, net, inputs, outputs, loss, update):
        """Minus the reward that the batch's draws can expect, up to its gradient."""
        logits, reference_logits = outputs["logits"].float(), None
        actions, rewards = self._draw(inputs, logits, update)
        if self.kl:
            with torch.no_grad():
                reference_logits = self.reference_model.net(**_read(inputs)).logits.float()
        total, number = update.found
        baseline = total / number if number else None
        return reinforce_loss(logits, actions, rewards, self.kl, reference_logits, baseline)

    def _draw(self, inputs, logits, update, batch=None):
        """Actions and their rewards, the same for a row however its update was split."""
        drawn = update.random().random(update.size)[update.places(batch)]
        drawn = torch.tensor(drawn, device=logits.device)[:, None]
        actions = (logits.detach().softmax(-1).double().cumsum(-1) < drawn).sum(-1)
        actions = actions.clamp(max=logits.shape[-1] - 1)  # a sum that rounding left below 1
        rewards = torch.as_tensor(self.reward(inputs["labels"], actions), device=logits.device)
        return actions, rewards.float()


def _read(inputs):
    return {k: v for k, v in inputs.items() if k != "labels"}


def reinforce_loss(logits, actions, rewards, kl=0.0, reference_logits=None, baseline=None):
    """A loss whose gradient is that of minus the expected reward, and of kl times the divergence.

    logits, reference_logits: (batch, actions). actions: (batch,) drawn from softmax(logits).
    rewards: (batch,). baseline: what is subtracted from them, by default their mean. The divergence
    is that of the policy from the reference model.
    """
    logp = F.log_softmax(logits, dim=-1)
    taken = logp.gather(1, actions[:, None]).squeeze(1)
    baseline = rewards.mean() if baseline is None else baseline
    loss = -((rewards - baseline) * taken).mean()
    if kl:
        reference = F.log_softmax(reference_logits, dim=-1)
        loss = loss + kl * (logp.exp() * (logp - reference)).sum(1).mean()
    return loss
