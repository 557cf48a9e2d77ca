"""Tagged tweets and names of emoji: what is in them, and what stays together."""

import unicodedata

import pytest

from ftkit.data import recipe
from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS
from ftkit.errors import SettingError
from ftkit.tasks.tagging import entities

ritter, emoji = recipe.module("ritter_ner"), recipe.module("emoji_names")


def test_the_tweets_are_those_of_ritter_and_others_by_their_counts():
    rows = ritter.source().read()
    found = [kind for row in rows for kind, _, _ in entities(row["tags"])]
    assert (len(rows), len(found)) == (2394, 1496)
    assert set(found) == set(ritter.TYPES)
    data = load_data("ritter-ner")
    assert data.task == "tagging" and data.labels == list(ritter.TAGS)
    for split in ("train", "test"):  # every type can be learned and measured
        assert {kind for row in data[split] for kind, _, _ in entities(
            [data.labels[tag] if isinstance(tag, int) else tag for tag in row["tags"]]
        )} == set(ritter.TYPES)


@pytest.mark.parametrize("language", emoji.LANGUAGES)
def test_a_name_stands_for_its_emoji_in_every_language(language):
    data = load_data("emoji-names", language=language)
    rows = {row["emoji"]: row for split in SPLITS for row in data[split]}
    assert len(rows) > 1500 and rows["🐱"]["source"] == "cat face"
    assert not [row for row in rows.values() if "_" in row["target"] or ":" in row["target"][:1]]
    expected = {"ar": "ARABIC", "fa": "ARABIC", "ja": "", "ko": "HANGUL", "ru": "CYRILLIC",
                "zh": "CJK"}.get(language, "LATIN")
    assert unicodedata.name(rows["🐱"]["target"][0]).startswith(expected)


def test_men_and_women_who_do_the_same_are_in_one_split():
    data = load_data("emoji-names")
    where = {row["source"]: split for split in SPLITS for row in data[split]}
    assert where["man running"] == where["woman running"] == where["person running"]


def test_a_language_that_is_not_there_says_which_are():
    with pytest.raises(SettingError, match="language='nl': expected one of 'fr', 'de'"):
        load_data("emoji-names", language="nl")
