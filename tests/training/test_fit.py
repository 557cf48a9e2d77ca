"""Without these, fit could train the wrong weights, forget its best, or not resume."""

import numpy as np
import pytest
import tiny
import torch
import transformers
from datasets import Dataset

import ftkit as ft
from ftkit.errors import DataError, SettingError
from ftkit.models import peak
from ftkit.speed import feature_cache
from ftkit.speed.optimizations import OPTIMIZATIONS
from ftkit.tasks import batching


def weights(model):
    return {n: p.detach().clone() for n, p in model.net.named_parameters()}


@pytest.mark.usefixtures("each_precision")
def test_training_learns_and_leaves_the_base_alone():
    data, base = tiny.reviews(), tiny.encoder()
    before = base.hash()
    run = ft.fit(base, data, epochs=4, learning_rate=3e-3, batch_size=8, quiet=True)
    assert base.hash() == before != run.model.hash()
    after = ft.evaluate(run.model, data["test"])
    assert after["accuracy"].value > 0.9
    losses = run.history["loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    assert not run.model.net.training
    assert all(p.grad is None for p in run.model.net.parameters())


@pytest.mark.parametrize(
    "method", [ft.Full(), ft.Freeze(unfreeze_last=1), ft.Freeze(), ft.LoRA(rank=2)]
)
def test_only_what_the_method_names_changes(method):
    base = tiny.encoder()
    wanted = method.apply(base.copy())
    trained = {n for n, p in wanted.net.named_parameters() if p.requires_grad}
    run = ft.fit(base, tiny.reviews(16), method=method, epochs=1, learning_rate=1e-2, quiet=True)
    start = weights(wanted)
    for name, weight in weights(run.model).items():
        if name not in trained:
            assert torch.equal(weight, start[name]), name
    assert run.trainable["trained"] == sum(start[n].numel() for n in trained)


def test_the_older_name_of_activation_checkpointing_is_obeyed():
    """What fit plans itself has the newer name, beside which the library passes the older over."""
    run = ft.fit(tiny.encoder(), tiny.reviews(16), max_steps=1, quiet=True,
                 gradient_checkpointing=True)
    assert run.settings["activation_checkpointing"] is True


def test_the_same_seed_gives_the_same_weights():
    def train(seed):
        return ft.fit(
            tiny.encoder(),
            tiny.reviews(16),
            method=ft.LoRA(rank=2),
            epochs=1,
            seed=seed,
            quiet=True,
        ).model.hash()

    assert train(3) == train(3) != train(4)


@pytest.mark.parametrize(
    "method", [ft.Full(), ft.LoRA(rank=2, dropout=0.2), ft.Freeze(unfreeze_last=1)]
)
def test_the_first_training_of_a_process_draws_what_the_next_one_draws(method):
    base, data = tiny.encoder(), tiny.reviews(16)
    for module in base.net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2

    def train():
        run = ft.fit(base, data, method=method, epochs=2, batch_size=4, quiet=True)
        return run.model.hash(), *run.history["loss"].dropna()

    peak.rough_peak.cache_clear()
    feature_cache.clear()
    assert train() == train()


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (tiny.decoder(), {"text": ["the film was good"] * 8}),
        (tiny.decoder(), {"prompt": ["the film was"] * 8, "response": [" good"] * 8}),
        (
            tiny.decoder("gpt2"),
            {"instruction": ["say"] * 8, "input": ["cat"] * 8, "output": ["dog"] * 8},
        ),
        (tiny.decoder("gemma2"), {"text": ["the film was good"] * 8}),
        (tiny.seq2seq(), {"source": ["the cat"] * 8, "target": ["the dog"] * 8}),
        (tiny.encoder("masked-lm"), {"text": ["the film was good and not so bad at all"] * 8}),
        (tiny.encoder("regression"), {"text": ["good", "bad"] * 4, "label": [1.0, 0.0] * 4}),
        (
            tiny.encoder("tagging", ("O", "B-X")),
            {"tokens": [["cat", "was"]] * 8, "tags": [["B-X", "O"]] * 8},
        ),
        (
            tiny.encoder("choice"),
            {
                "question": ["cat", "dog"] * 4,
                "choices": [["good", "bad"]] * 8,
                "answer": [0, 1] * 4,
            },
        ),
    ],
)
def test_every_task_trains_and_is_evaluated(model, columns):
    data = Dataset.from_dict(columns)
    run = ft.fit(
        model,
        {"train": data, "validation": data},
        epochs=6,
        learning_rate=3e-3,
        batch_size=4,
        quiet=True,
    )
    found = run.history["eval_loss"].dropna()
    assert found.iloc[-1] < found.iloc[0]
    assert np.isfinite([e.value for e in ft.evaluate(run.model, data).metrics.values()]).all()


