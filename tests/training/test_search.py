"""Without these, a range test could name the wrong rate, or a search never give a trial up."""

import numpy as np
import optuna
import pytest
import tiny
import torch
import transformers
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.usefixtures("float32")
def test_the_lessons_range_test_finds_the_same_losses():
    base, data = tiny.encoder(), tiny.reviews(8)["train"]
    rates, losses = ft.rate_range(base, data, updates=6, batch_size=8, low=1e-4, high=0.1)
    tokens = base.tokenizer(data["text"][:], padding=True, return_tensors="pt")
    whole = {k: tokens[k] for k in ("input_ids", "attention_mask")}
    whole["labels"] = torch.tensor(data["label"][:])  # all texts in one batch: no order to differ
    by_hand = from_lesson("16", "range_test")(base.copy().net, [whole] * 6, low=1e-4, high=0.1)
    np.testing.assert_allclose(rates, by_hand[0])
    np.testing.assert_allclose(losses, by_hand[1], rtol=1e-3)
    assert rates[0] == pytest.approx(1e-4) and rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["decoder", "seq2seq"])
def test_a_range_test_of_a_language_model_leaves_it_as_it_is(kind):
    base = getattr(tiny, kind)()
    pairs = {"source": ["the cat", "a dog"] * 4, "target": ["dog", "cat"] * 4}
    texts = {"prompt": pairs["source"], "response": pairs["target"]}
    before = base.hash()
    data = Dataset.from_dict(pairs if kind == "seq2seq" else texts)
    rates, losses = ft.rate_range(
        base, data, updates=5, batch_size=4, method=ft.Freeze(unfreeze_last=1)
    )
    assert len(rates) == len(losses) == 5 and np.isfinite(losses).all()
    assert base.hash() == before


def test_lower_blocks_keep_their_share_of_the_climbing_rate():
    seen = []

    class Rates(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **_):
            seen.append(sorted({group["lr"] for group in optimizer.param_groups}))

    ft.rate_range(tiny.encoder(), tiny.reviews(8)["train"], updates=2, batch_size=8, low=0.1,
                  high=0.2, method=ft.Full(layerwise_lr_decay=0.5), callbacks=[Rates()])
    ratio = np.array(seen[0]) / seen[0][-1]
    assert len(ratio) > 2 and ratio[-2] == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [{"low": 0}, {"low": 2}, {"updates": 1}])
def test_a_range_that_is_none_is_named(wrong):
    with pytest.raises(ft.SettingError, match="low"):
        ft.rate_range(tiny.encoder(), tiny.reviews(8)["train"], **wrong)


def searched(prune):
    """Three trials, the last with a rate of nothing, judged by what `prune` makes of a trial."""
    data = tiny.reviews(16)

    def objective(trial):
        rate = [1e-2, 1e-2, 1e-9][trial.number]
        run = ft.fit(tiny.encoder(), {"train": data["train"], "validation": data["validation"]},
                     learning_rate=rate, epochs=4, batch_size=8, quiet=True,
                     callbacks=[prune(trial)])
        return run.metrics["eval_loss"]

    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    study.optimize(objective, n_trials=3)
    return [(trial.state.name, trial.intermediate_values) for trial in study.trials]


def test_a_hopeless_trial_is_given_up_as_by_the_lessons_callback():
    by_hand = from_lesson("16", "PruneByHand")
    kit = searched(ft.Prune)
    assert kit == searched(lambda trial: by_hand(trial, "eval_loss"))
    assert [state for state, _ in kit] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert list(kit[0][1]) == [1, 2, 3, 4] and len(kit[2][1]) < 4


def test_a_metric_that_was_not_measured_is_named():
    with pytest.raises(ft.SettingError, match="eval_accuracy.*eval_loss"):
        searched(lambda trial: ft.Prune(trial, "eval_accuracy"))


def test_a_study_goes_on_from_its_file(tmp_path):
    stored = {"study_name": "x", "storage": f"sqlite:///{tmp_path}/trials.db"}
    optuna.create_study(**stored).optimize(lambda t: t.suggest_float("a", 0, 1), n_trials=2)
    study = optuna.load_study(**stored)
    study.optimize(lambda t: t.suggest_float("a", 0, 1), n_trials=1)
    assert len(study.trials) == 3
