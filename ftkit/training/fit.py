"""fit(): the one way to train, over transformers.Trainer, for any task and any method."""

import dataclasses
import difflib
import functools
import inspect
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import transformers

from ftkit import compat
from ftkit.display import Facts
from ftkit.errors import DataError, SettingError
from ftkit.methods import Full
from ftkit.models import hardware, precision, structure
from ftkit.models.model import UNSAVED, Model, check_model, trainable_summary
from ftkit.models.weights import check_trained
from ftkit.speed import apply, optimizations
from ftkit.tasks.batching import Collator, encode
from ftkit.training import checkpoints, checks, progress, records, tracking
from ftkit.training.callbacks import Epochs, KeepBest
from ftkit.training.measure import measured
from ftkit.training.trainer import KitTrainer

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
_ONE = threading.RLock()


@dataclass
class Run(Facts):
    """A finished training: the tuned model and the record of how it came about.

    history: DataFrame with step, epoch, loss, eval_loss, learning_rate. seconds: of training.
    peak_memory: bytes of the process at the worst moment; added_memory: the part of them that the
    training itself needed, after its forward and backward passes. trainable: parameters trained,
    in all, their share, bytes to store, blocks with any of them. folder: where run.json and
    history.jsonl are, or None when records are off.
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
        told = self.facts()
        shown = f", validation loss {told['validation loss']}" if told["validation loss"] else ""
        return (f"trained {told['trained'][:-1]}, {told['to store']} to store) in {told['time']}, "
                f"peak memory {told['peak memory']}{shown}")

    def facts(self):
        """What somebody asks of a training, as {what: value}: the lines of its table."""
        t, loss = self.trainable, self.metrics.get("eval_loss")
        return {"model": self.model and f"{self.model.name}, for {self.model.task}",
                "method": str(self.settings.get("method", "")),
                "trained": f"{t['trained']:,} of {t['total']:,} parameters ({t['share']:.2%})",
                "to store": f"{t['bytes'] / 1e6:.1f} MB", "time": f"{self.seconds:.0f} s",
                "peak memory": f"{self.peak_memory / 1e9:.1f} GB",
                "validation loss": None if loss is None else f"{loss:.3f}",
                # By its name: a path is of one machine, and does not belong into a notebook.
                "record (ft.runs)": self.folder.name if self.folder else ""}

    def show(self):
        """Plot the loss on training and validation data."""
        from ftkit.training.curves import plot_history

        return plot_history(self)


def _one_at_a_time(train):
    """Where threads of a process train, each waits for the one before it.

    They would share the random numbers of torch and the state of accelerate, which says when an
    update is complete: the results would depend on what else runs.
    """

    @functools.wraps(train)
    def waits(*args, **kwargs):
        if not _ONE.acquire(blocking=False):
            if not kwargs.get("quiet"):
                print("waits for another training of this process")
            _ONE.acquire()
        try:
            return train(*args, **kwargs)
        finally:
            _ONE.release()

    return waits


@_one_at_a_time
def fit(model, data, *, method=None, epochs=3, learning_rate=None, batch_size=BATCH, seed=0,
        max_length=None, patience=None, schedule="linear", warmup=0.06, loss_on="response",
        dtype=None, checkpoint_dir=None, resume=False, name=None, quiet=False, disable=(),
        compile_blocks=None, track=None, **trainer_arguments):
    """Train a copy of a model; the model given stays as it is.

    data: splits "train" and, for a validation curve, "validation"; or a single Dataset.
    method: Full(), Freeze(...), LoRA(...) and the like; by default all weights are trained.
    batch_size: examples for each update, over all processes; split where memory asks for it.
    patience: stop after so many evaluations without a lower validation loss, and go back to the
    best weights. warmup: share of the updates. loss_on: "response" or "all" tokens of records.
    dtype: "float32", "bf16" or "fp16" to compute in (FTKIT_DTYPE in the environment does the
    same), validation included; by default what is fast on a card, and on a processor what was
    measured to be.
    disable: what to leave off of the things that make training fast, a name of
    optimizations.OPTIMIZATIONS or several.
    compile_blocks: whether torch.compile is used on the repeated block; by default where an
    estimate says that the training is long enough to pay for it.
    checkpoint_dir: keep checkpoints there, and with resume=True go on from the last whole one.
    track: whether the run is sent to MLflow, too (extra `track`); by default what FTKIT_TRACK says.
    Everything else that TrainingArguments or Trainer take passes through by name.
    An update's loss is a sum over supervised tokens (or rows) divided by their number over all its
    batches and processes. What the length limit cut is printed.
    Returns a Run; when it is interrupted, too, with the weights so far. Raises SettingError for an
    unknown argument, DataError for data that cannot be trained on, Diverged for a loss that is NaN
    or infinite.
    """
    method, disable = Full() if method is None else method, optimizations.disabled(disable)
    track = tracking.wanted(track)
    check_model(model)
    checks.check_method(method)
    checks.check_numbers(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
                         seed=seed, max_length=max_length, patience=patience or None, warmup=warmup)
    passed, extra = _sort_arguments(trainer_arguments)
    if "gradient_checkpointing" in passed:  # an older name, which the plan's choice would hide
        passed.setdefault("activation_checkpointing", passed.pop("gradient_checkpointing"))
    smoothing, own_loss = passed.get("label_smoothing_factor", 0), extra.get("compute_loss_func")
    checks.check_losses(model, method, smoothing, own_loss)
    processes = int(os.environ.get("WORLD_SIZE", 1))  # torchrun and accelerate say so
    quiet = quiet or os.environ.get("RANK", "0") != "0"  # one process speaks for all
    said = progress.shown(quiet)
    train, validation = _splits(data, patience)
    transformers.set_seed(seed)
    tuned = model.copy()
    structure.with_dropout(tuned.net)  # an earlier method may have switched some off
    tuned = method.apply(tuned)
    check_trained(tuned.net)
    checks.check_base(tuned, method)
    trainable = trainable_summary(tuned)
    rows = encode(train, tuned, max_length=max_length, loss_on=loss_on)
    held = encode(validation, tuned, max_length=max_length, loss_on=loss_on) if validation else None
    cut = [checks.check_supervised(tuned.task, rows)]
    cut += [checks.check_supervised(tuned.task, held, "validation")] if held else []
    each = -(-min(batch_size, len(rows)) // processes)
    chosen = precision.for_training(
        tuned.net, tokens=epochs * int(rows.lengths.sum()), batch=each,
        length=int(np.median(rows.lengths)), dtype=dtype,
        flags={name: passed.pop(name) for name in ("bf16", "fp16") if name in passed},
    )
    machine, tokens = hardware.this_machine(), int(rows.lengths.sum())
    plan = hardware.plan(machine, hardware.shape_of(structure.inner(tuned.net)), dtype=chosen,
                         length=int(np.quantile(rows.lengths, 0.95)), batch_size=each,
                         trainable=trainable["share"])
    rate = getattr(method, "learning_rate", 1e-4) if learning_rate is None else learning_rate
    told = records.told(method, trainer_arguments, epochs=epochs, learning_rate=rate,
                        batch_size=batch_size, seed=seed, max_length=max_length, patience=patience,
                        schedule=schedule, warmup=warmup, loss_on=loss_on, dtype=chosen.value,
                        disable=sorted(disable), compile_blocks=compile_blocks)
    split = 1 if "per_device_train_batch_size" in passed else plan.accumulation
    accumulate = passed.pop("gradient_accumulation_steps", 1) * split
    checks.check_saving(checkpoint_dir, resume, passed)
    scratch = None if checkpoint_dir else tempfile.mkdtemp(prefix="ftkit-")
    settings = {"output_dir": str(checkpoint_dir or scratch),
                "num_train_epochs": epochs,
                "learning_rate": rate,
                "per_device_train_batch_size": plan.batch_size,
                # What had to be split to be trained on does not fit whole to be judged either.
                "per_device_eval_batch_size": plan.batch_size if split > 1 or plan.checkpointing
                else max(16, plan.batch_size),
                "lr_scheduler_type": schedule,
                "gradient_accumulation_steps": accumulate,
                "seed": seed,
                "optim": plan.optimizer,
                "bf16": plan.dtype == "bf16",
                "fp16": plan.dtype == "fp16",
                "use_cpu": machine.device == "cpu",
                "report_to": "none",
                "activation_checkpointing": plan.checkpointing,
                "remove_unused_columns": False,
                "save_strategy": "epoch" if checkpoint_dir else "no",
                "save_total_limit": 2,
                "eval_strategy": "epoch" if held else "no",
                "disable_tqdm": True,
                "logging_nan_inf_filter": False,  # would show a loss that is NaN as 0
                "prediction_loss_only": True,
                "label_names": ["labels"],
                "dataloader_pin_memory": machine.device == "cuda"} | passed
    in_all, in_epoch = checks.count_updates(settings, len(rows), processes)
    # Rounded down: the first step of a warm-up has rate 0, and a short run would waste it.
    settings.setdefault("warmup_steps", int(warmup * in_all) if warmup < 1 else warmup)
    settings.setdefault("logging_steps", max(1, in_all // POINTS))
    said.tell(f"{trainable['trained']:,} of {trainable['total']:,} parameters are trained "
              f"({trainable['share']:.2%}); {len(rows):,} examples, {in_all:,} updates")
    said.details("; ".join(_choices(plan, settings, split, tuned.net, disable)))
    said.tell(*cut)
    said.tokens = tokens
    keep = KeepBest(patience) if patience else None
    stopped, restore = None, precision.as_it_was(tuned.net)
    try:
        decay = getattr(method, "layerwise_lr_decay", 1.0)
        own = {"method": method, "layerwise_lr_decay": decay, "smoothing": smoothing,
               "group_by_length": "group_by_length" not in disable}
        trainer = _trainer(tuned, settings, rows, held, extra | own, keep, said)
        last = checkpoints.last_whole(checkpoint_dir, processes) if resume else None
        if resume:
            said.tell(f"goes on from {last.name}" if last else "no whole checkpoint: begins anew")
        with (
            measured() as used,
            apply.applied(
                tuned, trainer, plan, tokens=in_all / in_epoch * tokens,
                disable=disable, own_batches="data_collator" in extra,
                whole_logits="compute_metrics" in extra or smoothing or own_loss is not None,
                compile_blocks=compile_blocks, own_size="per_device_train_batch_size" in passed,
            ) as choices,
        ):
            for size in ("per_device_train_batch_size", "gradient_accumulation_steps"):
                settings[size] = getattr(trainer.args, size)  # may have been split to fit
            said.details(*choices)
            trainer.look = used.look
            stopped = trainer.train_or_resume(last)
        said.details(*trainer.notes)
    except BaseException as error:
        said.failed(error)
        raise
    finally:
        restore()
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    if keep := trainer.keep_best:
        keep.restore(tuned.net)
    if stopped:
        settings["interrupted"] = stopped
    words, expected = progress.ending(trainer.state, keep, stopped, used.seconds)
    said.end(words, important=bool(stopped) or not (expected or quiet))
    tuned.net.zero_grad(set_to_none=True)
    tuned.net.eval()
    if not hasattr(tuned.net, "peft_config") and not hasattr(tuned.net, "adapter_registry"):
        tuned.net.name_or_path = UNSAVED  # an adapter on top of it could not find it again
    run = _finish(tuned, trainer, used, trainable, method, settings, plan, keep)
    if trainer.is_world_process_zero():
        run.folder = records.write(run, name=name, data=data, energy=used.energy, base=model,
                                   told=told, splits={"train": train, "validation": validation})
    if track and trainer.is_world_process_zero():
        tracking.send(run)
    return run


def _choices(plan, settings, split, net, disable):
    """What was chosen before the first step, in words: of what happens, not of what was planned."""
    said = [plan.why[0]]
    if "eager_attention" not in disable:
        own = compat.attention_kernel(structure.inner(net).config)
        said += [plan.why[1] if plan.attention != "sdpa" or own == "sdpa" else
                 f"{own} attention, as the network has it"]
    said += plan.why[3:4] if split > 1 else []  # so many examples at once
    if settings["activation_checkpointing"]:
        said.append("activations are computed again in the backward pass, to save memory")
    return said


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
        raise SettingError(f"patience={patience} watches a validation split and there is none; "
                           "load the data with n_validation above 0, or leave patience out.")
    return train, validation


def _sort_arguments(arguments):
    """Split what the caller passed into TrainingArguments' and Trainer's own."""
    for name in arguments:
        if name not in _ARGUMENTS | _TRAINER:
            known = [*_ARGUMENTS, *_TRAINER, *inspect.signature(fit).parameters]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise SettingError(f"fit does not know the argument {name!r}{hint} It takes its own "
                               "and those of transformers' TrainingArguments and Trainer.")
    return ({k: v for k, v in arguments.items() if k in _ARGUMENTS},
            {k: v for k, v in arguments.items() if k not in _ARGUMENTS})


def _trainer(model, settings, rows, held, extra, keep, said):
    if "compute_metrics" in extra:
        settings["prediction_loss_only"] = False
    arguments = transformers.TrainingArguments(**settings)
    if arguments.parallel_mode.name == "NOT_DISTRIBUTED":
        compat.use_one_device(arguments)  # several cards are for torchrun
    extra = {"data_collator": Collator(model, arguments.seed)} | extra
    callbacks = [*(extra.pop("callbacks", None) or []), Epochs(), *([keep] if keep else []), said]
    trainer = KitTrainer(model=model.net, args=arguments, train_dataset=rows, eval_dataset=held,
                         callbacks=callbacks, task=model.task, **extra)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _finish(tuned, trainer, used, trainable, method, settings, plan, keep):
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
    kept = {k: v for k, v in settings.items() if k != "output_dir" and not records.is_secret(k)}
    return Run(tuned, history, used.seconds, used.peak_memory, trainable, metrics,
               {"method": repr(method), **kept}, plan=plan, added_memory=used.added_memory)
