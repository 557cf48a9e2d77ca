"""Without this, a training would end for lack of memory, or learn from other updates than said."""

import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit.speed import batch_size


@pytest.fixture
def small_card(monkeypatch):
    """A pretended card: more than `room` texts at a time do not fit."""

    def make(room):
        real = batch_size._used

        def used(trainer, texts, taken):
            found = real(trainer, texts, taken)
            return found if len(texts) <= room else None

        monkeypatch.setattr(batch_size, "_used", used)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**30, 2**31))

    return make


def trainer_of(model, data, size):
    """A Trainer as fit makes it, caught before it trains."""
    import ftkit.training.fit as training

    caught = {}

    def stop(tuned, trainer, plan, **_):
        caught.update(trainer=trainer)
        raise KeyError("caught")

    real = training.apply.applied
    training.apply.applied = stop
    try:
        with pytest.raises(KeyError, match="caught"):
            ft.fit(model, data, batch_size=size, quiet=True)
    finally:
        training.apply.applied = real
    return caught["trainer"]


def test_a_batch_that_does_not_fit_is_split_evenly_and_nothing_is_left_behind(small_card):
    small_card(5)
    data = Dataset.from_dict({"text": ["a cat", "the film was good", "bad plot"] * 4})
    trainer = trainer_of(tiny.decoder(), data, 12)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    state = torch.random.get_rng_state()
    said = batch_size.fit_batch(trainer, trainer.train_dataset)
    assert trainer.args.per_device_train_batch_size == 4
    assert trainer.args.gradient_accumulation_steps == 3
    assert "3 batches of 4" in said
    assert trainer.args.per_device_eval_batch_size <= 4, "validation has no more room"
    assert torch.equal(torch.random.get_rng_state(), state)
    for parameter, was in zip(trainer.model.parameters(), before, strict=True):
        assert parameter.grad is None and torch.equal(parameter, was)


def test_a_batch_that_fits_stays_whole(small_card):
    small_card(100)
    data = Dataset.from_dict({"text": ["a cat", "the film was good"] * 4})
    trainer = trainer_of(tiny.decoder(), data, 8)
    assert batch_size.fit_batch(trainer, trainer.train_dataset) == ""
    assert trainer.args.per_device_train_batch_size == 8


def test_a_text_that_does_not_fit_by_itself_is_an_error_with_remedies(small_card):
    small_card(0)
    data = Dataset.from_dict({"text": ["a cat", "the film was good"] * 4})
    trainer = trainer_of(tiny.decoder(), data, 4)
    with pytest.raises(ft.SettingError, match="1.0 of 2.0 GiB are free.*LoRA.*max_length"):
        batch_size.fit_batch(trainer, trainer.train_dataset)


def test_a_batch_is_split_into_equal_parts():
    assert batch_size.divisors(12) == [12, 6, 4, 3, 2, 1] and batch_size.divisors(7) == [7, 1]
