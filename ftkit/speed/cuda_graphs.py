"""Training steps replayed as CUDA graphs: the processor no longer has to start every kernel.

A small model's step is a few thousand short kernels, and starting them from Python takes several
times as long as the card needs to run them. Captured once for each shape of batch, they are
started with a single call (Nguyen et al. 2021, "Accelerating PyTorch with CUDA Graphs").
"""

from collections import Counter
from contextlib import contextmanager

import torch

from ftkit import compat
from ftkit.tasks import updates

MOST = 24  # shapes of batches that are captured; the others run kernel by kernel
WIDTHS = 16  # padded batches are filled up to a multiple of so many tokens: few shapes


class StepGraphs:
    """Runs forward and backward passes, and from the second batch of a shape on replays them."""

    def __init__(self, step, parameters):
        """step: a function of a batch, and of whether gradients begin at zero, that adds the
        gradients of its loss to those of the parameters, and returns the loss, detached. It must
        not wait for the device. parameters: those that are trained.
        """
        self.step, self.parameters = step, [p for p in parameters if p.requires_grad]
        self.gradients = [torch.zeros_like(p) for p in self.parameters]
        self.made, self.seen, self.pool = {}, Counter(), None
        self.problem = None  # why nothing more is captured, in words

    def __call__(self, batch):
        """Add a batch's gradients to those of the parameters. Returns its loss, detached."""
        fresh = self._hold_gradients()
        key = (fresh, _shape(batch))
        if key in self.made:
            return self._replay(key, batch)
        self.seen[key] += 1
        # The first time, what is compiled, tuned or set up on first use must happen outside.
        if self.seen[key] == 1 or self.problem or len(self.made) >= MOST:
            return self.step(batch, fresh)
        try:
            self._capture(key, batch)
        except Exception as error:  # whatever a model does that cannot be captured
            self.problem = f"{type(error).__name__}: {str(error).splitlines()[0]}"[:200]
            torch.cuda.synchronize()
            return self.step(batch, fresh)
        return self._replay(key, batch)

    def _hold_gradients(self):
        """Gradients are always in the same place. Returns whether an update took them away: then
        what is there is old, and a step writes over it."""
        gone = [p.grad is None for p in self.parameters]
        if any(gone) and not all(gone):
            missing = zip(gone, self.gradients, strict=True)
            compat.zero_all([gradient for none, gradient in missing if none])
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return all(gone)

    def _capture(self, key, batch):
        held = {k: v.clone() if torch.is_tensor(v) else v for k, v in batch.items()}
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            loss = self.step(held, key[0])
        self.pool = graph.pool()
        self.made[key] = (graph, held, loss)

    def _replay(self, key, batch):
        graph, held, loss = self.made[key]
        for name, value in batch.items():
            if torch.is_tensor(value):
                held[name].copy_(value, non_blocking=True)
        graph.replay()
        return loss.clone()


@contextmanager
def replayed(model, trainer):
    """While open, a Trainer's training steps are replayed as CUDA graphs.

    Its batches say themselves how much is supervised in them, so that no step asks the card.
    """
    collate, packed = trainer.data_collator, trainer.packed_loss

    def counted(rows):
        batch = collate(rows)
        return {**batch, updates.COUNT: updates.supervised(model.task, batch)}

    def step(batch, fresh):
        inputs = {name: value for name, value in batch.items() if name != "weight"}
        if packed:
            return packed.add_gradients(inputs, batch["weight"], fresh)
        if fresh:
            compat.zero_all([p.grad for p in model.net.parameters() if p.requires_grad])
        loss = model.net(**inputs)["loss"] * batch["weight"]
        loss.backward()
        return loss.detach()

    trainer.graphs = StepGraphs(step, model.net.parameters())
    trainer.data_collator = counted
    if hasattr(collate, "multiple"):
        collate.multiple = WIDTHS
    try:
        yield trainer.graphs
    finally:
        if trainer.graphs.problem:
            trainer.notes.append("CUDA graphs: steps ran kernel by kernel "
                                 f"({trainer.graphs.problem})")
        trainer.graphs, trainer.data_collator = None, collate


def _shape(batch):
    """What must be equal for two batches to run through the same kernels."""
    return tuple(
        (name, tuple(value.shape), str(value.dtype)) if torch.is_tensor(value) else (name, value)
        for name, value in sorted(batch.items())
    )
