"""Five questions on each lesson: buttons in an open notebook, Markdown to read elsewhere.

They stand in `notebooks/questions/`, one Markdown file a lesson, with the answers folded away.
"""

import html
import json
import re
import warnings
from dataclasses import dataclass

from ftkit.assets import atomic
from ftkit.assets.fetch import cache_home
from ftkit.course.exercises import Checked, marked_up
from ftkit.course.hints import lessons_folder
from ftkit.display import show_widget
from ftkit.errors import DataError, SettingError

KEPT = "questions.json"  # in the cache folder: what was answered
_QUESTION = re.compile(
    r"^\*\*(?P<number>\d)\. (?P<text>.+?)\*\*\n\n(?P<options>(?:- [a-d]\) .+?\n)+)\n"
    r"<details><summary>Answer</summary>\n\n\*\*(?P<right>[a-d])\.\*\* (?P<why>.+?)\n\n</details>",
    re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"^- (?P<letter>[a-d])\) (?P<text>.+?)(?=\n- [a-d]\) |\Z)",
                     re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Question:
    """A question with its options {letter: text}, the right letter, and why it is right."""

    number: int
    text: str
    options: dict[str, str]
    right: str
    why: str


class Quiz:
    """The questions of one lesson.

    lesson: its name, such as "01_supervised". title: a line. questions: a list of Question.
    answers: {number: letter} given so far, kept in the cache folder. In an open notebook there are
    buttons; elsewhere the Markdown with the answers folded away.
    """

    def __init__(self, lesson: str, title: str, questions: list[Question], text: str):
        self.lesson, self.title, self.questions = lesson, title, questions
        self._text = text
        known = {question.number: question.options for question in questions}
        self.answers = {int(n): letter for n, letter in _kept().get(lesson, {}).items()
                        if letter in known.get(int(n), ())}

    def answer(self, number: int, letter: str) -> Checked:
        """Answer a question with a letter; the answer is kept. Returns a Checked with the reason.

        Raises SettingError for a question or a letter that is not there.
        """
        asked = {question.number: question for question in self.questions}.get(number)
        if asked is None:
            raise SettingError(f"there is no question {number!r}; choose 1 to "
                               f"{len(self.questions)}.")
        letter = str(letter).strip().lower().rstrip(")")
        if letter not in asked.options:
            raise SettingError(f"question {number} has no option {letter!r}; choose one of "
                               f"{', '.join(asked.options)}.")
        self.answers[number] = letter
        _keep(self.lesson, self.answers)
        right = letter == asked.right
        verdict = "right." if right else f"not {letter}: it is {asked.right}."
        return Checked(right, f"{number}: {verdict} {asked.why}")

    @property
    def right(self) -> int:
        """How many of the answers given are right."""
        return sum(self.answers.get(q.number) == q.right for q in self.questions)

    def __repr__(self):
        return f"{self._text.strip()}\n\n{self._said()}"

    def _said(self):
        if not self.answers:
            return f"Answer with .answer(1, \"a\"); none of {len(self.questions)} is answered yet."
        return f"{self.right} of {len(self.answers)} answers right."

    def _ipython_display_(self):
        show_widget(self.widget, {"text/plain": repr(self), "text/markdown": repr(self)})

    def widget(self, ipywidgets):
        """The questions with buttons for their options, a widget."""
        score = ipywidgets.HTML()

        def count():
            said = self._said() if self.answers else ""
            score.value = f"<p aria-live='polite'>{html.escape(said)}</p>"

        count()
        parts = [ipywidgets.HTML(f"<h3>{html.escape(self.title)}</h3>")]
        for question in self.questions:
            parts += self._one(ipywidgets, question, count)
        return ipywidgets.VBox([*parts, score])

    def _one(self, ipywidgets, question, count):
        listed = "".join(f"<li style='list-style:none'>{letter}) {marked_up(text)}</li>"
                         for letter, text in question.options.items())
        asked = ipywidgets.HTML(
            f"<p><strong>{question.number}. {marked_up(question.text)}</strong></p>"
            f"<ul style='line-height:1.5'>{listed}</ul>")
        buttons = ipywidgets.ToggleButtons(
            options=[*question.options], value=self.answers.get(question.number),
            description=f"answer to {question.number}",
            tooltips=[f"{letter}: {text}" for letter, text in question.options.items()],
            style={"description_width": "8em", "button_width": "auto"})
        reply = ipywidgets.HTML()

        def show(letter):
            found = self.answer(question.number, letter)
            reply.value = found.html()
            count()

        buttons.observe(lambda change: change["new"] and show(change["new"]), names="value")
        if buttons.value:
            show(buttons.value)
        return asked, buttons, reply


def quiz(lesson: str | int) -> Quiz:
    """Ask the five questions of a lesson, to see what stayed.

    lesson: its number, such as 1 or "01", or its name, "01_supervised". Returns a Quiz: shown in an
    open notebook it has buttons and says why an answer is right or wrong; elsewhere it is Markdown
    with the answers folded away, and `.answer(2, "b")` judges one. Answers are kept in the cache
    folder (FTKIT_HOME), and `ft.lessons()` counts the right ones.
    Raises SettingError for a lesson that has no questions, DataError for a file that cannot be read
    as questions.
    """
    place = _find(lesson)
    text = place.read_text(encoding="utf-8")
    title, questions = read_questions(text, place.name)
    return Quiz(place.stem, title, questions, text)


def _find(lesson):
    found = (lessons_folder() / "questions").glob("[0-9][0-9]_*.md")
    files = {path.stem: path for path in sorted(found)}
    asked = str(lesson).strip()
    asked = f"{int(asked):02d}" if asked.isdigit() else asked
    for name, path in files.items():
        if asked in (name, name[:2]):
            return path
    raise SettingError(f"lesson {lesson!r} has no questions; choose one of "
                       f"{', '.join(name[:2] for name in files) or 'none: install ftkit again'}.")


def read_questions(text: str, name: str = "the file") -> tuple[str, list[Question]]:
    """Read a page of questions. Returns its title and a list of Question.

    Raises DataError where a question is not a bold line, options a) to d), and an answer that
    begins with its letter, between <details> and </details>.
    """
    questions = []
    for found in _QUESTION.finditer(text):
        options = {one["letter"]: _line(one["text"])
                   for one in _OPTION.finditer(found["options"].rstrip())}
        questions.append(Question(int(found["number"]), _line(found["text"]), options,
                                  found["right"], _line(found["why"])))
    told = len(re.findall(r"^\*\*\d\. ", text, re.MULTILINE))
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    if not title or not questions or len(questions) != told:
        raise DataError(f"{name}: {len(questions)} of {told} questions can be read; each is a bold "
                        "line, options a) to d) in a list, and a folded answer.")
    for number, question in enumerate(questions, 1):
        if question.number != number or question.right not in question.options:
            raise DataError(f"{name}: question {question.number} is not number {number}, or its "
                            f"answer {question.right!r} is none of its options.")
    return title[1], questions


def answered() -> dict[str, tuple[int, int]]:
    """What was answered on this machine. Returns {lesson: (right, number of questions)}."""
    found = {}
    for lesson in _kept():
        try:
            asked = quiz(lesson)
        except (SettingError, DataError):  # of another version of the course
            continue
        if asked.answers:
            found[asked.lesson] = (asked.right, len(asked.questions))
    return found


def _line(text):
    return " ".join(text.split())


def _kept():
    try:
        kept = json.loads((cache_home() / KEPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(lesson, answers):
    """Keep the answers of a lesson; where the folder cannot be written, it is said."""
    kept = _kept() | {lesson: {str(n): letter for n, letter in sorted(answers.items())}}
    try:
        atomic.write(cache_home() / KEPT, json.dumps(kept, indent=1, sort_keys=True))
    except OSError as error:
        warnings.warn(f"the answer is not kept for another day: {error}. Make {cache_home()} "
                      "writable, or set FTKIT_HOME.", stacklevel=3)
