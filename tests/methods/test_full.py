"""A user who has read the loop of lesson 1 knows what `fit` does when it trains all weights."""

import numpy as np
import pytest
import tiny
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft

ROWS = Dataset.from_dict({
    "text": ["good film", "a dull plot", "great music and a warm cat", "the film was so bad",
             "not terrible", "very dull", "a great dog", "bad and dull and terrible"],
    "label": [1, 0, 1, 0, 1, 0, 1, 0],
})


@pytest.mark.usefixtures("float32")
def test_the_lessons_loop_trains_as_fit_does():
    base = tiny.encoder()
    train, _ = from_lesson("01", "train", "cross_entropy", base=base)
    net = base.copy().net
    by_hand = train(net, ROWS, ROWS, epochs=4, learning_rate=5e-3, batch_size=4)
    run = ft.fit(base, {"train": ROWS, "validation": ROWS}, epochs=4, learning_rate=5e-3,
                 batch_size=4, warmup=2, patience=4, train_sampling_strategy="sequential",
                 quiet=True)
    losses = run.history["eval_loss"].dropna()
    np.testing.assert_allclose([val for _, val in by_hand], losses, atol=1e-4)
    assert by_hand[-1][1] < by_hand[0][1] - 0.1
    for name, weight in run.model.net.state_dict().items():
        np.testing.assert_allclose(weight, net.state_dict()[name], atol=1e-4, err_msg=name)


@pytest.mark.usefixtures("float32")
def test_the_lessons_loop_keeps_the_best_weights():
    """Without that, a learner would use the weights of an overfitted last epoch."""
    base = tiny.encoder()
    train, cross_entropy = from_lesson("01", "train", "cross_entropy", base=base)
    net = base.copy().net
    wrong = Dataset.from_dict({**ROWS[:], "label": [1 - label for label in ROWS["label"]]})
    history = train(net, ROWS, wrong, epochs=6, learning_rate=5e-3, batch_size=4)
    losses = [val for _, val in history]
    assert losses[-1] > min(losses) + 0.1
    assert cross_entropy(net, wrong[:]).item() == pytest.approx(min(losses), abs=1e-5)


def test_raters_agree_with_the_mean_of_the_others():
    agreement, _ = from_lesson("01", "agreement", "sentiment")
    assert agreement([2, 2, 2, 2]) == 1
    assert agreement([2, 2, 2, -2]) == 0.75
    assert agreement([1, 0]) == 0  # each against the other one
