"""The Trainer that fit uses: the library's, with weighted losses and batches of similar length."""

import itertools

import numpy as np
import torch
import transformers

from ftkit import compat, tasks
from ftkit.errors import Diverged
from ftkit.models import structure
from ftkit.models.specs import SPECS
from ftkit.tasks import updates
from ftkit.tasks.batching import LengthGroupedSampler, SameChoicesSampler
from ftkit.training.callbacks import KeepBest


class KitTrainer(transformers.Trainer):
    """transformers.Trainer with batches of similar length and the loss of the kit's own tasks.

    Its losses are weighted by the tokens that they are of, over all batches of an update and all
    processes (updates.py); those of evaluation over the whole split. task: a name of models.specs.
    method: what may add a loss to the task's own. smoothing: of the labels, from 0 to 1.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by what the whole update has

    def __init__(self, *args, task, method=None, layerwise_lr_decay=1.0, group_by_length=True,
                 smoothing=0.0, **kwargs):
        self.task, self.method, self.smoothing = task, method, smoothing
        self.layerwise_lr_decay, self.group_by_length = layerwise_lr_decay, group_by_length
        self.update, self.eval_sums = None, None
        self.look = None  # notes the memory that is held now
        self.packed_loss = None  # of batches without padding
        self.graphs = None  # replays forward and backward passes on a card
        self.notes = []  # what came up while training, in words
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # compute_loss weighs what a batch brings

    @property
    def keep_best(self):
        """Who remembers the best weights; the library may have made another one on resuming."""
        return next((c for c in self.callback_handler.callbacks if isinstance(c, KeepBest)), None)

    def train_or_resume(self, last=None):
        """Train, from a checkpoint where there is one. Returns where somebody interrupted it."""
        if last and self.keep_best and self.keep_best.had_enough(last):
            self.state = transformers.TrainerState.load_from_json(last / "trainer_state.json")
            return None
        try:
            self.train(resume_from_checkpoint=str(last) if last else None)
        except KeyboardInterrupt:
            if self.args.world_size > 1:
                raise  # the others would wait for this process for ever
            if self.neftune_noise_alpha is not None:
                self.neftune_hook_handle.remove()
            self.callback_handler.on_train_end(self.args, self.state, self.control)
            return f"after update {self.state.global_step:,} of {self.state.max_steps:,}"
        if not all(p.isfinite().all() for p in self.model.parameters() if p.requires_grad):
            raise Diverged("a weight", float("nan"), self)
        return None

    def training_step(self, model, inputs, *args, **kwargs):
        if self.graphs:
            return self._replayed(model, inputs)
        loss = super().training_step(model, inputs, *args, **kwargs)
        if loss.device.type == "cpu" and not loss.isfinite():  # elsewhere to look is to wait
            raise Diverged("the training loss", loss.item(), self)
        if self.look:
            self.look("backward")  # all gradients are held
        return loss

    def _replayed(self, model, inputs):
        """A training step as a CUDA graph. What it is weighed by is written by a kernel, too."""
        if not model.training:
            model.train()
        update = self.update
        # Packed rows give a sum; the other losses are means over what a batch brings.
        count = 1 if self.packed_loss else updates.supervised(self.task, inputs)
        weight = count / max(update.total, 1)
        update.current += 1
        batch = {name: value for name, value in inputs.items() if name != updates.COUNT}
        return self.graphs({**batch, "weight": torch.full((), weight, device=model.device)})

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if self.layerwise_lr_decay < 1:
            net = structure.inner(self.model)
            share = structure.layerwise_learning_rates(net, self.layerwise_lr_decay)
            groups = []
            for group in optimizer.param_groups:
                for rate in sorted({share[id(p)] for p in group["params"]}, reverse=True):
                    part = [p for p in group["params"] if share[id(p)] == rate]
                    groups.append({**group, "params": part, "lr": group["lr"] * rate})
            optimizer.param_groups = groups
        return optimizer

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        chosen = self.args.train_sampling_strategy not in (None, "random")
        if chosen or not self.group_by_length or not hasattr(dataset, "lengths"):
            return super()._get_train_sampler(train_dataset)
        # An update's texts over all processes are of one length: none waits for a longer batch.
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        size *= self.args.world_size
        if getattr(dataset, "families", None) is not None:
            return SameChoicesSampler(dataset.families, size, self.args.seed)
        return LengthGroupedSampler(dataset.lengths, size, self.args.seed)

    def floating_point_ops(self, inputs):
        """None are counted: nobody reads them, and each count walks through all parameters."""
        return 0

    def log(self, logs, *args, **kwargs):
        """Stop a training whose loss is no number any more, after it was written down."""
        super().log(logs, *args, **kwargs)
        for name, what in (("loss", "the training loss"), ("eval_loss", "the validation loss")):
            if self.is_in_train and not np.isfinite(logs.get(name, 0)):
                raise Diverged(what, logs[name], self)

    def save_model(self, output_dir=None, _internal_call=False):
        super().save_model(output_dir, _internal_call)
        if _internal_call and self.keep_best and self.args.should_save:
            self.keep_best.save(output_dir)  # before the state, the last file of a checkpoint

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of an update, and what is supervised in them on all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if batches and self.accelerator.gradient_state.end_of_dataloader:
            batches[-1] = self._without_fillers(batches[-1], self.train_dataset, training=True)
        counts = [updates.supervised(self.task, batch) for batch in batches]
        total = self._over_all(sum(counts))
        self.update = updates.Update(
            batches, counts, total, number=self.state.global_step, seed=self.args.seed,
            rows=self.args.per_device_train_batch_size, process=self.args.process_index,
            processes=self.args.world_size,
        )
        if batches and hasattr(self.method, "before_update"):
            with torch.no_grad(), self.compute_loss_context_manager():
                found = self.method.before_update(self.model, self.update)
            self.update.found = self._over_all(*found)
        return batches, total

    def _over_all(self, *values):
        """Sums over all processes: a number, or a list of them."""
        if self.args.world_size > 1:
            both = torch.tensor(values, dtype=torch.float64, device=self.args.device)
            values = self.accelerator.reduce(both, "sum").tolist()
        return values[0] if len(values) == 1 else list(values)

    def _without_fillers(self, batch, dataset, training):
        """The last batch of a pass without the rows that make those of all processes equal."""
        args = self.args
        size = args.per_device_train_batch_size if training else args.per_device_eval_batch_size
        rest = len(dataset) % (size * args.world_size)
        if args.world_size == 1 or not rest or args.dataloader_drop_last:
            return batch
        return updates.without_fillers(batch, size, rest - args.process_index * size)

    def evaluation_loop(self, dataloader, *args, metric_key_prefix="eval", **kwargs):
        """The library's, with the loss a mean over all tokens (or rows) of the split."""
        self.eval_sums = [0.0, 0]
        output = super().evaluation_loop(
            dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs
        )
        loss, count = self._over_all(*self.eval_sums)
        self.eval_sums = None
        if f"{metric_key_prefix}_loss" in output.metrics and count:
            output.metrics[f"{metric_key_prefix}_loss"] = loss / count
        return output

    def prediction_step(self, model, inputs, *args, **kwargs):
        last = self.accelerator.gradient_state.end_of_dataloader
        data = self.callback_handler.eval_dataloader.dataset
        own = self._without_fillers(inputs, data, False) if last else inputs
        sums = list(self.eval_sums)
        found = super().prediction_step(model, inputs, *args, **kwargs)
        if own is not inputs:  # the same once more, without what only fills the batch
            self.eval_sums = sums
            with torch.no_grad(), self.compute_loss_context_manager():
                self.compute_loss(model, compat.prepared(self, own))
        return found

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        net = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        parallel = model.training and isinstance(model, torch.nn.parallel.DistributedDataParallel)
        forward = net if parallel else model

        def compute():
            return self._loss(forward, net, inputs)

        loss, out = updates.run(model if parallel else None, net, compute)
        return (loss, out) if return_outputs else loss

    def _loss(self, forward, net, inputs):
        """A batch's loss, in training its part of the update's, and the network's output."""
        task, update = self.task, self.update if net.training else None
        method = self.method if update else None
        count = updates.supervised(task, inputs)
        given = {**inputs, **(getattr(method, "asks", None) or {})}
        given.pop(updates.COUNT, None)
        if self.compute_loss_func is not None and not SPECS[task].target:
            given.pop("labels", None)  # a target text is read, too
        with self.accelerator.autocast():
            out = tasks.TASKS[task].loss(forward, inputs)
        if out is not None:
            out = {"loss": out.loss, "logits": out.logits}
        elif self.packed_loss and "cu_seq_lens_q" in inputs:
            out = {"loss": self.packed_loss(inputs, count)}
        else:
            out = forward(**given)
        if not count:
            loss = updates.nothing(out)
        elif self.compute_loss_func is not None:
            total = update.total if update else count
            loss = self.compute_loss_func(out, inputs["labels"], num_items_in_batch=total)
            loss = loss * total / count
        else:
            loss = out["loss"]
            if update and self.smoothing:
                loss = updates.smoothed(task, out, inputs["labels"], self.smoothing, loss)
        if update is None:
            if self.eval_sums is not None:
                total, number = self.eval_sums
                self.eval_sums = [total + loss.item() * count, number + count]
            return loss, out
        if count and hasattr(method, "loss"):
            more = {"update": update} if getattr(method, "draws", False) else {}
            loss = method.loss(net, inputs, out, loss, **more)
        update.current += 1
        if self.look:
            # The optimizer has its memory from the first update on.
            place = f"forward, updates: {min(self.state.global_step, 1)}"
            self.look(place, max(v.numel() for v in inputs.values() if hasattr(v, "numel")))
        # Processes take the mean of their gradients, and the sum is what is meant.
        return loss * (count / max(update.total, 1) * self.args.world_size), out
