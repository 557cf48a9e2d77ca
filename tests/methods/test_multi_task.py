"""A user who trains several tasks at once gets separate heads, asked-for draws, plain models."""

import datasets
import numpy as np
import pytest
import tiny
import torch
import transformers
from lessons import from_lesson
from tokenizers import processors

import ftkit as ft
from ftkit.methods import multi_task
from ftkit.models.model import Model

TASKS = {"films": ["bad", "good"], "pets": ["cat", "dog", "neither"]}


def pets(n=30):
    words = ["cat", "dog", "plot"]
    return datasets.Dataset.from_dict({"text": [f"the {words[i % 3]} was warm" for i in range(n)],
                                       "label": [i % 3 for i in range(n)]})


def films(n=30):
    return tiny.reviews(n)["train"]


def joint(kind):
    """A small random classifier over the labels of both tasks: BERT, Llama or T5 type."""
    labels = ft.joint_labels(TASKS)
    if kind == "encoder":
        return tiny.encoder(labels=labels)
    base = tiny.decoder() if kind == "decoder" else tiny.seq2seq()
    if kind == "t5":  # whose tokenizer ends every text; the classifier reads that place
        base.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 2)])
    torch.manual_seed(0)
    config = base.net.config
    config.id2label = dict(enumerate(labels))
    made = {"decoder": transformers.LlamaForSequenceClassification,
            "t5": transformers.T5ForSequenceClassification}[kind](config)
    return Model(made.eval(), base.tokenizer, "classification", f"tiny-{kind}", labels)


def test_the_lessons_own_loss_is_the_packages_and_that_of_separate_heads():
    lesson = from_lesson("11", "own_task_loss")
    task_of = torch.tensor(multi_task.task_of(TASKS))
    logits, labels = torch.randn(6, 5, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 4])
    ours = ft.MultiTask(TASKS).loss(None, {"labels": labels}, {"logits": logits}, None)
    theirs = lesson(logits, labels, task_of)
    torch.testing.assert_close(ours, theirs)
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*grads)
    assert (grads[0][:2, 2:] == 0).all() and (grads[0][2:, :2] == 0).all()
    alone = torch.nn.functional.cross_entropy(logits[2:, 2:], labels[2:] - 2, reduction="sum")
    alone += torch.nn.functional.cross_entropy(logits[:2, :2], labels[:2], reduction="sum")
    torch.testing.assert_close(ours, alone / 6)


@pytest.mark.parametrize("temperature", [1, 2, 5, np.inf])
def test_the_lessons_own_shares_are_the_packages(temperature):
    sizes = [600, 200, 60]
    by_hand, by_kit = (
        from_lesson("11", "shares")(sizes, temperature),
        multi_task.sampling_probabilities(sizes, temperature),
    )
    np.testing.assert_allclose(by_hand, by_kit)
    assert by_kit.sum() == pytest.approx(1) and by_kit[2] <= 1 / 3 + 1e-9


def test_a_mixture_draws_what_was_asked_for():
    parts = {"films": films(40), "pets": pets(10)}
    equal = ft.temperature_sampling(parts, TASKS, n=60, temperature=np.inf)
    labels = np.array(equal["label"])
    assert len(equal) == 60 and (labels < 2).sum() == 30
    shown = [text for text, label in zip(equal["text"], labels, strict=True) if label >= 2]
    assert len(shown) == 30  # ten rows, three times each
    by_size = ft.temperature_sampling(parts, TASKS)
    assert (np.array(by_size["label"]) < 2).sum() == 40 and len(by_size) == 50
    assert ft.temperature_sampling(parts, TASKS)["text"][:] == by_size["text"][:]
    assert ft.temperature_sampling(parts, TASKS, seed=1)["text"][:] != by_size["text"][:]


@pytest.mark.usefixtures("each_precision")
@pytest.mark.parametrize("kind", ["encoder", "decoder", "t5"])
def test_two_tasks_are_learned_by_one_backbone_and_cut_out_of_it(kind, tmp_path):
    base = joint(kind)
    rows = ft.temperature_sampling({"films": films(), "pets": pets()}, TASKS, temperature=np.inf)
    run = ft.fit(base, rows, method=ft.MultiTask(TASKS), epochs=15, learning_rate=3e-3,
                 batch_size=12, quiet=True)
    for name, test in {"films": films(), "pets": pets()}.items():
        one = ft.extract_task_head(run.model, TASKS, name)
        assert one.labels == TASKS[name]
        right = ft.evaluate(one, test)["accuracy"].value
        assert right >= ft.evaluate(ft.extract_task_head(base, TASKS, name), test)["accuracy"].value
        assert right > 0.9
        one.save(tmp_path / name)
        again = ft.load_model(tmp_path / name)
        assert again.labels == TASKS[name]
        np.testing.assert_allclose(ft.evaluate(again, test).probabilities,
                                   ft.evaluate(one, test).probabilities, atol=1e-6)
    assert run.model.labels == ft.joint_labels(TASKS)  # the shared one stays whole


