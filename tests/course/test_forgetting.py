"""Without these, a map might call what was kept forgotten, or leave out who cannot see it."""

import numpy as np
import pytest

import ftkit as ft
from ftkit.course import forgetting

TRUTH = np.array([0, 1] * 10)


def scored(right):
    """An evaluation with so many of 20 answers right."""
    answers = np.where(np.arange(20) < right, TRUTH, 1 - TRUTH)
    return ft.from_predictions(answers, TRUTH, labels=["a", "b"])


@pytest.fixture
def steps():
    return {"month 1": {"law": scored(16)},
            "month 2": {"law": scored(18), "notes": scored(20)},
            "month 3": {"law": scored(8), "notes": scored(15)}}


def test_what_was_best_before_is_what_is_missed(steps):
    view = ft.forgetting_map(steps)
    found = {(row["task"], row["step"]): row for row in view.data}
    assert len(found) == 5 and found["law", "month 3"]["score"] == pytest.approx(0.4)
    lost = {key: round(row["forgotten"], 3) for key, row in found.items()}
    assert lost == {("law", "month 1"): 0, ("law", "month 2"): 0, ("notes", "month 2"): 0,
                    ("law", "month 3"): 0.5, ("notes", "month 3"): 0.25}
    estimate = steps["month 3"]["law"]["accuracy"]
    assert (found["law", "month 3"]["low"], found["law", "month 3"]["high"]) == (
        estimate.low, estimate.high)


def test_the_map_is_told_in_words_and_shows_either(steps):
    view = ft.forgetting_map(steps)
    assert "Forgotten most: law, by 0.5 (month 3)" in repr(view)
    assert "alt='accuracy. law: month 1 0.8, month 2 0.9, month 3 0.4; notes: " in view.html()
    view.choose(show=forgetting.FORGOTTEN)
    assert "law: month 1 0, month 2 0, month 3 0.5" in repr(view)
    assert "Nothing is lower" in repr(ft.forgetting_map({"one": {"law": scored(3)}}))


def test_of_a_loss_more_is_worse():
    steps = {name: {"law": ft.from_scores("loss", values)}
             for name, values in (("one", [1.0, 2.0]), ("two", [2.0, 3.5]))}
    view = ft.forgetting_map(steps, metric="loss")
    assert [row["forgotten"] for row in view.data] == pytest.approx([0, 1.25])


def test_what_cannot_be_mapped_is_refused(steps):
    with pytest.raises(ft.SettingError, match="there is no evaluation"):
        ft.forgetting_map({"one": {}})
    with pytest.raises(ft.SettingError, match="show='lost': choose 'score' or"):
        ft.forgetting_map(steps, show="lost")
    with pytest.raises(ft.SettingError):
        ft.forgetting_map(steps, metric="rouge")
