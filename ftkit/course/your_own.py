"""The template for data of your own as a form: for those who do not write code.

It runs the cells of `notebooks/templates/your_own.ipynb`, so that both do the same, and writes the
notebook with what was chosen.
"""

import ast
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftkit.assets import atomic
from ftkit.course.hints import lessons_folder
from ftkit.course.view import Control
from ftkit.display import display, show_widget
from ftkit.errors import SettingError
from ftkit.training.progress import Page

METHODS, PROFILES = ("auto", "full", "lora", "freeze"), ("smoke", "cpu", "gpu")
# What the template calls each choice.
NAMES = {"file": "FILE", "model": "MODEL", "method": "METHOD", "task": "TASK", "text": "TEXT",
         "label": "LABEL", "group": "GROUP", "prompted": "PROMPTED", "most_rows": "MOST_ROWS",
         "save": "SAVE", "profile": "profile", "seed": "seed"}
PREDICT = "Predict"


class OwnData:
    """One file on its way, step by step, from a first look to a model card.

    settings: {name: choice}. steps: their headings. done: how many of them have been taken.
    found: what the template's cells have made by now, {name: value}. In an open notebook it is a
    form with a button for the next step; elsewhere `next()` and `go()` take the steps.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        place = lessons_folder() / "templates" / "your_own.ipynb"
        self._template = json.loads(place.read_text(encoding="utf-8"))
        self._parts: list[list[dict]] = [[]]  # cells, by the headings of the template
        for cell in self._template["cells"]:
            if cell["cell_type"] == "markdown" and _source(cell).startswith("## "):
                self._parts.append([])
            self._parts[-1].append(cell)
        self.steps = [_source(part[0]).split("\n")[0][3:] for part in self._parts[1:]]
        self.settings, self.done = settings, 0
        self.found: dict[str, Any] = {}

    @property
    def data(self) -> dict[str, Any]:
        """What came out: "table" (rows by method), "visible" (the power), "claim" and "card"."""
        table = self.found.get("table")
        return {"table": table() if table else [],
                **{name: self.found.get(name) for name in ("visible", "claim", "card")}}

    def next(self) -> "OwnData":
        """Take the next step, and show what comes out. Returns itself.

        Raises SettingError without a file, or after the last step, and what the step raises.
        """
        if not self.settings["file"]:
            raise SettingError("there is no file; name yours, such as tickets.csv, or a data set "
                               "of the course, such as rotten-tomatoes.")
        if self.done == len(self.steps):
            raise SettingError("this was the last step; begin again for another file or model.")
        if self.done == 0:
            self.found = {"__name__": "your_own"}
            self._run(self._parts[0])
        self._run(self._parts[self.done + 1])
        self.done += 1
        return self

    def go(self) -> "OwnData":
        """Take all steps that are left. Returns itself; raises what `next` raises."""
        while self.done < len(self.steps):
            print(f"\n## {self.steps[self.done]}\n")
            self.next()
        return self

    def text(self) -> str:
        """What the next step is about, as Markdown."""
        cells = self._parts[self.done + 1]
        return "\n\n".join(_source(c) for c in cells if c["cell_type"] == "markdown")

    def save_notebook(self, path: str | Path) -> Path:
        """Write the template with your choices, to be run again or changed. Returns the path.

        Raises SettingError where there is a file already.
        """
        path = Path(path)
        if path.exists():
            raise SettingError(f"{path} is there already; give another name.")
        cells = [cell | {"outputs": [], "execution_count": None, "source": self._code(cell)}
                 if cell["cell_type"] == "code" else cell for cell in self._template["cells"]]
        atomic.write(path, json.dumps(self._template | {"cells": cells}, indent=1) + "\n")
        return path

    def _code(self, cell):
        """A cell's code; where the template leaves something to choose, with what was chosen."""
        code, now, lines = _source(cell), self.settings, []
        if "parameters" in cell["metadata"].get("tags", ()):
            lines = [f"{known} = {now[name]!r}" for name, known in NAMES.items()]
        if "\nworth = " in code:  # of a loss, less is better
            if now["worth"] is not None:
                lines.append("worth = {0} if labelled else -{0}".format(abs(now["worth"])))
            if now["guess"] is not None:
                lines.append(f"my_guess = {now['guess']}")
        return "\n".join([code, "", "# As chosen in the form:", *lines]) if lines else code

    def _run(self, cells):
        for cell in cells:
            if cell["cell_type"] != "code":
                continue
            tree = ast.parse(self._code(cell))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "your_own", "exec"), self.found)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "your_own", "eval"), self.found)
                if value is not None:
                    display(value)

    def __repr__(self):
        marks = [f"{'✓' if i < self.done else ' '} {step}" for i, step in enumerate(self.steps)]
        return "\n".join([f"{self.settings['file'] or 'a file of yours'}, step by step; .next() "
                          "takes one step, .go() all that are left:", *marks])

    def _ipython_display_(self):
        show_widget(self.widget, {"text/plain": repr(self)})

    def widget(self, ipywidgets: Any) -> Any:
        """The form, with buttons for the steps and what came out of each below them."""
        return _Form(self, ipywidgets).whole


def _source(cell):
    return "".join(cell["source"])


