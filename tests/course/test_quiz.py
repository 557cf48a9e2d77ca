"""Without these, a question might have no right answer, or a lesson no questions."""

import json
import stat
from pathlib import Path

import pytest

import ftkit as ft
from ftkit.batch import index
from ftkit.batch import notebook as nb
from ftkit.course import quiz as module
from ftkit.errors import DataError, SettingError

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PAGE = """# 7 · A lesson: five questions

**1. Is *one* less than `two`,
and why?**

- a) No.
- b) Yes, as everybody who counts
  will say.

<details><summary>Answer</summary>

**b.** One and one
is two.

</details>

**2. And three?**

- a) More.
- b) Less.
- c) Equal.

<details><summary>Answer</summary>

**a.** By one.

</details>
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Questions of two lessons, and an empty cache folder. Returns where the questions are."""
    place = tmp_path / "questions"
    place.mkdir()
    for name in ("07_a_lesson", "12_another"):
        (place / f"{name}.md").write_text(PAGE)
    monkeypatch.setattr(module, "lessons_folder", lambda: tmp_path)
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    return place


def test_a_page_is_read_as_it_stands():
    title, (first, second) = module.read_questions(PAGE)
    assert title == "7 · A lesson: five questions"
    assert first.text == "Is *one* less than `two`, and why?"
    assert first.options == {"a": "No.", "b": "Yes, as everybody who counts will say."}
    assert first.right == "b" and first.why == "One and one is two."
    assert list(second.options) == ["a", "b", "c"] and second.right == "a"


@pytest.mark.parametrize(("change", "said"), [
    (("**b.** One", "One"), "1 of 2 questions can be read"),
    (("**b.** One", "**d.** One"), "'d' is none of its options"),
    (("**2. And", "**4. And"), "question 4 is not number 2"),
    (("# 7", "7"), "can be read"),
])
def test_a_page_that_cannot_be_read_says_where(change, said):
    with pytest.raises(DataError, match=f"page.md: .*{said}"):
        module.read_questions(PAGE.replace(*change), "page.md")


def test_an_answer_is_judged_with_its_reason_and_kept(folder):
    asked = ft.quiz(7)
    assert "none of 2 is answered" in repr(asked) and "<details>" in repr(asked)
    wrong = asked.answer(1, "a")
    assert not wrong and wrong.message == "1: not a: it is b. One and one is two."
    assert asked.answer(1, " B) ") and asked.answer(2, "a").message == "2: right. By one."
    assert ft.quiz("07").answers == {1: "b", 2: "a"} and ft.quiz("07_a_lesson").right == 2
    assert not ft.quiz("12").answers
    assert module.answered() == {"07_a_lesson": (2, 2)}


def test_what_is_not_there_is_said(folder):
    with pytest.raises(SettingError, match="lesson 9 has no questions; choose one of 07, 12"):
        ft.quiz(9)
    with pytest.raises(SettingError, match="no question 3; choose 1 to 2"):
        ft.quiz(7).answer(3, "a")
    with pytest.raises(SettingError, match="question 1 has no option 'c'; choose one of a, b"):
        ft.quiz(7).answer(1, "c")


def test_what_was_kept_by_another_version_does_no_harm(folder, tmp_path):
    kept = tmp_path / "home" / module.KEPT
    kept.parent.mkdir()
    for content in ("{", "[]", json.dumps({"07_a_lesson": {"1": "z", "9": "a"}, "99_gone": {}})):
        kept.write_text(content)
        assert not ft.quiz(7).answers and module.answered() == {}
    assert ft.quiz(7).answer(1, "b") and "99_gone" in json.loads(kept.read_text())


def test_a_folder_that_cannot_be_written_costs_no_answer(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(stat.S_IRUSR, "read-only")

    monkeypatch.setattr(module.atomic, "write", refuse)
    asked = ft.quiz(7)
    with pytest.warns(UserWarning, match="not kept"):
        assert asked.answer(1, "b")
    assert asked.right == 1 and not ft.quiz(7).answers


def test_buttons_judge_and_count(folder):
    ipywidgets = pytest.importorskip("ipywidgets")
    asked = ft.quiz(7)
    shown = asked.widget(ipywidgets)
    buttons = [one for one in shown.children if isinstance(one, ipywidgets.ToggleButtons)]
    replies = [shown.children[shown.children.index(one) + 1] for one in buttons]
    assert [one.value for one in buttons] == [None, None] and not replies[0].value
    first, score = shown.children[1], shown.children[-1]
    assert "<em>one</em>" in first.value and "<code>two</code>" in first.value
    buttons[0].value = "a"
    assert "not a: it is b" in replies[0].value and "0 of 1 answers right" in score.value
    buttons[0].value = "b"
    assert "right." in replies[0].value and "1 of 1 answers right" in score.value
    again = ft.quiz(7).widget(ipywidgets)
    assert "1 of 1 answers right" in again.children[-1].value


def test_the_index_counts_right_answers(folder, tmp_path, write_notebook):
    write_notebook(tmp_path / "07_a_lesson.ipynb", "1 + 1")
    assert index.done(index.lessons(tmp_path).rows[0]) == ""
    ft.quiz(7).answer(2, "a")
    assert index.done(index.lessons(tmp_path).rows[0]) == "1 of 2 questions right"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_each_lesson_has_five_questions_and_names_them(lesson):
    page = lesson.parent / "questions" / f"{lesson.stem}.md"
    text = page.read_text(encoding="utf-8")
    title, questions = module.read_questions(text, page.name)
    assert title.startswith(f"{int(lesson.name[:2])} · ") and len(questions) == 5
    assert f"(../{lesson.name})" in text and f'ft.quiz("{lesson.name[:2]}")' in text
    for question in questions:
        assert 3 <= len(question.options) <= 4 and len(set(question.options.values())) > 2
        assert len(question.why) > 40
    assert len({question.right for question in questions}) >= 3, "the right letter hardly varies"
    said = "\n".join(nb.source(cell) for cell in nb.read(lesson)["cells"]
                     if cell["cell_type"] == "markdown")
    assert f"(questions/{page.name})" in said and f'ft.quiz("{lesson.name[:2]}")' in said
