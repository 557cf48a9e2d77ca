"""Capitals of countries, states and regions, a list written for the course."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._tables import own_table

ENTRY = DataEntry(
    title="Capitals of countries, states and regions",
    licence="Apache-2.0 (this kit)",
)
# The prompt of the course: two examples, then the question.
_PROMPT = {"France": "train", "Germany": "train", "Portugal": "test"}


def source() -> Source:
    # examples for a prompt are few; the rest is for asking
    return Source(_read, "qa", ("question",), near=False, fractions=(0.25, 0.1, 0.65))


def _read() -> Rows:
    places = own_table("capitals.csv")
    return [
        {
            "question": f"What's the capital of {place}?",
            "answers": capital.split("|"),
            "kind": kind,
            "group": place,
            "split": _PROMPT.get(place),
            "first": place in _PROMPT,
        }
        for place, capital, kind in zip(places.place, places.capital, places.kind, strict=True)
    ]
