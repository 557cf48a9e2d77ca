"""Without these, a learner's right answer could be refused, or a wrong one left unexplained."""

import ftkit as ft


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
