"""Rated texts: none of the review set, classes by one rule, and ratings that fit their mean."""

import numpy as np
import pytest

from ftkit.data import recipe
from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS, near_duplicates, normalized

vader, raw = recipe.module("vader"), recipe.module("_vader")


def everything(name, **options):
    data = load_data(name, **options)
    return [row for split in SPLITS for row in data[split]]


def test_no_text_of_the_film_reviews_is_among_the_rated_texts():
    """Otherwise training on one set would give away the test of the other."""
    films = {normalized(row["text"]) for row in everything("rotten-tomatoes")}
    rated = [row["text"] for row in everything("vader")]
    assert not films & set(map(normalized, rated))
    both = [*films, *rated]
    assert not [pair for pair in near_duplicates(both) if pair[0] < len(films) <= pair[1]]


def test_the_film_file_that_is_left_out_repeats_the_review_set(monkeypatch):
    monkeypatch.setitem(raw.FILES, "films", "movieReviewSnippets")
    texts = {normalized(row.text) for row in raw.rated_texts("films")}
    films = {normalized(row["text"]) for row in everything("rotten-tomatoes")}
    assert len(texts & films) > 10_000


def test_a_text_is_in_one_split_over_all_forms_and_parts():
    where = {}
    for options in recipe.find("vader").entry.forms:
        data = load_data("vader", **options)
        for split in SPLITS:
            for text in data[split]["text"][:]:
                assert where.setdefault(normalized(text), split) == split


def test_classes_and_scores_are_what_the_ratings_say():
    scores = {row["text"]: row["label"] for row in everything("vader", form="score")}
    for row in everything("vader"):
        mean = np.mean(row["ratings"])
        assert row["score"] == pytest.approx(mean, abs=1e-4) == scores[row["text"]]
        assert row["label"] == (1 if abs(mean) < 0.5 else 2 if mean > 0 else 0)
        assert len(row["ratings"]) >= 20 and set(row["ratings"]) <= set(range(-4, 5))


def test_a_single_rating_and_a_mean_are_put_into_classes_by_one_rule():
    assert [vader.sentiment(rating) for rating in (-4, -1, 0, 1, 4)] == [0, 0, 1, 2, 2]
    assert [vader.sentiment(mean) for mean in (-0.5, -0.45, 0.45, 0.5)] == [0, 1, 1, 2]


def test_half_a_step_agrees_best_with_what_most_raters_say():
    """The card gives this as the reason for the threshold."""
    rows = [row for part in raw.FILES for row in raw.rated_texts(part) if row.consistent]
    most = [np.bincount([vader.sentiment(r) for r in row.ratings], minlength=3).argmax()
            for row in rows]
    agree = {
        limit: np.mean([(1 if abs(row.mean) < limit else 2 if row.mean > 0 else 0) == label
                        for row, label in zip(rows, most, strict=True)])
        for limit in (0.2, 0.3, 0.5, 0.7, 1)
    }
    assert max(agree, key=agree.get) == vader.NEUTRAL
    assert agree == pytest.approx({0.2: 0.83, 0.3: 0.87, 0.5: 0.91, 0.7: 0.90, 1: 0.79}, abs=0.006)


def test_texts_whose_ratings_belong_to_another_wording_are_left_out():
    odd = [row for part in raw.FILES for row in raw.rated_texts(part) if not row.consistent]
    assert len(odd) == 196 and {row.part for row in odd} == {"tweets"}
    assert not {row.text for row in odd} & {
        row["text"] for row in everything("vader", part="tweets")}


def test_products_are_told_apart_as_their_sentences_name_them():
    words = {"DVD player": "apex", "Canon G3": "canon", "Nikon 4300": "coolpix",
             "Nokia 6610": "nokia", "music player": "ipod"}
    rows = list(raw.rated_texts("amazon"))
    assert {row.product for row in rows} == set(words)
    for product, word in words.items():
        named = [row.product for row in rows if word in row.text.lower()]
        assert np.mean([name == product for name in named]) > 0.8, word  # the rest compare
