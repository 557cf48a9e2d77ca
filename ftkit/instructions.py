"""Makes instruction records (kind, instruction, input, output) from real strings and terms."""

from __future__ import annotations

import json
import re

from ftkit import phenotypes
from ftkit.fetch import open_archive
from ftkit.phenotypes import Term, named_definitions
from ftkit.splits import normalized, order, split_of

TRANSLATE = "Translate English to French"
NAME = "Give the medical term for this definition"
EXTRACT = "Extract the finding that is present and the one that is absent as JSON"

# The record that the course takes as its example; it comes first in every draw.
EXAMPLE = {
    "kind": "translate",
    "instruction": TRANSLATE,
    "input": "I love programming.",
    "output": "J'adore programmer.",
}

# {p} is the finding that is present, {a} the one that is absent.
_SENTENCES = (
    "Examination shows {p}; {a} is ruled out.",
    "The patient has {p} but no {a}.",
    "No {a}. There is {p}.",
    "{P} was noted at the first visit, without {a}.",
    "Negative for {a}, positive for {p}.",
    "The parents report {p} and deny {a}.",
    "{P}: yes. {A}: no.",
    "There is no sign of {a}, while {p} is evident.",
    "The child was referred for {p}; {a} was not found.",
    "{A} is absent and {p} is present.",
)
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
    """Return the records of all kinds; the course's example first."""
    terms = phenotypes.read_terms()
    group = normalized(EXAMPLE["input"])
    example = {**EXAMPLE, "group": group, "split": "train", "first": True}
    # a term is in the split it has in "phenotype-definitions"
    named = [{**row, "split": split_of(row["group"])} for row in naming(terms)]
    return [example, *translating(), *named, *extracting(terms)]


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
    return [
        {
            "kind": "name", "instruction": NAME,
            "input": term.definition, "output": term.name, "group": term.id,
        }
        for term in named_definitions(terms)
        if len(term.definition.split()) <= 30 and len(term.name.split()) <= 5
    ]


def extracting(terms: dict[str, Term]) -> list[dict]:
    """Return sentences written by code around two real findings, to be told apart as JSON.

    Both findings belong to the same split, so that no finding of a test sentence is trained on.
    """
    short = [
        term for term in phenotypes.findings(terms)
        if len(term.name.split()) <= 3 and term.definition
    ]
    by_split: dict[str, list[Term]] = {}
    for term in sorted(short, key=lambda term: order("extract", term.id)):
        by_split.setdefault(split_of(term.id), []).append(term)
    rows = []
    for split, members in by_split.items():
        for present, absent in zip(members[::2], members[1::2], strict=False):
            p, a = _spoken(present.name), _spoken(absent.name)
            number = int(order(present.id, absent.id), 16) % len(_SENTENCES)
            sentence = _SENTENCES[number].format(p=p, a=a, P=_capital(p), A=_capital(a))
            rows.append({
                "kind": "extract", "instruction": EXTRACT, "input": _capital(sentence),
                "output": json.dumps({"present": p, "absent": a}),
                "group": present.id, "split": split,
            })
    return rows


def _spoken(name: str) -> str:
    """Return a term as it stands inside a sentence; abbreviations and names keep their capital."""
    first = name.split()[0]
    return name if not first[1:].islower() else name[0].lower() + name[1:]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
