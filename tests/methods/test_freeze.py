"""A user who freezes layers trains what the lesson says, and nothing below it moves."""

import datasets
import pytest
import tiny
import torch
import transformers
from lessons import from_lesson

import ftkit as ft
from ftkit.models import pooling


def read_by_mean():
    """A tiny encoder as the lesson loads its own, with pooling="mean"."""
    model = tiny.encoder()
    pooling.set_pooling(model.net.config, "mean", model.spec)
    pooling.with_pooling(model.net)
    return model


@pytest.mark.parametrize("top", [0, 1, 3])
def test_the_lessons_own_code_trains_the_same_weights(top):
    mine, kit = read_by_mean(), read_by_mean()
    from_lesson("07", "freeze_below")(mine.net, top)
    ft.Freeze(unfreeze_last=top).apply(kit)
    by_hand, by_kit = ({n for n, p in m.net.named_parameters() if p.requires_grad}
                       for m in (mine, kit))
    assert by_hand == by_kit and "classifier.weight" in by_kit
    ids = torch.randint(5, 40, (3, 7))
    for model in (mine, kit):
        model.net(ids).logits.square().sum().backward()
    for one, two in zip(mine.net.parameters(), kit.net.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad)


def test_blocks_of_an_encoder_decoder_are_counted_from_its_output():
    def trained(top):
        net = ft.Freeze(unfreeze_last=top).apply(tiny.seq2seq()).net
        return [n for n, p in net.named_parameters() if p.requires_grad]

    assert trained(0) == ["decoder.final_layer_norm.weight"]
    assert all(n.startswith(("decoder.block.1.", "decoder.final_layer_norm")) for n in trained(1))
    assert sum("decoder.block.1." in n for n in trained(1)) == 13  # all of the block
    assert not any("encoder.block" in n or "shared" in n for n in trained(2))
    with pytest.raises(ft.SettingError, match="0 to 2"):
        ft.Freeze(unfreeze_last=3).apply(tiny.seq2seq())


@pytest.mark.usefixtures("each_precision")
def test_a_frozen_encoder_decoder_learns_with_its_top_block():
    base = tiny.seq2seq()
    pairs = {"source": ["the cat", "a dog"] * 4, "target": ["dog", "cat"] * 4}
    pairs = datasets.Dataset.from_dict(pairs)
    run = ft.fit(
        base,
        pairs,
        method=ft.Freeze(unfreeze_last=1),
        epochs=8,
        learning_rate=1e-2,
        batch_size=4,
        quiet=True,
    )
    losses = [ft.evaluate(model, pairs)["loss"].value for model in (base, run.model)]
    assert losses[1] < losses[0]
    after = run.model.net.state_dict()
    moved = {n for n, p in base.net.state_dict().items() if not torch.equal(p, after[n])}
    assert moved and all(n.startswith("decoder.") for n in moved)


@pytest.mark.usefixtures("float32")
def test_gradual_unfreezing_of_the_lesson_trains_one_block_more_in_each_epoch():
    seen = []

    class Look(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            layers = model.bert.encoder.layer
            seen.append((sum(layer.output.dense.weight.requires_grad for layer in layers),
                         model.bert.embeddings.word_embeddings.weight.requires_grad))

    callback = from_lesson("07", "GradualUnfreezing")()
    ft.fit(read_by_mean(), tiny.reviews(4), method=ft.Full(), epochs=5, batch_size=4, quiet=True,
           callbacks=[callback, Look()])
    assert seen == [(0, False), (1, False), (2, False), (3, False), (3, True)]


@pytest.mark.parametrize("top, rate", [(0, 3e-3), (1, 5e-4), (3, 5e-4)])
def test_fit_takes_a_rate_that_few_weights_learn_at(top, rate):
    """With 1e-4, the rate for all weights, the top block learned next to nothing.

    MiniLM, 400 reviews or tweets, three epochs, right on validation at 1e-4 and at this rate: the
    head alone 0.52 and 0.56, 0.58 and 0.63; the top block 0.52 and 0.68, 0.58 and 0.74; the top
    three 0.72 and 0.72, 0.70 and 0.77.
    """
    method = ft.Freeze(unfreeze_last=top)
    run = ft.fit(tiny.encoder(), tiny.reviews(8), method=method, epochs=1, schedule="constant",
                 warmup=0, logging_steps=1, quiet=True)
    assert run.history["learning_rate"].dropna().unique() == pytest.approx([rate])
