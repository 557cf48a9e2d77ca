"""A user who freezes layers trains what the lesson says, and nothing below it moves."""

from pathlib import Path

import pytest
import tiny
import torch

import ftkit as ft
from ftkit import notebook as nb

LESSON = Path(__file__).parents[1] / "notebooks" / "07_freezing.ipynb"


def from_lesson(name):
    """A function as the lesson defines it."""
    found = {}
    for _, cell in nb.code_cells(nb.read(LESSON)):
        if f"def {name}(" in nb.source(cell):
            exec(nb.source(cell), found)
    return found[name]


@pytest.mark.skipif(not LESSON.exists(), reason="its lesson is still to come")
@pytest.mark.parametrize("top", [0, 1, 3])
def test_the_lessons_own_code_trains_the_same_weights(top):
    mine, kit = tiny.encoder(), tiny.encoder()
    from_lesson("freeze_below")(mine.net, top)
    ft.Freeze(top=top).apply(kit)
    by_hand, by_kit = ({n for n, p in m.net.named_parameters() if p.requires_grad}
                       for m in (mine, kit))
    assert by_hand == by_kit and "classifier.weight" in by_kit
    ids = torch.randint(5, 40, (3, 7))
    for model in (mine, kit):
        model.net(ids).logits.square().sum().backward()
    for one, two in zip(mine.net.parameters(), kit.net.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad)
