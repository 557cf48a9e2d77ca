"""Sentences of a home automation program in English and three other languages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ftkit.assets.fetch import open_archive
from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import deduplicate, normalized, split_of

from ._archives import HOMEASSISTANT
from ._options import in_range, one_of

LANGUAGES = ("fr", "de", "es")
ENTRY = DataEntry(
    title="Sentences of a home automation program, English to French, German or Spanish",
    licence="Apache-2.0 (its authors and translators)",
    link="https://www.home-assistant.io",
    archives=(HOMEASSISTANT,),
    forms=tuple({"language": language} for language in LANGUAGES),
)
FRACTIONS = (0.7, 0.1, 0.2)
SHARED = 0.5  # of the words of two sentences
_FILE = re.compile(r"homeassistant/components/([^/]+)/translations/([a-z]+)\.json")
_MARKUP = re.compile(r"[{}\[\]<>`*%|\n]|https?:")


def source(language: str = "fr", words: int = 5) -> Source:
    one_of("language", language, LANGUAGES)
    in_range("words", words, 1, 20)
    return Source(
        lambda: _read(language, words), "pairs", ("source",), linked=("source",),
        fractions=FRACTIONS,
    )


def _read(language: str, words: int) -> Rows:
    rows = [row for row in sentences(language) if len(row["source"].split()) >= words]
    return _far_from_training(rows)


def sentences(language: str) -> Rows:
    """Return a row for each text of the program that is translated and has nothing to fill in."""
    texts: dict[tuple[str, str], dict] = {}
    with open_archive(HOMEASSISTANT) as archive:
        for member in sorted(archive.namelist()):
            found = _FILE.fullmatch(member)
            if found and found[2] in ("en", language):
                texts[found[1], found[2]] = dict(_flat(json.loads(archive.read(member))))
    rows = []
    for (integration, code), english in texts.items():
        other = texts.get((integration, language), {}) if code == "en" else {}
        for key in english.keys() & other.keys():
            source, target = english[key].strip(), other[key].strip()
            if source and target and source != target and not _MARKUP.search(source + target):
                rows.append({
                    "source": source, "target": target, "kind": key.split("/")[0], "key": key,
                    "group": integration,
                })
    return sorted(rows, key=lambda row: (row["group"], row["key"]))


def _flat(tree: dict, above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        path = f"{above}/{key}" if above else key
        if isinstance(value, dict):
            yield from _flat(value, path)
        elif isinstance(value, str):
            yield path, value


def _far_from_training(rows: Rows) -> Rows:
    """Leave out rows of validation and test that share half of their words with one of train.

    Programs say the same in few words and the near-duplicates that differ in one of five words are
    not found by runs of three.
    """
    rows = [rows[i] for i in deduplicate([row["source"] for row in rows])]
    with_word: dict[str, list[int]] = {}
    bags = [set(normalized(row["source"]).split()) for row in rows]
    held_out = [split_of(row["group"], FRACTIONS) != "train" for row in rows]
    for number, bag in enumerate(bags):
        for word in bag if not held_out[number] else ():
            with_word.setdefault(word, []).append(number)

    def near(bag: set[str]) -> bool:
        shared: dict[int, int] = {}
        for word in bag:
            for other in with_word.get(word, ()):
                shared[other] = shared.get(other, 0) + 1
        return any(
            count >= SHARED * (len(bag) + len(bags[other]) - count)
            for other, count in shared.items()
        )

    return [
        row for row, bag, out in zip(rows, bags, held_out, strict=True) if not (out and near(bag))
    ]
