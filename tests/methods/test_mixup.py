"""Without these, mixed examples could carry the wrong answers, or noise never reach the blocks."""

import numpy as np
import pytest
import tiny
import torch
import transformers
from lessons import from_lesson

import ftkit as ft
from ftkit.methods.mixup import mixed_loss


def batch(model, n=6):
    data = tiny.reviews(n)["train"]
    tokens = model.tokenizer(data["text"][:], padding=True, return_tensors="pt")
    return {k: tokens[k] for k in ("input_ids", "attention_mask")}, torch.tensor(data["label"][:])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_lessons_mixed_loss_is_the_packages(share):
    torch.manual_seed(1)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    order = torch.randperm(6)
    by_hand = from_lesson("15", "mixed_loss")(logits, labels, share, order)
    torch.testing.assert_close(by_hand, mixed_loss(logits, labels, share, order))
    if share == 1:
        plain = torch.nn.functional.cross_entropy(logits, labels)
        torch.testing.assert_close(by_hand, plain)


def test_mixing_what_a_linear_head_says_is_mixing_what_it_reads():
    net, seen = tiny.encoder().net, []
    tokens, _ = batch(tiny.encoder())
    net.classifier.register_forward_hook(lambda m, given, out: seen.append((given[0], out)))
    net(**tokens)
    (read, said), order = seen[0], torch.tensor([2, 0, 1, 5, 3, 4])
    mixed = net.classifier(0.3 * read + 0.7 * read[order])
    torch.testing.assert_close(mixed, 0.3 * said + 0.7 * said[order])


def decoder():
    """A decoder with a head for classes."""
    like = tiny.decoder()
    config = transformers.LlamaConfig(**{**like.net.config.to_dict(), "num_labels": 2})
    torch.manual_seed(0)
    net = transformers.LlamaForSequenceClassification(config).eval()
    return ft.Model(net, like.tokenizer, "classification", "tiny-llama", ["bad", "good"])


@pytest.mark.usefixtures("each_precision")
@pytest.mark.parametrize("make", [tiny.encoder, decoder])
def test_a_model_learns_from_mixed_examples_and_is_less_sure(make):
    base, data = make(), tiny.reviews(48)
    found = {}
    for method in (ft.Full(), ft.Mixup(alpha=1.0), ft.Mixup(ft.Freeze(unfreeze_last=2), alpha=1.0)):
        run = ft.fit(base, data["train"], method=method, epochs=6, learning_rate=5e-3, batch_size=8,
                     quiet=True)
        found[method] = ft.evaluate(run.model, data["test"])
        assert found[method]["accuracy"].value > 0.9
    plain, mixed, _ = (ev.probabilities.max(1).mean() for ev in found.values())
    assert mixed < plain


def test_numbers_are_mixed_with_squared_errors():
    base, data = tiny.encoder("regression"), tiny.reviews(24)["train"]
    data = data.cast_column("label", data.features["label"].__class__("float32"))
    before = ft.evaluate(base, data)["rmse"].value
    run = ft.fit(base, data, method=ft.Mixup(), epochs=8, learning_rate=5e-3, quiet=True)
    assert ft.evaluate(run.model, data)["rmse"].value < before


def test_what_cannot_be_mixed_is_named():
    with pytest.raises(ft.SettingError, match="causal-lm.*classification"):
        ft.Mixup().apply(tiny.decoder())
    with pytest.raises(ft.SettingError, match="alpha=0"):
        ft.Mixup(alpha=0).apply(tiny.encoder())
    with pytest.raises(ft.SettingError, match="label_smoothing_factor"):
        ft.fit(tiny.encoder(), tiny.reviews(8)["train"], method=ft.Mixup(), epochs=1, quiet=True,
               label_smoothing_factor=0.1)


def test_noise_on_the_embeddings_passes_through_frozen_blocks():
    """The backbone cache would hand the blocks what they said without noise."""
    base, data = tiny.encoder(), tiny.reviews(8)["train"]
    options = dict(
        method=ft.Freeze(unfreeze_last=1), epochs=2, learning_rate=1e-3, quiet=True, batch_size=8
    )
    runs = [ft.fit(base, data, **options, **more) for more in
            ({}, {"neftune_noise_alpha": 20.0}, {"neftune_noise_alpha": 20.0})]
    losses = [run.history["loss"].to_numpy() for run in runs]
    assert not np.allclose(losses[0], losses[1], atol=1e-5)
    np.testing.assert_allclose(losses[1], losses[2], rtol=1e-4)  # the seed draws the noise
