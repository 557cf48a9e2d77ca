"""What happens while fit trains: early stopping, a line for each evaluation, a bar."""

import os
import sys

import torch
import transformers


class KeepBest(transformers.TrainerCallback):
    """Early stopping: remember the trained weights with the lowest validation loss.

    They stay in memory, so that no checkpoint needs to be written for it.
    """

    def __init__(self, patience):
        self.patience, self.best, self.bad, self.weights = patience, float("inf"), 0, {}
        self.epoch = 0.0

    def on_evaluate(self, args, state, control, model=None, metrics=None, **_):
        loss = (metrics or {}).get("eval_loss", float("nan"))
        if loss < self.best:
            self.best, self.bad, self.epoch = loss, 0, state.epoch
            net = getattr(model, "module", model)
            self.weights = {
                n: p.detach().to("cpu", copy=True)
                for n, p in net.named_parameters()
                if p.requires_grad
            }
            return
        self.bad += 1
        if self.bad >= self.patience:
            control.should_training_stop = True

    @torch.no_grad()
    def restore(self, net):
        """Put the best weights back."""
        for name, parameter in net.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])


class Progress(transformers.TrainerCallback):
    """A bar over the updates, for somebody who watches; headless runs have none."""

    def on_train_begin(self, args, state, control, **_):
        from tqdm.auto import tqdm

        self.bar = tqdm(total=state.max_steps, unit="update", leave=False)

    def on_step_end(self, args, state, control, **_):
        self.bar.update()

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


def watched():
    """Whether a person sees the output as it comes: a terminal, or a notebook not run in batch."""
    if os.environ.get("FTKIT_PLAIN"):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Report(transformers.TrainerCallback):
    """One line for each evaluation, the same in a terminal, a notebook and a batch."""

    loss = None

    def on_log(self, args, state, control, logs=None, **_):
        self.loss = (logs or {}).get("loss", self.loss)

    def on_evaluate(self, args, state, control, metrics=None, **_):
        if state.is_world_process_zero and "eval_loss" in (metrics or {}):
            train = f"{self.loss:.3f}" if self.loss is not None else "-"
            print(
                f"epoch {state.epoch:4.1f}   training loss {train}   "
                f"validation loss {metrics['eval_loss']:.3f}"
            )
