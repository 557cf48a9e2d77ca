"""What happens while fit trains: early stopping, and which epoch begins."""

import json
import math
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.trainer_callback import ExportableState

BEST = "best_weights.safetensors"  # beside the other files of a checkpoint


class KeepBest(transformers.TrainerCallback, ExportableState):
    """Early stopping: remember the trained weights with the lowest validation loss.

    In memory, and in a file of each checkpoint that is written; the counts are in the Trainer's
    state.
    """

    def __init__(self, patience):
        self.patience, self.best, self.bad, self.weights = patience, None, 0, {}
        self.epoch = 0.0

    def state(self):
        """What a checkpoint keeps beside the weights."""
        counts = {"best": self.best, "bad": self.bad, "epoch": self.epoch}
        return {"args": {"patience": self.patience}, "attributes": counts}

    def save(self, folder):
        """Write the best weights into the folder of a checkpoint."""
        if self.weights:
            save_file(self.weights, Path(folder) / BEST)

    def had_enough(self, checkpoint):
        """Go on from a checkpoint. Returns whether the training had been stopped there."""
        text = (Path(checkpoint) / "trainer_state.json").read_text()
        known = json.loads(text).get("stateful_callbacks", {}).get(type(self).__name__)
        if known is None:  # trained without patience until there
            return False
        for name, value in known["attributes"].items():
            setattr(self, name, value)
        if self.best is not None:
            self.weights = load_file(Path(checkpoint) / BEST)
        return self.bad >= self.patience

    def on_train_begin(self, args, state, control, **_):
        if self.best is not None and not self.weights:  # the library has restored the counts alone
            self.had_enough(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_evaluate(self, args, state, control, model=None, metrics=None, **_):
        loss = (metrics or {}).get("eval_loss", float("nan"))
        if loss < (float("inf") if self.best is None else self.best):
            self.best, self.bad, self.epoch = loss, 0, state.epoch
            self.weights = {n: p.detach().to("cpu", copy=True).contiguous()
                            for n, p in model.named_parameters() if p.requires_grad}
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


class Epochs(transformers.TrainerCallback):
    """Tells the data which epoch begins, of an uncut or a resumed training alike."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **_):
        epoch, part = math.floor(state.epoch + 1e-9), train_dataloader
        if hasattr(data := getattr(part, "dataset", None), "begin_epoch"):
            data.begin_epoch(epoch)
        while part is not None:  # the loader, and the samplers in it
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
            inner = [getattr(part, name, None) for name in ("batch_sampler", "sampler")]
            part = next((one for one in inner if one is not None), None)
