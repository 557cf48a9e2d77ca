"""Elastic weight consolidation: learn a new task, and hold on to the weights that old ones need.

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks".
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from ftkit import tasks
from ftkit.errors import DataError, SettingError
from ftkit.methods.base import WrappedMethod
from ftkit.models import structure
from ftkit.tasks import batching


@dataclass(frozen=True)
class EWCState:
    """What EWC keeps of a task: how much each weight matters to it, and where it was then.

    fisher, anchors: {name of a parameter: float32 tensor of its shape}, where the model was; from
    a file on the CPU. A training with EWC moves each once to the device of its weight, and leaves
    it there. One state takes twice the bytes of the model.
    """

    fisher: dict = field(repr=False)
    anchors: dict = field(repr=False)
    examples: int = 0

    def save(self, path):
        """Write both to one safetensors file, for EWCState.load months later. Returns the path."""
        from safetensors.torch import save_file

        parts = {"fisher": self.fisher, "anchor": self.anchors}
        tensors = {f"{part} {name}": tensor.contiguous().cpu()
                   for part, tensors in parts.items() for name, tensor in tensors.items()}
        save_file(tensors, path, metadata={"ewc": json.dumps({"examples": self.examples})})
        return Path(path)

    @classmethod
    def load(cls, path):
        """The EWCState in a file of save. Raises DataError when the file holds something else."""
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            about = (file.metadata() or {}).get("ewc")
            if about is None:
                raise DataError(f"{path} holds no state for EWC; write one with EWCState.save.")
            parts = {"fisher": {}, "anchor": {}}
            for key in file.keys():  # noqa: SIM118 (no dict, and its keys cannot be iterated over)
                part, _, name = key.partition(" ")
                parts[part][name] = file.get_tensor(key)
        return cls(parts["fisher"], parts["anchor"], **json.loads(about))


def fisher(model, dataset, *, n=64, seed=0, max_length=None, loss_on="response"):
    """What EWC needs to know of a task that `model` has learned: an EWCState.

    The diagonal of the Fisher information: the mean, over up to `n` examples of `dataset`, of the
    squared gradient of the log-probability of an answer that the model itself gives (`seed` draws
    the examples and the answers, not the labels of the data). max_length, loss_on: as in fit.
    Only weights that can be trained are remembered. Raises DataError for data without rows.
    Source: Kirkpatrick et al. 2017; for why the model's own answers are drawn, Kunstner et al.
    2019, "Limitations of the empirical Fisher approximation".
    """
    rows = batching.encode(dataset, model, max_length=max_length, loss_on=loss_on)
    if not len(rows):
        raise DataError("the data set has no rows, and a Fisher matrix is a mean over some.")
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n].tolist()
    weights = {name: p for name, p in model.net.named_parameters() if p.requires_grad}
    found = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in weights.items()}
    collate = batching.Collator(model, seed)
    with torch.random.fork_rng(), structure.at_rest(model.net):
        torch.manual_seed(seed)
        for i in chosen:  # one at a time: the square of a sum is no sum of squares
            batch = {k: v.to(model.device) for k, v in collate([rows[i]]).items()}
            surprise = _of_own_answer(model, batch)
            gradients = torch.autograd.grad(surprise, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    found[name].addcmul_(gradient, gradient, value=1 / len(chosen))
    anchors = {name: p.detach().float().clone() for name, p in weights.items()}
    return EWCState(found, anchors, len(chosen))


def _of_own_answer(model, batch):
    """Minus the log-probability of an answer drawn from the model, for a batch of one."""
    labels = batch["labels"] if model.spec.target else batch.pop("labels", None)
    logits = tasks.of(model).logits(model.net, batch)
    if model.spec.answer == "number":  # a normal distribution of width 1 around the answer
        return (logits - torch.normal(logits.detach())).square().sum() / 2
    if model.spec.next_token:
        logits, labels = logits[:, :-1], labels[:, 1:]
    if logits.dim() == 3:
        logits = logits[labels != structure.IGNORED]  # the positions that carry loss
    if not len(logits):  # of a short text no word was masked
        return logits.sum()
    logits = logits.float()
    drawn = torch.distributions.Categorical(logits=logits.detach()).sample()
    return F.cross_entropy(logits, drawn, reduction="sum")


@dataclass(frozen=True)
class EWC(WrappedMethod):
    """Train all weights, each held by a spring to where it was after earlier tasks.

    states: the EWCState of each earlier task, from ft.fisher. weight: of the penalty against the
    new task's loss; at 0 nothing is protected, at very large values nothing is learned, and what
    lies between is found on validation data of old and new tasks. trainable: a method that says
    which weights learn at all, such as Freeze(unfreeze_last=2); None for all. A head that has
    another size than the remembered one, since the labels are others, is not held.
    """

    states: tuple = field(default=(), repr=False, compare=False)
    weight: float = 1000.0
    trainable: object = None

    lesson = "12_continual"
    when = "tasks that come one after the other, when old examples may not be kept"
    example = {}  # settings in the table of methods

    def apply(self, model):
        """Make the weights trainable. Returns the model.

        Raises SettingError for a negative weight, or when no state fits the model.
        """
        if not self.weight >= 0:
            raise SettingError(f"EWC(weight={self.weight!r}) would push away; choose 0 or more.")
        model = self.free(model)
        for state in self._states():
            if not any(True for _ in matching_parameters(model.net, state)):
                raise SettingError(f"no trained weight of {model.name} is in this state of "
                                   f"{len(state.anchors)} tensors; give ft.fisher the model that "
                                   "the new task goes on from.")
        return model

    def loss(self, net, inputs, outputs, loss):
        """The task's loss, and half of weight * fisher * (distance from the anchor) squared."""
        penalty = sum(
            QuadraticPenalty.apply(p, f, anchor).to(loss.device)
            for state in self._states() for p, f, anchor in matching_parameters(net, state)
        )
        return loss + self.weight / 2 * penalty

    def _states(self):
        return (self.states,) if isinstance(self.states, EWCState) else tuple(self.states)


class QuadraticPenalty(torch.autograd.Function):
    """sum(fisher * (p - anchor) ** 2): each update does this for every weight of the model, and
    plain autograd would write three times as many numbers on its way."""

    @staticmethod
    def forward(ctx, p, fisher, anchor):
        away = p - anchor
        pull = fisher * away
        ctx.save_for_backward(pull)
        return torch.dot(pull.flatten(), away.flatten())

    @staticmethod
    def backward(ctx, gradient):
        return ctx.saved_tensors[0].mul_(2 * gradient), None, None


def matching_parameters(net, state):
    """Yield (parameter, fisher, anchor) of each trained weight that a state has, by name."""
    for name, p in net.named_parameters():
        anchor = state.anchors.get(name)
        if p.requires_grad and anchor is not None and anchor.shape == p.shape:
            for kept in (state.fisher, state.anchors):  # moved at every step, it would be slow
                if kept[name].device != p.device:
                    kept[name] = kept[name].to(p.device)
            yield p, state.fisher[name], state.anchors[name]
