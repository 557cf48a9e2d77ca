"""Without these, fit would train on nothing, or on something else than was asked, in silence."""

import numpy as np
import pytest
import tiny
import torch
import transformers
from datasets import Dataset
from works import base, columns, other

import ftkit as ft
from ftkit.errors import SettingError
from ftkit.tasks import updates


def long_prompts(sizes):
    return Dataset.from_dict({"prompt": ["the film was good " * n for n in sizes],
                              "response": [" a warm plot and music"] * len(sizes)})


def test_data_of_which_no_answer_is_left_is_refused():
    said = r"nothing is left.*8 of 8 answers were cut.*longest \d+ of 16"
    with pytest.raises(ft.DataError, match=said):
        ft.fit(tiny.decoder(), long_prompts([20] * 8), max_length=16, quiet=True)
    with pytest.raises(ft.DataError, match="two tokens"):
        ft.fit(tiny.decoder(), Dataset.from_dict({"text": ["the"] * 4}), quiet=True)


def test_what_was_cut_is_said(capsys):
    sizes = [1] * 5 + [3, 20]
    ft.fit(tiny.decoder(), long_prompts(sizes), max_length=16, epochs=1)
    said = capsys.readouterr().out
    whole = len(tiny.tokenizer()(long_prompts(sizes)[6]["prompt"])["input_ids"])
    whole += len(tiny.tokenizer()(" a warm plot and music")["input_ids"]) + 1
    assert f"train: 2 of 7 answers were cut, 1 lost whole; longest {whole} of 16 tokens" in said
    assert "max_length" in said and "truncation_side" in said
    model = tiny.decoder()
    model.tokenizer.truncation_side = "left"
    ft.fit(model, long_prompts(sizes), max_length=16, epochs=1)
    assert "2 of 7 prompts were cut and no answer" in capsys.readouterr().out
    ft.fit(tiny.encoder(), tiny.reviews(6)["train"], max_length=3, epochs=1)
    said = capsys.readouterr().out
    assert "train: 6 of 6 texts were cut; longest 4 of 3 tokens" in said
    ft.fit(tiny.encoder(), tiny.reviews(6)["train"], epochs=1)
    assert "cut" not in capsys.readouterr().out


def test_a_prompt_cut_from_the_left_keeps_its_answer():
    model = tiny.decoder()
    model.tokenizer.truncation_side = "left"
    from ftkit.tasks.batching import encode

    row = encode(long_prompts([20]), model, max_length=12).rows[0]
    answer = [*model.tokenizer(" a warm plot and music")["input_ids"], 2]
    assert len(row["input_ids"]) == 12 and row["input_ids"][-len(answer):] == answer
    assert [label for label in row["labels"] if label != -100] == answer


@pytest.mark.parametrize("rate", [1e38, 1e30])
def test_a_loss_that_is_no_number_stops_the_training_with_the_remedy(rate):
    with pytest.raises(ft.Diverged, match="rate is too high") as error:
        ft.fit(tiny.encoder(), tiny.reviews(16), epochs=6, batch_size=8, learning_rate=rate,
               warmup=0, quiet=True)
    assert f"learning rate {rate:g}" in str(error.value)
    with pytest.raises(ft.Diverged, match="weight became nan"):
        ft.fit(tiny.encoder(), tiny.reviews(8)["train"], epochs=1, batch_size=8, warmup=0,
               learning_rate=float("1e38"), weight_decay=10.0, quiet=True)


def test_the_range_of_rates_shows_where_it_diverges():
    rates, losses = ft.rate_range(tiny.encoder(), tiny.reviews(16)["train"], low=1e-3, high=1e30,
                                  updates=12, batch_size=8)
    assert rates.shape == losses.shape == (12,)
    assert np.isnan(losses[-1]) and np.isfinite(losses[:3]).all()
    assert not (losses == 0).any()


