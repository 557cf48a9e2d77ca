"""Checks of what comes after the training: metrics, intervals, caches, saving, rewards."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from ftkit.course.sanity.observed import far, logits_of, plain_model, rounding
from ftkit.course.sanity.registry import Found, checks, not_asked
from ftkit.evaluation import metrics
from ftkit.evaluation.evaluate import evaluate, from_predictions
from ftkit.methods.lora import LoRA, merge
from ftkit.models import precision, structure
from ftkit.models.load import load_model
from ftkit.tasks.batching import encode

ROWS = 12


def _evaluated(observed, model=None, **given):
    rows = observed.held.select(range(min(ROWS, len(observed.held))))
    return evaluate(model or observed.model, rows, max_length=observed.max_length, **given)


@checks("evaluation repeats itself", "two evaluations of a model agree",
        "net.eval() before evaluating")
def evaluation_repeats_itself(observed):
    one, two = (_evaluated(observed)["loss"].value for _ in range(2))
    return Found(one == two, f"losses {one:.4f} and {two:.4f}", "the same number")


@checks("evaluated in the weights' precision", "results are computed in the numbers of the weights",
        "leave dtype= out, or give it on both sides of a comparison")
def evaluated_in_the_weights_precision(observed):
    used, own = _evaluated(observed).computed.dtype, precision.own(observed.model.net)
    return Found(used == own, used, own)


@checks("tokens count alike", "a loss is the sum over all tokens, divided once",
        "sum first, and divide by the number of tokens")
def tokens_count_alike(observed):
    if not observed.model.spec.language:
        return not_asked("the loss is not one of tokens")
    rows = observed.held.select(range(min(ROWS, len(observed.held))))
    found = _evaluated(observed)
    own, said = found.per_example("loss"), found["loss"].value
    counts = encode(rows, observed.model, max_length=observed.max_length).cut.left
    if own is None or len(set(counts.tolist())) < 2:
        return not_asked("all answers have the same number of tokens")
    there = counts > 0
    right = float((own[there] * counts[there]).sum() / counts.sum())
    return Found(abs(said - right) < 1e-6 * abs(right), f"{said:.5f} nats", f"{right:.5f} nats")


@checks("right answers score 1", "right answers have macro F1 1, also where a class is absent",
        "leave out classes that nobody has; say which")
def right_answers_score_1(observed):
    if not observed.classes or len(observed.model.labels) < 2:
        return not_asked("rows have no classes")
    right = np.arange(ROWS) % (len(observed.model.labels) - 1)  # the last class is absent
    found = from_predictions(right, right, labels=observed.model.labels)["macro_f1"].value
    return Found(bool(np.isclose(found, 1)), f"macro F1 {found:.3f}", "1.000")


@checks("intervals know the groups", "intervals resample whole groups where the data has them",
        "keep the column group up to the evaluation")
def intervals_know_the_groups(observed):
    if "group" not in observed.held.column_names:
        return not_asked("the data has no column group")
    groups = _evaluated(observed).groups
    count = len(set(observed.held["group"][:ROWS]))
    found = "none" if groups is None else str(len(set(groups)))
    return Found(found == str(count), f"{found} groups", f"{count} groups")


@checks("caches are fresh", "a changed model is evaluated anew",
        "make the key of a cache of all that decides its content")
def caches_are_fresh(observed):
    copy = observed.model.copy()
    structure.without_dropout(copy.net)
    copy.net.requires_grad_(False)  # so that the frozen blocks are kept
    before = _evaluated(observed, copy).per_example("loss")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in structure.blocks(structure.backbone(copy.net))[0].parameters():
            noise = torch.randn(weight.shape, generator=draw).to(weight.device, weight.dtype)
            weight.add_(noise * 0.1)
    kept, anew = (_evaluated(observed, copy, disable=off).per_example("loss")
                  for off in ((), ("feature_cache",)))
    change = np.linalg.norm(anew - before)
    share = float(np.linalg.norm(kept - before) / max(change, 1e-12))
    return Found(share > 0.5, f"{share:.0%} of the change is seen", "100%")


@checks("loaded as saved", "a model that is loaded again has the same weights",
        "load it in a fresh process and compare its answers")
def loaded_as_saved(observed):
    if not plain_model(observed.model):
        return not_asked("the model carries an adapter")
    with tempfile.TemporaryDirectory() as folder:
        place = observed.model.save(Path(folder) / "model")
        loaded = load_model(place)
        other = [name for name, weight in observed.model.net.state_dict().items()
                 if not _same(weight, loaded.net.state_dict().get(name))]
    return Found(not other, f"{len(other)} tensors differ" + (f": {other[0]}" if other else ""),
                 "0 tensors")


def _same(one, two):
    return two is not None and torch.equal(one.cpu(), two.cpu())


@checks("merged as trained", "a merged model gives the logits of base and adapter",
        "compare logits before and after; merge in float32")
def merged_as_trained(observed):
    if not plain_model(observed.model) or precision.own(observed.model.net) != "float32":
        return not_asked("the model carries an adapter, or its weights are no float32")
    adapted = LoRA(rank=4, alpha=16).apply(observed.model.copy())
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.net.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.05)
    given = {name: value[:2] for name, value in observed.batch.items() if name != "labels"
             and hasattr(value, "dim")}
    away = far(logits_of(adapted, given), logits_of(merge(adapted), given))
    near = rounding(observed.model)
    return Found(away < near, f"logits differ by {away:.1e} of their size", f"below {near:g}")


@checks("the reward cannot be cheated", "the right answer is paid best",
        "pay for what is wanted itself; read the answers that are paid best")
def the_reward_cannot_be_cheated(observed):
    answers = _answers(observed.rows)
    if answers is None:
        return not_asked("the rows have no answers")
    reward, everything = observed.reward or metrics.rouge_l, " ".join(answers)
    right = np.array(reward(answers, answers), dtype=float)
    cheats = {"nothing": "", "all answers at once": everything}
    paid = {name: np.array(reward([text] * len(answers), answers), dtype=float)
            for name, text in cheats.items()}
    best = max(paid, key=lambda name: (paid[name] >= right).mean())
    share = (paid[best] >= right).mean()
    return Found(share < 0.5, f"{best!r} is paid like the right answer in {share:.0%} of rows",
                 "in fewer than half")


def _answers(rows):
    """The answers of rows with prompts, None where they have none."""
    for column in ("response", "output", "target"):
        if column in rows.column_names:
            return rows[column][:]
    if "answers" in rows.column_names:
        return [answers[0] for answers in rows["answers"][:]]
    return None
