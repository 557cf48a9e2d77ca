"""Whatever family a user's model is of, it learns, is measured and writes as the library says.

Small random models, built from configurations. Everything is compared in float32, with every part
of the kit that saves time and with none of them.
"""

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from datasets import Dataset

import ftkit as ft
from ftkit.models import structure
from ftkit.speed import feature_cache
from ftkit.speed.optimizations import OPTIMIZATIONS
from ftkit.tasks.batching import Collator, encode

OFF = ((), OPTIMIZATIONS)
PAIRS = [("the film was", " good"), ("a cat and the very great plot was so", " dull"), ("so", " a"),
         ("the music was not", " so bad and not so good and warm")]
LONG = "the cat was not so bad and the music was warm. "


@pytest.fixture(autouse=True)
def _float32(monkeypatch, tmp_path):
    monkeypatch.setenv("FTKIT_DTYPE", "float32")
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    feature_cache.clear()


def data_for(task):
    prompts, responses = ([*column] for column in zip(*PAIRS, strict=True))
    if task == "causal-lm":
        return Dataset.from_dict({"prompt": prompts, "response": responses})
    if task == "seq2seq-lm":
        return Dataset.from_dict({"source": prompts, "target": responses})
    if task == "tagging":
        return Dataset.from_dict({"tokens": [p.split() for p in prompts],
                                  "tags": [["good"] + ["bad"] * p.count(" ") for p in prompts]})
    if task == "choice":
        return Dataset.from_dict({"question": prompts, "choices": [responses] * 4,
                                  "answer": [0, 1, 2, 3]})
    labels = {"classification": [0, 1, 0, 1], "regression": [0.1, -0.5, 2.0, 1.0]}.get(task)
    return Dataset.from_dict({"text": prompts} | ({"label": labels} if labels else {}))


def step(model, data, *, method=None, off=()):
    """One update of plain gradient descent at rate 1: the weights then differ by the gradient."""
    run = ft.fit(model, data, method=method, epochs=1, batch_size=len(data), learning_rate=1.0,
                 warmup=0, schedule="constant", optim="sgd", max_grad_norm=0, bf16=False,
                 quiet=True, disable=off)
    return run.model, run.history["loss"].dropna().iloc[0]


def batch_of(model, data):
    return Collator(model)(list(encode(data, model)))


def loss_by_library(model, data):
    """The library's own loss and gradients, {name: gradient}, of all rows in one batch."""
    model = model.copy()
    loss = model.net.train()(**batch_of(model, data)).loss
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.net.named_parameters() if p.grad is not None}


def moved(before, after):
    old = dict(before.net.named_parameters())
    return {n: old[n].detach() - p.detach() for n, p in after.net.named_parameters()}


def learns_as_the_library(model, data, folder):
    """The model after a step, which is the library's with and without what saves time."""
    wanted, gradients = loss_by_library(model, data)
    for off in OFF:
        after, loss = step(model, data, off=off)
        assert loss == pytest.approx(wanted, rel=1e-4)
        found = moved(model, after)
        for name, gradient in gradients.items():
            scale = gradient.abs().max().item() + 1e-3
            error = (found[name] - gradient).abs().max().item()
            assert error < 1e-3 * scale, f"{name} moved otherwise, without {off}"
    return saved_and_loaded(after, folder)


def saved_and_loaded(model, folder):
    again = ft.load_model(model.save(folder))
    assert again.hash() == model.hash() and again.task == model.task
    assert again.net.config._attn_implementation not in ("grouped",)
    return again


def begins(model):
    """Whether the tokenizer puts a token before each text."""
    return model.tokenizer("a").input_ids[0] == model.tokenizer.bos_token_id


@torch.no_grad()
def token_losses_by_library(model, data):
    total, count = 0.0, 0
    for row in encode(data, model):
        ids, labels = (torch.tensor([row[k]]) for k in ("input_ids", "labels"))
        if model.task == "seq2seq-lm":
            logits = model.net(input_ids=ids, labels=labels).logits
        else:
            logits = model.net(input_ids=ids).logits[:, -ids.shape[1] :]  # behind a prompt
            logits, labels = logits[:, :-1], labels[:, 1:]
        total += F.cross_entropy(logits[0], labels[0], reduction="sum").item()
        count += (labels != -100).sum().item()
    return total / count


@torch.no_grad()
def score_by_library(model, prompt, answer):
    start = model.tokenizer(prompt, add_special_tokens=begins(model)).input_ids
    rest = model.tokenizer(answer, add_special_tokens=False).input_ids
    logs = model.net(input_ids=torch.tensor([start + rest])).logits[0].log_softmax(-1)
    return sum(logs[len(start) - 1 + i, token].item() for i, token in enumerate(rest))


def text_by_library(model, prompt, limit):
    decoder = not model.net.config.is_encoder_decoder
    special = not decoder or begins(model)
    batch = model.tokenizer([prompt], return_tensors="pt", add_special_tokens=special)
    ids = model.net.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask,
                             max_new_tokens=limit, do_sample=False, pad_token_id=0)
    return model.tokenizer.decode(ids[0, batch.input_ids.shape[1] * decoder:],
                                  skip_special_tokens=True)


