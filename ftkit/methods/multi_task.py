"""Multi-task learning: one backbone, a head for each task, and batches drawn from all of them.

Caruana 1997, "Multitask Learning". The heads are rows of one linear layer. What a task sees of
them, in its loss and in its answers, are its own rows alone.
"""

from dataclasses import dataclass, field

import datasets
import numpy as np
import torch
import torch.nn.functional as F

from ftkit.errors import DataError, SettingError
from ftkit.methods.base import WrappedMethod


@dataclass(frozen=True)
class MultiTask(WrappedMethod):
    """Train one backbone for several tasks; each has rows of the head, and a loss over those alone.

    Caruana 1997, "Multitask Learning". tasks: {task: its labels}; the model is loaded with
    `joint_labels(tasks)` and trained on a `temperature_sampling`. trainable: a method that says
    which weights learn, such as Freeze(unfreeze_last=4) or LoRA(); None for all. Where tasks have
    labels of the same meaning, let their rows `share_label_init`. On a language model the loss is
    left as it is: there a prefix in the text says which task is meant.
    """

    tasks: dict = field(hash=False)
    trainable: object = None

    lesson = "11_multi_task"
    when = "several related tasks, some with few labels; one model to keep for all"
    example = {"tasks": {"one task": ["no", "yes"]}}  # settings in the table of methods
    replaces = ("classification",)  # whose own loss is not used

    def apply(self, model):
        """Make the weights trainable that `trainable` says. Returns the model.

        Raises SettingError for a classifier whose labels are not those of the tasks, and for a
        model that neither chooses labels nor writes.
        """
        wanted = joint_labels(self.tasks)
        if model.spec.answer != "class" and not model.spec.writes:
            raise SettingError("MultiTask is for classifiers and language models, and "
                               f"{model.name} does {model.task}; load it with another task.")
        if model.spec.answer == "class" and len(model.labels) != len(wanted):
            raise SettingError(f"{model.name} has a head for {len(model.labels)} labels and the "
                               f"tasks have {len(wanted)}; load it with "
                               "labels=ft.joint_labels(tasks).")
        return self.free(model)

    def loss(self, net, inputs, outputs, loss):
        """The mean cross-entropy over each example's own task, in nats.

        inputs["labels"]: (batch,) numbers in the joint labels, which also say the task.
        """
        labels = inputs["labels"]
        if labels.dim() != 1:
            return loss  # a language model: every token is a label of the one head there is
        logits = outputs["logits"]
        task = torch.tensor(task_of(self.tasks), device=labels.device)
        own = task[labels][:, None] == task  # (batch, joint labels)
        return F.cross_entropy(logits.float().masked_fill(~own, -torch.inf), labels)


def joint_labels(tasks):
    """The labels of all tasks in one list, "task: label"; tasks: {task: its labels}.

    Raises SettingError for a task without labels.
    """
    for name, labels in tasks.items():
        if isinstance(labels, str) or not labels:
            raise SettingError(f"task {name!r} has labels {labels!r}; a list of names is expected.")
    return [f"{name}: {label}" for name, labels in tasks.items() for label in labels]


def share_label_init(model, tasks):
    """Let labels of the same name begin with the same rows of the head, in place.

    For a head that is not trained yet. With few labels of its own, a task keeps much of the
    direction that its rows began with; drawn at random, that may be the opposite of its partners'.
    Returns the model. Raises SettingError for one whose head is not that of the tasks.
    """
    _need_joint(model, tasks)
    names = [label for labels in tasks.values() for label in labels]
    for parameter in _head(model.net, len(names)).parameters():
        parameter.data = parameter.data[[names.index(name) for name in names]]
    return model


def task_of(tasks):
    """The number of the task that each of the joint labels belongs to: a list of int."""
    return [i for i, labels in enumerate(tasks.values()) for _ in labels]


