"""What one update of the weights is made of, so that nothing depends on how it was split.

An update's loss is a sum over supervised tokens (or rows, where a text has one answer), divided by
their number over the whole update: all batches that are accumulated, on all processes. A batch
brings the mean over its own; its share in the update is the share of its tokens.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ftkit.models import structure
from ftkit.models.specs import SPECS
from ftkit.models.structure import IGNORED

COUNT = "supervised"  # where a collator says how many, so that nobody has to ask a card

def supervised(task, batch):
    """How many tokens, or rows of a task with one answer each, carry loss in a batch: an int."""
    if COUNT in batch:
        return batch[COUNT]
    labels = batch.get("labels")
    if batch.get("shift_labels") is not None:
        labels = batch["shift_labels"]
    elif labels is not None and SPECS[task].next_token:
        labels = labels[..., 1:]  # the first token is never predicted
    if labels is None:
        return 1  # of a collator of the caller's: what is counted there nobody knows
    if labels.is_floating_point():  # numbers to be predicted; none is the sign of a filler
        return int((~labels.isnan()).sum())
    return int((labels != IGNORED).sum())


class Update:
    """The batches of one update on this process, and what all processes and splits have in common.

    batches: dicts of tensors. number: of the update, from 0. counts: supervised tokens of each
    batch; total: of the whole update. found: what the method's before_update returned.
    """

    def __init__(self, batches, counts, total, *, number, seed, rows, process, processes):
        self.batches, self.counts, self.total = batches, counts, total
        self.number, self.seed, self.found = number, seed, None
        self.rows, self.process, self.processes = rows, process, processes
        self.current = 0  # the batch that is trained on now

    @property
    def whole(self):
        """Whether one batch on one process is the update."""
        return self.processes == 1 and len(self.batches) == 1

    def random(self):
        """A numpy generator that draws the same for an update, however it was split."""
        return np.random.default_rng((self.seed, self.number))

    def places(self, batch=None):
        """The numbers of a batch's rows in the whole update, an array; by default the current's."""
        batch = self.current if batch is None else batch
        start = (batch * self.processes + self.process) * self.rows
        return np.arange(start, start + len(self.batches[batch]["labels"]))

    @property
    def size(self):
        """At least as many as there are rows in the whole update."""
        return len(self.batches) * self.processes * self.rows


def without_fillers(batch, rows, real):
    """The first `real` of a batch's `rows` rows; of none one, in which nothing is supervised."""
    labels = batch.get("labels")
    if labels is None or len(labels) != rows or real >= rows:
        return batch
    left = max(1, real)
    found = {name: value for name, value in batch.items() if name != COUNT}
    keep, whole = found.get("logits_to_keep"), ()
    if keep is not None and keep.dim() == 2:  # the next tokens stand in one line, row after row
        found["shift_labels"] = found["shift_labels"][: int(keep[:left].sum())]
        whole = ("shift_labels",)
    elif keep is not None:  # numbers that count for all rows
        whole = ("logits_to_keep",)
    if "index" in found:  # questions, and behind them the choices of all
        kept = torch.cat([torch.arange(left), torch.arange(rows, len(found["input_ids"]))])
        kept = kept.to(labels.device)
        found = {k: v[:left] if k in ("index", "labels") else v[kept] for k, v in found.items()}
    else:
        found = {k: v if k in whole or len(v) != rows else v[:left] for k, v in found.items()}
    if real < 1:
        missing = float("nan") if labels.is_floating_point() else IGNORED
        for name in ("labels", "shift_labels"):
            if name in found:
                found[name] = torch.full_like(found[name], missing)
    return found


def smoothed(task, outputs, labels, epsilon, loss):
    """The loss with a share `epsilon` of each label spread over all classes, a mean as `loss`.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision".
    """
    logits = outputs["logits"]
    if SPECS[task].next_token:  # behind a learned prompt there are more logits than labels
        logits, labels = logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:]
    minus = -F.log_softmax(logits[labels != IGNORED].float(), dim=-1)
    possible = minus.isfinite()  # questions have different numbers of choices
    spread = minus.masked_fill(~possible, 0).sum(-1) / possible.sum(-1)
    return (1 - epsilon) * loss + epsilon * spread.mean()


def nothing(outputs):
    """A loss of 0 that is still connected to what the network computed."""
    logits = outputs.get("logits")
    return 0 * (outputs["loss"] if logits is None else logits[logits.isfinite()].float().sum())


def run(model, net, function):
    """What function() returns, a loss and something else, computed with the network `net`.

    model: as the Trainer wrapped it. Where that averages gradients over processes, the function
    runs as its forward, so that it knows of all weights that the loss depends on and of no others.
    """
    if not isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return function()
    found = []

    def forward():
        with structure.another_forward(net, before):  # the function calls the network as it was
            loss, other = function()
        found.append(other)
        return loss

    before = vars(net).get("forward")
    with structure.another_forward(net, forward):
        return model(), *found
