"""Texts of a program by what they are for; those to train on with paraphrases and translations."""

from __future__ import annotations

from collections.abc import Iterable

from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import deduplicate, normalized, split_of

from ._archives import HOMEASSISTANT
from ._tables import own_table
from .homeassistant import sentences

ENTRY = DataEntry(
    title="Texts of a program: error, step, field or action? Some in other words, too",
    licence="Apache-2.0 (its authors and translators; other words: this kit)",
    link="https://www.home-assistant.io",
    archives=(HOMEASSISTANT,),
)
LABELS = ("error", "step", "field", "action")
FRACTIONS = (0.35, 0.2, 0.45)
SHARED = 0.5  # of the words of two texts: a held-out text may not be so near to a training text
WORDS = (5, 24)  # the fewest and the most of a text
OWN = ("paraphrase", "other_paraphrase", "back_translation")


def source() -> Source:
    return Source(
        _read, "classification", ("text",), linked=("text",), labels=LABELS, fractions=FRACTIONS
    )


def _read() -> Rows:
    written = own_table("interface_texts.csv").set_index("text")
    rows = []
    for row in texts(written[list(OWN)].to_numpy().flatten()):
        own = dict.fromkeys(OWN, "")
        if row["text"] in written.index:
            own = {column: written.loc[row["text"], column] for column in OWN}
        rows.append(row | own | {"first": row["text"] in written.index})
    return rows


def texts(written: Iterable[str] = ()) -> Rows:
    """Return the texts with their kinds; held-out ones only where they are far from training.

    written: what else is trained on.
    """
    rows = []
    for row in sentences("fr"):
        kind = _kind(row["key"].split("/"))
        if kind and WORDS[0] <= len(row["source"].split()) <= WORDS[1]:
            rows.append({"text": row["source"], "label": LABELS.index(kind),
                         "french": row["target"], "key": row["key"], "group": row["group"]})
    rows = [rows[i] for i in deduplicate([row["text"] for row in rows])]
    bags = [set(normalized(row["text"]).split()) for row in rows]
    trained = [split_of(row["group"], FRACTIONS) == "train" for row in rows]
    known = [bag for bag, train in zip(bags, trained, strict=True) if train]
    known += [set(normalized(text).split()) for text in written]
    return [
        row for row, bag, train in zip(rows, bags, trained, strict=True)
        if train or not any(len(bag & other) >= SHARED * len(bag | other) for other in known)
    ]


def _kind(path: list[str]) -> str | None:
    """Return what a text is for, going by its key; None for those of other kinds."""
    part, last = path[0], path[-1]
    if part == "exceptions" or path[1:2] in (["error"], ["abort"]):
        return "error"
    if part in ("config", "options") and path[1:2] == ["step"]:
        if path[3:4] in (["data"], ["data_description"]):
            return "field"
        return "step" if len(path) == 4 and last == "description" else None
    if part == "services" and last == "description":
        return "field" if "fields" in path else "action"
    return None
