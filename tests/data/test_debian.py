"""Package descriptions from apt's lists: read where there are any, and missed by nobody."""

import pytest

from ftkit.data import recipe
from ftkit.errors import DataError, SettingError

debian = recipe.module("debian_descriptions")
PACKAGES = """Package: cat-tools
Source: cats (1.0)
Version: 1.0

Package: dog
Version: 2
"""
ENGLISH = """Package: cat-tools
Description-md5: aa
Description-en: tools for cats of every kind
 These tools open tins and
 doors.
 .
 They are free. They are small.

Package: dog
Description-md5: bb
Description-en: a good dog program
 It barks.
"""
FRENCH = """Package: cat-tools
Description-md5: aa
Description-fr: outils pour chats de toute sorte
 Ces outils ouvrent les boîtes
 et les portes.
 .
 Ils sont libres. Ils sont petits.

Package: dog
Description-md5: of an older text
Description-fr: un vieux programme
"""


@pytest.fixture
def lists(monkeypatch):
    texts = {("Packages", ""): PACKAGES, ("Translations", "en"): ENGLISH,
             ("Translations", "fr"): FRENCH, ("Translations", "de"): ""}
    monkeypatch.setattr(debian, "apt_lists", lambda kind, language="": texts[kind, language])


def test_synopses_and_paragraphs_of_one_sentence_are_paired(lists):
    """A translation of an older text, and paragraphs of several sentences, are left out."""
    assert debian.source("fr").read() == [
        {"source": "tools for cats of every kind", "target": "outils pour chats de toute sorte",
         "package": "cat-tools", "group": "cats"},
        {"source": "These tools open tins and doors.",
         "target": "Ces outils ouvrent les boîtes et les portes.",
         "package": "cat-tools", "group": "cats"},
    ]


def test_a_first_paragraph_comes_down_to_its_synopsis(lists):
    rows = debian.source("synopsis").read()
    assert [(row["source"], row["target"], row["group"]) for row in rows] == [
        ("These tools open tins and doors.", "tools for cats of every kind", "cats")]


def test_what_is_missing_is_said_with_the_command_that_fetches_it(lists, monkeypatch):
    with pytest.raises(DataError, match="no descriptions in 'de'.*Acquire::Languages=fr,de,en"):
        debian.source("de").read()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="there is no apt on this machine.*No lesson does"):
        debian.source("fr").read()
    with pytest.raises(SettingError, match="form='it'"):
        debian.source("it")
