"""Without these, the faster loss could teach a model something else than the library's."""

import pytest
import tiny
import torch

import ftkit as ft
from ftkit import losses


def batch_of(model, labelled=0.4):
    torch.manual_seed(1)
    ids = torch.randint(5, 100, (3, 14))
    labels = torch.where(torch.rand(ids.shape) < labelled, ids, losses.IGNORED)
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    labels[0, 9:] = losses.IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def gradients(net):
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        tiny.decoder,
        lambda: tiny.decoder("gpt2"),
        lambda: tiny.decoder(tie_word_embeddings=True),
    ],
)
def test_labels_only_equals_the_library(make, lora):
    model = make()
    if lora:
        model = ft.LoRA(rank=2).apply(model)
    net, batch = model.net.train(), batch_of(model)
    assert losses.scores_labels_only(net)
    wanted = net(**batch).loss
    wanted.backward()
    expected = gradients(net)
    net.zero_grad()
    with losses.label_only_head(net):
        found = net(**batch)
    assert found.logits is None, "the full head was run all the same"
    found.loss.backward()
    torch.testing.assert_close(found.loss, wanted)
    for name, grad in gradients(net).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)
    assert net(**batch).logits is not None, "the forward was not put back"


def test_the_divisor_of_the_trainer_is_used():
    model, batch = tiny.decoder(), batch_of(None)
    with losses.label_only_head(model.net):
        mean = model.net(**batch).loss
        shared = model.net(**batch, num_items_in_batch=100).loss
    count = (batch["labels"][:, 1:] != losses.IGNORED).sum()
    torch.testing.assert_close(shared * 100, mean * count)


def test_a_batch_without_labels_is_no_nan():
    model, batch = tiny.decoder(), batch_of(None)
    batch["labels"][:] = losses.IGNORED
    with losses.label_only_head(model.net):
        loss = model.net(**batch).loss
    assert loss.item() == 0
    loss.backward()


def test_changed_logits_go_through_the_library():
    assert not losses.scores_labels_only(tiny.decoder("gemma2").net)
    assert not losses.scores_labels_only(tiny.seq2seq().net)


def test_sentence_vectors_do_not_see_padding():
    net = tiny.encoder("choice").net
    ids = torch.randint(5, 100, (1, 6))
    alone = losses.sentence_vectors(net, ids, torch.ones_like(ids))
    padded = torch.cat([ids, torch.zeros(1, 4, dtype=torch.long)], 1)
    mask = (padded != 0).long()
    torch.testing.assert_close(losses.sentence_vectors(net, padded, mask), alone)
    assert alone.norm(dim=-1).item() == pytest.approx(1, abs=1e-5)


def test_texts_in_parts_have_the_gradients_of_texts_in_one(monkeypatch):
    net = tiny.encoder("choice").net
    ids = torch.randint(5, 100, (9, 8), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) < torch.tensor([3, 8, 1, 5, 5, 2, 8, 4, 6])[:, None]).long()
    found = []
    for texts in (2, 100):
        monkeypatch.setattr(losses, "TEXTS", texts)
        net.zero_grad()
        vectors = losses._vectors_by_length(net, ids * mask, mask)
        (vectors * torch.arange(9)[:, None]).sum().backward()
        found.append(
            (vectors.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None))
        )
    with torch.no_grad():
        found.append((losses.sentence_vectors(net, ids * mask, mask), *found[0][1:]))
    assert len(found[0]) > 10
    for one, two, three in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_logits_in_portions_give_the_same_loss_and_gradients(kind, monkeypatch):
    """Without this, a long batch could learn something else than a short one, or not fit."""
    ids = torch.randint(5, 100, (3, 20), generator=torch.Generator().manual_seed(0))
    labels = torch.where(ids > 30, ids, losses.IGNORED)
    found, most = [], []
    for limit in (1 << 27, 7 * 128):
        monkeypatch.setattr(losses, "LOGITS", limit)
        net, sizes = tiny.decoder(kind).net, []
        count = lambda _, __, out, sizes=sizes: sizes.append(len(out))  # noqa: E731
        losses.head(net).register_forward_hook(count)
        with losses.label_only_head(net):
            loss = net(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in net.parameters())])
        most.append(max(sizes))
    assert most[0] == (labels[:, 1:] != losses.IGNORED).sum() > most[1]
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
