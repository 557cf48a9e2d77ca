"""Tweets and sentences with the sentiment that some twenty people each saw in them."""

from __future__ import annotations

from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import merge_groups, normalized

from ._archives import VADER
from ._options import one_of
from ._vader import FILES, rated_texts

ENTRY = DataEntry(
    title="Tweets, product reviews and editorials with ratings of their sentiment",
    licence="text: rights with its writers (ratings: MIT)",
    link="https://ojs.aaai.org/index.php/ICWSM/article/view/14550",
    archives=(VADER,),
    forms=(
        {"form": "classes"}, {"form": "score"},
        *({"form": "classes", "part": part} for part in FILES),
    ),
)
LABELS = ("negative", "neutral", "positive")
NEUTRAL = 0.5  # a mean nearer to 0 than to -1 or 1
_A_CRITICS_TOO = {"don t waste your money"}  # a customer's words that "rotten-tomatoes" has as well


def source(form: str = "classes", part: str = "all") -> Source:
    one_of("form", form, ["classes", "score"])
    one_of("part", part, ["all", *FILES])
    return Source(
        lambda: _read(form, part),
        "classification" if form == "classes" else "regression",
        ("text",), linked=("text",),
        labels=LABELS if form == "classes" else None,
        fractions=(0.75, 0.1, 0.15),
    )


def _read(form: str, part: str) -> Rows:
    kept = [
        row for name in FILES for row in rated_texts(name)
        if row.consistent and normalized(row.text) not in _A_CRITICS_TOO
    ]
    # over all parts, so that a text is in the same split whichever of them are read
    groups = merge_groups([row.group for row in kept], [row.text for row in kept])
    rows = []
    for row, group in zip(kept, groups, strict=True):
        if part in ("all", row.part):
            score = round(row.mean, 4)
            label = {"label": score} if form == "score" else {
                "label": sentiment(row.mean), "score": score,
            }
            rows.append({
                "text": row.text, **label, "ratings": row.ratings, "part": row.part,
                "product": row.product, "group": group,
            })
    return rows


def sentiment(rating: float) -> int:
    """Return the number of the class of a rating or of a mean of ratings, from -4 to 4."""
    return 1 if abs(rating) < NEUTRAL else 2 if rating > 0 else 0
