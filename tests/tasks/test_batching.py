"""Without these, padding or masking could leak into a loss, or an epoch skip an example."""

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.errors import DataError, SettingError
from ftkit.models.structure import IGNORED
from ftkit.tasks.batching import (
    Collator,
    LengthGroupedSampler,
    SameChoicesSampler,
    by_length,
    encode,
    pad,
)

TEXTS = st.lists(st.sampled_from(tiny.WORDS), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 99), max_size=9), min_size=1, max_size=8), st.booleans())
def test_padding_keeps_every_number_on_its_side(rows, left):
    if not any(rows):
        rows[0] = [1]
    out = pad(rows, 0, left=left)
    assert out.shape == (len(rows), max(map(len, rows)))
    for row, line in zip(rows, out.tolist(), strict=True):
        empty = [0] * (len(line) - len(row))
        assert line == (empty + row if left else row + empty)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=120), st.integers(1, 16), st.integers(0, 5)
)
def test_each_example_is_seen_once_an_epoch(lengths, batch_size, seed):
    sampler = LengthGroupedSampler(np.array(lengths), batch_size, seed)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert sorted(sampler) == list(range(len(lengths)))


def test_batches_come_in_random_order_and_hold_similar_lengths():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 100, size=800)
    sampler = LengthGroupedSampler(lengths, 8, seed=1)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = np.array(list(sampler)).reshape(-1, 8)
        orders.append(batches)
        means = lengths[batches].mean(1)
        assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.35
        trainable = lengths[batches].max(1) - lengths[batches].min(1)
        assert trainable.mean() < 5
    assert not np.array_equal(*orders)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=120), st.integers(0, 5))
def test_questions_with_the_same_choices_follow_each_other(families, seed):
    families = np.unique(families, return_inverse=True)[1]
    sampler = SameChoicesSampler(families, 16, seed)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(len(families)))
        changes = np.count_nonzero(np.diff(families[order]))
        assert changes == families.max()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=50), st.integers(1, 9))
def test_evaluation_batches_cover_everything_longest_first(lengths, size):
    class Rows:
        pass

    rows = Rows()
    rows.lengths = np.array(lengths)
    batches = by_length(rows, size)
    flat = [i for batch in batches for i in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert all(lengths[a] >= lengths[b] for a, b in zip(flat, flat[1:], strict=False))
    as_given = by_length(rows, size, sort=False)
    assert [i for batch in as_given for i in batch] == list(range(len(lengths)))
    assert [len(batch) for batch in as_given[:-1]] == [size] * (len(as_given) - 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_loss_is_on_the_response_and_its_end_alone(pairs):
    model = tiny.decoder()
    data = Dataset.from_dict({"prompt": [p for p, _ in pairs], "response": [r for _, r in pairs]})
    rows = encode(data, model)
    batch = Collator(model)(rows.rows)
    for i, (prompt, response) in enumerate(pairs):
        kept = batch["labels"][i] != IGNORED
        ids = batch["input_ids"][i][kept].tolist()
        assert model.tokenizer.decode(ids[:-1]) == response
        assert ids[-1] == model.tokenizer.eos_token_id
        assert not kept[: len(model.tokenizer(prompt)["input_ids"])].any()
        assert not (kept & (batch["attention_mask"][i] == 0)).any()
    everything = encode(data, model, loss_on="all").rows[0]
    assert everything["labels"] == everything["input_ids"]


def test_masked_words_are_hidden_as_the_paper_says():
    model = tiny.encoder("masked-lm")
    rows = encode(
        Dataset.from_dict({"text": ["the film was good and the plot not so bad " * 5] * 60}), model
    )
    collate = Collator(model, seed=3)
    batch = collate(rows.rows)
    chosen = batch["labels"] != IGNORED
    share = chosen.float().mean().item()
    assert 0.12 < share < 0.18
    hidden = (batch["input_ids"] == model.tokenizer.mask_token_id)[chosen].float().mean().item()
    assert 0.74 < hidden < 0.86
    original = pad([r["input_ids"] for r in rows.rows], 0)
    assert torch.equal(batch["labels"][chosen], original[chosen])
    assert torch.equal(batch["input_ids"][~chosen], original[~chosen])
    assert not torch.equal(collate(rows.rows)["labels"], batch["labels"]), "masks must be fresh"


def test_words_keep_their_tag_on_their_first_piece():
    model = tiny.encoder("tagging", ("O", "B-PER"))
    data = Dataset.from_dict({"tokens": [["Nadim", "was", "good"]], "tags": [["B-PER", "O", "O"]]})
    labels = encode(data, model).rows[0]["labels"]
    assert [x for x in labels if x != IGNORED] == [1, 0, 0]
    assert len(labels) > 3
    with pytest.raises(DataError, match="B-ORG"):
        encode(Dataset.from_dict({"tokens": [["x"]], "tags": [["B-ORG"]]}), model)


def test_an_encoder_decoders_answer_ends_though_its_tokenizer_does_not_end_it():
    model = tiny.seq2seq()
    end = model.tokenizer.eos_token_id
    data = Dataset.from_dict({"source": ["the cat", "a"], "target": ["the dog", "so so so so"]})
    rows = encode(data, model, max_length=3).rows
    assert all(row["labels"][-1] == end and row["labels"].count(end) == 1 for row in rows)
    assert len(rows[1]["labels"]) == 3


def test_choices_of_a_batch_are_encoded_once():
    model = tiny.encoder("choice")
    data = Dataset.from_dict(
        {
            "question": ["dog", "cat"],
            "choices": [["good", "bad"], ["bad", "good"]],
            "answer": [0, 1],
        }
    )
    batch = Collator(model)(encode(data, model).rows)
    assert len(batch["input_ids"]) == 4
    assert batch["index"].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("columns", "task", "says"),
    [
        ({"words": ["x"]}, "classification", "'text' is missing; the data has words"),
        ({"text": []}, "classification", "no rows"),
        ({"text": ["x"], "label": [5]}, "classification", "label 5"),
        ({"text": ["x", "y"], "label": [1, None]}, "classification", "row 1 has label None"),
        ({"text": ["x", "y"], "label": [0.5, None]}, "regression", "row 1 has label None"),
        ({"text": ["x"], "label": [float("inf")]}, "regression", "finite number in every row"),
        ({"text": ["x"], "label": ["high"]}, "regression", "label 'high'"),
        ({"words": ["x"]}, "seq2seq-lm", "source and target"),
        ({"words": ["x"]}, "causal-lm", "prompt and response"),
        ({"question": ["x"], "choices": [["a"]], "answer": [3]}, "choice", "answers 3 with 1"),
    ],
)
def test_data_that_does_not_fit_is_named(columns, task, says):
    writers = {"causal-lm": tiny.decoder, "seq2seq-lm": tiny.seq2seq}
    model = writers[task]() if task in writers else tiny.encoder(task)
    with pytest.raises(DataError, match=says):
        encode(Dataset.from_dict(columns), model)


def test_a_dict_of_splits_is_no_split():
    with pytest.raises(DataError, match="one split was expected"):
        encode(tiny.reviews(4), tiny.encoder())
    with pytest.raises(SettingError, match="'reply'"):
        encode(tiny.reviews(4)["test"], tiny.encoder(), loss_on="reply")