@pytest.mark.parametrize(("given", "words"), [
    ({"epochs": "3"}, "epochs='3'.*number above 0"), ({"epochs": 0}, "epochs=0"),
    ({"batch_size": 2.5}, "batch_size=2.5.*whole"), ({"learning_rate": "1e-3"}, "learning_rate"),
    ({"learning_rate": float("nan")}, "learning_rate=nan"), ({"max_length": 0}, "max_length=0"),
    ({"patience": "2"}, "patience='2'"), ({"seed": 1.5}, "seed=1.5"), ({"warmup": -1}, "warmup=-1"),
    ({"method": "lora"}, r"method='lora' is no method.*ft\.LoRA\(\)"),
    ({"method": ft.LoRA}, r"method=LoRA is the class.*ft\.LoRA\(\)"),
    ({"method": 3}, "method=3 is no method"), ({"method": ""}, "method='' is no method"),
])
def test_settings_that_cannot_be_meant_get_a_sentence(given, words):
    with pytest.raises(ft.SettingError, match=words):
        ft.fit(tiny.encoder(), tiny.reviews(8), quiet=True, **given)


@pytest.mark.parametrize("asked", [{"save_strategy": "epoch"}, {"resume": True},
                                   {"load_best_model_at_end": True}, {"output_dir": "x"}])
def test_checkpoints_that_nobody_would_find_are_refused(asked):
    with pytest.raises(ft.SettingError, match=f"{next(iter(asked))}.*checkpoint_dir="):
        ft.fit(tiny.encoder(), tiny.reviews(8), quiet=True, **asked)


def test_a_network_is_as_it_was_after_an_evaluation_that_failed():
    model = tiny.encoder()
    model.net.train()
    model.net.classifier.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ft.evaluate(model, tiny.reviews(4)["test"])
    assert model.net.training


@pytest.mark.parametrize(("passed", "updates"), [
    ({"max_steps": 5}, 5), ({"num_train_epochs": 2}, 12), ({"per_device_train_batch_size": 4}, 36),
    ({"gradient_accumulation_steps": 2}, 9), ({"dataloader_drop_last": True}, 15),
])
def test_what_passes_through_decides_the_updates_and_the_warm_up(passed, updates, capsys):
    rates = []

    class Look(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer=None, **_):
            rates.append(optimizer.param_groups[0]["lr"])
            assert state.max_steps == updates

    ft.fit(tiny.encoder(), tiny.reviews(46)["train"], epochs=3, batch_size=8, learning_rate=1e-3,
           warmup=0.5, schedule="constant_with_warmup", callbacks=[Look()], **passed)
    assert f"{updates} updates" in capsys.readouterr().out
    steps = int(0.5 * updates)
    wanted = [min(1.0, i / steps) * 1e-3 for i in range(updates)]
    np.testing.assert_allclose(rates, wanted)


LABELLED = ["classification", "tagging", "choice", "masked-lm", "causal-lm", "pairs", "seq2seq-lm"]
SETTINGS = dict(epochs=1, batch_size=8, learning_rate=0.05, optim="sgd", dtype="float32",
                quiet=True)


@pytest.mark.parametrize("task", LABELLED)
def test_smoothed_labels_are_learned_by_every_task(task):
    """The gradient of label smoothing, against the library's own smoother where it has one."""
    moved, start = {}, base(task)
    for smoothing in (0.0, 0.3):
        found = []
        for split in ({}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}):
            run = ft.fit(start, columns(task), label_smoothing_factor=smoothing, **SETTINGS | split)
            found.append(torch.cat([p.flatten() for p in run.model.net.parameters()]).detach())
        torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)
        moved[smoothing] = found[0]
    assert (moved[0.0] - moved[0.3]).abs().max() > 1e-5


def test_smoothing_is_that_of_the_library():
    logits, labels = torch.randn(4, 6, 9), torch.randint(9, (4, 6))
    labels[:, :2] = -100
    library = transformers.trainer_pt_utils.LabelSmoother(0.2)
    for task, shift in (("tagging", False), ("causal-lm", True)):
        kept, target = (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)
        plain = torch.nn.functional.cross_entropy(kept.flatten(0, 1), target.flatten())
        torch.testing.assert_close(
            updates.smoothed(task, {"logits": logits}, labels, 0.2, plain),
            library({"logits": logits}, labels, shift_labels=shift))


