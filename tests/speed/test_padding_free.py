"""Without these, a text in a row could see its neighbour, or learn something else than alone."""

import pytest
import tiny
import torch
import torch.nn.functional as F
import transformers
from datasets import Dataset

import ftkit as ft
from ftkit.models import hardware, structure
from ftkit.models.hardware import Choice, Machine
from ftkit.models.structure import IGNORED
from ftkit.speed import apply, padding_free
from ftkit.speed.packed_loss import PackedLoss, read
from ftkit.speed.padding_free import NAME, PackedCollator, keeps_apart
from ftkit.tasks.batching import encode

CARD = Machine("cuda", "a card", 24 << 30, capability=(8, 0))
TEXTS = ["the film was good", "bad plot and very dull music", "a cat", "the dog is not terrible"]


def rows_of(model, texts=TEXTS):
    return list(encode(Dataset.from_dict({"text": list(texts)}), model))


def mean_loss(net, rows):
    """The loss a token, each text read alone by the library."""
    losses = [
        F.cross_entropy(net(ids).logits[0, :-1].float(), ids[0, 1:], reduction="sum")
        for ids in (torch.tensor([row["input_ids"]]) for row in rows)
    ]
    return sum(losses) / sum(len(row["input_ids"]) - 1 for row in rows)


@pytest.mark.parametrize("unit", [1, 64])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_row_of_texts_has_the_loss_and_gradients_of_each_alone(kind, unit):
    net, rows = tiny.decoder(kind).net, rows_of(tiny.decoder(kind))
    mean_loss(net, rows).backward()
    alone = {name: p.grad.clone() for name, p in net.named_parameters()}
    expected = mean_loss(net, rows).item()
    net.zero_grad()
    loss = PackedLoss(net)
    net.set_attn_implementation(NAME)
    batch = PackedCollator(0, unit=unit, longest=32, labelled=0.5)(rows)
    found = loss(batch, (batch["shift_labels"] != IGNORED).sum())
    found.backward()
    # Sums of some hundred float32 products, in another order.
    assert found.item() == pytest.approx(expected, rel=1e-6)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("half", [None, torch.bfloat16])
@pytest.mark.parametrize("kind", ["tied", "head of its own", "lora"])
def test_gradients_taken_at_once_are_those_of_a_backward_pass(kind, half):
    model = tiny.decoder()
    if kind == "head of its own":
        model.net.config.tie_word_embeddings = False
        model.net.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.net.lm_head.weight))
    model = ft.LoRA(rank=2).apply(model.copy()) if kind == "lora" else model
    net, trained = model.net, [p for p in model.net.parameters() if p.requires_grad]
    rows = rows_of(model)
    loss = PackedLoss(net, half)
    assert (loss.top is not None) and bool(loss.trained) == (half is not None)
    structure.inner(net).set_attn_implementation(NAME)
    one, two = (PackedCollator(0)(part) for part in (rows[:2], rows[2:]))
    (loss(one, 1) * 0.1).backward(), (loss(two, 1) * 0.1).backward()
    expected = [p.grad.clone() for p in trained]
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, torch.nan)  # of the last update
    first = loss.add_gradients(one, 0.1, fresh=True)
    loss.add_gradients(two, 0.1)
    assert first.item() == pytest.approx(loss(one, 10).item(), rel=1e-2 if half else 1e-6)
    # In 16 bits the copies' gradients are rounded before they are added to the head's.
    near = {"rtol": 2e-2, "atol": 2e-3} if half else {"rtol": 1e-4, "atol": 1e-6}
    for parameter, value in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.grad, value, **near)
    with torch.no_grad():
        for parameter in trained:  # the next step multiplies with these, not with old copies
            parameter.add_(torch.randn_like(parameter))
    assert loss.add_gradients(one, 0.1, fresh=True).item() != first.item()


def test_no_logit_moves_when_a_neighbour_changes():
    model = tiny.decoder()
    model.net.set_attn_implementation(NAME)

    def last(texts):
        batch = PackedCollator(0)(rows_of(model, texts))
        given = read(batch, "cpu")
        return model.net(**given, use_cache=False).logits[0, -5:]

    with torch.no_grad():
        one, two = last(["a cat", TEXTS[3]]), last(["music", TEXTS[3]])
        longer = last([TEXTS[1], "a cat", TEXTS[3]])
    assert torch.equal(one, two) and torch.equal(one, longer)


@pytest.mark.parametrize("window", [3, 100])
def test_a_sliding_window_ends_at_the_text(window):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 11, 8) for _ in range(3))
    starts = torch.tensor([0, 6, 11, 11], dtype=torch.int32)
    found, weights = padding_free.document_attention(
        None, query, key, value, None, sliding_window=window, cu_seq_lens_q=starts, max_length_q=6
    )
    place = torch.arange(11)
    text = torch.tensor([0] * 6 + [1] * 5)
    age = place[:, None] - place[None]
    seen = (text[:, None] == text[None]) & (age >= 0) & (age < window)
    scores = (query @ key.transpose(2, 3) / 8**0.5).masked_fill(~seen, -torch.inf)
    expected = (scores.softmax(-1) @ value).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    assert weights is None