def test_the_validation_loss_is_that_of_evaluate():
    data = Dataset.from_dict(
        {"text": ["the film was good", "a cat", "dull dull dull dog and cat"] * 4}
    )
    run = ft.fit(
        tiny.decoder(),
        {"train": data, "validation": data},
        epochs=1,
        quiet=True,
        per_device_eval_batch_size=12,
    )
    assert run.metrics["eval_loss"] == pytest.approx(
        ft.evaluate(run.model, data)["loss"].value, rel=1e-4
    )


def test_early_stopping_goes_back_to_the_best_weights():
    data = tiny.reviews(24)  # what it learns here is wrong there
    data["validation"] = data["validation"].map(lambda row: {"label": 1 - row["label"]})
    run = ft.fit(
        tiny.encoder(), data, epochs=12, learning_rate=5e-3, batch_size=8, patience=2, quiet=True
    )
    losses = run.history["eval_loss"].dropna()
    assert len(losses) < 12, "it should have stopped"
    kept = ft.evaluate(run.model, data["validation"])["loss"].value
    assert kept == pytest.approx(losses.min(), rel=1e-3)
    with pytest.raises(SettingError, match="patience=1"):
        ft.fit(tiny.encoder(), data["train"], patience=1)


@pytest.mark.usefixtures("each_precision")
def test_a_stopped_training_resumes_to_the_same_end(tmp_path):
    data = tiny.reviews(16)
    settings = dict(epochs=4, learning_rate=1e-3, batch_size=8, quiet=True)
    whole = ft.fit(tiny.encoder(), data, **settings)

    class Stop(transformers.TrainerCallback):
        def on_epoch_end(self, args, state, control, **_):
            control.should_training_stop = state.epoch >= 2

    ft.fit(tiny.encoder(), data, checkpoint_dir=tmp_path / "c", callbacks=[Stop()], **settings)
    resumed = ft.fit(tiny.encoder(), data, checkpoint_dir=tmp_path / "c", resume=True, **settings)
    torch.testing.assert_close(weights(resumed.model), weights(whole.model))
    assert list((tmp_path / "c").glob("checkpoint-*/model.safetensors"))


@pytest.mark.usefixtures("float32")
def test_accumulated_gradients_equal_a_larger_batch():
    data = Dataset.from_dict(
        {"text": ["the film was good", "a cat and a dog", "so very dull plot"] * 4}
    )
    # Plain steps: AdamW would hide a gradient that is too large or too small by a factor.
    settings = dict(epochs=1, quiet=True, learning_rate=0.1, optim="sgd", dtype="float32")
    one = ft.fit(tiny.decoder(), data, batch_size=12, **settings)
    two = ft.fit(tiny.decoder(), data, batch_size=3, gradient_accumulation_steps=4, **settings)
    torch.testing.assert_close(weights(one.model), weights(two.model), rtol=1e-5, atol=1e-6)


