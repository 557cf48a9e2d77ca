"""The index page of the lessons: what there is, how long it takes, and what is done."""

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

from ftkit.assets import atomic
from ftkit.batch import lab, start
from ftkit.batch import notebook as nb
from ftkit.course.quiz import answered
from ftkit.display import Table
from ftkit.errors import DataError

NAME = "index.ipynb"
PARTS = {0: "Begin here", 1: "From a task to a tuned model", 7: "Choose which weights learn",
         11: "More than one task", 13: "Learn from a larger model, or from rewards",
         15: "Do it well", 18: "From an experiment to a model in use",
         20: "Fast, and without silent failures"}
HEAD = """# Fine-tuning, lesson by lesson

These lessons are your copies: change what you like, nothing of yours is overwritten. Open one with
a click. Shift and Enter run a cell; the menu Run has *Run All Cells*. Closing a lesson's tab shuts
its kernel down and gives its memory back; what is on the page stays, if you have saved it. For a
file of your own there is [a template](templates/your_own.ipynb) for the whole process.

Beside the lessons: [views](../docs/explore.md) to look around in, such as
`ft.inspect_tokens(model, record)`; a [glossary](../docs/glossary.md);
[what an error means](../docs/troubleshooting.md); and [your own data](../docs/your-data.md).

Run the next cell to see what is done by now, as far as it is saved."""
CODE = "import ftkit as ft\n\nft.lessons()"


class LessonMap:
    """The lessons of a folder, as a page in a notebook and as a table elsewhere.

    rows: a dict for each with number, file, title, time (of profile cpu), refers_to (earlier
    lessons), cells, run (of the cells), exercises, right (of the exercises), answers (right ones
    and number of questions, or None), failed, newer.
    """

    def __init__(self, rows):
        self.rows = rows

    def __repr__(self):
        return repr(Table({"lesson": f"{row['number']} · {row['title']}", "time": row["time"],
                           "done": done(row)} for row in self.rows))

    def _repr_markdown_(self):
        return self.markdown()

    def markdown(self, folder: str = "", with_done: bool = True) -> str:
        """The page: a table for each part, with links to the lessons as files of a folder.

        folder: as links begin, such as "notebooks/". with_done: whether there is a column for what
        is done in each.
        """
        lines: list[str] = []
        for row in self.rows:
            if row["number"] in PARTS or not lines:
                lines += [f"\n### {PARTS.get(row['number'], 'Lessons')}\n",
                          "| lesson | time | refers\u00a0to |" + " done |" * with_done,
                          "|:---|:---|:---|" + ":---|" * with_done]
            link = f"[{row['number']} · {row['title']}]({folder}{row['file']})"
            earlier = ", ".join(map(str, row["refers_to"])) or "–"
            time = row["time"].replace(" ", "\u00a0")  # in one line
            lines.append(f"| {link} | {time} | {earlier} |" + f" {done(row)} |" * with_done)
        return "\n".join(lines)


