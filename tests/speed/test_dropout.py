"""A user's model is regularized as before by the quicker dropout: same odds, same scale."""

import threading

import pytest
import tiny
import torch

import ftkit as ft
from ftkit.speed.dropout import fast_dropout

F = torch.nn.functional


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_it_drops_the_share_that_was_asked_for(p):
    torch.manual_seed(0)
    ones = torch.ones(400, 501)
    with fast_dropout():
        out = F.dropout(ones, p)
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    torch.testing.assert_close(out[out > 0], torch.full_like(out[out > 0], 1 / (1 - p)), rtol=1e-3,
                               atol=0)
    # Rows, columns and neighbours are dropped independently of one another.
    gone = (out == 0).float()
    assert gone.mean(0).std() < 2.5 * (p * (1 - p) / 400) ** 0.5
    assert gone.mean(1).std() < 2.5 * (p * (1 - p) / 501) ** 0.5
    pairs = (gone[:, 1:] * gone[:, :-1]).mean().item()
    assert pairs == pytest.approx(p * p, abs=0.01)


def test_the_gradient_is_dropped_where_the_value_was():
    torch.manual_seed(0)
    values = torch.randn(30, 40).t().requires_grad_()  # not contiguous
    with fast_dropout():
        out = torch.nn.Dropout(0.3)(values)
    out.sum().backward()
    torch.testing.assert_close(values.grad * values.detach(), out.detach())


def test_a_seed_gives_the_same_again():
    with fast_dropout():
        torch.manual_seed(3)
        one = F.dropout(torch.ones(50), 0.5)
        torch.manual_seed(3)
        assert torch.equal(F.dropout(torch.ones(50), 0.5), one)
        assert not torch.equal(F.dropout(torch.ones(50), 0.5), one)


def test_it_is_off_in_evaluation_and_afterwards():
    library, ones = F.dropout, torch.ones(9)
    with fast_dropout():
        assert F.dropout(ones, 0.5, training=False) is ones
        assert F.dropout(ones, 0.0).equal(ones) and not F.dropout(ones, 1.0).any()
        assert F.dropout is not library
    assert F.dropout is library
    with fast_dropout(False):
        assert F.dropout is library


def test_fit_uses_it_and_puts_the_library_back(monkeypatch):
    library, seen = F.dropout, []
    model = tiny.encoder()
    for module in model.net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    model.net.bert.pooler.register_forward_hook(lambda *_: seen.append(F.dropout is library))
    ft.fit(model, tiny.reviews(8)["train"], epochs=1, quiet=True)
    assert seen and not any(seen) and F.dropout is library


def test_several_that_overlap_leave_the_library_as_it_was():
    library = F.dropout
    one, two, off = fast_dropout(), fast_dropout(), fast_dropout(False)
    one.__enter__()
    two.__enter__()
    off.__enter__()
    one.__exit__(None, None, None)  # not the last that was opened
    assert F.dropout is not library
    off.__exit__(None, None, None)
    two.__exit__(None, None, None)
    assert F.dropout is library
    with pytest.raises(KeyError), fast_dropout(), fast_dropout():
        raise KeyError
    assert F.dropout is library


def test_another_thread_draws_as_the_library_does():
    drawn = {}

    def draw(name):
        torch.manual_seed(0)
        drawn[name] = F.dropout(torch.ones(200), 0.5)

    draw("library")
    with fast_dropout():
        thread = threading.Thread(target=draw, args=("thread",))
        thread.start()
        thread.join()
        draw("quick")
    assert torch.equal(drawn["thread"], drawn["library"])
    assert not torch.equal(drawn["quick"], drawn["library"])


def test_what_somebody_else_puts_in_its_place_meanwhile_stays(monkeypatch):
    library, theirs = F.dropout, lambda *args, **kwargs: "theirs"
    try:
        with fast_dropout():
            F.dropout = theirs
        assert F.dropout is theirs
    finally:
        F.dropout = library
