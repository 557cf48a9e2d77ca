"""Without these, a learner's right answer could be refused, or a wrong one left unexplained."""

import re
from pathlib import Path

import pytest

import ftkit as ft
from ftkit.batch import notebook as nb
from ftkit.course.exercises import Checked
from ftkit.course.hints import lessons_folder, reason_here

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def test_no_answer_yet_is_no_error():
    found = ft.check(None, 3, name="1")
    assert not found
    assert "not answered yet" in repr(found)


def test_numbers_text_and_arrays():
    assert ft.check(3.0, 3)
    assert ft.check(" Lisbon", "lisbon")
    assert ft.check([1, 2], [1, 2])
    assert ft.check(0.74, 0.745, tolerance=0.01)
    assert not ft.check(0.74, 0.745)
    assert not ft.check([1, 2], [1, 2, 3])
    assert not ft.check("3", 3)


def test_a_wrong_answer_is_explained():
    assert "too low" in repr(ft.check(2, 3))
    assert "test set" in repr(ft.check(0.5, 0.6, hints={0.5: "That is the test set."}))
    assert "even" in repr(ft.check(4, 3, hints={(lambda a: a % 2 == 0): "It is even."}))
    assert "because" in repr(ft.check(4, lambda answer: "because of this"))
    assert ft.check(4, lambda answer: answer == 4)


def test_functions_are_checked_case_by_case():
    double = ft.cases((1, 2), ((2,), 4))
    assert ft.check(lambda x: 2 * x, double)
    assert "f(2) gave 3; it should be 4" in repr(ft.check(lambda x: x + 1, double))
    assert "ZeroDivisionError" in repr(ft.check(lambda x: x / 0, double))
    assert ft.check(lambda x: None, ft.cases((1, None)))
    assert "function was expected" in repr(ft.check(5, double))


def test_a_wrong_kind_of_answer_is_named():
    def mine(x):
        2 * x  # noqa: B018 and nothing is returned

    assert "'0.5' is a text; a number was expected" in repr(ft.check("0.5", 0.5))
    assert "3 is a number; a text was expected" in repr(ft.check(3, "three"))
    assert "A number was expected, not a function" in repr(ft.check(mine, 0.5))
    assert "mine(1) gave None. Did you forget `return`?" in repr(ft.check(mine, ft.cases((1, 2))))
    assert "Your answer is a text; " in repr(ft.check("x", lambda answer: answer > 3))


def test_a_verdict_is_told_apart_without_its_colour():
    right, wrong = ft.check(1, 1)._repr_html_(), ft.check("<b>", 1, name="1")._repr_html_()
    assert "✓ right." in right and "✗ 1: not yet." in wrong and "<b>" not in wrong


def test_an_answer_on_which_the_check_itself_raises_is_no_error():
    def doubles(function):
        return function(2) == 4

    assert ft.check(lambda n: 2 * n, doubles)
    for wrong, said in ((4, "TypeError"), (lambda n: n / 0, "ZeroDivisionError")):
        found = ft.check(wrong, doubles)
        assert not found and said in repr(found)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_exercise_has_a_hint_and_no_more_are_there(path):
    names = [name for _, cell in nb.code_cells(nb.read(path))
             for name in re.findall(r'ft\.check\(.*name="(?:exercise )?(\d)"', nb.source(cell),
                                    re.DOTALL)]
    assert names == ["1", "2", "3"]
    for number in names:
        assert 40 < len(ft.hint(path.stem[:2], int(number)).text) < 400
    with pytest.raises(ft.SettingError, match="no hint to exercise 4"):
        ft.hint(path.stem, 4)


def test_a_wrong_answer_has_its_hint_in_the_lesson_that_is_open(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/my lessons/notebooks/07_freezing.ipynb")
    for answer in (None, 1):
        found = ft.check(answer, 0.5, name="exercise 2")
        assert found.hint == ft.hint(7, 2).text and "hint" not in repr(found)
        assert "<summary>A hint</summary>" in found.html()
        assert "<code>epoch // every</code>" in found.html()
    assert "A hint" not in ft.check(0.5, 0.5, name="2").html()
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/mine.ipynb")
    assert ft.check(1, 0.5, name="2").hint == ""


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_exercise_has_a_reason_that_is_not_its_hint(path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    for number in (1, 2, 3):
        why, hint = reason_here(f"exercise {number}"), ft.hint(path.stem, number).text
        assert 120 < len(why) < 450 and "\n" not in why
        assert not set(re.split(r"(?<=[.?:;]) ", why)) & set(re.split(r"(?<=[.?:;]) ", hint))
        assert not re.search(r"[*`\[\]]", re.sub(r"`[^`]+`|\*[^*]+\*", "", why)), "is not marked up"
    assert reason_here("4") == ""


def test_hints_and_reasons_are_to_the_same_exercises():
    pages = [re.findall(r"^## \d\d$|^<details><summary>Exercise \d</summary>$",
                        (lessons_folder() / "questions" / page).read_text(encoding="utf-8"),
                        re.MULTILINE) for page in ("hints.md", "reasons.md")]
    assert pages[0] == pages[1] and len(pages[0]) == 4 * len(LESSONS)


def test_a_right_answer_has_its_reason_in_the_lesson_that_is_open(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/my lessons/notebooks/08_adapters.ipynb")
    why = reason_here("2")
    found = ft.check(0.5, 0.5, name="exercise 2")
    assert repr(found) == f"exercise 2: right.\n\n{why}" and why.startswith("With `up` at zero")
    assert ">With <code>up</code> at zero" in found.html() and "<details>" not in found.html()
    for answer in (None, 1):
        wrong = ft.check(answer, 0.5, name="2")
        assert wrong.why == "" and "at zero nothing is added" not in wrong.html() + repr(wrong)
    for elsewhere in ("/home/me/mine.ipynb", "", None):
        if elsewhere is None:
            monkeypatch.delenv("JPY_SESSION_NAME")
        else:
            monkeypatch.setenv("JPY_SESSION_NAME", elsewhere)
        found = ft.check(0.5, 0.5, name="2")
        assert repr(found) == "2: right." and "<p" not in found.html()


def test_a_reason_is_escaped():
    found = Checked(True, "1: right.", why="Where a < b, *not* `<b>`.")
    assert "Where a &lt; b, <em>not</em> <code>&lt;b&gt;</code>.</p>" in found.html()
