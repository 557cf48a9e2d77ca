"""Without these, the faster loss could teach a model something else than the library's."""

import pytest
import tiny
import torch
import transformers

import ftkit as ft
from ftkit.models import structure
from ftkit.speed import logits_to_keep
from ftkit.tasks import multiple_choice


def batch_of(model, labelled=0.4):
    torch.manual_seed(1)
    ids = torch.randint(5, 100, (3, 14))
    labels = torch.where(torch.rand(ids.shape) < labelled, ids, structure.IGNORED)
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    labels[0, 9:] = structure.IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def gradients(net):
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


KINDS = {
    "llama": tiny.decoder,
    "gpt2": lambda: tiny.decoder("gpt2"),
    "tied": lambda: tiny.decoder(tie_word_embeddings=True),
    "softcapped": lambda: tiny.decoder("gemma2"),
}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("form", [logits_to_keep.MASK, logits_to_keep.POSITIONS])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_only_equals_the_library(kind, form, lora):
    model = KINDS[kind]()
    assert logits_to_keep.label_form(model.net) == logits_to_keep.MASK
    if lora:
        model = ft.LoRA(rank=2).apply(model)
    net, batch = model.net.train(), batch_of(model)
    wanted = net(**batch)
    wanted.loss.backward()
    expected = gradients(net)
    net.zero_grad()
    fewer = logits_to_keep.at_labels(batch, form)
    found = net(**fewer)
    labelled = (batch["labels"][:, 1:] != structure.IGNORED).sum()
    made = found.logits.numel() // found.logits.shape[-1]
    assert made == labelled if form == logits_to_keep.MASK else made < batch["labels"].numel()
    found.loss.backward()
    torch.testing.assert_close(found.loss, wanted.loss)
    for name, grad in gradients(net).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)


def test_the_divisor_of_the_trainer_is_used():
    model, batch = tiny.decoder(), batch_of(None)
    batch = logits_to_keep.at_labels(batch, logits_to_keep.MASK)
    mean = model.net(**batch).loss
    shared = model.net(**batch, num_items_in_batch=100).loss
    torch.testing.assert_close(shared * 100, mean * len(batch["shift_labels"]))


@pytest.mark.parametrize("form", [logits_to_keep.MASK, logits_to_keep.POSITIONS])
def test_a_batch_without_labels_is_no_nan(form):
    model, batch = tiny.decoder(), batch_of(None)
    batch["labels"][:] = structure.IGNORED
    batch = logits_to_keep.at_labels(batch, form)
    loss = model.net(**batch, num_items_in_batch=torch.tensor(7)).loss  # of other batches
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_plain_trainer_learns_the_same_with_the_collator(accumulate, tmp_path):
    """Anybody's training may use it, not fit alone."""
    rows = [{key: value[i] for key, value in batch_of(None).items()} for i in range(3)] * 2

    def collate(rows):
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    found = []
    for wrapped in (False, True):
        net = tiny.decoder().net
        arguments = transformers.TrainingArguments(
            str(tmp_path), num_train_epochs=2, per_device_train_batch_size=2, report_to="none",
            gradient_accumulation_steps=accumulate, learning_rate=1e-2, save_strategy="no",
            disable_tqdm=True, remove_unused_columns=False, use_cpu=True, eval_strategy="epoch",
        )
        trainer = transformers.Trainer(
            net, arguments, train_dataset=rows, eval_dataset=rows,
            data_collator=logits_to_keep.LogitsToKeep(collate, net) if wrapped else collate,
        )
        trainer.train()
        history = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
        found.append((net.state_dict(), history))
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5) and found[0][1][1] < found[0][1][0]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)


def test_what_cannot_take_it_gets_whole_batches():
    assert logits_to_keep.label_form(tiny.seq2seq().net) is None
    batch = batch_of(None)
    assert logits_to_keep.at_labels(batch, None) is batch

    class Own(transformers.LlamaForCausalLM):
        """A family that shifts the labels itself, whatever it is told."""

        def forward(self, *args, labels=None, logits_to_keep=0, shift_labels=None, **kwargs):
            return super().forward(*args, labels=labels, logits_to_keep=logits_to_keep, **kwargs)

    assert logits_to_keep.label_form(Own(tiny.decoder().net.config)) is None


def test_sentence_vectors_do_not_see_padding():
    net = tiny.encoder("choice").net
    ids = torch.randint(5, 100, (1, 6))
    alone = multiple_choice.sentence_vectors(net, ids, torch.ones_like(ids))
    padded = torch.cat([ids, torch.zeros(1, 4, dtype=torch.long)], 1)
    mask = (padded != 0).long()
    torch.testing.assert_close(multiple_choice.sentence_vectors(net, padded, mask), alone)
    assert alone.norm(dim=-1).item() == pytest.approx(1, abs=1e-5)


def test_texts_in_parts_have_the_gradients_of_texts_in_one(monkeypatch):
    net = tiny.encoder("choice").net
    ids = torch.randint(5, 100, (9, 8), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) < torch.tensor([3, 8, 1, 5, 5, 2, 8, 4, 6])[:, None]).long()
    found = []
    for texts in (2, 100):
        monkeypatch.setattr(multiple_choice, "TEXTS", texts)
        net.zero_grad()
        vectors = multiple_choice._vectors_by_length(net, ids * mask, mask)
        (vectors * torch.arange(9)[:, None]).sum().backward()
        found.append(
            (vectors.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None))
        )
    with torch.no_grad():
        found.append((multiple_choice.sentence_vectors(net, ids * mask, mask), *found[0][1:]))
    assert len(found[0]) > 10
    for one, two, three in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-5)
