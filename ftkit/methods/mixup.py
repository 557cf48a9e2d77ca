"""Mixup: learn from points between two examples, with the answers mixed in the same shares.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; between the vectors of two
sentences, Guo et al. 2019, "Augmenting Data with Mixup for Sentence Classification".
"""

from dataclasses import dataclass

import torch

from ftkit.errors import SettingError
from ftkit.methods.base import WrappedMethod


def mixed_loss(logits, labels, share, order, loss=torch.nn.functional.cross_entropy):
    """The loss at points between the examples of a batch and the same in another order.

    logits: (batch, classes); mixed as if the vectors were that the linear head reads. share: of the
    example itself, from 0 to 1; the rest is that of its partner, order[i].
    """
    mixed = share * logits + (1 - share) * logits[order]
    return share * loss(mixed, labels) + (1 - share) * loss(mixed, labels[order])


@dataclass(frozen=True)
class Mixup(WrappedMethod):
    """Train on points between two examples' sentence vectors, labels mixed alike.

    trainable: a method that says which weights learn, such as Freeze(unfreeze_last=2); None for
    all. alpha: the shares are drawn from Beta(alpha, alpha); small ones leave most examples nearly
    alone, 1 draws all shares alike. For classification and regression.
    """

    trainable: object = None
    alpha: float = 0.4

    lesson = "15_regularization"
    when = "few labels, and probabilities that should not be too sure"
    example = {}  # settings in the table of methods
    tasks = ("classification", "regression")
    replaces = tasks  # their own loss is not used
    draws = True

    def apply(self, model):
        """Make the weights trainable that `trainable` says. Returns the model.

        Raises SettingError for another task, and for an alpha that draws no shares.
        """
        if model.task not in self.tasks:
            raise SettingError(f"Mixup mixes the labels of whole texts and {model.name} is loaded "
                               f"for {model.task!r}; use it with {' or '.join(self.tasks)}.")
        if not self.alpha > 0:
            raise SettingError(f"Mixup(alpha={self.alpha}) draws no shares; choose above 0.")
        return self.free(model)

    def loss(self, net, inputs, outputs, loss, update):
        """The mixed loss in place of the task's own; one share for an update, as in the paper.

        Neighbours in the batch are partners, so that an update comes to the same however it is
        split into batches of an even number. Raises SettingError where each batch has one example.
        """
        if update.rows == 1:
            raise SettingError("Mixup mixes the examples of a batch, and here each batch has one; "
                               "choose batch_size=2 or more for each process, or a smaller model "
                               "that lets it be so.")
        logits, labels = outputs["logits"], inputs["labels"]
        share = float(update.random().beta(self.alpha, self.alpha))
        order = torch.arange(len(labels), device=logits.device)
        pairs = len(labels) // 2 * 2  # the last one of an odd number stays alone
        order[:pairs] = order[:pairs] ^ 1
        if logits.shape[-1] == 1:
            mean_square = torch.nn.functional.mse_loss
            return mixed_loss(logits.squeeze(-1), labels, share, order, mean_square)
        return mixed_loss(logits, labels, share, order)
