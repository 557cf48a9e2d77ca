"""A user's model gives the same answers and gradients with the attention that copies nothing."""

import copy

import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit.models import hardware
from ftkit.models.hardware import Machine
from ftkit.speed import attention


def both(**changes):
    one = tiny.decoder(num_attention_heads=4, num_key_value_heads=2, **changes)
    other = ft.Model(copy.deepcopy(one.net), one.tokenizer, one.task, one.name)
    one.net.set_attn_implementation("eager")
    other.net.set_attn_implementation(attention.NAME)
    return one, other


@pytest.mark.parametrize("left", [False, True])
def test_logits_and_gradients_are_those_of_the_library(left):
    nets = [model.net.train() for model in both()]
    ids = torch.randint(5, 200, (3, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :4 if left else None] = 0 if left else 1
    if not left:
        mask[1, 7:] = 0
    outs = [net(ids, attention_mask=mask).logits[mask.bool()] for net in nets]
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    for out in outs:
        out.log_softmax(-1)[:, 7].sum().backward()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)


def test_writing_with_a_key_value_cache_gives_the_same_text():
    one, other = both()
    prompts = ["the film was", "a cat and a dog and the music", "so"]
    assert ft.generate(one, prompts, max_new_tokens=9) == ft.generate(
        other, prompts, max_new_tokens=9)
    scores = [ft.log_likelihood(m, prompts, [" good", " bad plot", " great"]) for m in (one, other)]
    torch.testing.assert_close(*map(torch.tensor, scores), rtol=1e-4, atol=1e-4)


def test_it_is_chosen_only_where_heads_share_keys_and_nothing_else_is_added():
    shared = tiny.decoder(num_attention_heads=4, num_key_value_heads=2).net.config
    assert attention.best(shared, "eager") == attention.NAME
    assert attention.best(shared, "sdpa") == "sdpa"
    alone = tiny.decoder(num_attention_heads=2, num_key_value_heads=2).net.config
    for config in (alone, tiny.encoder().net.config, tiny.decoder("gpt2").net.config,
                   tiny.decoder("gemma2").net.config):
        assert attention.best(config, "eager") == "eager"


def test_a_saved_model_does_not_name_it(tmp_path):
    _, model = both()
    model.save(tmp_path / "kept")
    assert attention.NAME not in (tmp_path / "kept" / "config.json").read_text()
    again = ft.load_model(tmp_path / "kept")
    assert again.hash() == model.hash()


def kernels_of(net):
    """The kernels that a network attends with from now on, a list that fills up."""
    used = []
    module = next(m for m in net.modules() if hasattr(m, "q_proj"))
    module.register_forward_pre_hook(lambda m, *_: used.append(m.config._attn_implementation))
    return used


@pytest.mark.parametrize("call", [
    lambda model, **off: ft.evaluate(model, Dataset.from_dict({"text": ["the film was"]}), **off),
    lambda model, **off: ft.log_likelihood(model, ["the film was"], [" good", " bad plot"], **off),
    lambda model, **off: ft.generate(model, ["the film was"], max_new_tokens=2, **off),
    lambda model, **off: ft.predict(model, ["the film was"], max_new_tokens=2, **off)],
    ids=["evaluate", "score", "generate", "predict"])
def test_it_is_there_while_it_is_used_and_can_be_left_off(call, monkeypatch):
    model = tiny.decoder()
    monkeypatch.setattr(hardware, "this_machine", lambda: Machine("cpu", "a laptop", 8 << 30))
    monkeypatch.setattr(attention, "this_machine", hardware.this_machine)
    call(model)  # the first call tries what the family can do
    before, used = model.net.config._attn_implementation, kernels_of(model.net)
    for off, wanted in (((), attention.NAME), ("eager_attention", before)):
        used.clear()
        call(model, disable=off)
        assert set(used) == {wanted}
        assert model.net.config._attn_implementation == before
    monkeypatch.setenv("FTKIT_DISABLE", "all")
    used.clear()
    call(model)
    assert set(used) == {before}


def test_several_that_overlap_leave_what_was_there():
    """As evaluations of one model in two threads do: the first to begin is the first to end."""
    net = tiny.decoder().net
    before = net.config._attn_implementation
    one, two = attention.kernel(net, "eager"), attention.kernel(net, "eager")
    one.__enter__()
    two.__enter__()
    assert net.config._attn_implementation == attention.NAME
    one.__exit__(None, None, None)
    assert net.config._attn_implementation == attention.NAME, "the second still needs it"
    two.__exit__(None, None, None)
    assert net.config._attn_implementation == before
    with attention.kernel(net, "eager"), attention.kernel(net, "sdpa"):
        pass
    assert net.config._attn_implementation == before


def test_a_trained_network_attends_as_the_library_would():
    run = ft.fit(tiny.decoder(), Dataset.from_dict({"text": ["the film was", "a cat"]}), epochs=1,
                 quiet=True)
    assert run.model.net.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", ["deberta-v2", "mpnet"])
def test_a_family_without_the_fused_kernel_keeps_its_own_where_that_would_be_chosen(
        kind, tmp_path, monkeypatch):
    """On every card, and for long texts on a processor, the fused kernel is what is wanted."""
    monkeypatch.setattr(hardware, "SHORT", 0)
    model = ft.load_model(tiny.family(kind, "classification").save(tmp_path / "model"))
    run = ft.fit(model, tiny.reviews(8), epochs=1, quiet=True)
    assert ft.evaluate(run.model, tiny.reviews(8)["test"])["loss"].value > 0
