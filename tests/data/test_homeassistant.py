"""Translation pairs: integrations apart, held-out sentences unlike those of training."""

import pytest

from ftkit.data import recipe
from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS, normalized
from ftkit.errors import SettingError

home = recipe.module("homeassistant")


def bag(text):
    return set(normalized(text).split())


@pytest.mark.parametrize("language", home.LANGUAGES)
def test_no_held_out_sentence_has_half_its_words_in_common_with_training(language):
    """Else "Failed to connect to the printer" is half known from "… to the hub"."""
    data = load_data("homeassistant", language=language)
    trained = [bag(text) for text in data["train"]["source"][:]]
    for split in ("validation", "test"):
        for text in data[split]["source"][:150]:
            own = bag(text)
            assert max(len(own & other) / len(own | other) for other in trained) < 0.5


def test_an_integration_is_in_the_same_split_whatever_is_read():
    where = {}
    for options in ({"language": "fr"}, {"language": "de"}, {"language": "es"}, {"words": 3}):
        data = load_data("homeassistant", **options)
        for split in SPLITS:
            for group in data[split]["group"][:]:
                assert where.setdefault(group, split) == split


def test_pairs_are_sentences_that_were_translated():
    data = load_data("homeassistant")
    assert [len(data[split]) for split in SPLITS] == [1995, 188, 454]
    for row in data["test"]:
        assert len(row["source"].split()) >= 5 and row["source"] != row["target"]
        assert not set("{}[]<>`*%|\n") & set(row["source"] + row["target"])
    assert load_data("homeassistant", words=3).rows_read > data.rows_read


@pytest.mark.parametrize(("options", "words"), [
    ({"language": "it"}, "language='it': expected one of 'fr', 'de', 'es'"),
    ({"words": 0}, "words=0: expected a number from 1 to 20"),
])
def test_wrong_options_say_what_there_is(options, words):
    with pytest.raises(SettingError, match=words):
        load_data("homeassistant", **options)