def sharper(model):
    """Weights far enough apart that an error in one token shows, and no two words are as likely."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.net.parameters():
            if p.dim() > 1 and p.requires_grad:
                p.add_(0.2 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("kind, bos", [*((kind, False) for kind in tiny.DECODERS),
                                       ("llama", True), ("gpt2", True), ("falcon_h1", True)])
def test_a_decoder(kind, bos, tmp_path):
    model = sharper(tiny.family(kind, "causal-lm", form="<s> $A" if bos else None))
    data = data_for("causal-lm")
    assert begins(model) == bos
    assert all((row["input_ids"][0] == 1) == bos for row in encode(data, model))
    model = saved_and_loaded(model, tmp_path / "base")
    learns_as_the_library(model, data, tmp_path / "tuned")
    wanted = token_losses_by_library(model, data)
    prompts = [LONG + prompt for prompt, _ in PAIRS] + ["cat"]
    answers = [" good", " not so bad", " very dull"]
    scores = [[score_by_library(model, p, a) for a in answers] for p in prompts]
    texts = [text_by_library(model, p, 6) for p in prompts]
    kernel = model.net.config._attn_implementation
    for off in OFF:
        loss = ft.evaluate(model, data, disable=off)["loss"].value
        assert loss == pytest.approx(wanted, rel=1e-4)
        for some in (slice(4), slice(5)):  # the first four share their beginning
            found = ft.log_likelihood(model, prompts[some], answers, disable=off)
            np.testing.assert_allclose(found, scores[some], rtol=1e-3, atol=1e-3)
            assert ft.generate(model, prompts[some], max_new_tokens=6, disable=off) == texts[some]
    assert model.net.config._attn_implementation == kernel


@pytest.mark.parametrize("kind", tiny.ENCODERS)
def test_an_encoder(kind, tmp_path):
    for task in ("classification", "regression", "tagging", "choice", "masked-lm"):
        model, data = sharper(tiny.family(kind, task)), data_for(task)
        model = saved_and_loaded(model, tmp_path / task)
        if task in ("classification", "regression", "tagging"):
            learns_as_the_library(model, data, tmp_path / f"{task}-tuned")
        found = [ft.evaluate(model, data, disable=off) for off in OFF]
        for name, value in found[0].metrics.items():
            if task != "masked-lm":  # masks are drawn anew
                assert value.value == pytest.approx(found[1][name].value, rel=1e-4, nan_ok=True)
        if task == "classification":
            with torch.no_grad():
                loss = model.net(**batch_of(model, data)).loss.item()
            assert found[0]["loss"].value == pytest.approx(loss, rel=1e-4)
        elif task in ("choice", "masked-lm"):
            after, loss = step(model, data)
            assert np.isfinite(loss) and after.hash() != model.hash()


NO_CLASSIFIER = ("falcon_h1", "bert, decoder", "roberta, decoder", "electra, decoder", "marian")


@pytest.mark.parametrize("kind", [kind for kind in (*tiny.DECODERS, *tiny.WRITERS)
                                  if kind not in NO_CLASSIFIER])
def test_a_decoder_or_writer_that_classifies(kind, tmp_path):
    """Its answer for a text is that of the text alone, wherever a batch has its padding."""
    for task in ("classification", "regression"):
        form = "$A </s>" if kind in tiny.WRITERS else None
        model, data = sharper(tiny.family(kind, task, form=form)), data_for(task)
        model = saved_and_loaded(model, tmp_path / task)
        with torch.no_grad():
            alone = [model.net(**batch_of(model, data.select([i]))) for i in range(len(data))]
        losses, answers = ([one[name] for one in alone] for name in ("loss", "logits"))
        for off in OFF:
            found = ft.evaluate(model, data, disable=off)
            if task == "regression":
                wanted = np.mean([loss.item() for loss in losses]) ** 0.5
                assert found["rmse"].value == pytest.approx(wanted, rel=1e-4)
                continue
            wanted = np.mean([loss.item() for loss in losses])
            assert found["loss"].value == pytest.approx(wanted, rel=1e-4)
            chosen = [one.argmax().item() for one in answers]
            assert found["accuracy"].value == np.mean(np.equal(chosen, data["label"]))
        learns_as_the_library(model, data, tmp_path / f"{task}-tuned")


@pytest.mark.parametrize("kind", tiny.WRITERS)
def test_an_encoder_decoder(kind, tmp_path):
    model, data = sharper(tiny.family(kind, "seq2seq-lm")), data_for("seq2seq-lm")
    model = saved_and_loaded(model, tmp_path / "base")
    learns_as_the_library(model, data, tmp_path / "tuned")
    wanted = token_losses_by_library(model, data)
    prompts = [prompt for prompt, _ in PAIRS]
    texts = [text_by_library(model, p, 6) for p in prompts]
    for off in OFF:
        loss = ft.evaluate(model, data, disable=off)["loss"].value
        assert loss == pytest.approx(wanted, rel=1e-4)
        assert ft.generate(model, prompts, max_new_tokens=6, disable=off) == texts
    small = ft.drop_layers(model, (1,))
    again = ft.load_model(small.save(tmp_path / "small"))
    assert again.hash() == small.hash()
    assert len(structure.blocks(again.net)) == 1
    assert ft.generate(again, prompts, max_new_tokens=6) == ft.generate(
        small, prompts, max_new_tokens=6)


METHODS = {
    "freeze": ft.Freeze(unfreeze_last=1),
    "lora": ft.LoRA(rank=2),
    "adapter": ft.Adapter(bottleneck_size=4),
    "blocks": ft.Adapter(bottleneck_size=4, placement="pfeiffer"),
    "prompt": ft.PromptTuning(tokens=3),
    "prefix": ft.PrefixTuning(tokens=3),
}
NO_PREFIX = ("distilbert", "mpnet", "deberta-v2", "modernbert", "falcon_h1", "mixtral",
             *tiny.WRITERS)
REFUSED = {("adapter", kind) for kind in ("mixtral", "falcon_h1", "mpnet")}
REFUSED |= {("prefix", kind) for kind in NO_PREFIX}


@pytest.mark.parametrize("kind", [*tiny.DECODERS, *tiny.ENCODERS, *tiny.WRITERS])
def test_every_method_serves_the_family_or_refuses_it(kind, tmp_path):
    task = ("causal-lm" if kind in tiny.DECODERS else
            "seq2seq-lm" if kind in tiny.WRITERS else "classification")
    base = saved_and_loaded(sharper(tiny.family(kind, task)), tmp_path / "base")
    data = data_for(task)
    for name, method in METHODS.items():
        if (name, kind) in REFUSED:
            with pytest.raises(ft.SettingError):
                step(base, data, method=method)
            continue
        found = [step(base, data, method=method, off=off) for off in OFF]
        (after, loss), (plain, wanted) = found
        assert loss == pytest.approx(wanted, rel=1e-4), name
        pairs = zip(after.net.named_parameters(), plain.net.parameters(), strict=True)
        trained = [(n, one, two) for (n, one), two in pairs if one.requires_grad]
        assert trained
        for parameter, one, two in trained:
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5,
                                       msg=lambda text, p=parameter, n=name: f"{n}, {p}: {text}")
        measured = ft.evaluate(after, data)["loss"].value
        if task == "causal-lm":
            assert measured == pytest.approx(token_losses_by_library(after, data), rel=1e-4), name
        again = ft.load_model(after.save(tmp_path / name))
        assert ft.evaluate(again, data)["loss"].value == pytest.approx(measured, rel=1e-5), name


def losses_of_methods(task, base, other, data):
    """{name: method} of those that change the loss, which fit a model."""
    found = {"ewc": ft.EWC(states=(ft.fisher(other, data),), weight=3.0),
             "distill": ft.Distill(teacher=other)}
    if task == "classification":
        found |= {"mixup": ft.Mixup(), "reinforce": ft.Reinforce(torch.eq),
                  "multi_task": ft.MultiTask({"one": ["bad", "good"]})}
    return found


@pytest.mark.parametrize("task, kind", [
    *(("causal-lm", kind) for kind in tiny.DECODERS),
    *(("seq2seq-lm", kind) for kind in tiny.WRITERS),
    *(("classification", kind) for kind in (*tiny.DECODERS, *tiny.ENCODERS)
      if kind not in NO_CLASSIFIER)])
def test_a_changed_loss_is_the_same_with_what_saves_time(task, kind):
    """And what can be said beforehand of it: a spring pulls, and who teaches itself stays."""
    base, other = (sharper(tiny.family(kind, task, seed=seed)) for seed in (0, 1))
    data = data_for(task)
    with torch.no_grad():
        for p in other.net.parameters():
            p.mul_(1.1)
    plain, _ = loss_by_library(base, data)
    for name, method in losses_of_methods(task, base, other, data).items():
        # What is drawn is drawn for places in an update.
        offs = (("group_by_length",), OPTIMIZATIONS) if hasattr(method, "draws") else OFF
        (after, loss), (again, wanted) = (step(base, data, method=method, off=off) for off in offs)
        assert loss == pytest.approx(wanted, rel=1e-4), name
        assert np.isfinite(loss) and after.hash() != base.hash(), name
        for (parameter, one), two in zip(after.net.named_parameters(), again.net.parameters(),
                                         strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4,
                                       msg=lambda text, p=parameter, n=name: f"{n}, {p}: {text}")
        if name == "ewc":
            state = method.states[0]
            held = dict(base.net.named_parameters())
            spring = sum((state.fisher[n] * (held[n] - state.anchors[n]) ** 2).sum().item()
                         for n in state.anchors)
            assert loss == pytest.approx(plain + method.weight / 2 * spring, rel=1e-4)
    alone = ft.Distill(teacher=base, alpha=1.0, top_k=len(base.tokenizer))
    after, loss = step(base, data, method=alone)
    assert loss == pytest.approx(0, abs=1e-5)
    assert max(change.abs().max().item() for change in moved(base, after).values()) < 1e-4
