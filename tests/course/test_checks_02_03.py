"""Without these, the exercises of lessons 2 and 3 could accept what is not an answer to them."""

import pytest
import tiny
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft

PLACES = [("France?", "Paris"), ("Spain?", "Madrid"), ("Italy?", "Rome"), ("Chad?", "N'Djamena")]


@pytest.fixture
def well_formed():
    half = [ft.from_scores("accuracy", [1.0, 0.0])]
    return from_lesson("02", "wrong_but_well_formed", four_places=PLACES, asked=["Peru?"] * 2,
                       answers=lambda prompts, tokens: ["Lima", "Cuzco"],
                       graded=lambda said: [ft.from_scores("accuracy", [0.0, 0.0])],
                       capital={"four examples": half})


def test_examples_with_wrong_answers_must_be_wrong_and_measured(well_formed):
    cities = [a for _, a in PLACES]
    wrong = [(q, a) for (q, _), a in zip(PLACES, cities[1:] + cities[:1], strict=True)]
    assert ft.check((wrong, 0.5), well_formed)
    assert "still has its right answer" in repr(ft.check((PLACES, 0.5), well_formed))
    assert "difference" in repr(ft.check((wrong, 0.1), well_formed))
    assert "Keep the four" in repr(ft.check((wrong[::-1], 0.5), well_formed))
    assert "pairs" in repr(ft.check((3, 0.5), well_formed))


def test_pooling_without_padding():
    pools_well = from_lesson("03", "pools_well", seed=0)
    assert ft.check(lambda hidden, mask: (hidden * mask[:, None]).sum(0) / mask.sum(), pools_well)
    assert "Padding" in repr(ft.check(lambda hidden, mask: hidden.mean(0), pools_well))
    assert "shape" in repr(ft.check(lambda hidden, mask: hidden.mean(1), pools_well))
    assert "raised" in repr(ft.check(0.5, pools_well))


def test_the_detour_must_go_through_wrong_answers():
    words = [["a cat", "a dog"], ["the film", "a book"]] * 4
    right = Dataset.from_list([{"question": two[0], "choices": two, "answer": 0} for two in words])
    wrong = right.map(lambda row: {"answer": 1})
    start = tiny.encoder(task="choice")
    options = dict(epochs=4, batch_size=4, learning_rate=1e-3, quiet=True)
    astray = ft.fit(start, wrong, **options)
    after = ft.fit(astray.model, right, **options | {"epochs": 1})
    straight = ft.fit(start, right, **options | {"epochs": 1})
    check = from_lesson("03", "is_detour", "distance", wrong=wrong, pretrained=start, test=right,
                        largest=8, found={("MiniLM", 8): [ft.evaluate(start, right)]})[0]
    assert ft.check((astray, after), check)
    assert "no lower" in repr(ft.check((straight, after), check))
    assert "did not start" in repr(ft.check((astray, straight), check))
    assert "same one" in repr(ft.check((astray, astray), check))
    assert "two runs" in repr(ft.check((0.1, 0.2), check))
