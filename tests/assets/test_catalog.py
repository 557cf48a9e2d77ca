"""The catalog: every entry is whole, every card tells the truth, and wrong names get a hint."""

import re
import subprocess
import sys

import cards
import pytest

from ftkit.assets import catalog
from ftkit.data import recipe
from ftkit.errors import SettingError

ENTRIES = [*catalog.models(), *recipe.entries()]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entries_are_whole(entry):
    assert entry.title and entry.licence and entry.task
    assert all(name in recipe.archives() for name in entry.archives)
    assert catalog.find(entry.name, ENTRIES) is entry
    if entry.hub:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.hub)
        assert re.fullmatch(r"[0-9a-f]{40}", entry.revision), "a hub source is pinned to a commit"


def test_names_are_unique_and_every_card_has_a_recipe():
    names = [entry.name for entry in ENTRIES]
    assert len(names) == len(set(names))
    assert {path.stem for path in recipe.package_file("").glob("*.md")} == set(recipe.names())


def test_archives_are_pinned():
    for archive in recipe.archives().values():
        assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256) and archive.size > 0
        assert archive.filename.endswith(".whl" if archive.is_wheel else ".tar.gz")
        assert "==" in archive.requirement


@pytest.mark.parametrize(("typed", "meant"), [
    ("rotten-tomatos", "rotten-tomatoes"), ("minilm", "minilm-l6"), ("pubmed-qa", "pubmedqa"),
])
def test_unknown_name_suggests_the_nearest(typed, meant):
    with pytest.raises(SettingError, match=f"'{typed}' is not in .* Did you mean '{meant}'"):
        catalog.find(typed, ENTRIES)


def test_unknown_name_without_a_neighbour_lists_what_there_is():
    with pytest.raises(SettingError, match="Known names: boolq, capitals"):
        catalog.find("zzzz", ENTRIES)


@pytest.mark.parametrize("entry", recipe.entries(), ids=lambda entry: entry.name)
def test_card_facts_are_what_the_data_gives(entry):
    text = recipe.package_file(entry.card).read_text(encoding="utf-8")
    assert text == cards.rewritten(text, entry), "run `python tools/cards.py`"
    for heading in ("## Source", "## Columns and splits", "## Known defects",
                    "## Sensitive content"):
        assert heading in text
    assert "- Licence: " in text and "- Used in: " in text
    if entry.needs:
        assert f"- Needs: {entry.needs}" in text and "no lesson so far" in text
        return
    assert "In no split are rows" in text
    assert ("A row of train:" in text) != bool(entry.warning)


@pytest.mark.parametrize("entry", recipe.entries(), ids=lambda entry: entry.name)
def test_what_others_wrote_is_not_called_free_because_its_archive_is(entry):
    """A reader of `ftkit data` would take a publisher's text for free to use."""
    assert "(the archive)" not in entry.licence
    made_here = ("capitals", "customer-service", "instructions", "made-tags", "requests")
    assert entry.link.startswith("https://") or entry.name in made_here


def test_a_long_text_of_an_example_is_cut_and_a_lesson_is_found_by_its_code():
    assert cards._example({"a": "word " * 99, "b": [1, "é"]}).endswith('word …",\n "b": [1, "é"]}')
    assert "[lesson 2](../notebooks/" in cards._used_in("capitals")
    assert cards._used_in("no-such-data") == "no lesson so far"


def test_offensive_data_says_so():
    warned = {entry.name for entry in recipe.entries() if entry.warning}
    assert warned == {"crows-pairs", "stereoset", "toxicity"}


def test_catalog_fetch_and_recipes_are_light_to_import():
    """`ftkit --help` and `import ftkit` must not wait for heavy libraries."""
    script = (
        "import sys, ftkit.assets.fetch, ftkit.data.recipe as r; r.entries()\n"
        "print([name for name in ('torch', 'datasets', 'pandas', 'numpy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
