"""Without these, the game might name a fault that is not in place, or hide one that is."""

import pytest
import tiny
from datasets import Dataset

import ftkit as ft
from ftkit.course.faults import game

NAMES = [row["fault"] for row in ft.fault.table("classification").rows]


@pytest.fixture(scope="module")
def reviews():
    """Rows that no split shares, as the checks want them, as load_data reads them."""
    texts = [f"{kind} {what} number {i}" for i in range(40) for kind, what in
             (("great", "film"), ("terrible", "plot"))]
    rows = [{"text": text, "label": "good" if "great" in text else "bad"} for text in texts]
    return {"train": Dataset.from_list(rows[:48]), "validation": Dataset.from_list(rows[48:64]),
            "test": Dataset.from_list(rows[64:])}


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


def seed_of(name):
    """A puzzle in which this fault is planted."""
    return next(seed for seed in range(999) if ft.fault.mystery(seed).reveal() == name)


def test_the_check_of_the_planted_fault_fails_and_another_does_not(encoder, reviews):
    seed = seed_of("leaked rows")
    view = ft.which_fault(encoder, reviews, seed=seed, ask="no test row in train")
    assert [(row["check"], row["result"]) for row in view.data] == [
        ("no test row in train", "FAILS")]
    view.choose(ask="one label for a text")
    assert [row["result"] for row in view.data] == ["FAILS", "ok"]
    assert "2 checks asked" in repr(view)
    view.choose(guess="lost class")
    assert view.data[-1]["result"] == "wrong"
    assert "'every class in train' would fail" in view.data[-1]["found"]
    view.choose(guess="leaked rows")
    assert view.data[-1]["result"] == "right" and "What to do" in view.data[-1]["found"]
    assert len(view.data) == 3  # no check is asked twice
    assert "leaked" not in repr(view.choose(seed=seed + 1))  # another puzzle: nothing is said yet
    assert view.data == [] and view.settings["guess"] == game.NO_GUESS
    assert ft.load_data(reviews)["test"].num_rows == 16  # nothing of the fault is left


def test_who_gives_up_is_told(encoder, reviews):
    view = ft.which_fault(encoder, reviews, seed=seed_of("seed ignored"), guess=game.GIVE_UP)
    (row,) = view.data
    assert row["result"] == "wrong" and "It is 'seed ignored'" in row["found"]


def test_what_does_not_exist_is_refused(encoder, reviews):
    with pytest.raises(ft.SettingError, match="check 'leaks' does not exist"):
        ft.which_fault(encoder, reviews, ask="leaks")
    with pytest.raises(ft.SettingError, match="Did you mean 'leaked rows'"):
        ft.which_fault(encoder, reviews, guess="leaked row")
    assert set(ft.which_fault(encoder, reviews).controls["guess"].options) == {
        game.NO_GUESS, *NAMES, game.GIVE_UP}


def test_the_buttons_come_up_again_with_another_puzzle(encoder, reviews):
    ipywidgets = pytest.importorskip("ipywidgets", reason="needs the extra lab")
    view = ft.which_fault(encoder, reviews, seed=seed_of("head frozen"))
    seed, ask, guess, _, shown = view.widget(ipywidgets).children
    ask.value = "the head is trained"
    assert "FAILS" in shown.value and "1 check asked" in shown.value
    guess.value = game.GIVE_UP
    assert "head frozen" in shown.value
    seed.value += 1
    assert (ask.value, guess.value) == (game.NO_CHECK, game.NO_GUESS)
    assert "0 checks asked" in shown.value and "It is" not in shown.value
