"""Faults of the training loop: the optimizer, the schedule, the order of rows, checkpoints."""

from unittest.mock import patch

import torch
import transformers

from ftkit.course.faults.registry import CLASSES, TEXTS, plants, together
from ftkit.models import structure
from ftkit.tasks import updates
from ftkit.training import fit
from ftkit.training.callbacks import KeepBest
from ftkit.training.trainer import KitTrainer


def head_weights(net):
    """The weights of a task's own head: what stands beside the body of the network."""
    net = structure.inner(net)
    return [weight for name, child in net.named_children() if name != net.base_model_prefix
            for weight in child.parameters()]


@plants("head not in the optimizer", check="every trainable weight moves", tasks=(CLASSES,),
        symptom="it learns, less than it should: the body adapts to a random head",
        mend="make the optimizer after the head; compare each weight before and after an update")
def head_not_in_the_optimizer():
    original = KitTrainer.create_optimizer

    def create(self, *args, **kwargs):
        optimizer = original(self, *args, **kwargs)
        left_out = set(map(id, head_weights(self.model)))
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in left_out]
        return optimizer

    return patch.object(KitTrainer, "create_optimizer", create)


@plants("head frozen", check="the head is trained", tasks=(CLASSES,),
        symptom="it learns, less than it should; the count of trained parameters is a little low",
        mend="freeze by name and print what is trained; a new head is never frozen")
def head_frozen():
    original = fit.check_trained

    def check(net):
        original(net)
        for weight in head_weights(net):
            weight.requires_grad_(False)

    return patch.object(fit, "check_trained", check)


@plants("schedule too short", check="the rate lasts to the end",
        symptom="the loss falls and then stands still, as if there were no more to learn",
        mend="count updates, not batches or examples, for the schedule; plot the learning rate")
def schedule_too_short():
    original = KitTrainer.create_scheduler

    def create(self, num_training_steps, optimizer=None):
        return original(self, max(1, num_training_steps // 2), optimizer)

    return patch.object(KitTrainer, "create_scheduler", create)


@plants("never shuffled", check="rows in a new order",
        symptom="a loss that goes up and down with the file; what came last is known best",
        mend="shuffle in each epoch; a file is mostly sorted by something")
def never_shuffled():
    def sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    return patch.object(KitTrainer, "_get_train_sampler", sampler)


class _Some(torch.utils.data.Sampler):
    """The first two thirds of what another sampler draws."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __len__(self):
        return max(1, 2 * len(self.sampler) // 3)

    def __iter__(self):
        return iter([i for i, _ in zip(self.sampler, range(len(self)), strict=False)])

    def set_epoch(self, epoch):
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)


@plants("rows skipped", check="each row once an epoch",
        symptom="an epoch that is over early, and a model as if of less data",
        mend="count the rows that an epoch hands out")
def rows_skipped():
    original = KitTrainer._get_train_sampler
    return patch.object(
        KitTrainer, "_get_train_sampler", lambda self, *args: _Some(original(self, *args))
    )


@plants("seed ignored", check="the seed is used",
        symptom="all seeds agree to the last digit, and the interval over them is far too narrow",
        mend="pass the seed on to data order, dropout and new weights; two seeds must differ")
def seed_ignored():
    make, seeded = KitTrainer.__init__, transformers.set_seed

    def init(self, *args, **kwargs):
        kwargs["args"].seed = 0
        make(self, *args, **kwargs)

    # fit calls set_seed by this name before it copies the model.
    return together(
        patch.object(KitTrainer, "__init__", init),
        patch.object(transformers, "set_seed", lambda seed, **given: seeded(0, **given)),
    )


@plants("batches weighed alike", check="accumulation changes nothing", tasks=(TEXTS,),
        symptom="a training that depends on how many batches make an update",
        mend="divide the summed loss by the supervised tokens of the whole update")
def batches_weighed_alike():
    """The mean of the batches' means: tokens of short answers count for more."""
    original = KitTrainer._loss

    def loss(self, forward, net, inputs):
        if net.training and self.update:
            count = updates.supervised(self.task, inputs)
            self.update.total = count * len(self.update.batches)
        return original(self, forward, net, inputs)

    return patch.object(KitTrainer, "_loss", loss)


@plants("best weights lost on resume", check="a resumed run keeps its best",
        symptom="early stopping reports a validation loss that the model in hand does not have",
        mend="keep the best weights in the checkpoint; evaluate what you hold, not what was logged")
def best_weights_lost():
    original = KeepBest.had_enough

    def had_enough(self, checkpoint):
        found = original(self, checkpoint)
        self.weights = {}
        return found

    return patch.object(KeepBest, "had_enough", had_enough)
