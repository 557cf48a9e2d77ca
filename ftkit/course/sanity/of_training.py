"""Checks of the training loop, on a training of a few updates."""

import tempfile

import torch
import transformers

from ftkit.course.faults.in_training import head_weights
from ftkit.course.sanity.observed import BATCH, watched, weights
from ftkit.course.sanity.registry import Found, checks, not_asked
from ftkit.models import structure
from ftkit.training import fit


@checks("the head is trained", "a new head's weights may be trained",
        "print the names of what is trained; freeze by name")
def the_head_is_trained(observed):
    if not observed.model.spec.own_head:
        return not_asked("the model has no head of its own")
    head = head_weights(observed.training.run.model.net)
    free = sum(weight.requires_grad for weight in head)
    return Found(free > 0, f"{free} of {len(head)} tensors of the head", "more than 0")


@checks("every trainable weight moves", "an update changes each weight that gets a gradient",
        "make the optimizer after the head and the adapters; look at its groups")
def every_trainable_weight_moves(observed):
    run, before = observed.training.run, dict(observed.model.net.named_parameters())
    after = weights(run.model)
    shared = {name: weight for name, weight in after.items() if name in before}
    moved = {name for name, weight in shared.items()
             if not torch.equal(weight, before[name].detach().cpu())}
    if not shared or not moved:
        return not_asked("no weight of the model moved at all")
    still = [name for name in shared if name not in moved and name in _pulled(observed)]
    return Found(not still, f"{len(still)} of {len(shared)} tensors stand still"
                 + (f", such as {still[0]}" if still else ""), "0 tensors")


def _pulled(observed):
    """The names of the weights that a plain backward pass gives a gradient."""
    copy = observed.model.copy()
    for weight in copy.net.parameters():
        weight.requires_grad_(True)
    collate = fit.Collator(copy, observed.seed)
    batch = collate([observed.encoded[i] for i in range(min(BATCH, len(observed.encoded)))])
    given = {name: value.to(copy.device) for name, value in batch.items() if hasattr(value, "to")}
    copy.net(**given).loss.backward()
    return {name for name, weight in copy.net.named_parameters()
            if weight.grad is not None and weight.grad.abs().sum() > 0}


@checks("the rate lasts to the end", "half-way through, a linear schedule is at half its rate",
        "give the scheduler the number of updates, not of batches")
def the_rate_lasts_to_the_end(observed):
    rates = observed.training.rates
    if len(rates) < 4:
        return not_asked("the training has too few updates")
    share = rates[len(rates) // 2] / max(rates)
    return Found(0.3 < share, f"{share:.0%} of the rate at update {len(rates) // 2} of "
                 f"{len(rates)}", "about 50%")


@checks("rows in a new order", "two epochs go through the rows in different orders",
        "shuffle in each epoch")
def rows_in_a_new_order(observed):
    orders = observed.training.orders
    if len(orders) < 2 or len(observed.rows) < 4:
        return not_asked("there are too few rows")
    return Found(orders[0] != orders[1],
                 "the same order twice" if orders[0] == orders[1] else "two orders", "two orders")


@checks("each row once an epoch", "an epoch hands out every row, and none twice",
        "look at drop_last, at filters and samplers")
def each_row_once_an_epoch(observed):
    want = list(range(len(observed.rows)))
    seen = {epoch: sorted(order) for epoch, order in observed.training.orders.items()}
    good = all(order == want for order in seen.values())
    distinct = min(len(set(order)) for order in seen.values())
    return Found(good, f"{distinct} of {len(want)} rows", f"all {len(want)}")


@checks("the seed is used", "another seed gives another order of the rows",
        "pass the seed on to the data loader, to dropout and to new weights")
def the_seed_is_used(observed):
    one = observed.training.orders
    if len(one) > 1 and one[0] == one[1]:
        return not_asked("rows are not shuffled at all")
    two = observed.train(observed.seed + 1, epochs=1).orders
    return Found(one[0] != two[0], "the same order" if one[0] == two[0] else "another order",
                 "another order")


@checks("accumulation changes nothing", "an update is the same whole and in four parts",
        "divide the summed loss by the supervised tokens of the whole update")
def accumulation_changes_nothing(observed):
    rows = observed.rows.select(range(min(8, len(observed.rows))))
    # Of one length, so that padding has no part in it; the answers have different lengths.
    limit = int(fit.encode(rows, observed.model, max_length=observed.max_length).lengths.min())
    steps = []
    for size in (len(rows), max(1, len(rows) // 4)):
        run = watched(_still(observed), rows, limit, seed=observed.seed, epochs=1, max_steps=1,
                      batch_size=len(rows), per_device_train_batch_size=size,
                      gradient_accumulation_steps=len(rows) // size, optim="sgd", max_grad_norm=0.0,
                      learning_rate=1.0, schedule="constant").run
        after, before = weights(run.model), dict(observed.model.net.named_parameters())
        steps.append(torch.cat([(after[name] - before[name].detach().cpu()).flatten()
                                for name in after if name in before]))
    size = max(float(steps[0].norm()), 1e-12)
    away = float((steps[0] - steps[1]).norm()) / size
    return Found(away < 0.01, f"the step differs by {away:.1%}", "below 1%")


def _still(observed):
    """The model without dropout for good: fit puts back what was only switched off."""
    copy = observed.model.copy()
    structure.without_dropout(copy.net)
    for part in copy.net.modules():
        vars(part).pop("dropout_before", None)
    return copy


class _Noise(transformers.TrainerCallback):
    """Makes the weights worse than they were, so that no later epoch is the best."""

    def on_step_end(self, args, state, control, model=None, **_):
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight) * 0.5)


@checks("a resumed run keeps its best", "with patience, what resumes ends with the best weights",
        "keep the best weights in the checkpoint, and evaluate the model in hand")
def a_resumed_run_keeps_its_best(observed):
    rows = observed.rows.select(range(min(8, len(observed.rows))))
    data = {"train": rows, "validation": observed.held.select(range(min(8, len(observed.held))))}
    common = dict(max_length=observed.max_length, method=observed.method, seed=observed.seed,
                  patience=9, quiet=True, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        first = fit.fit(observed.model, data, epochs=1, checkpoint_dir=folder, **common)
        second = fit.fit(observed.model, data, epochs=2, checkpoint_dir=folder, resume=True,
                         callbacks=[_Noise()], **common)
    if round(second.metrics["best_epoch"]) != 1:
        return not_asked("the second epoch was the best")
    one, two = weights(first.model), weights(second.model)
    changed = sum(not torch.equal(one[name], two[name]) for name in one)
    return Found(not changed, f"{changed} of {len(one)} tensors are not those of the best epoch",
                 "0 tensors")