def test_labels_of_one_name_begin_alike_as_in_the_lesson():
    tasks = {"films": ["no", "yes"], "plots": ["no", "perhaps", "yes"]}
    mine, kit = (tiny.encoder(labels=ft.joint_labels(tasks)) for _ in range(2))
    before = mine.net.classifier.weight.detach().clone()
    from_lesson("11", "share_label_init")(
        mine.net.classifier, ["no", "yes", "no", "perhaps", "yes"]
    )
    ft.share_label_init(kit, tasks)
    for one, two in zip(mine.net.parameters(), kit.net.parameters(), strict=True):
        torch.testing.assert_close(one, two)
    torch.testing.assert_close(kit.net.classifier.weight, before[[0, 1, 0, 3, 1]])
    assert ft.evaluate(ft.extract_task_head(kit, tasks, "films"), films())["accuracy"]


@pytest.mark.usefixtures("each_precision")
def test_it_takes_another_method_along_and_resumes(tmp_path):
    rows = ft.temperature_sampling({"films": films(), "pets": pets()}, TASKS)
    method = ft.MultiTask(TASKS, trainable=ft.Freeze(unfreeze_last=1, layerwise_lr_decay=0.5))
    assert method.layerwise_lr_decay == 0.5
    base = joint("encoder")
    settings = dict(method=method, batch_size=12, quiet=True, learning_rate=1e-3)
    whole = ft.fit(base, rows, epochs=2, **settings)
    below = {n for n, p in whole.model.net.named_parameters() if not p.requires_grad}
    assert any("layer.0." in name for name in below)
    ft.fit(base, rows, epochs=2, checkpoint_dir=tmp_path, **settings)
    again = ft.fit(base, rows, epochs=3, checkpoint_dir=tmp_path, resume=True, **settings)
    assert again.history["epoch"].max() == pytest.approx(3)
    lora = ft.fit(base, rows, method=ft.MultiTask(TASKS, trainable=ft.LoRA(rank=2)), epochs=1,
                  quiet=True)
    assert ft.extract_task_head(ft.merge(lora.model), TASKS, "pets").labels == TASKS["pets"]


@pytest.mark.parametrize("make", [tiny.decoder, tiny.seq2seq])
def test_language_models_are_told_the_task_by_a_prefix(make):
    columns = ("source", "target") if make is tiny.seq2seq else ("prompt", "response")
    parts = {"films": datasets.Dataset.from_dict(
                 {columns[0]: ["the film was good"] * 8, columns[1]: ["good"] * 8}),
             "pets": datasets.Dataset.from_dict(
                 {columns[0]: ["the film was good"] * 8, columns[1]: ["cat"] * 8})}
    rows = ft.temperature_sampling(parts)
    assert {text.split(":")[0] for text in rows[columns[0]]} == set(parts)
    base = make()
    run = ft.fit(base, rows, method=ft.MultiTask(TASKS), epochs=80, learning_rate=5e-3, quiet=True)
    losses = [ft.evaluate(model, rows)["loss"].value for model in (base, run.model)]
    # Only the prefix tells which answer is right; without it, one bit a word would remain.
    assert losses[1] < 0.25 < losses[0]


def test_mistakes_are_named():
    parts = {"films": films(4), "pets": pets(6)}
    with pytest.raises(ft.SettingError, match="joint_labels"):
        ft.MultiTask(TASKS).apply(tiny.encoder())
    with pytest.raises(ft.SettingError, match="regression"):
        ft.MultiTask(TASKS).apply(tiny.encoder("regression"))
    with pytest.raises(ft.SettingError, match="not those of the tasks"):
        ft.share_label_init(tiny.encoder(), TASKS)
    with pytest.raises(ft.SettingError, match="films, pets"):
        ft.extract_task_head(joint("encoder"), TASKS, "music")
    with pytest.raises(ft.SettingError, match="not those of the tasks"):
        ft.extract_task_head(tiny.encoder(), TASKS, "films")
    with pytest.raises(ft.DataError, match="music"):
        ft.temperature_sampling({"music": films(4)}, TASKS)
    with pytest.raises(ft.DataError, match="no rows"):
        ft.temperature_sampling(parts | {"pets": pets(0)}, TASKS)
    with pytest.raises(ft.SettingError, match="temperature=0.5"):
        ft.temperature_sampling(parts, TASKS, temperature=0.5)
    with pytest.raises(ft.SettingError, match="list of names"):
        ft.joint_labels({"films": "bad"})
