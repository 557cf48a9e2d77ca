"""Without these, a paraphrase could stand beside a wrong text, or give a test text away."""

from collections import Counter

import pytest

from ftkit.data.load import load_data
from ftkit.data.recipe import module
from ftkit.data.splits import normalized

recipe = module("interface_texts")


@pytest.fixture(scope="module")
def data():
    return load_data("interface-texts")


def words(text):
    return set(normalized(text).split())


def test_forty_texts_of_each_label_have_other_words_and_come_first(data):
    own = [row for row in data["train"] if row["paraphrase"]]
    assert len(own) == 160 and set(Counter(row["label"] for row in own).values()) == {40}
    assert data["train"]["paraphrase"][:160] == [row["paraphrase"] for row in own]
    for row in own:
        said = [row["text"], *(row[column] for column in recipe.OWN)]
        assert len({normalized(text) for text in said}) == 4, "each says it in a way of its own"
    for split in ("validation", "test"):
        assert not any(data[split]["paraphrase"])


def test_no_held_out_text_shares_half_of_its_words_with_what_is_trained_on(data):
    trained = [words(text) for column in ("text", *recipe.OWN)
               for text in data["train"][column] if text]
    for split in ("validation", "test"):
        for text in data[split]["text"]:
            bag = words(text)
            assert not any(len(bag & other) >= len(bag | other) / 2 for other in trained), text


@pytest.mark.parametrize(("key", "label"), [
    ("config/error/cannot_connect", "error"), ("options/abort/no_devices", "error"),
    ("exceptions/not_found/message", "error"), ("config/step/user/description", "step"),
    ("config/step/user/data/host", "field"), ("config/step/user/data_description/host", "field"),
    ("services/turn_on/fields/level/description", "field"),
    ("services/turn_on/description", "action"), ("services/turn_on/name", None),
    ("config/step/user/title", None), ("entity/sensor/level/name", None),
])
def test_the_key_says_what_a_text_is_for(key, label):
    assert recipe._kind(key.split("/")) == label
