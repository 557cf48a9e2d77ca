"""Without this, the loss of a large vocabulary, or its gradients, could be another one."""

import pytest
import torch
import torch.nn.functional as F

from ftkit.speed import chunked_loss


@pytest.mark.parametrize("numbers", [1 << 28, 70 * 64])
@pytest.mark.parametrize("bias", [True, False])
def test_portions_have_the_loss_and_gradients_of_the_whole(monkeypatch, numbers, bias):
    monkeypatch.setattr(chunked_loss, "NUMBERS", numbers)
    torch.manual_seed(0)
    shapes = [(200, 16), (70, 16), *([(70,)] if bias else [])]
    given = [torch.randn(shape, dtype=torch.float32, requires_grad=True) for shape in shapes]
    target = torch.randint(70, (200,))
    target[::7] = -100
    ours = chunked_loss.summed_cross_entropy(*given[:2], given[2] if bias else None, target)
    (ours / 9).backward()
    found = [part.grad.clone() for part in given]
    for part in given:
        part.grad = None
    logits = F.linear(*given)
    whole = F.cross_entropy(logits, target, ignore_index=-100, reduction="sum")
    (whole / 9).backward()
    assert ours.item() == pytest.approx(whole.item(), rel=1e-6)
    for part, gradient in zip(given, found, strict=True):
        torch.testing.assert_close(gradient, part.grad, rtol=1e-5, atol=1e-6)


def test_a_frozen_head_gets_no_gradient_and_nothing_labelled_costs_nothing():
    hidden, weight = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4)
    loss = chunked_loss.summed_cross_entropy(hidden, weight, None, torch.full((6,), -100))
    loss.backward()
    assert loss.item() == 0 and not hidden.grad.any() and weight.grad is None


def test_in_16_bits_the_loss_is_near_that_in_32():
    torch.manual_seed(0)
    hidden, weight, target = torch.randn(64, 32), torch.randn(500, 32), torch.randint(500, (64,))
    exact = F.cross_entropy(hidden @ weight.T, target, reduction="sum")
    rough = chunked_loss.summed_cross_entropy(hidden.bfloat16(), weight.bfloat16(), None, target)
    # Three roundings to 8 bits, of numbers whose products add up to logits of size 6.
    assert rough.item() == pytest.approx(exact.item(), rel=3 * 2**-8)