def lessons(folder: str | Path = ".") -> LessonMap:
    """List the lessons of a folder, with how long each takes and what is done in it.

    folder: of the notebooks, by default that of the notebook that asks. A cell with a number
    counts as run; what was not saved is not seen. Returns a LessonMap.
    Raises DataError where there is no lesson.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise DataError(f"{folder.resolve()} has no lessons; `ftkit start FOLDER` writes them.")
    newer = start.outdated(folder.parent if folder != Path(".") else Path(".."))
    answers = answered()
    return LessonMap([_row(path, f"notebooks/{path.name}" in newer)
                      | {"answers": answers.get(path.stem)} for path in paths])


def _row(path, newer):
    try:
        notebook = nb.read(path)
    except DataError:  # the others are shown all the same
        notebook = {"cells": []}
    text = "\n".join(nb.source(c) for c in notebook["cells"] if c["cell_type"] == "markdown")
    number = int(path.name[:2])
    named = re.findall(r"\]\((\d\d)_\w+\.ipynb", text) + re.findall(r"\b[Ll]esson (\d+)\b", text)
    title = re.search(r"^# (?:\d+ · )?(.+)$", text, re.MULTILINE)
    time = re.search(r"^\| `cpu` \| ([^|]+?)(?: on 2 cores)? \|", text, re.MULTILINE)
    code = [cell for _, cell in nb.code_cells(notebook)]
    ran = [cell for cell in code if cell.get("execution_count")]
    return {
        "number": number, "file": path.name, "title": title[1] if title else path.stem,
        "time": time[1] if time else "", "newer": newer,
        "refers_to": sorted({int(n) for n in named if int(n) < number}),
        "cells": len(code), "run": len(ran),
        "failed": any(o["output_type"] == "error" for cell in ran for o in cell["outputs"]),
        "exercises": sum("ft.check(" in nb.source(cell) for cell in code),
        "right": sum("ft.check(" in nb.source(cell) and _right(cell) for cell in ran),
    }


def _right(cell):
    shown = ["".join(o.get("data", {}).get("text/plain", "")) for o in cell["outputs"]]
    verdicts = [text.strip().partition("\n")[0] for text in shown]  # below it stands why
    return any(re.fullmatch(r"(.*: )?right\.", verdict) for verdict in verdicts)


def done(row: dict) -> str:
    """What is done in a lesson, in a few words; "" for one that was not begun."""
    words = [] if row["cells"] else ["cannot be read as a notebook"]
    if row["run"]:
        words.append("✓ all cells run" if row["run"] == row["cells"] and not row["failed"]
                     else f"{row['run']} of {row['cells']} cells run")
    if row["failed"]:
        words.append("a cell failed")
    if row["right"]:
        words.append(f"{row['right']} of {row['exercises']} exercises right")
    if row["answers"]:
        words.append("{} of {} questions right".format(*row["answers"]))
    if row["newer"]:
        words.append("a newer version is there: rename yours and start again")
    return ", ".join(words)


def progress(folder: str | Path = ".") -> str:
    """What is done in the lessons of a folder, or of its folder `notebooks`, in words.

    It is read from the notebooks as they were saved, and from the answers in the cache folder:
    nothing leaves the machine. Raises DataError where there is no lesson.
    """
    inside = Path(folder) / "notebooks"
    shown = lessons(inside if inside.is_dir() else folder)
    whole = sum(0 < row["run"] == row["cells"] and not row["failed"] for row in shown.rows)
    right, exercises = (sum(row[name] for row in shown.rows) for name in ("right", "exercises"))
    answers = [row["answers"] for row in shown.rows if row["answers"]]
    said = (f"Lessons run to their end: {whole} of {len(shown.rows)}. Exercises right: {right} of "
            f"{exercises}. Questions right: {sum(one for one, _ in answers)}.")
    begun = [row for row in shown.rows if done(row)]
    return "\n".join(filter(None, [repr(LessonMap(begun)) if begun else "", said]))


def begin(folder: str | Path, open_lab: bool = False) -> None:
    """Write the lessons into a folder with their index page, and say what was done and what next.

    open_lab: whether JupyterLab takes the place of this process, at the index page. Raises what
    `start` raises.
    """
    begun = start.start(folder)
    page = write(begun.folder)
    count = sum(name.startswith("notebooks/") and name.count("/") == 1 for name in
                (*begun.written, *begun.same, *begun.worked_in, *begun.kept))
    print(f"{count} lessons with their solutions, a template for data of your own, the data cards "
          f"and the documents are in {begun.folder}: {len(begun.written)} files were written, "
          f"{len(begun.same)} were there, you have worked in {len(begun.worked_in)}.")
    if begun.kept:
        print(f"Not from here, and left as they are: {', '.join(begun.kept)}.")
    if begun.outdated:
        print(f"Yours, and left as they are, though the course has a newer version: "
              f"{', '.join(begun.outdated)}. For the new one, rename yours and give the command "
              "again.")
    if open_lab:
        lab.open_lab(begun.folder, page)
    opened = "" if find_spec("jupyterlab") else "pip install 'ftkit[lab]' && "
    where = shlex.quote(str(begun.folder))
    print(f"""
Next, type:
  ftkit doctor         # what works on this machine, and what to do about the rest
  ftkit fetch --all    # models and data, once; after that no network is needed
  {opened}ftkit start {where} --lab    # the lessons in JupyterLab
  ftkit progress {where}    # what is done by now""")


def write(folder: str | Path) -> Path:
    """Write the index page beside the lessons that `start` put into a folder. Returns its path.

    A page whose cells somebody changed is left as it is; they are run to bring it up to date.
    """
    place = Path(folder) / "notebooks" / NAME
    shown = lessons(place.parent)
    page = {
        "cells": [
            {"cell_type": "markdown", "id": "head", "metadata": {}, "source": HEAD},
            {"cell_type": "code", "id": "lessons", "metadata": {}, "source": CODE,
             "execution_count": None, "outputs": [
                 {"output_type": "execute_result", "execution_count": None, "metadata": {},
                  "data": {"text/markdown": shown._repr_markdown_(), "text/plain": repr(shown)}}]},
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)",
                                    "language": "python"}},
        "nbformat": 4, "nbformat_minor": 5,
    }
    if not place.exists() or nb.whole_hash(nb.read(place)) == nb.whole_hash(page):
        atomic.write(place, json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    return place
