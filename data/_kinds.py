"""Kinds of request: what each is asked of, its right answer, and how it may be worded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of request: what it is asked of, the right answer, and how it may be worded.

    The last wording is for testing alone, the one before it for validation. A kind `kept` for a
    split is in no other one.
    """

    texts: tuple[str, ...]
    answer: Callable[[dict], str]
    wordings: tuple[str, ...]
    kept: str = ""


def _patient(*keys: str) -> Callable[[dict], str]:
    return lambda row: json.dumps({key: row["patient"][key] for key in keys})


def _person(first: str, last: str) -> Callable[[dict], str]:
    return lambda row: json.dumps(dict(zip((first, last), _words(row), strict=True)))


def _wrapped(before: str, after: str, *wordings: str, kept: str = "") -> Kind:
    """A kind that puts marks around a text: the first wordings are the same for all marks."""
    both = "{0} and {1}" if before != after else "two {0}"
    common = [
        f"Put this between {both}", f"Surround the text with {both}",
        "Write {0} in front of this and {1} after it",
    ]
    worded = [wording.format(before, after) for wording in common]
    return Kind(_SHORT, lambda row: f"{before}{row['text']}{after}", (*worded, *wordings), kept)


def _marked(prefix: str, *wordings: str, kept: str = "") -> Kind:
    """A kind that puts a mark in front of a text."""
    common = [
        f"Put {prefix} in front of this", f"Begin with {prefix} and then repeat the text",
        f"Write {prefix} and then the text",
    ]
    return Kind(_SHORT, lambda row: f"{prefix} {row['text']}", (*common, *wordings), kept)


def _words(row: dict) -> list[str]:
    return row["text"].split()