class _Form:
    """The widgets of an OwnData."""

    def __init__(self, own, ipywidgets):
        self.own, self.ipywidgets, now = own, ipywidgets, own.settings
        self.fields = {name: Control(label, *rest).widget(ipywidgets) for name, label, *rest in (
            ("file", "file", now["file"]),
            ("text", "column of the texts", now["text"] or ""),
            ("label", "column of the labels", now["label"] or ""),
            ("group", "column of the groups", now["group"] or ""),
            ("model", "model", now["model"]),
            ("method", "method", now["method"], METHODS),
            ("most_rows", "rows at most (train)", now["most_rows"] or 10**6, None, 40, 10**6),
            ("worth", "worth it from", "" if now["worth"] is None else str(now["worth"])),
            ("guess", "your guess", "" if now["guess"] is None else str(now["guess"])),
            ("profile", "profile", now["profile"], PROFILES))}
        self.fields["file"].placeholder = "such as tickets.csv, beside this notebook"
        for name in ("text", "label"):
            self.fields[name].placeholder = f"only if it is not called {name}"
        self.fields["group"].placeholder = "only if several rows belong to one customer or document"
        self.fields["worth"].placeholder = "such as 0.02: two more right in 100 (before Predict)"
        self.fields["guess"].placeholder = "what the tuned model will reach (before Predict)"
        self.buttons = {name: ipywidgets.Button(
            description=name, tooltip=name, layout=ipywidgets.Layout(width="auto"))
            for name in ("next", "All that is left", "Begin again", "Save as a notebook")}
        for button, act in zip(self.buttons.values(), (self.step, self.rest, self.again,
                                                       self.save), strict=True):
            button.on_click(self.acting(act))
        self.said, self.live = ipywidgets.HTML(), ipywidgets.HTML()
        self.below = ipywidgets.VBox([])
        self.whole = ipywidgets.VBox([*self.fields.values(), ipywidgets.HBox(
            [*self.buttons.values()], layout=ipywidgets.Layout(flex_flow="row wrap")),
            self.below, self.live, self.said])
        self.tell()

    def acting(self, act: Callable) -> Callable:
        """What a button does, and where it says what went wrong."""
        def clicked(_button):
            self.said.value = "<em>One moment …</em>"
            try:
                self.tell(act() or "")
            except Exception as error:  # a callback has no cell that could show it
                self.said.value = (f"<p role='alert'>{html.escape(type(error).__name__)}: "
                                   f"{html.escape(str(error))}</p>")

        return clicked

    def tell(self, more=""):
        own, button = self.own, self.buttons["next"]
        button.disabled = own.done == len(own.steps)
        button.description = button.tooltip = (
            "Done" if button.disabled else f"Next: {own.steps[own.done]}")
        self.said.value = (f"<p aria-live='polite'>{own.done} of {len(own.steps)} steps taken. "
                           f"{html.escape(more)}</p>")

    def chosen(self):
        found = {name: field.value or None for name, field in self.fields.items()}
        found |= {"file": found["file"] or "", "model": found["model"] or "auto"}
        for name in ("worth", "guess"):
            try:
                found[name] = found[name] and float(found[name])
            except ValueError:
                raise SettingError(f"{self.fields[name].description}: {found[name]!r} is no "
                                   "number; write one such as 0.02.") from None
        return self.own.settings | found

    def step(self):
        own, now = self.own, self.chosen()
        free = ("worth", "guess") if own.done <= own.steps.index(PREDICT) else ()
        if own.done and any(now[name] != own.settings[name] for name in now if name not in free):
            self.again()
        own.settings = now
        shown = self.ipywidgets.Output()
        self.below.children = [*self.below.children, shown]
        from IPython.display import Markdown

        failed = None
        with shown, Page.shown_by(self.update):
            try:
                display(Markdown(own.text()))
                own.next()
            except Exception as error:  # it would be shown with all its frames, and swallowed
                failed = error
        if failed:
            raise failed

    def update(self, page):
        self.live.value = page._repr_html_()

    def rest(self):
        while self.own.done < len(self.own.steps):
            self.step()
            self.tell()

    def again(self):
        self.own.done, self.below.children, self.live.value = 0, [], ""

    def save(self):
        self.own.settings = self.chosen()
        name = re.sub(r"\W+", "_", Path(self.own.settings["file"] or "file").stem)
        return f"{self.own.save_notebook(f'your_own_{name}.ipynb')} is written."


def your_own(
    file: str = "", *, model: str = "auto", method: str = "auto", task: str = "auto",
    text: str | None = None, label: str | None = None, group: str | None = None,
    prompted: str | None = "smollm2-135m-instruct", most_rows: int | None = 200,
    save: str | None = None, worth: float | None = None, guess: float | None = None,
    profile: str = "cpu", seed: int = 0,
) -> OwnData:
    """Take a file of yours through the whole process, by a form or step by step.

    It does what the notebook templates/your_own.ipynb does: look at the rows, clean them, measure
    what is cheap (word counts, prompts), say what the test can show, fine-tune, compare, judge a
    claim, write the model card. file: a table or conversations, a hub id or a set of the course.
    model: a name, a folder, a hub id or "auto". method: "auto", "full", "lora" or "freeze". task:
    "auto", or as in load_data. text, label, group: your column names. prompted: a chat model that
    is only asked, or None. most_rows: of train, or None for all. save: a folder for the model and
    its card. worth: how much better than the best cheap way it must be. guess: what it will reach.
    profile, seed: as in a lesson. Returns an OwnData, of which nothing has been run: in an open
    notebook it is a form; elsewhere `.go()` takes all steps, and `.data` has what came out.
    Raises SettingError for a method or a profile that does not exist.
    """
    for name, value, known in (("method", method, METHODS), ("profile", profile, PROFILES)):
        if value not in known:
            raise SettingError(f"{name}={value!r}: choose one of {', '.join(known)}.")
    return OwnData(dict(file=str(file), model=model, method=method, task=task, text=text,
                        label=label, group=group, prompted=prompted, most_rows=most_rows,
                        save=save, worth=worth, guess=guess, profile=profile, seed=seed))
