"""The names of emoji in English and in thirteen other languages (Unicode CLDR)."""

from __future__ import annotations

import json

from ftkit.assets.fetch import read_member
from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import normalized

from ._archives import EMOJI
from ._options import one_of

LANGUAGES = ("fr", "de", "es", "it", "pt", "ar", "fa", "id", "ja", "ko", "ru", "tr", "zh")
ENTRY = DataEntry(
    title="Names of emoji in English and thirteen other languages",
    licence="Unicode-3.0 (the names; archive: BSD-3-Clause)",
    link="https://cldr.unicode.org",
    archives=(EMOJI,),
    forms=tuple({"language": language} for language in LANGUAGES),
)
_QUALIFIED = 2  # the status of an emoji as it is to be written
# An emoji of a man, a woman and a person has one name but for these words.
_WHO = set("man men woman women person people boy girl boys girls child adult facing right".split())


def source(language: str = "fr") -> Source:
    one_of("language", language, LANGUAGES)
    return Source(
        lambda: _read(language), "pairs", ("source",), near=False, fractions=(0.7, 0.1, 0.2)
    )


def _read(language: str) -> Rows:
    names, other = (
        json.loads(read_member(EMOJI, f"emoji/unicode_codes/emoji{ending}.json"))
        for ending in ("", f"_{language}")
    )
    rows = []
    for emoji, facts in names.items():
        english = _words(facts["en"])
        if facts["status"] != _QUALIFIED or "skin tone" in english or emoji not in other:
            continue
        who = [word for word in normalized(english).split() if word not in _WHO]
        rows.append({
            "source": english, "target": _words(other[emoji]), "emoji": emoji,
            "group": " ".join(who) or english,
        })
    return rows


def _words(name: str) -> str:
    return " ".join(name.strip(":").replace("_", " ").split())
