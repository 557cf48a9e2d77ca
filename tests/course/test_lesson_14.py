"""Without these, lesson 14 could train on wrong probabilities, or accept a reward that cheats."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from lessons import from_lesson

import ftkit as ft


@pytest.fixture(scope="module")
def decoder():
    model = tiny.decoder()
    model.tokenizer.pad_token = model.tokenizer.pad_token or model.tokenizer.eos_token
    return model


@pytest.mark.parametrize("prefix", ["", "the film was good"])
def test_probabilities_behind_a_shared_prefix_are_those_of_the_plain_text(decoder, prefix):
    """Prompts of different lengths, read once and copied, as if each text were read alone."""
    space = dict(tokenizer=decoder.tokenizer)
    _, token_log_probs = from_lesson("14", "read", "token_log_probs", **space)
    prompts = ["a cat", "a dog and the cat"]
    answers = torch.tensor([[5, 6, 7], [8, 9, 5], [6, 5, 8], [7, 7, 9]])  # two for each prompt
    task = SimpleNamespace(prefix=prefix, temperature=0.7)
    found, greedy = token_log_probs(decoder.net, task, prompts, answers)
    for i, answer in enumerate(answers):
        ids = [decoder.tokenizer(text)["input_ids"] for text in (prefix, prompts[i // 2]) if text]
        context = torch.tensor([[*sum(ids, []), *answer.tolist()]])
        logits = decoder.net(input_ids=context).logits[0, -4:-1] / 0.7
        plain = torch.log_softmax(logits, dim=-1)[torch.arange(3), answer]
        assert torch.allclose(found[i], plain, atol=1e-4)
        assert (greedy[i] == (logits.argmax(-1) == answer)).all()
    found.sum().backward()
    assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in decoder.net.parameters())


def test_sampling_stops_at_the_end_token(decoder):
    space = dict(tokenizer=decoder.tokenizer)
    _, sample, written = from_lesson("14", "read", "sample", "written", **space)
    task = SimpleNamespace(prefix="a cat", temperature=1.0, length=6, end=7)
    torch.manual_seed(0)
    ids = sample(decoder.net, task, ["a dog", "the film was good"], 20)
    assert ids.shape == (40, 6) and (ids == 7).any()
    for line, keep in zip(ids.tolist(), written(ids, task).tolist(), strict=True):
        end = line.index(7) if 7 in line else 5
        assert keep == [1.0] * (end + 1) + [0.0] * (5 - end)
        assert all(token == 7 for token in line[end + 1:])


def test_the_loss_of_grpo_clips_and_holds_near_the_reference():
    grpo_loss = from_lesson("14", "grpo_loss")
    old, mask = torch.zeros(2, 3), torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    advantages = torch.tensor([2.0, -1.0])
    assert grpo_loss(old, old, old, advantages, mask).item() == pytest.approx(-0.5)
    # Where the ratio has gone too far in the direction of the advantage, nothing pulls further.
    logp = torch.tensor([[0.5, 0.5, 0.5], [-0.5, 9, 9]], requires_grad=True)
    grpo_loss(logp, old, old, advantages, mask, beta=0.0).backward()
    assert logp.grad.abs().sum() == 0
    back = torch.tensor([[-0.5, -0.5, -0.5], [0.5, 9, 9]], requires_grad=True)
    grpo_loss(back, old, old, advantages, mask, beta=0.0).backward()
    assert (back.grad[0] < 0).all() and back.grad[1, 0] > 0 and (back.grad[1, 1:] == 0).all()
    held = grpo_loss(logp, old, old, advantages, mask, beta=1.0)
    assert held > grpo_loss(logp, old, old, advantages, mask, beta=0.0)


def test_a_group_that_earns_the_same_teaches_nothing():
    group_advantages = from_lesson("14", "group_advantages")
    found = group_advantages(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]]))
    assert found[0] > 0 > found[1] and (found[4:] == 0).all()
    assert found[:4].sum().abs() < 1e-6


def test_the_rules_for_replies():
    end = "<|im_end|>"
    rules_kept, _ = from_lesson("14", "rules_kept", "PROMISES",
                                tokenizer=SimpleNamespace(eos_token=end))
    assert all(rules_kept("Hello Tom, thank you. Which size do you need?" + end).values())
    for reply, broken in [
        ("Hello Tom, thank you. Which size do you need?", "25 words"),  # never came to its end
        ("What?" + end, "25 words"),
        ("word " * 26 + "?" + end, "25 words"),
        ("Hello Tom, thank you for telling us." + end, "one question"),
        ("Which size? Which colour do you need?" + end, "one question"),
        ("We'll replace it. Which size do you need?" + end, "no promise"),
        ("The refund leaves us soon. Is that right?" + end, "no promise"),
    ]:
        assert [rule for rule, kept in rules_kept(reply).items() if not kept] == [broken], reply


@pytest.mark.parametrize("wrong, said", [
    (0.16, "twice"), (0.02, "at least one"), (0.851, "nothing"), (8, "high"),
    ("all", "a number was expected"),
])
def test_wrong_shares_of_groups_are_explained(wrong, said):
    right, hints = 1 - 0.02**8 - 0.98**8, from_lesson("14", "hints")
    assert ft.check(right, right, tolerance=0.002, hints=hints)
    answer = ft.check(wrong, right, tolerance=0.002, hints=hints)
    assert not answer and said in repr(answer)


def careful(text, number):
    words = text.split()
    named = [word for word in words if any(map(str.isdigit, word))]
    return 1 / len(words) if named == [str(number)] else 0


def test_a_reward_must_not_be_cheated():
    check, _ = from_lesson("14", "cannot_be_cheated", "CHEATS")
    assert ft.check(careful, check)
    for wrong, said in [
        (lambda text, n: 1 / len(text.split()) if str(n) in text else 0, "another number"),
        (lambda text, n: (str(n) in text) / len(text.split()), "ZeroDivisionError"),
        (lambda text, n: float(str(n) in text.split()), "More words"),
        (lambda text, n: text == str(n), "More words"),
        (lambda text, n: 1 / (1 + len(text.split())) if str(n) in text else 0, "should earn 1"),
        (lambda text, n: 1 / len(text.split()) if str(n) in text.split() else 0, "lists numbers"),
        (lambda text, n: None, "raised TypeError"),
        (lambda text: 1, "raised TypeError"),
        (1.0, "function was expected"),
    ]:
        answer = ft.check(wrong, check)
        assert not answer and said in repr(answer), repr(answer)


def found(values):
    return {"pass@1": ft.from_scores("pass@1", values)}


def test_a_rate_is_chosen_on_the_validation_sums():
    base = found([0.3, 0.4, 0.2])
    check = from_lesson("14", "three_rates", profile="cpu", validation_sums=[0] * 3, few=3,
                        tried={3: base}, value=lambda one, name: one[name][name].value)
    good = {rate: found(np.full(3, 0.5) + rate * 100) for rate in (5e-4, 1e-3, 2e-3)}
    assert ft.check(good, check)
    for wrong, said in [
        (1e-3, "dict"),
        ({rate: 0.5 + rate for rate in good}, "dict"),
        (dict(list(good.items())[:2]), "Three rates"),
        (good | {1e-3: found([0.5] * 5)}, "never on the test"),
        (good | {1e-3: good[5e-4]}, "same number"),
        (good | {1e-3: base}, "that of the base"),
    ]:
        answer = ft.check(wrong, check)
        assert not answer and said in repr(answer), repr(answer)
