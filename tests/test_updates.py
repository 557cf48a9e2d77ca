"""Without these, splitting a batch for lack of memory would train another model."""

import pytest
from works import WORKS, apart, train, weights

SPLIT = dict(per_device_train_batch_size=2, gradient_accumulation_steps=4)


@pytest.mark.parametrize("work", WORKS)
def test_an_update_does_not_depend_on_how_its_batch_was_split(work):
    start = weights(train(work, learning_rate=0.0))
    whole = weights(train(work))
    assert (whole - start).norm() > 1e-4
    assert apart(whole, weights(train(work, **SPLIT)), start) < 1e-5
