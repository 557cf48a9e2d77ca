"""Without these, a reused prefix or a padded batch could change what a model is said to answer."""

import numpy as np
import pytest
import tiny
import torch

import ftkit as ft
from ftkit.errors import DataError, NotANumber, SettingError

LONG = "the film was good and the plot not so bad. the music was warm. "
PROMPTS = [LONG + "cat", LONG + "dog and the cat", LONG + "a very great plot is", LONG + "so"]


def by_hand(model, prompt, candidate):
    """The same log-likelihood, one sequence at a time and by the library alone."""
    start = model.tokenizer(prompt)["input_ids"]
    rest = model.tokenizer(candidate)["input_ids"]
    logits = model.net(torch.tensor([start + rest])).logits[0].log_softmax(-1)
    return sum(logits[len(start) - 1 + i, t].item() for i, t in enumerate(rest))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_scores_over_a_shared_prefix_are_those_of_one_by_one(kind, batch_size):
    model = tiny.decoder(kind)
    candidates = [" good", " not so bad", " zebra crossing"]
    with torch.no_grad():
        wanted = [[by_hand(model, p, c) for c in candidates] for p in PROMPTS]
    found = ft.log_likelihood(model, PROMPTS, candidates, batch_size=batch_size)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    plain = ft.log_likelihood(
        model, PROMPTS, candidates, batch_size=batch_size, disable="prefix_caching"
    )
    np.testing.assert_allclose(plain, wanted, rtol=1e-4, atol=1e-4)
    split = ft.log_likelihood(
        model, [p.removeprefix(LONG) for p in PROMPTS], candidates, prefix=LONG
    )
    np.testing.assert_allclose(split, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_answers_behind_one_prompt_do_not_see_each_other(kind, monkeypatch):
    monkeypatch.setattr("ftkit.evaluation.generation.POSITIONS", 3)  # logits in several portions
    monkeypatch.setattr(
        "ftkit.evaluation.generation.LOAD", {"cpu": 14}
    )  # and a prompt's answers in several rows
    model = tiny.decoder(kind)
    if kind == "gemma2":
        model.net.config.sliding_window = 4  # shorter than the texts: answers must stand apart
    prompts = ["cat", "a very great plot is", "so"]
    candidates = [" not so bad", " good", " zebra crossing", " not so good", " a warm dog"]
    with torch.no_grad():
        wanted = [[by_hand(model, p, c) for c in candidates] for p in prompts]
    np.testing.assert_allclose(
        ft.log_likelihood(model, prompts, candidates), wanted, rtol=1e-4, atol=1e-4
    )


def test_scores_come_from_the_blocks_above_a_frozen_backbone_the_second_time():
    model = ft.Freeze(unfreeze_last=1).apply(tiny.decoder())
    candidates = [" not so bad", " good", " zebra crossing"]
    prompts = ["cat", "a very great plot is", "so"]
    with torch.no_grad():
        wanted = [[by_hand(model, p, c) for c in candidates] for p in prompts]
    runs = []
    below = model.net.model.layers[0].self_attn.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(2):
        found = ft.log_likelihood(model, prompts, candidates)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    below.remove()
    assert len(runs) == 1
    other = ft.log_likelihood(
        model, prompts, [" not so", " good", " zebra"]
    )  # the same words, cut shorter
    assert not np.allclose(other, found)


def test_each_prompt_may_have_its_own_candidates():
    model = tiny.decoder()
    lists = [[" good", " bad"], [" cat"], [" dog", " so", " warm"], [" not so bad", " a"]]
    found = ft.log_likelihood(model, PROMPTS, lists)
    assert found.shape == (4, 3)
    assert np.isneginf(found[1, 1:]).all()
    with torch.no_grad():
        assert found[3, 0] == pytest.approx(by_hand(model, PROMPTS[3], " not so bad"), abs=1e-4)
    pieces = len(model.tokenizer(" not so bad")["input_ids"])
    normal = ft.log_likelihood(model, PROMPTS, lists, normalize=True)
    assert normal[3, 0] == pytest.approx(found[3, 0] / pieces)


def test_scoring_refuses_what_it_cannot_score():
    with pytest.raises(SettingError, match="causal-lm"):
        ft.log_likelihood(tiny.encoder(), ["x"], [" a"])
    with pytest.raises(SettingError, match="no tokens"):
        ft.log_likelihood(tiny.decoder(), ["x"], [""])
    with pytest.raises(SettingError, match="2 lists of candidates for 1"):
        ft.log_likelihood(tiny.decoder(), ["x"], [[" a"], [" b"]])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_generation_in_a_batch_is_that_of_one_by_one(kind):
    model = tiny.decoder(kind)
    together = ft.generate(model, PROMPTS, max_new_tokens=9)
    assert together == [ft.generate(model, p, max_new_tokens=9) for p in PROMPTS]
    assert together == ft.generate(model, PROMPTS, max_new_tokens=9, disable="prefix_caching")
    ids = model.tokenizer(PROMPTS[1], return_tensors="pt")
    wanted = model.net.generate(
        input_ids=ids.input_ids,
        attention_mask=ids.attention_mask,
        max_new_tokens=9,
        do_sample=False,
    )[0, ids.input_ids.shape[1] :]
    assert together[1] == model.tokenizer.decode(wanted, skip_special_tokens=True)


@pytest.mark.parametrize("call", [
    lambda model, **off: ft.log_likelihood(model, PROMPTS, [" good", " bad"], **off),
    lambda model, **off: ft.generate(model, PROMPTS, max_new_tokens=2, **off)])
def test_what_prompts_share_is_read_once_and_can_be_left_off(call):
    model, read = tiny.decoder(), []
    model.net.get_input_embeddings().register_forward_hook(
        lambda module, ids, out: read.append(ids[0].numel()))
    counts = []
    for off in ({}, {"disable": "prefix_caching"}):
        read.clear()
        call(model, **off)
        counts.append(sum(read))
    assert counts[0] < counts[1]
    with pytest.raises(SettingError, match="'magic'"):
        call(model, disable="magic")


def test_generation_stops_where_it_is_told():
    model = tiny.decoder()
    text = ft.generate(model, PROMPTS[0], max_new_tokens=12)
    stop = text[3]
    assert ft.generate(model, PROMPTS[0], max_new_tokens=12, stop=stop) == text[: text.index(stop)]
    assert ft.generate(model, PROMPTS[0], max_new_tokens=12, stop="") == text  # it is everywhere


def test_an_encoder_decoder_takes_the_same_call():
    texts = ft.generate(tiny.seq2seq(), ["the film", "the plot was good"], max_new_tokens=4)
    assert len(texts) == 2


def test_calibration_takes_out_a_standing_preference():
    fair = np.array([[0.0, -1.0], [-1.0, 0.0]])
    bias = np.array([3.0, 0.0])
    assert (fair + bias).argmax(1).tolist() == [0, 0]
    assert ft.contextual_calibration(fair + bias, bias).argmax(1).tolist() == [0, 1]


def broken(model):
    with torch.no_grad():
        next(model.net.parameters())[:] = float("nan")
    return model


@pytest.mark.parametrize("disable", [(), ("prefix_caching",)])
def test_a_model_with_nan_weights_has_no_likeliest_answer(disable):
    """An argmax of NaN is 0: the first candidate, which an Evaluation would count as its answer."""
    model = broken(tiny.decoder())
    with pytest.raises(NotANumber, match="candidate 0 after prompt 0 of tiny-llama.*embed.*again"):
        ft.log_likelihood(model, PROMPTS, [" good", " bad"], disable=disable)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_model_with_nan_weights_writes_nothing(kind):
    model = broken(tiny.seq2seq() if kind == "t5" else tiny.decoder())
    with pytest.raises(NotANumber, match="the next token of tiny-.* is NaN"):
        ft.generate(model, PROMPTS, max_new_tokens=3)
    with pytest.raises(NotANumber, match="the next token"):
        ft.predict(model, "the film")


def test_numbers_that_grow_too_large_are_told_from_weights_that_are_nan():
    model = tiny.decoder()
    with torch.no_grad():
        model.net.lm_head.weight.mul_(3e38).mul_(3e38)
        model.net.lm_head.weight.clamp_(-3e38, 3e38)
    with pytest.raises(NotANumber, match="its weights are numbers.*float32"):
        ft.log_likelihood(model, PROMPTS, [" good", " bad"])


def test_calibrated_scores_keep_what_is_not_there_and_refuse_nan():
    scores = np.array([[-1.0, -2.0, -np.inf], [-3.0, -1.0, -2.0]])
    found = ft.contextual_calibration(scores, [-1.0, -1.0, -np.inf])
    assert found[0].tolist() == [0, -1, -np.inf] and found.argmax(1).tolist()[0] == 0
    for one, two in ((scores * np.nan, [0.0] * 3), (scores, [0.0, np.nan, 0.0])):
        with pytest.raises(DataError, match="NaN"):
            ft.contextual_calibration(one, two)