def sampling_probabilities(sizes, temperature=1.0):
    """The share of examples that each task gets, proportional to size ** (1 / temperature).

    1 samples by size, infinity gives all tasks the same. Returns an array that sums to 1.
    Source: Arivazhagan et al. 2019, "Massively Multilingual Neural Machine Translation".
    """
    if not temperature >= 1:
        raise SettingError(f"temperature={temperature} is below 1, which samples by size already.")
    weights = np.asarray(sizes, dtype=float) ** (1 / temperature)
    return weights / weights.sum()


def temperature_sampling(parts, tasks=None, *, n=None, temperature=1.0, seed=0):
    """Draw a training set from several tasks. Returns a Dataset of n rows, shuffled.

    parts: {task: Dataset} with the same columns. tasks: {task: its labels}, as for MultiTask; their
    labels become numbers in the joint ones. Without `tasks`, rows are texts for a language model,
    and each begins with "task: ". n: rows, by default as many as there are.
    temperature: 1 draws by size, infinity from all tasks alike. A task's rows come in random order,
    and again when all were used.
    Raises DataError for a task without rows or labels.
    """
    start = np.cumsum([0, *map(len, tasks.values())]) if tasks else None
    for name, part in parts.items():
        if not len(part) or tasks and name not in tasks:
            raise DataError(f"task {name!r} has no {'labels' if len(part) else 'rows'}.")
    n = n or sum(map(len, parts.values()))
    exact = n * sampling_probabilities([len(part) for part in parts.values()], temperature)
    counts = np.diff(np.round(np.cumsum([0, *exact])).astype(int))
    random, drawn = np.random.default_rng(seed), []
    for (name, part), count in zip(parts.items(), counts, strict=True):
        if not count:
            continue
        rounds = [random.permutation(len(part)) for _ in range(-(-count // len(part)))]
        rows = part.select(np.concatenate(rounds)[:count]).to_dict()
        if tasks:
            first = int(start[list(tasks).index(name)])
            rows["label"] = [first + label for label in rows["label"]]
        else:
            column = next(c for c in ("prompt", "instruction", "source", "text") if c in rows)
            rows[column] = [f"{name}: {text}" for text in rows[column]]
        drawn.append(datasets.Dataset.from_dict(rows))
    return datasets.concatenate_datasets(drawn).select(random.permutation(n))


def extract_task_head(model, tasks, name):
    """Cut one task out of a model that was trained for all: its backbone, and its rows of the head.

    tasks: {task: its labels}, as for MultiTask. Returns a plain classifier with the labels of task
    `name`, to evaluate, to save, or to train further; the model given stays as it is.
    Raises SettingError for an unknown task, and for a model whose head is not that of the tasks.
    """
    if name not in tasks:
        raise SettingError(f"there is no task {name!r}; choose one of {', '.join(tasks)}.")
    _need_joint(model, tasks)
    if hasattr(model.net, "peft_config"):
        raise SettingError(f"{model.name} carries an adapter; merge it first, ft.merge(model).")
    if hasattr(model.net, "adapter_registry"):
        raise SettingError(f"{model.name} carries bottleneck adapters, whose head belongs to them; "
                           "train with Full, Freeze or LoRA (then merged) to cut a task out.")
    cut, labels = model.copy(), list(tasks[name])
    first = model.labels.index(f"{name}: {labels[0]}")
    head = _head(cut.net, len(model.labels))
    for key, parameter in list(head.named_parameters(recurse=False)):
        rows = parameter.detach()[first : first + len(labels)].clone()
        setattr(head, key, torch.nn.Parameter(rows))
    head.out_features = cut.net.num_labels = len(labels)
    cut.net.config.id2label = dict(enumerate(labels))  # num_labels follows
    cut.net.config.label2id = {label: i for i, label in enumerate(labels)}
    cut.labels = labels
    return cut


def _need_joint(model, tasks):
    if model.labels != joint_labels(tasks):
        raise SettingError(f"{model.name} has the labels {model.labels}, not those of the tasks.")


def _head(net, size):
    """The linear layer with a row for each label: the last one of a classifier."""
    linear = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    return [m for m in linear if m.out_features == size][-1]
