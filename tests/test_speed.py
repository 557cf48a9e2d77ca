"""What lesson 20 teaches in plain code is what the package does."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from lessons import from_lesson

from ftkit.models import structure
from ftkit.speed.logits_to_keep import LogitsToKeep
from ftkit.tasks.batching import LengthGroupedSampler


@pytest.mark.parametrize("tied", [True, False])
def test_the_lessons_loss_is_that_of_the_package_and_of_the_library(tied):
    net = tiny.decoder(tie_word_embeddings=tied).net
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    labels = ids.masked_fill(mask == 0, structure.IGNORED)
    labels[:, :3] = structure.IGNORED
    mine = from_lesson("20", "label_only_loss")(net, ids, mask, labels)
    library = net(input_ids=ids, attention_mask=mask, labels=labels).loss
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    package = net(**LogitsToKeep(dict, net)(batch)).loss
    torch.testing.assert_close(mine, library, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(package, library, rtol=1e-5, atol=1e-6)


def test_the_lessons_order_has_each_text_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(3, 90, 203)
    similar, padding = from_lesson("20", "similar", "padding", lengths=lengths,
                                   size=SimpleNamespace(batch=8))
    rng = np.random.default_rng(1)
    first, second = similar(rng), similar(rng)
    assert sorted(first) == sorted(second) == list(range(203)) and list(first) != list(second)
    assert padding(first) < 0.1 < padding(rng.permutation(203))
    assert padding(np.array(list(LengthGroupedSampler(lengths, 8)))) < 0.1
