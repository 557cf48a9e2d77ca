"""A small training of each task and method, for tests of what must not depend on how it is run."""

import tiny
import torch
from datasets import Dataset, Value

import ftkit as ft

N = 8
LENGTHS = [3, 9, 1, 14, 6, 2, 11, 5]  # words of a text: uneven, as in life
TASKS = {"films": ["bad", "good"], "pets": ["cat", "dog", "neither"]}


def words(n, start=0):
    return " ".join(tiny.WORDS[(start + i) % len(tiny.WORDS)] for i in range(n))


def texts(n=N):
    return [words(LENGTHS[i % 8], i) for i in range(n)]


def columns(task, n=N):
    """A data set of n rows for a task."""
    found = {"text": texts(n)}
    if task == "classification":
        found["label"] = [i % 2 for i in range(n)]
    elif task == "regression":
        found["label"] = [float(i) for i in range(n)]
    elif task == "tagging":
        found = {"tokens": [text.split() for text in texts(n)]}
        found["tags"] = [["B-X" if w == "film" else "O" for w in row] for row in found["tokens"]]
    elif task == "choice":
        every = [words(1 + i, i) for i in range(6)]
        found = {"question": texts(n), "answer": [i % 2 for i in range(n)],
                 "choices": [every[i % 3 : i % 3 + 2 + i % 2] for i in range(n)]}
    elif task == "seq2seq-lm":
        found = {"source": texts(n), "target": [words(1 + i % 5, i) for i in range(n)]}
    elif task == "pairs":
        found = {"prompt": texts(n), "response": [" " + words(1 + i % 5, i) for i in range(n)]}
    elif task == "joint":
        found["label"] = [i % 5 for i in range(n)]
    data = Dataset.from_dict(found)
    return data.cast_column("label", Value("float32")) if task == "regression" else data


def base(task):
    """A tiny random model for a task."""
    if task in ("causal-lm", "pairs"):
        return tiny.decoder()
    if task == "seq2seq-lm":
        return tiny.seq2seq()
    if task == "joint":
        return tiny.encoder(labels=ft.joint_labels(TASKS))
    return tiny.encoder(task, ("O", "B-X")) if task == "tagging" else tiny.encoder(task)


def other(task):
    """The same with other weights: a teacher, or what was learned before."""
    model = base(task)
    with torch.no_grad():
        for p in model.net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return model


def paid(labels, actions):
    return (labels == actions).float()


def ewc(task, **settings):
    return ft.EWC(ft.fisher(other(task), columns(task), n=4), weight=20.0, **settings)


WORKS = {
    "full, classification": ("classification", lambda: ft.Full()),
    "full, regression": ("regression", lambda: ft.Full()),
    "full, tagging": ("tagging", lambda: ft.Full()),
    "full, choice": ("choice", lambda: ft.Full()),
    "full, masked words": ("masked-lm", lambda: ft.Full()),
    "full, decoder": ("causal-lm", lambda: ft.Full()),
    "full, answers": ("pairs", lambda: ft.Full()),
    "full, seq2seq": ("seq2seq-lm", lambda: ft.Full()),
    "freeze, tagging": ("tagging", lambda: ft.Freeze(unfreeze_last=1)),
    "lora, decoder": ("pairs", lambda: ft.LoRA(rank=2)),
    "adapter, tagging": ("tagging", lambda: ft.Adapter(bottleneck_size=4)),
    "prompt, decoder": ("pairs", lambda: ft.PromptTuning(tokens=3)),
    "prefix, decoder": ("pairs", lambda: ft.PrefixTuning(tokens=3)),
    "ewc, classification": ("classification", lambda: ewc("classification")),
    "ewc, tagging": ("tagging", lambda: ewc("tagging")),
    "ewc, decoder": ("pairs", lambda: ewc("pairs")),
    "distill, classification": ("classification",
                                lambda: ft.Distill(other("classification"), hidden=1.0)),
    "distill, tagging": ("tagging", lambda: ft.Distill(other("tagging"), hidden=1.0)),
    "distill, answers": ("pairs", lambda: ft.Distill(other("pairs"), hidden=1.0)),
    "distill, seq2seq": ("seq2seq-lm", lambda: ft.Distill(other("seq2seq-lm"))),
    "multi-task": ("joint", lambda: ft.MultiTask(TASKS)),
    "multi-task, answers": ("pairs", lambda: ft.MultiTask(TASKS)),
    "mixup, classes": ("classification", lambda: ft.Mixup()),
    "mixup, numbers": ("regression", lambda: ft.Mixup()),
    "reinforce": ("classification", lambda: ft.Reinforce(paid, kl=0.1,
                                                         reference_model=other("classification"))),
}


def train(work, n=N, held=0, **settings):
    """One training in float32 of a work by its name, by default one update. Returns the Run.

    n, held: rows of training and validation data.
    """
    task, method = WORKS[work]
    asked = dict(epochs=1, batch_size=8, learning_rate=0.05, optim="sgd", dtype="float32",
                 quiet=True)
    data = {"train": columns(task, n)} | ({"validation": columns(task, held)} if held else {})
    return ft.fit(base(task), data, method=method(), **asked | settings)


def weights(run):
    """What was trained, as one vector."""
    return torch.cat([p.detach().flatten() for p in run.model.net.parameters() if p.requires_grad])


def apart(one, two, start):
    """How far two trainings are apart, as a share of the way that the first one went."""
    return ((one - two).norm() / (one - start).norm()).item()
