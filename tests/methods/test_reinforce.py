"""A user who trains a policy on rewards gets the lesson's loss, and a policy that earns more."""

import numpy as np
import pytest
import tiny
import torch
import transformers
from lessons import from_lesson
from tokenizers import processors

import ftkit as ft
from ftkit.models.model import Model


def paid(labels, actions):
    return (labels == actions).float()


def classifier(kind):
    """A small random classifier of the BERT, Llama or T5 type."""
    if kind == "encoder":
        return tiny.encoder()
    base = tiny.decoder() if kind == "decoder" else tiny.seq2seq()
    if kind == "t5":  # whose tokenizer ends every text; the classifier reads that place
        base.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 2)])
    torch.manual_seed(0)
    base.net.config.id2label = {0: "bad", 1: "good"}
    made = {"decoder": transformers.LlamaForSequenceClassification,
            "t5": transformers.T5ForSequenceClassification}[kind](base.net.config)
    return Model(made.eval(), base.tokenizer, "classification", f"tiny-{kind}", ["bad", "good"])


@pytest.mark.parametrize("kl", [0.0, 0.4])
def test_the_lessons_own_loss_is_the_packages(kl):
    lesson = from_lesson("14", "reinforce_loss")
    logits, anchor = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    actions, rewards = torch.tensor([0, 1, 2, 2, 1, 0]), torch.rand(6)
    both = [f(logits, actions, rewards, kl, anchor) for f in (lesson, ft.reinforce_loss)]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(*[torch.autograd.grad(loss, logits)[0] for loss in both])


def test_its_gradient_is_that_of_the_expected_reward():
    torch.manual_seed(0)
    logits, rewards = torch.tensor([0.3, -0.2, 0.9], requires_grad=True), torch.tensor([1., 0., 2.])
    expected = -(logits.softmax(-1) * rewards).sum()
    (exact,) = torch.autograd.grad(expected, logits)
    actions = torch.distributions.Categorical(logits=logits).sample((40_000,))
    loss = ft.reinforce_loss(logits.expand(40_000, 3), actions, rewards[actions])
    (drawn,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(drawn, exact, atol=0.02, rtol=0)


@pytest.mark.usefixtures("each_precision")
@pytest.mark.parametrize("kind", ["encoder", "decoder", "t5"])
def test_a_policy_learns_from_rewards_alone(kind, tmp_path):
    data, base = tiny.reviews(48), classifier(kind)
    run = ft.fit(base, data["train"], method=ft.Reinforce(paid), epochs=25, learning_rate=2e-3,
                 batch_size=16, quiet=True)
    assert ft.evaluate(run.model, data["test"])["accuracy"].value > 0.9
    run.model.save(tmp_path / "policy")
    again = ft.evaluate(ft.load_model(tmp_path / "policy"), data["test"])
    assert again["accuracy"].value > 0.9


def test_the_anchor_holds_a_policy_back():
    def always_first(labels, actions):
        return (actions == 0).float()

    data, base = tiny.reviews(48), tiny.encoder()

    def first(kl):
        method = ft.Reinforce(always_first, kl=kl, reference_model=base if kl else None)
        run = ft.fit(base, data["train"], method=method, epochs=15, learning_rate=2e-3,
                     quiet=True)
        return ft.evaluate(run.model, data["test"]).probabilities[:, 0].mean()

    before = ft.evaluate(base, data["test"]).probabilities[:, 0].mean()
    free, held = first(0.0), first(5.0)
    assert free > 0.9 and abs(held - before) < abs(free - before) / 2


def test_it_takes_another_method_along():
    run = ft.fit(tiny.encoder(), tiny.reviews(16)["train"], epochs=1, quiet=True,
                 method=ft.Reinforce(paid, trainable=ft.Freeze(unfreeze_last=1)))
    assert any(not p.requires_grad for p in run.model.net.parameters())
    assert np.isfinite(run.history["loss"]).all()


def test_mistakes_are_named():
    with pytest.raises(ft.SettingError, match="GRPO"):
        ft.Reinforce(paid).apply(tiny.decoder())
    with pytest.raises(ft.SettingError, match="reference_model"):
        ft.Reinforce(paid, kl=0.1).apply(tiny.encoder())
