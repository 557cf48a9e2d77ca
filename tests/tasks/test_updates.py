"""Without these, splitting a batch for lack of memory would train another model."""

import pytest
import tiny
import torch
from works import WORKS, apart, train, weights

from ftkit.speed.logits_to_keep import at_labels
from ftkit.tasks import updates
from ftkit.tasks.batching import Collator

SPLIT = dict(per_device_train_batch_size=2, gradient_accumulation_steps=4)


@pytest.mark.parametrize("work", WORKS)
def test_an_update_does_not_depend_on_how_its_batch_was_split(work):
    start = weights(train(work, learning_rate=0.0))
    whole = weights(train(work))
    assert (whole - start).norm() > 1e-4
    assert apart(whole, weights(train(work, **SPLIT)), start) < 1e-5


@pytest.mark.parametrize("form", ["mask", "positions"])
@pytest.mark.parametrize("real", [-2, 0, 1, 3, 4])
def test_rows_that_only_fill_a_batch_leave_it_with_their_labels(form, real):
    collate, words = Collator(tiny.decoder()), [[5, 6, 7, 8], [9, 10, 11], [5, 6], [7, 8, 9, 10]]
    rows = [{"input_ids": row, "labels": [-100, *row[1:]]} for row in words]
    batch = {**at_labels(collate(rows), form), updates.COUNT: 9}
    left = updates.without_fillers(batch, 4, real)
    wanted = sum(len(row) - 1 for row in words[: max(real, 0)])
    assert updates.supervised("causal-lm", left) == wanted
    assert len(left["input_ids"]) == len(left["attention_mask"]) == max(1, real)
    if real > 0:
        net = tiny.decoder().net
        given = {k: v for k, v in left.items() if k != updates.COUNT}
        width = left["input_ids"].shape[1]
        alone = {k: v[:, :width] for k, v in collate(rows[:real]).items()}
        torch.testing.assert_close(net(**given).loss, net(**alone).loss)


@pytest.mark.parametrize("work", ["full, tagging", "full, answers", "distill, answers",
                                  "mixup, classes"])
def test_so_it_is_with_adamw_over_several_epochs(work):
    settings = dict(optim="adamw_torch", learning_rate=1e-3, epochs=3, n=16)
    whole = train(work, **settings).model.net.state_dict()
    split = train(work, **settings, **SPLIT).model.net.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(split[name], tensor, atol=1e-5, rtol=1e-5)
