"""fit(): the one way to train, over transformers.Trainer, for any task and any method."""

import dataclasses
import difflib
import inspect
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import transformers

from ftkit import hardware, layers, losses, precision, records, switches, tricks
from ftkit.batching import Collator, SameChoices, SimilarLength, encode
from ftkit.callbacks import KeepBest, Progress, Report, watched
from ftkit.errors import DataError, SettingError
from ftkit.measuring import measured
from ftkit.methods import Full
from ftkit.models import UNSAVED, Model, trainable_summary

BATCH = 16
POINTS = 25  # of the loss curve
_ARGUMENTS = {f.name for f in dataclasses.fields(transformers.TrainingArguments)}
_TRAINER = set(inspect.signature(transformers.Trainer.__init__).parameters) - {
    "self",
    "model",
    "args",
    "train_dataset",
    "eval_dataset",
}


@dataclass
class Run:
    """A finished training: the tuned model and the record of how it came about.

    history: DataFrame with step, epoch, loss, eval_loss, learning_rate. seconds: of training.
    peak_memory: bytes of the process at the worst moment; added_memory: the part of them that the
    training itself needed, after its forward and backward passes. trainable: parameters trained,
    in all, their share, bytes to store. folder: where run.json and history.jsonl are, or None when
    records are off.
    """

    model: Model
    history: object
    seconds: float
    peak_memory: int
    trainable: dict
    metrics: dict
    settings: dict
    folder: Path | None = None
    plan: object = field(default=None, repr=False)
    added_memory: int = 0

    def __repr__(self):
        t = self.trainable
        loss = self.metrics.get("eval_loss")
        shown = f", validation loss {loss:.3f}" if loss is not None else ""
        return (
            f"trained {t['trained']:,} of {t['total']:,} parameters ({t['share']:.2%}, "
            f"{t['bytes'] / 1e6:.1f} MB to store) in {self.seconds:.0f} s, "
            f"peak memory {self.peak_memory / 1e9:.1f} GB{shown}"
        )

    def show(self):
        """Plot the loss on training and validation data."""
        from ftkit.show import plot_history

        return plot_history(self)


