"""Methods with a loss of their own leave to another one which weights learn."""

from dataclasses import replace

import pytest
import tiny
import torch

import ftkit as ft

TASKS = {"a": ["no", "yes"]}


def methods():
    """One of each, and a model that it fits."""
    base = tiny.encoder()
    memory = ft.fisher(base, tiny.reviews(4)["train"])
    return {
        "Distill": (ft.Distill(base), base),
        "EWC": (ft.EWC(memory), base),
        "Mixup": (ft.Mixup(), base),
        "MultiTask": (ft.MultiTask(TASKS), tiny.encoder(labels=ft.joint_labels(TASKS))),
        "Reinforce": (ft.Reinforce(torch.eq), base),
    }


ALL = ["Distill", "EWC", "Mixup", "MultiTask", "Reinforce"]


def test_these_are_all_that_have_a_loss():
    from ftkit import methods as package

    with_loss = [n for n in package.__all__ if hasattr(getattr(package, n), "loss")]
    assert sorted(with_loss) == sorted(methods()) == ALL


@pytest.mark.parametrize("name", ALL)
def test_the_method_within_says_what_learns_and_how_fast(name):
    method, model = methods()[name]
    assert (method.learning_rate, method.layerwise_lr_decay) == (1e-4, 1.0)
    everything = method.apply(model.copy()).net
    assert all(p.requires_grad for p in everything.parameters())
    top = replace(method, trainable=ft.Freeze(unfreeze_last=1, layerwise_lr_decay=0.5))
    part, same = top.apply(model.copy()).net, ft.Freeze(unfreeze_last=1).apply(model.copy()).net
    assert [p.requires_grad for p in part.parameters()] == [
        p.requires_grad for p in same.parameters()
    ]
    assert (top.learning_rate, top.layerwise_lr_decay) == (5e-4, 0.5)
    assert replace(method, trainable=ft.LoRA()).learning_rate == ft.LoRA().learning_rate


@pytest.mark.parametrize("name", ALL)
def test_two_losses_are_one_too_many(name):
    method, model = methods()[name]
    with pytest.raises(ft.SettingError, match=rf"{name}\(trainable=Mixup.*Freeze or LoRA"):
        replace(method, trainable=ft.Mixup()).apply(model)
