"""A user who names layers trains those layers, each at the rate that was asked for."""

import pytest
import tiny
import torch
import transformers

import ftkit as ft
from ftkit.models import structure

KINDS = {
    "encoder": tiny.encoder,
    "decoder": tiny.decoder,
    "gpt2": lambda: tiny.decoder("gpt2"),
    "seq2seq": tiny.seq2seq,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_is_below_in_or_above_the_blocks(kind):
    net = KINDS[kind]().net
    below, above = structure.around(net)
    parts = [*below, *structure.blocks(net), *above]
    found = {id(p) for part in parts for p in part.parameters()}
    assert found == {id(p) for p in net.parameters()}
    assert any(p is net.get_input_embeddings().weight for part in below for p in part.parameters())


def test_a_norm_of_the_embeddings_is_below_the_blocks_wherever_it_is_named():
    config = transformers.BartConfig(
        d_model=16, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=100,
    )
    net = transformers.BartForConditionalGeneration(config)
    below, above = structure.around(net)
    assert structure.blocks(net) is net.model.decoder.layers
    norm = net.model.decoder.layernorm_embedding
    assert any(m is norm for m in below) and not any(m is norm for m in above)


def test_a_network_without_blocks_is_named():
    with pytest.raises(ft.SettingError, match="Linear has no list of blocks"):
        structure.blocks(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_rates_fall_from_the_top_to_the_embeddings(kind):
    net = KINDS[kind]().net
    share = structure.layerwise_learning_rates(net, 0.5)
    blocks = structure.blocks(net)
    for i, block in enumerate(blocks):
        assert {share[id(p)] for p in block.parameters()} == {0.5 ** (len(blocks) - 1 - i)}
    assert share[id(net.get_input_embeddings().weight)] == 0.5 ** len(blocks)
    assert set(share.values()) <= {1.0, 0.5, 0.25, 0.125}


def moved(method):
    """How far one step of plain gradient descent moved each parameter."""
    model = tiny.encoder()
    run = ft.fit(model, tiny.reviews(8), method=method, epochs=1, batch_size=8, warmup=0,
                 learning_rate=0.1, optim="sgd", quiet=True, max_grad_norm=0,
                 schedule="constant", eval_strategy="no")
    before = dict(model.net.named_parameters())
    return {n: p.detach() - before[n].detach() for n, p in run.model.net.named_parameters()}


@pytest.mark.parametrize("method", [ft.Full, ft.Freeze])
def test_each_block_learns_at_its_share_of_the_rate(method):
    settings = {} if method is ft.Full else {"unfreeze_last": 2}
    plain, slower = moved(method(**settings)), moved(method(**settings, layerwise_lr_decay=0.5))
    for name, share in {"classifier.weight": 1, "bert.encoder.layer.2.output.dense.weight": 1,
                        "bert.encoder.layer.1.output.dense.weight": 0.5}.items():
        assert plain[name].abs().max() > 0
        torch.testing.assert_close(slower[name], share * plain[name], rtol=1e-3, atol=1e-7)
    lowest = "bert.embeddings.word_embeddings.weight"
    if method is ft.Full:
        torch.testing.assert_close(slower[lowest], plain[lowest] / 8, rtol=1e-3, atol=1e-7)
    else:
        assert not slower[lowest].any()


@pytest.mark.parametrize(
    "method",
    [ft.Full(layerwise_lr_decay=0), ft.Freeze(unfreeze_last=1, layerwise_lr_decay=1.5)],
)
def test_a_decay_that_is_no_share_is_refused(method):
    with pytest.raises(ft.SettingError, match="no share of a learning rate"):
        method.apply(tiny.encoder())


@pytest.mark.parametrize("kind", ["bart", "opt", "gpt2", "bert"])
def test_frozen_blocks_have_no_dropout_of_any_kind(kind, monkeypatch):
    """A frozen block that drops at random is no fixed function of the text."""
    task = {"bart": "seq2seq-lm", "bert": "classification"}.get(kind, "causal-lm")
    model = tiny.family(kind, task)
    for module in model.net.modules():
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float) or name == "p":
                setattr(module, name, 0.5)
    run = ft.Freeze(unfreeze_last=1).apply(model)
    net = run.net.train()
    batch = tiny.tokenizer()(["the film was good and", "the plot was not so bad"], padding=True,
                             return_tensors="pt")
    if kind == "bart":
        batch["decoder_input_ids"] = batch["input_ids"]
    caught = []
    stack = structure.blocks(net)
    stack[-1].register_forward_pre_hook(
        lambda _, args, kwargs: caught.append((args or tuple(kwargs.values()))[0].detach()),
        with_kwargs=True)
    outs = [net(**batch).logits for _ in range(2)]
    assert torch.equal(*caught), "what goes into the trained block is not the same twice"
    assert not torch.equal(*outs), "the trained block itself keeps its dropout"
    structure.with_dropout(net)
    assert all(m.p == 0.5 for m in net.modules() if isinstance(m, torch.nn.Dropout))
    assert not any(hasattr(m, "dropout_before") for m in net.modules())


@pytest.mark.parametrize("method", [ft.Full, ft.Freeze])
def test_positions_that_are_computed_are_never_trained(method):
    """The library does not store them, so that a model would come back another."""
    model = tiny.family("marian", "seq2seq-lm")
    model = method(**({} if method is ft.Full else {"unfreeze_last": 2})).apply(model)
    assert not any("embed_positions" in n for n, p in model.net.named_parameters()
                   if p.requires_grad)
    assert sum(p.requires_grad for p in ft.Full().apply(model).net.parameters()) > 20
