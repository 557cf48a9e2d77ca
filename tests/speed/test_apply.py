"""Without these, a training on a card, or a long one, could learn something else than it says."""

import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit.models import hardware, structure
from ftkit.models.hardware import Choice, Machine
from ftkit.speed import compile_blocks

CARD = Machine("cuda", "a card", 24 << 30, capability=(8, 0))


def texts():
    return Dataset.from_dict({"text": ["the film was good", "bad plot and very dull music",
                                       "a cat", "the dog is not so terrible"]})


def test_compiling_is_chosen_where_a_training_is_long_enough():
    laptop = Machine("cpu", "a laptop", 8 << 30)
    short, long = (hardware.choose_compile(laptop, seconds) for seconds in (60, 36_000))
    assert not short.value and long.value
    assert "60 s of training" in short.why and "36,000 s" in long.why
    assert hardware.choose_compile(CARD, 1_000).value
    assert not hardware.choose_compile(CARD, 10).value
    assert not hardware.choose_compile(Machine("mps", "Apple GPU", 8 << 30), 36_000).value


def test_compiled_blocks_learn_the_same_and_are_plain_again_after(monkeypatch, capsys):
    settings = dict(epochs=2, batch_size=2, learning_rate=1e-2)
    plain = ft.fit(tiny.decoder(), texts(), quiet=True, **settings).model
    monkeypatch.setattr(compile_blocks, "BACKEND", "aot_eager")  # without a C++ compiler
    monkeypatch.setattr(compile_blocks, "choose", lambda *_: (Choice(True, "compiled"), 36_000))
    compiled = ft.fit(tiny.decoder(), texts(), **settings).model
    assert "compiled" in capsys.readouterr().out
    for (name, one), two in zip(plain.net.state_dict().items(),
                                compiled.net.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5, msg=name)
    assert all(block._compiled_call_impl is None for block in structure.blocks(compiled.net))


def test_a_long_training_says_why_it_does_not_compile(monkeypatch, capsys):
    monkeypatch.setattr(compile_blocks, "rough_peak", lambda dtype: 1e4)  # a very slow machine
    monkeypatch.setattr(hardware, "COMPILING", {"cpu": (1e9, 0.03)})
    monkeypatch.setattr(compile_blocks.shutil, "which", lambda name: name)
    ft.fit(tiny.decoder(), texts(), epochs=1)
    assert "no torch.compile: of about" in capsys.readouterr().out


def test_a_training_says_what_happens_and_not_what_was_planned(monkeypatch, capsys):
    data = Dataset.from_dict({"text": [f"the film was good {i}" for i in range(16)]})
    for at_once, words in ((1e12, []), (1.0, ["1 of 16 examples at once"])):
        monkeypatch.setattr(hardware, "AT_ONCE", at_once)
        ft.fit(tiny.decoder(), data, epochs=1, dtype="float32")
        said = capsys.readouterr().out
        assert all(one in said for one in words) and ("at once" in said) == bool(words)
        assert "computed again" not in said
    ft.fit(tiny.decoder(), data, epochs=1, dtype="float32", per_device_train_batch_size=16)
    assert "at once" not in capsys.readouterr().out, "the caller says how many"
    ft.fit(tiny.decoder(), data, epochs=1, activation_checkpointing=True)
    assert "activations are computed again" in capsys.readouterr().out
    monkeypatch.setattr(hardware, "SHORT", 0)
    ft.fit(tiny.family("mpnet", "classification"), tiny.reviews(8), epochs=1)
    said = capsys.readouterr().out
    assert "eager attention, as the network has it" in said and "SDPA" not in said


@pytest.mark.parametrize(("settings", "ran"), [({}, 1), ({"activation_checkpointing": True}, 3)])
def test_a_cache_is_claimed_only_where_blocks_run_once(settings, ran, capsys):
    model, counted = tiny.decoder(), []
    structure.blocks(model.net)[0].register_forward_hook(lambda *_: counted.append(1))
    ft.fit(model, texts(), method=ft.Freeze(unfreeze_last=1), epochs=3, batch_size=4, **settings)
    said = capsys.readouterr().out
    assert ("once for each text" in said) == (ran == 1)


class Doubled(ft.Full):
    """All weights, and twice the loss of the task."""

    def loss(self, net, inputs, outputs, loss):
        assert net.training
        return 2 * loss


@pytest.mark.parametrize("make", [tiny.decoder, tiny.encoder])
def test_a_method_may_change_the_loss_of_training_alone(make):
    model = make()
    data = tiny.reviews(8)
    if model.task == "causal-lm":
        data = data.map(lambda row: {"text": row["text"]}, remove_columns="label")
    settings = dict(epochs=1, batch_size=4, learning_rate=0.0, quiet=True, logging_steps=1,
                    gradient_accumulation_steps=2)
    found = [ft.fit(model, data, method=method, **settings).history for method in
             (ft.Full(), Doubled())]
    losses = [history["loss"].dropna() for history in found]
    assert losses[1].to_numpy() == pytest.approx(2 * losses[0].to_numpy(), rel=1e-3)
    held = [history["eval_loss"].dropna() for history in found if "eval_loss" in history]
    assert all(list(h) == list(held[0]) for h in held)