def fit(
    model,
    data,
    *,
    method=None,
    epochs=3,
    learning_rate=None,
    batch_size=BATCH,
    seed=0,
    max_length=None,
    patience=None,
    schedule="linear",
    warmup=0.06,
    loss_on="response",
    dtype=None,
    checkpoint_dir=None,
    resume=False,
    name=None,
    quiet=False,
    without=(),
    **trainer_arguments,
):
    """Train a copy of a model; the model given stays as it is.

    data: splits "train" and, for a validation curve, "validation"; or a single Dataset.
    method: Full(), Freeze(...), LoRA(...) and the like; by default all weights are trained.
    batch_size: examples for each update, over all processes; split where memory asks for it.
    patience: stop after so many evaluations without a lower validation loss, and go back to the
    best weights. warmup: share of the updates. loss_on: "response" or "all" tokens of records.
    dtype: "float32", "bf16" or "fp16" to compute in (FTKIT_DTYPE in the environment does the
    same); by default what is fast on a card, and on a processor what was measured to be.
    without: what to leave off of the things that make training fast, a name of
    switches.TRICKS or several.
    checkpoint_dir: keep checkpoints there, and with resume=True go on from the last of them.
    Everything else that TrainingArguments or Trainer take passes through by name.
    Returns a Run. Raises SettingError for an unknown argument, DataError for data that cannot be
    trained on.
    """
    method, without = method or Full(), switches.names(without)
    train, validation = _splits(data, patience)
    transformers.set_seed(seed)
    tuned = model.copy()
    layers.with_dropout(tuned.net)  # an earlier method may have switched some off
    tuned = method.apply(tuned)
    trainable = trainable_summary(tuned)
    rows = encode(train, tuned, max_length=max_length, loss_on=loss_on)
    held = encode(validation, tuned, max_length=max_length, loss_on=loss_on) if validation else None
    _need_labels(tuned.task, rows)
    processes = int(os.environ.get("WORLD_SIZE", 1))  # torchrun and accelerate say so
    passed, extra = _sort_arguments(trainer_arguments)
    each = -(-min(batch_size, len(rows)) // processes)
    chosen = precision.for_training(
        tuned.net,
        tokens=epochs * int(rows.lengths.sum()),
        batch=each,
        length=int(np.median(rows.lengths)),
        dtype=dtype,
        flags={name: passed.pop(name) for name in ("bf16", "fp16") if name in passed},
    )
    plan = hardware.plan(
        hardware.this_machine(),
        hardware.shape_of(losses.inner(tuned.net)),
        dtype=chosen,
        length=int(np.quantile(rows.lengths, 0.95)),
        batch_size=each,
        trainable=trainable["share"],
    )
    rate = getattr(method, "learning_rate", 1e-4) if learning_rate is None else learning_rate
    accumulate = passed.pop("gradient_accumulation_steps", 1) * plan.accumulation
    each = plan.batch_size * accumulate * processes
    updates = max(1, int(np.ceil(len(rows) / each) * epochs))
    scratch = None if checkpoint_dir else tempfile.mkdtemp(prefix="ftkit-")
    settings = {
        "output_dir": str(checkpoint_dir or scratch),
        "num_train_epochs": epochs,
        "learning_rate": rate,
        "per_device_train_batch_size": plan.batch_size,
        "per_device_eval_batch_size": max(16, plan.batch_size),
        "lr_scheduler_type": schedule,
        "gradient_accumulation_steps": accumulate,
        # Rounded down: the first step of a warm-up has rate 0, and a short run would waste it.
        "warmup_steps": int(warmup * updates) if warmup < 1 else warmup,
        "seed": seed,
        "optim": plan.optimizer,
        "bf16": plan.dtype == "bf16",
        "fp16": plan.dtype == "fp16",
        "use_cpu": hardware.this_machine().device == "cpu",
        "report_to": "none",
        "activation_checkpointing": plan.checkpointing,
        "remove_unused_columns": False,
        "save_strategy": "epoch" if checkpoint_dir else "no",
        "save_total_limit": 2,
        "eval_strategy": "epoch" if held else "no",
        "disable_tqdm": True,
        "logging_steps": max(1, updates // POINTS),
        "prediction_loss_only": True,
        "label_names": ["labels"],
        "logging_nan_inf_filter": False,  # would show a loss that is NaN as 0
        "dataloader_pin_memory": hardware.this_machine().device == "cuda",
    } | passed
    if not quiet:
        print(
            f"{trainable['trained']:,} of {trainable['total']:,} parameters are trained "
            f"({trainable['share']:.2%}); {len(rows):,} examples, {updates:,} updates"
        )
        print("; ".join(plan.why[: 1 if "plain_attention" in without else 2]))
    keep = KeepBest(patience) if patience else None
    restore = precision.as_it_was(tuned.net)
    try:
        decay = getattr(method, "decay", 1.0)
        trainer = _trainer(tuned, settings, rows, held, extra, keep, quiet, plan, decay, without)
        trainer.kit_method = method
        last = (
            transformers.trainer_utils.get_last_checkpoint(checkpoint_dir)
            if resume and checkpoint_dir and Path(checkpoint_dir).is_dir()
            else None
        )
        with (
            measured() as used,
            tricks.applied(
                tuned,
                trainer,
                plan,
                tokens=epochs * int(rows.lengths.sum()),
                without=without,
                own_batches="data_collator" in extra,
                whole_logits="compute_metrics" in extra,
            ) as said,
        ):
            if not quiet:
                print(*said, sep="\n", end="\n" if said else "")
            trainer.kit_look = used.look
            trainer.train(resume_from_checkpoint=last)
    finally:
        restore()
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    if keep:
        keep.restore(tuned.net)
    tuned.net.zero_grad(set_to_none=True)
    tuned.net.eval()
    if not hasattr(tuned.net, "peft_config") and not hasattr(tuned.net, "shelf"):
        tuned.net.name_or_path = UNSAVED  # an adapter on top of it could not find it again
    return _finish(tuned, trainer, used, trainable, method, settings, name, plan, keep, data)


def _splits(data, patience):
    if hasattr(data, "keys"):
        if "train" not in data:
            raise DataError(f"fit needs a split named 'train'; the data has {', '.join(data)}.")
        train, validation = data["train"], data.get("validation")
    else:
        train, validation = data, None
    if validation is not None and not len(validation):
        validation = None
    if patience and validation is None:
        raise SettingError(
            f"patience={patience} watches a validation split and there is none; "
            "load the data with n_validation above 0, or leave patience out."
        )
    return train, validation


def _need_labels(task, rows):
    # Masked words are their own labels: the collator draws them.
    if task == "encoder":
        raise SettingError(
            "an encoder without a head has nothing to learn; load it with "
            'task="classification", "choice", "masked-lm" or another.'
        )
    if task != "masked-lm" and "labels" not in rows[0]:
        raise DataError("column 'label' is missing; training needs the right answers.")


def _sort_arguments(arguments):
    """Split what the caller passed into TrainingArguments' and Trainer's own."""
    for name in arguments:
        if name not in _ARGUMENTS | _TRAINER:
            known = [*_ARGUMENTS, *_TRAINER, *inspect.signature(fit).parameters]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise SettingError(
                f"fit does not know the argument {name!r}{hint} It takes its own and "
                "those of transformers' TrainingArguments and Trainer."
            )
    return (
        {k: v for k, v in arguments.items() if k in _ARGUMENTS},
        {k: v for k, v in arguments.items() if k not in _ARGUMENTS},
    )


def _trainer(model, settings, rows, held, extra, keep, quiet, plan, decay, without):
    if "compute_metrics" in extra:
        settings["prediction_loss_only"] = False
    arguments = transformers.TrainingArguments(**settings)
    if arguments.parallel_mode.name == "NOT_DISTRIBUTED":
        arguments._n_gpu = 1  # several GPUs are for torchrun; DataParallel is slower than one
    extra = {"data_collator": Collator(model, arguments.seed)} | extra
    callbacks = [
        *(extra.pop("callbacks", None) or []),
        *([keep] if keep else []),
        *([] if quiet else [Report()]),
        *([Progress()] if watched() and arguments.process_index == 0 else []),
    ]
    trainer = KitTrainer(
        model=model.net,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held,
        callbacks=callbacks,
        **extra,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.kit_task, trainer.kit_decay = model.task, decay
    trainer.kit_order = "similar_length" not in without
    # Other models ignore the count of labels, and Trainer would scale their loss for it.
    trainer.model_accepts_loss_kwargs = model.task == "causal-lm"
    return trainer


class KitTrainer(transformers.Trainer):
    """transformers.Trainer with batches of similar length and the loss of the kit's own tasks."""

    kit_task, kit_method, kit_decay, kit_order = None, None, 1.0, True
    kit_look = None  # notes the memory that is held now

    def training_step(self, model, inputs, *args, **kwargs):
        loss = super().training_step(model, inputs, *args, **kwargs)
        if self.kit_look:
            self.kit_look("backward")  # all gradients are held
        return loss

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if self.kit_decay < 1:
            share = layers.rates(losses.inner(self.model), self.kit_decay)
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
        if chosen or not self.kit_order or not hasattr(dataset, "lengths"):
            return super()._get_train_sampler(train_dataset)
        # An update's texts over all processes are of one length: none waits for a longer batch.
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        size *= self.args.world_size
        if getattr(dataset, "families", None) is not None:
            return SameChoices(dataset.families, size, self.args.seed)
        return SimilarLength(dataset.lengths, size, self.args.seed)

    def floating_point_ops(self, inputs):
        """None are counted: nobody reads them, and each count walks through all parameters."""
        return 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.kit_task == "choice":
            with self.accelerator.autocast():
                out = losses.choice_loss(model, inputs)
            loss, out = out.loss, {"loss": out.loss, "logits": out.logits}
        else:
            loss, out = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training and hasattr(self.kit_method, "loss"):
            # The loss of a causal model is already its share of an update of several batches.
            accumulated = self.model_accepts_loss_kwargs and num_items_in_batch is not None
            parts = self.current_gradient_accumulation_steps if accumulated else 1
            loss = self.kit_method.loss(model, inputs, out, loss * parts) / parts
        if model.training and self.kit_look:
            # The optimizer has its memory from the first update on.
            place = f"forward, updates: {min(self.state.global_step, 1)}"
            self.kit_look(place, max(v.numel() for v in inputs.values() if hasattr(v, "numel")))
        return (loss, out) if return_outputs else loss


def _finish(tuned, trainer, used, trainable, method, settings, name, plan, keep, data):
    import pandas as pd

    logs = trainer.state.log_history
    history = pd.DataFrame([row for row in logs if "loss" in row or "eval_loss" in row])
    wanted = [c for c in ("step", "epoch", "loss", "eval_loss", "learning_rate") if c in history]
    history = history[wanted].reset_index(drop=True)
    metrics = {}
    if "eval_loss" in history:
        values = history["eval_loss"].dropna()
        metrics["eval_loss"] = (
            float(keep.best if keep else values.iloc[-1]) if len(values) else None
        )
    if keep:
        metrics["best_epoch"] = keep.epoch
    kept = {k: v for k, v in settings.items() if k != "output_dir"}
    run = Run(
        tuned,
        history,
        used.seconds,
        used.peak_memory,
        trainable,
        metrics,
        {"method": repr(method), **kept},
        plan=plan,
        added_memory=used.added_memory,
    )
    if trainer.is_world_process_zero():
        run.folder = records.write(run, name=name, data=data, energy=used.energy)
    return run
