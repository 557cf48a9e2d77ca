"""What is there before a training is left out when garbage is collected, and comes back after."""

import gc
from contextlib import nullcontext

import pytest

from ftkit.training.measure import only_new_garbage


@pytest.fixture
def thawed():
    """Nothing is left out, as in a user's process; the tests' own state comes back after."""
    frozen = gc.get_freeze_count() > 5000
    gc.unfreeze()
    yield
    if frozen:
        gc.collect()
        gc.freeze()


def a_circle():
    circle = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize("error", [None, ValueError])
def test_old_objects_are_left_out_until_the_block_ends(thawed, error):
    gc.collect()
    before = gc.get_freeze_count()
    with pytest.raises(error) if error else nullcontext():
        with only_new_garbage():
            assert gc.get_freeze_count() > 5000
            a_circle()
            assert gc.collect() >= 1  # what the block itself leaves is found
            if error:
                raise error
    assert gc.get_freeze_count() <= before


def test_a_block_leaves_alone_what_a_user_has_frozen(thawed):
    gc.freeze()
    with only_new_garbage():
        pass
    assert gc.get_freeze_count() > 5000
