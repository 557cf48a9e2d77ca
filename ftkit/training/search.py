"""Finding settings: a learning-rate range test, and a search that gives hopeless trials up early.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", for the range test; Golovin et
al. 2017, "Google Vizier: A Service for Black-Box Optimization", for stopping by the median. The
search itself is optuna's: this file is what it needs to look into `fit`.
"""

import numpy as np
import optuna
import transformers

from ftkit.errors import Diverged, SettingError
from ftkit.training.fit import fit


def rate_range(model, dataset, *, method=None, low=1e-5, high=1.0, updates=40, batch_size=16,
               seed=0, **options):
    """The loss of each update while the learning rate grows from `low` to `high`.

    dataset: training examples, gone through as often as `updates` batches need. The rate grows by
    the same factor each time. method and options are those of `fit`, for any task and model; the
    model stays as it is. A good rate lies well below the one at which the loss turns up.
    Returns (rates, losses), two arrays of shape (updates,); a loss is NaN from where on the
    training diverged. Raises SettingError where low is not below high or there are fewer than two
    updates.
    """
    if not 0 < low < high or updates < 2:
        raise SettingError(f"rate_range goes up from low={low} to high={high} in {updates} "
                           "updates; low must be above 0 and below high, and there must be two "
                           "updates or more.")
    rates = np.geomspace(low, high, updates)
    climb = _Climb(rates)
    try:
        logged = fit(
            model, dataset, method=method, learning_rate=low, schedule="constant", warmup=0,
            max_steps=updates, logging_steps=1, batch_size=batch_size, seed=seed,
            callbacks=[climb, *options.pop("callbacks", [])], **{"quiet": True} | options,
        ).history["loss"].to_numpy()
    except Diverged as error:
        logged = [row["loss"] for row in error.history if "loss" in row]
    losses = np.full(updates, np.nan)
    losses[: len(logged)] = logged
    return rates, losses


class _Climb(transformers.TrainerCallback):
    """Sets the rate of each update in turn."""

    def __init__(self, rates):
        self.rates = rates

    def on_step_begin(self, args, state, control, optimizer=None, **_):
        for group in optimizer.param_groups:
            # Lower blocks may have a smaller rate (Freeze(layerwise_lr_decay=...)): they keep their
            # share.
            share = group["initial_lr"] / args.learning_rate
            group["lr"] = share * self.rates[state.global_step]


class Prune(transformers.TrainerCallback):
    """A callback for `fit` that tells an optuna trial each evaluation, and stops where it says so.

    trial: the optuna trial. metric: of the evaluation, such as "eval_loss", or what
    compute_metrics gives with "eval_" before it; it must be what the study makes small or large.
    `fit` ends with optuna.TrialPruned, which the study understands, when the trial is given up.
    """

    def __init__(self, trial, metric="eval_loss"):
        self.trial, self.metric = trial, metric

    def on_evaluate(self, args, state, control, metrics=None, **_):
        if self.metric not in metrics:
            raise SettingError(f"Prune(metric={self.metric!r}) was not measured; choose one of "
                               f"{', '.join(metrics)}, or give fit compute_metrics.")
        self.trial.report(metrics[self.metric], step=round(state.epoch))
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"given up after epoch {state.epoch:g}")