def test_what_trainer_takes_passes_through():
    seen = []

    def compute(prediction):
        seen.append(prediction.predictions.shape)
        return {"share": 1.0}

    run = ft.fit(
        tiny.encoder(),
        tiny.reviews(16),
        epochs=9,
        max_steps=2,
        weight_decay=0.3,
        compute_metrics=compute,
        eval_strategy="steps",
        eval_steps=1,
        quiet=True,
    )
    assert run.history["step"].max() == 2
    assert run.settings["weight_decay"] == 0.3
    assert seen == [(16, 2), (16, 2)]


def test_bad_input_is_explained():
    data = tiny.reviews(8)
    with pytest.raises(SettingError, match="did you mean 'learning_rate'"):
        ft.fit(tiny.encoder(), data, lerning_rate=1)
    with pytest.raises(DataError, match="'train'; the data has test"):
        ft.fit(tiny.encoder(), {"test": data["test"]})
    with pytest.raises(DataError, match="'label' is missing"):
        ft.fit(tiny.encoder(), data["train"].remove_columns("label"))
    with pytest.raises(DataError, match="no rows"):
        ft.fit(tiny.encoder(), data["train"].select([]))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", OPTIMIZATIONS)
def test_what_makes_it_fast_can_be_left_off_by_name(name, monkeypatch):
    words = "cat dog film plot music good bad warm".split()
    data = Dataset.from_dict({"text": [" ".join(words[: 2 + i % 6]) for i in range(16)]})
    settings = dict(
        method=ft.Freeze(unfreeze_last=1), epochs=1, batch_size=4, learning_rate=1e-2, quiet=True
    )
    drawn = []
    collate = batching.Collator.__call__
    monkeypatch.setattr(batching.Collator, "__call__",
                        lambda self, rows: drawn.append(rows) or collate(self, rows))
    fast = ft.fit(tiny.decoder(), data, **settings)
    widths = [[len(row["input_ids"]) for row in rows] for rows in drawn]
    drawn.clear()
    slow = ft.fit(tiny.decoder(), data, disable=name, **settings)
    other = [[len(row["input_ids"]) for row in rows] for rows in drawn]
    assert sorted(sum(other, [])) == sorted(sum(widths, []))
    if name == "group_by_length":
        spread = [sum(max(batch) - min(batch) for batch in found) for found in (widths, other)]
        assert spread[0] < spread[1]
    else:
        assert other == widths
        torch.testing.assert_close(weights(fast.model), weights(slow.model), rtol=1e-3, atol=1e-5)


def test_a_name_that_nothing_has_cannot_be_left_off():
    with pytest.raises(SettingError, match="disable='magic' names nothing"):
        ft.fit(tiny.encoder(), tiny.reviews(8), disable="magic")


def test_a_run_is_recorded_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_RUNS", str(tmp_path))
    run = ft.fit(tiny.encoder(), tiny.reviews(8), epochs=1, quiet=True, name="mine")
    table = ft.runs()
    assert len(table) == 1
    row = table.iloc[0]
    assert row["name"] == "mine" and row["trainable.trained"] == run.trainable["trained"]
    assert row["versions.torch"] == torch.__version__.split("+")[0] or row["versions.torch"]
    assert row["settings.seed"] == 0 and row["peak_memory"] > 0
    assert (run.folder / "history.jsonl").exists()
    text = (run.folder / "run.json").read_text()
    assert str(tmp_path) not in text and "ftkit-" not in text, "a record must not carry paths"


def test_a_full_record_folder_does_not_lose_the_run(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("FTKIT_RUNS", str(blocked))
    with pytest.warns(UserWarning, match="FTKIT_RUNS"):
        run = ft.fit(tiny.encoder(), tiny.reviews(8), epochs=1, quiet=True)
    assert run.folder is None
    assert run.model.hash()


def test_a_run_whose_model_was_let_go_still_tells_what_it_took():
    run = ft.fit(tiny.encoder(), tiny.reviews(8), epochs=1, quiet=True)
    run.model = None
    assert repr(run).startswith("trained 41,218 of 41,218") and "model" not in run._repr_html_()