_SHORT = ("headline", "review")
KINDS = {
    "quotes": _wrapped(
        '"', '"', "Quote the text", "Write it as a quotation", "Give it back as a quotation"),
    "bold": _wrapped(
        "<b>", "</b>", "Make the text bold in HTML", "Format this as bold HTML",
        "Turn it into bold type for a web page"),
    "stars": _wrapped(
        "**", "**", "Make the text bold in Markdown", "Format this as bold Markdown",
        "Give it back in bold type, as Markdown"),
    "square": _wrapped(
        "[", "]", "Add square brackets around it", "Enclose this in square brackets",
        "Give it back in square brackets"),
    "paragraph": _wrapped(
        "<p>", "</p>", "Make this an HTML paragraph", "Format the text as a paragraph in HTML",
        "Turn it into a paragraph for a web page"),
    "underscores": _wrapped(
        "_", "_", "Put an underscore on both sides", "Enclose this in underscores",
        "Give it back with an underscore at each end"),
    "note": _marked(
        "NOTE:", "Mark this as a note with NOTE:", "Add the prefix NOTE:",
        "Give it back labelled NOTE:"),
    "heading": _marked(
        "#", "Make this a heading in Markdown with #", "Add the prefix #",
        "Turn it into a heading that begins with #"),
    "arrow": _marked(
        "->", "Mark this with ->", "Add the prefix ->",
        "Give it back as a line that begins with ->"),
    "first word": Kind(_SHORT, lambda row: _words(row)[0], (
        "Give the first word",
        "What is the first word?",
        "Copy only the word at the beginning",
        "Which word does this begin with?",
        "Write down the opening word",
        "Reply with nothing but the word that comes first",
    )),
    "first three words": Kind(_SHORT, lambda row: " ".join(_words(row)[:3]), (
        "Give the first three words",
        "What are the first three words?",
        "Copy only the three words at the beginning",
        "Which three words does this begin with?",
        "Write down the opening three words",
        "Reply with nothing but the three words that come first",
    )),
    "sentiment": Kind(("review",), lambda row: row["sentiment"], (
        "Is this review positive or negative?",
        "Does the critic like the film? Answer positive or negative",
        "Label the sentiment as positive or negative",
        "positive or negative?",
        "Say whether the verdict is positive or negative",
        "Classify the opinion: positive or negative",
    )),
    "source": Kind(("headline", "review", "case"), lambda row: _SOURCE[row["of"]], (
        "Is this about news, film or medicine?",
        "Label the topic as news, film or medicine",
        "Choose the subject: news, film or medicine",
        "news, film or medicine?",
        "Where does it come from: news, film or medicine?",
        "Sort this into one of: news, film, medicine",
    )),
    "film": Kind(("headline", "review", "case"), lambda row: _yes(row["of"] == "review"), (
        "Is this about a film? Answer yes or no",
        "Does this speak of a film, yes or no?",
        "Is it a film review? yes or no",
        "film: yes or no?",
        "Say yes if this is about a film, else no",
        "yes or no: does it discuss a film?",
    )),
    "patient": Kind(("case",), _patient("age", "unit", "sex"), (
        'Extract the patient as JSON with the keys "age", "unit" and "sex"',
        "Give age, unit and sex of the patient as JSON",
        'Return JSON with "age", "unit" and "sex"',
        "Describe the patient in JSON: age, unit, sex",
        'Fill in this JSON for the patient: {"age": …, "unit": …, "sex": …}',
        "Which age, unit and sex has the patient? Answer as JSON",
    )),
    "sex and age as JSON": Kind(("case",), _patient("sex", "age"), (
        'Extract the patient as JSON with the keys "sex" and "age"',
        "Give sex and age of the patient as JSON",
        'Return JSON with "sex" and "age"',
        "Describe the patient in JSON: sex, age",
        'Fill in this JSON for the patient: {"sex": …, "age": …}',
        "Which sex and age has the patient? Answer as JSON",
    )),
    "sex as JSON": Kind(("case",), _patient("sex"), (
        'Extract the patient as JSON with the key "sex"',
        "Give the sex of the patient as JSON",
        'Return JSON with "sex"',
        "Describe the patient in JSON: sex",
        'Fill in this JSON for the patient: {"sex": …}',
        "Which sex has the patient? Answer as JSON",
    )),
    "name as JSON": Kind(("name",), _person("first", "last"), (
        'Extract the name as JSON with the keys "first" and "last"',
        "Give the first and the last name as JSON: first, last",
        'Return JSON with "first" and "last"',
        "Describe the name in JSON: first, last",
        'Fill in this JSON for the person: {"first": …, "last": …}',
        'What is this person called? Answer as JSON with "first" and "last"',
    )),
    "age": Kind(("case",), lambda row: f"{row['patient']['age']} {row['patient']['unit']}", (
        "How old is the patient?",
        "Give the age of the patient",
        "What is the patient's age?",
        "Copy only the age",
        "State how old this patient is",
        "Reply with the age and nothing else",
    )),
    "sex": Kind(("case",), lambda row: row["patient"]["sex"], (
        "Is the patient male or female?",
        "Give the sex of the patient",
        "What is the patient's sex?",
        "male or female?",
        "State whether the patient is male or female",
        "Reply with the sex and nothing else",
    )),
    "index": Kind(("name",), lambda row: "{1}, {0}".format(*_words(row)), (
        "Write this name as in an index, last name first",
        "Put the last name first, then a comma",
        "Turn the name round for an index",
        "Last name, first name",
        "Write the name as a phone book does",
        "Give the name in the order of a list of references",
    )),
    "initials": Kind(("name",), lambda row: " ".join(f"{w[0]}." for w in _words(row)), (
        "Give the initials",
        "What are the initials of this person?",
        "Shorten the name to its initials",
        "Write only the initials",
        "Abbreviate both names to one letter each",
        "Which letters does this person sign with?",
    )),
    "first name": Kind(("name",), lambda row: _words(row)[0], (
        "Give the first name",
        "What is the first name of this person?",
        "Copy only the first name",
        "Leave out the last name",
        "Write down the given name",
        "Reply with what friends would call this person",
    )),
    # kinds that nothing is trained on
    "curly": _wrapped("{{", "}}", kept="validation"),
    "tip": _marked("TIP:", kept="validation"),
    "given name as JSON": Kind(("name",), _person("given", "family"), (
        'Extract the name as JSON with the keys "given" and "family"',
        'Return JSON with "given" and "family"',
    ), kept="validation"),
    "headline": Kind(_SHORT, lambda row: _yes(row["of"] == "headline"), (
        "Is this a headline of the news? Answer yes or no",
        "Does this come from the news, yes or no?",
    ), kept="validation"),
    "brackets": _wrapped("(", ")", kept="test"),
    "italics": _wrapped("<i>", "</i>", kept="test"),
    "warning": _marked("WARNING:", kept="test"),
    "first two words": Kind(_SHORT, lambda row: " ".join(_words(row)[:2]), (
        "Give the first two words",
        "Copy only the two words at the beginning",
    ), kept="test"),
    "medicine": Kind(("headline", "case"), lambda row: _yes(row["of"] == "case"), (
        "Is this about medicine? Answer yes or no",
        "Does this speak of a patient, yes or no?",
    ), kept="test"),
    "age as JSON": Kind(("case",), _patient("age", "unit"), (
        'Extract the patient as JSON with the keys "age" and "unit"',
        'Return JSON with "age" and "unit"',
    ), kept="test"),
    "last name": Kind(("name",), lambda row: _words(row)[1], (
        "Give the last name",
        "Copy only the family name",
    ), kept="test"),
}
_SOURCE = {"headline": "news", "review": "film", "case": "medicine"}


def _yes(true: bool) -> str:
    return "yes" if true else "no"
