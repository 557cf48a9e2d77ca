"""Reads the texts with human ratings that came with VADER (Hutto and Gilbert 2014, "VADER")."""

from __future__ import annotations

import html
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from ftkit.assets.fetch import read_member

from ._archives import VADER

MEMBER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
# The film file is not among them: its texts stand in "rotten-tomatoes", letter for letter.
FILES = {
    "tweets": "tweets", "amazon": "amazonReviewSnippets", "editorials": "nytEditorialSnippets",
}
_FIRST_REVIEW = {  # the reviews come product after product: the number of the first of each
    "DVD player": 1, "Canon G3": 99, "Nikon 4300": 145, "Nokia 6610": 176, "music player": 216,
}


@dataclass(frozen=True)
class Rated:
    """A text, its ratings from -4 to 4, and where it is from.

    stated: the mean that the file gives, which for 196 tweets is not that of the ratings.
    """

    text: str
    stated: float
    ratings: list[int]
    part: str
    product: str
    group: str

    @property
    def mean(self) -> float:
        return sum(self.ratings) / len(self.ratings)

    @property
    def consistent(self) -> bool:
        return abs(self.stated - self.mean) < 0.01


def rated_texts(part: str) -> Iterator[Rated]:
    """Yield the texts of a part: "tweets", "amazon" or "editorials"."""
    with tarfile.open(fileobj=io.BytesIO(read_member(VADER, MEMBER)), mode="r:gz") as inner:
        texts, ratings = (
            inner.extractfile(f"hutto_ICWSM_2014/{FILES[part]}_{kind}.txt").read().decode("utf-8-sig")
            for kind in ("GroundTruth", "anonDataRatings")
        )
    given = {row[0]: json.loads(row[3]) for row in _rows(ratings)}
    for id, stated, text in _rows(texts):
        unit = id.split("_")[0]  # a tweet, or the review or article that a sentence is from
        yield Rated(
            html.unescape(text.strip()), float(stated), given[id], part,
            _product(int(unit)) if part == "amazon" else "", f"{part} {unit}",
        )


def _rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines() if line.strip()]


def _product(review: int) -> str:
    return max((first, name) for name, first in _FIRST_REVIEW.items() if first <= review)[1]