def test_what_it_cannot_compute_is_an_error():
    part = torch.randn(1, 2, 4, 8)
    starts = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(ValueError, match="cu_seq_lens_q"):
        padding_free.document_attention(None, part, part, part, None)
    with pytest.raises(ValueError, match="2 rows"):
        two = part.repeat(2, 1, 1, 1)
        padding_free.document_attention(None, two, two, two, None, cu_seq_lens_q=starts)
    with pytest.raises(ValueError, match="softcap"):
        padding_free.document_attention(
            None, part, part, part, None, softcap=30.0, cu_seq_lens_q=starts
        )


def test_a_model_that_would_mix_texts_is_found_out():
    assert keeps_apart(tiny.decoder().net) and keeps_apart(tiny.decoder("gpt2").net)
    capped = tiny.decoder("gemma2").net
    assert not keeps_apart(capped)
    assert capped.config._attn_implementation != NAME, "the kernel is as it was"


def test_a_head_that_is_not_a_plain_matrix_is_left_to_the_library():
    assert PackedLoss(tiny.decoder().net).top is not None
    net = tiny.decoder().net
    net.lm_head.register_forward_hook(lambda module, args, out: out * 0.5)  # as a multiplier does
    rows = rows_of(tiny.decoder())
    expected = mean_loss(net, rows).item()
    loss = PackedLoss(net)
    assert loss.top is None
    net.set_attn_implementation(NAME)
    batch = PackedCollator(0)(rows)
    found = loss(batch, (batch["shift_labels"] != IGNORED).sum()).item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_shapes_are_few_and_the_filling_carries_no_loss():
    model = tiny.decoder()
    collate = PackedCollator(0, unit=64, longest=32, labelled=0.9)
    shapes = set()
    for i in range(4):
        batch = collate(rows_of(model, [TEXTS[i], TEXTS[i - 1]]))
        shapes.add(tuple((k, tuple(v.shape)) for k, v in batch.items() if torch.is_tensor(v)))
        real = sum(len(row["input_ids"]) for row in rows_of(model, [TEXTS[i], TEXTS[i - 1]]))
        assert (batch["shift_labels"] != IGNORED).sum() == real - 2
        assert (batch["labels"][0, real:] == IGNORED).all()
        # No text of the filling is longer than what the kernel is told.
        assert batch["cu_seq_lens_q"].diff().max() <= batch["max_length_q"]
        assert batch["cu_seq_lens_q"][-1] == batch["input_ids"].shape[1]
    assert len(shapes) == 1


@pytest.mark.parametrize("method", [ft.Full(), ft.LoRA(rank=2)])
def test_training_on_packed_rows_learns_the_same(monkeypatch, method):
    settings = dict(epochs=2, batch_size=4, learning_rate=1e-2, quiet=True, dtype="float32")
    data = Dataset.from_dict({"text": TEXTS})
    plain = ft.fit(tiny.decoder(), data, method=method, **settings).model
    monkeypatch.setattr(apply.hardware, "choose_padding_free", lambda *_: Choice(True, "packing"))
    packed = ft.fit(tiny.decoder(), data, method=method, **settings).model
    assert packed.net.config._attn_implementation != NAME, "what it was before is there again"
    assert ft.evaluate(packed, data)["loss"].value == pytest.approx(
        ft.evaluate(plain, data)["loss"].value, rel=1e-4
    )


def test_packed_rows_are_for_decoders_on_a_card_in_16_bits():
    assert hardware.choose_padding_free(CARD, "causal-lm", "bf16").value
    assert not hardware.choose_padding_free(CARD, "classification", "bf16").value
    laptop = Machine("cpu", "a laptop", 8 << 30)
    assert not hardware.choose_padding_free(laptop, "causal-lm", "bf16").value
    assert "padded" in hardware.choose_padding_free(CARD, "causal-lm", "float32").why
    old = Machine("cuda", "an old card", 8 << 30, capability=(7, 0))
    assert "capability 8" in hardware.choose_padding_free(old, "causal-lm", "fp16").why


def test_a_plain_trainer_can_use_it(tmp_path):
    model = tiny.decoder()
    model.net.set_attn_implementation(NAME)
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to="none", use_cpu=True,
        remove_unused_columns=False, disable_tqdm=True, logging_steps=1,
    )
    trainer = transformers.Trainer(
        model.net, arguments, train_dataset=rows_of(model), data_collator=PackedCollator(0)
    )
    expected = mean_loss(tiny.decoder().net, rows_of(model)).item()
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-3)
