"""The table of methods, from their classes: `python tools/methods_page.py docs/methods.md`."""

import inspect
import re
import sys
from pathlib import Path

START, END = "<!-- methods:start -->", "<!-- methods:end -->"
MODELS = {"minilm-l6": {"task": "classification", "labels": ["no", "yes"]},
          "smollm2-135m-instruct": {}}
PAPER = re.compile(r'[A-Z][\w-]+(?:,? (?:and )?[A-Z][\w-]+)*(?: et al\.)? \d{4},\s+"[^"]+"')


def methods():
    """The public method classes, in the order of the lessons that teach them."""
    from ftkit import methods as module

    public = [getattr(module, name) for name in module.__all__]
    classes = filter(inspect.isclass, public)
    return sorted(classes, key=lambda method: (method.lesson, method.__name__))


def papers(method):
    """The papers that a method's docstring, or else its file's, names: a list of strings."""
    for text in (method.__doc__, sys.modules[method.__module__].__doc__):
        found = PAPER.findall(" ".join(text.split()))
        if found:
            return list(dict.fromkeys(found))
    return []


def row(method, bases):
    """One method's cells: name, what is trained, share and storage on each base, when, paper."""
    from ftkit.errors import SettingError
    from ftkit.models.model import trainable_summary

    lesson = f"notebooks/{method.lesson}.ipynb"
    taught = (Path(__file__).parents[1] / lesson).exists()
    cells = [f"[`{method.__name__}`](../{lesson})" if taught else f"`{method.__name__}`",
             inspect.getdoc(method).partition(".")[0] + "."]
    for base in bases:
        if base.task not in getattr(method, "tasks", [base.task]):
            cells.append(f"not for {base.task}")
            continue
        model = base.copy()
        try:
            found = trainable_summary(method(**method.example).apply(model))
        except SettingError:  # a method for another kind of model, which says so
            cells.append("not for this kind")
        else:
            cells.append(f"{100 * found['share']:.3g}%, {found['bytes'] / 1e6:.3g} MB")
    return [*cells, method.when, "; ".join(papers(method))]


def table():
    """The Markdown table of all methods, measured on the catalog's models."""
    from ftkit.display import markdown_table
    from ftkit.models.load import load_model

    bases = [load_model(name, **options) for name, options in MODELS.items()]
    header = ["method", "what it does", *(f"trained and stored, {name}" for name in MODELS),
              "when to use it", "paper"]
    return markdown_table(header, [row(method, bases) for method in methods()])


def rewritten(text):
    """A document with the table between its marks."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    from ftkit.batch.notebook import write_file

    path = Path(sys.argv[1])
    write_file(rewritten(path.read_text(encoding="utf-8")), path)