@pytest.mark.parametrize("task", [*LABELLED, "regression"])
def test_a_loss_of_the_callers_is_the_one_that_is_learned(task):
    calls = []

    def double(outputs, labels, num_items_in_batch=None):
        calls.append(float(num_items_in_batch))
        logits = outputs["logits"]
        if task == "regression":
            return 2 * (logits.squeeze(-1) - labels).square().sum() / num_items_in_batch
        if task in ("causal-lm", "pairs"):
            logits, labels = logits[:, :-1], labels[:, 1:]
        classes = logits.shape[-1]
        return 2 * torch.nn.functional.cross_entropy(
            logits.reshape(-1, classes), labels.reshape(-1), reduction="sum") / num_items_in_batch

    def moved(**more):
        run = ft.fit(base(task), columns(task), **SETTINGS, max_grad_norm=0, **more)
        return torch.cat([p.flatten() for p in run.model.net.parameters()]).detach()

    split = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    own = moved(compute_loss_func=double, **split)
    assert len(calls) == 2 and calls[0] == calls[1]
    start = torch.cat([p.flatten() for p in base(task).net.parameters()]).detach()
    torch.testing.assert_close(own - start, 2 * (moved() - start), atol=1e-6, rtol=1e-4)


def test_a_loss_that_nothing_would_learn_from_is_refused():
    data = columns("joint")
    tasks = {"films": ["bad", "good"], "pets": ["cat", "dog", "neither"]}
    for method in (
        ft.Mixup(),
        ft.Reinforce(torch.eq),
        ft.Distill(other("classification"), alpha=1),
    ):
        for asked in ({"label_smoothing_factor": 0.1}, {"compute_loss_func": print}):
            with pytest.raises(ft.SettingError, match=f"{next(iter(asked))} would do nothing"):
                ft.fit(base("classification"), columns("classification"), method=method,
                       quiet=True, **asked)
    with pytest.raises(ft.SettingError, match="would do nothing"):
        ft.fit(base("joint"), data, method=ft.MultiTask(tasks), label_smoothing_factor=0.1)
    with pytest.raises(ft.SettingError, match="regression, which has none"):
        ft.fit(base("regression"), columns("regression"), label_smoothing_factor=0.1)
    with pytest.raises(ft.SettingError, match="both given"):
        ft.fit(base("joint"), data, label_smoothing_factor=0.1, compute_loss_func=print)
    with pytest.raises(ft.SettingError, match="each batch has one"):
        ft.fit(base("classification"), columns("classification"), method=ft.Mixup(), batch_size=1,
               quiet=True)


@pytest.mark.parametrize("task", ["tagging", "masked-lm", "pairs", "seq2seq-lm", "regression"])
def test_the_validation_loss_is_a_mean_over_the_whole_split(task):
    data = {"train": columns(task), "validation": columns(task, 7)}
    still, losses = SETTINGS | {"learning_rate": 0.0}, []
    for size in (1, 3, 7):
        run = ft.fit(base(task), data, per_device_eval_batch_size=size, **still)
        losses.append(run.metrics["eval_loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
    if task in ("masked-lm", "pairs", "seq2seq-lm"):
        found = ft.evaluate(base(task), data["validation"])["loss"].value
        assert losses[0] == pytest.approx(found, rel=1e-2 if task == "masked-lm" else 1e-3)


@pytest.mark.parametrize("method", [ft.Full(), ft.Freeze(unfreeze_last=1), ft.Mixup()])
def test_the_base_under_an_adapter_is_not_trained_since_saving_would_lose_it(tmp_path, method):
    rows = tiny.reviews(8)
    base = ft.load_model(tiny.encoder().save(tmp_path / "base"))
    tuned = ft.fit(base, rows, method=ft.LoRA(), epochs=1, quiet=True).model
    with pytest.raises(SettingError, match="saved without its base.*ft.merge"):
        ft.fit(tuned, rows, method=method, epochs=1, quiet=True)
    ft.fit(ft.merge(tuned), rows, method=method, epochs=1, quiet=True)
