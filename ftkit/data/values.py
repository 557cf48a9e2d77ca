"""Brings a user's values to the kinds that a task reads, and says what it changed."""

from __future__ import annotations

import ast
import json
import math
import warnings

from ftkit.data.conll import check_tagged
from ftkit.data.files import Columns
from ftkit.errors import DataError, DataWarning

MORE = ("text_pair", "input", "group")  # columns that a task reads where they are there
_TEXTS = {"text", "text_pair", "input", "question", "instruction", "output", "source", "target",
          "response", "prompt", "chosen", "rejected"}


def say(note: str, notes: list[str]) -> None:
    """Warn of something that was read otherwise than it is written, or looks like a mistake."""
    notes.append(note)
    warnings.warn(note, DataWarning, stacklevel=2)


def is_empty(value) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or value == [] or isinstance(value, str) and not value.strip()


def typed(columns: Columns, wanted: tuple[str, ...], task: str, source: str,
          notes: list[str]) -> Columns:
    """Return the columns with values as the task needs them. wanted: columns that it must have."""
    found = dict(columns)
    needed = {*wanted, *MORE}
    for column, values in columns.items():
        if column == "group":
            found[column] = groups_of(values, source, notes)
        elif column == "label" and task == "classification":
            found[column] = _labels(values, source, notes)
        elif column == "label" and task == "regression":
            found[column] = [as_number(value, f"{source}, row {i}")
                             for i, value in enumerate(values, 1)]
        elif column in needed & _TEXTS:
            found[column] = _texts(values, column, source, notes)
        elif column not in wanted:
            found[column] = _as_it_is(values)
    if task == "tagging":
        found |= {name: [_words(value) for value in found[name]] for name in ("tokens", "tags")}
        for i, (tokens, tags) in enumerate(zip(found["tokens"], found["tags"], strict=True), 1):
            check_tagged(tokens, tags, f"{source}, row {i}")
        found["tokens"] = [[_clean(str(word)) for word in words] for words in found["tokens"]]
        found["tags"] = [[str(tag).strip() for tag in tags] for tags in found["tags"]]
    if task == "choice":
        _check_choices(found, source)
    return found


def _words(value):
    """Return the words or tags of a sentence; in a table they are a text, or a list in a text."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return ast.literal_eval(value.strip())
        except (SyntaxError, ValueError):
            pass
    return value.split()


def _texts(values: list, column: str, source: str, notes: list[str]) -> list:
    """Return texts; numbers are written out, None stays None where it may be missing."""
    found: list[str | list[dict] | None] = []
    changed = 0
    for i, value in enumerate(values, 1):
        if isinstance(value, dict | bytes) or (isinstance(value, list) and column != "prompt"):
            raise DataError(f"{source}, row {i}: {column} is {short(value)}, a "
                            f"{type(value).__name__}; a text was expected. Conversations belong "
                            "into messages=, words with tags into tokens=.")
        if isinstance(value, list):  # the turns of a conversation
            found.append([{k: _clean(v) for k, v in turn.items()} for turn in value])
            continue
        text = None if is_empty(value) and not isinstance(value, str) else _clean(str(value))
        changed += isinstance(value, str) and text != value
        found.append(text)
    if changed:
        say(f"{source}: {changed} values of {column!r} hold halves of a character (lone "
            "surrogates), which no tokenizer can read; U+FFFD stands in their place.", notes)
    return found


def _clean(text: str) -> str:
    """Return the text with U+FFFD for what is no character: JSON may hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _labels(values: list, source: str, notes: list[str]) -> list[str]:
    found, changed = [], []
    for i, value in enumerate(values, 1):
        if isinstance(value, list | dict | bytes):
            raise DataError(f"{source}, row {i}: the label is {short(value)}, a "
                            f"{type(value).__name__}; expected one class for each row.")
        label = _clean(str(value).strip())
        if label != str(value):
            changed.append(str(value))
        found.append(label)
    if changed:
        say(f"{source}: blanks around {len(changed)} labels were taken off, such as "
            f"{listed(dict.fromkeys(changed))}.", notes)
    return found


def groups_of(values: list, source: str, notes: list[str]) -> list[str]:
    """Return the groups as texts; a row without one is a group of its own."""
    empty = [i for i, value in enumerate(values) if is_empty(value)]
    if empty:
        say(f"{source}: {len(empty)} of {len(values)} rows have no group (first: row "
            f"{empty[0] + 1}); each of them counts as a group of its own.", notes)
    alone = set(empty)
    return [f"row {i + 1} alone" if i in alone else _clean(str(value))
            for i, value in enumerate(values)]


def _check_choices(columns: Columns, source: str) -> None:
    for i, (choices, answer) in enumerate(
        zip(columns["choices"], columns["answer"], strict=True), 1
    ):
        good = isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
        if not good or not isinstance(answer, int) or not 0 <= answer < len(choices):
            raise DataError(f"{source}, row {i}: choices are {short(choices)} and the answer is "
                            f"{answer!r}; expected a list of texts, and the number of the right "
                            "one, from 0.")


def _as_it_is(values: list) -> list:
    """Return a column that no task reads: as it is, or as text where it has several types."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and all(abs(v) < 2**53 for v in values if isinstance(v, int)):
        return values if len(kinds) < 2 else [None if v is None else float(v) for v in values]
    if kinds == {bool}:
        return values
    if kinds == {list}:
        inner = {type(part) for value in values if value for part in value}
        if len(inner) <= 1 and inner <= {str, int, float, bool}:
            return values
    return [None if value is None else _clean(value) if isinstance(value, str)
            else json.dumps(value, default=str, ensure_ascii=False)
            if isinstance(value, list | dict) else str(value) for value in values]


def as_number(value, where: str) -> float:
    """Return a regression's label as a number; raise DataError where it is none, or not finite."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        point = " Write decimals with a point." if "," in str(value) else ""
        raise DataError(f"{where}: the label {value!r} is no finite number, as regression "
                        f"needs.{point}")
    return found


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def listed(names, most: int = 6) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more

