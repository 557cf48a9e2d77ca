"""Writes docs/choosing.md and its figure: `python tools/choosing_page.py`, by `make compare`."""

import hashlib
import io
import sys
from pathlib import Path

import numpy as np

from ftkit.assets import atomic
from ftkit.course import advise
from ftkit.errors import SettingError

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "choosing.md", ROOT / "docs" / "choosing.png"
START, END = "<!-- comparison:start -->", "<!-- comparison:end -->"
SITUATIONS = ((0, None, 1), (20, None, 1), (50, None, 1), (250, None, 1), (250, 200e6, 1),
              (250, None, 20))  # labels, bytes of memory, tasks


def mean(cells, name, by="speed"):
    """The mean of a number over cells; of seconds, times how fast the process was just then."""
    return float(np.mean([cell[name] * (cell[by] if by else 1) for cell in cells]))


def rows(found, task, methods):
    """A row of the table for each method of a task, as a dict."""
    cells = {name: [c for c in found["cells"] if (c["task"], c["method"]) == (task, name)]
             for name in methods}
    answer = mean(cells["full"], "answer_seconds")
    labels = found["tasks"][task]["labels"]
    made = []
    for name, method in methods.items():
        shown = max(cell.get("shown", 0) for cell in cells[name])
        trained = mean(cells[name], "share", None)
        title = f"{name} ({shown} shown)" if shown else name
        scores = {f"right with {n} labels": str(method.score(n)) if n >= method.labels[0] else "–"
                  for n in labels}
        took = mean(cells[name], "answer_seconds") / answer
        made.append({"method": title, **scores,
                     "weights trained": f"{trained:.2%}" if trained else "–",
                     "training time": f"{method.seconds:.2f}" if method.seconds else "–",
                     "time of an answer": f"{took:.1f}" if took else "–",
                     "memory": f"{method.memory / 1e6:,.0f} MB" if method.memory else "–",
                     "stored for a task": f"{method.stored / 1e6:,.2f} MB"})
    return made


def markdown(lines):
    """Dicts of one form as a Markdown table."""
    head = list(lines[0])
    return "\n".join(["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |",
                      *("| " + " | ".join(line.values()) + " |" for line in lines)])


def text(path=advise.STORED):
    """What stands between the marks of the page."""
    found, tasks = advise.comparison(path)
    parts = []
    for task, methods in tasks.items():
        about = found["tasks"][task]
        parts += [f"### {about['title'].capitalize()} (`{task}`, {about['model']})", "",
                  f"{about['updates']} updates of {about['batch']} texts for whatever is trained; "
                  f"{len(about['seeds'])} training samples; {methods['full'].covers} in the test.",
                  f"Measured {about['date']} on {about['machine']}; " + ", ".join(
                      f"{name} {version}" for name, version in about["versions"].items()) + ".",
                  "", markdown(rows(found, task, methods)), ""]
    parts += ["### What `ft.advise` says", ""]
    lines = []
    for task in tasks:
        for n, memory, n_tasks in SITUATIONS:
            line = {"task": f"`{task}`", "labels": str(n),
                    "memory": f"{memory / 1e6:.0f} MB" if memory else "any", "tasks": str(n_tasks)}
            try:
                said = advise.advise(task, n, memory=memory, n_tasks=n_tasks)
                line |= {"advice": said.method, "expected": str(said.score),
                         "sure": "–" if said.sure is None else f"{said.sure:.0%}"}
            except SettingError:  # too few labels, or too little memory, for all that was measured
                line |= {"advice": "none", "expected": "–", "sure": "–"}
            lines.append(line)
    return "\n".join([*parts, markdown(lines)])


def picture(path=advise.STORED):
    """A PNG: right answers against the share of weights that is trained, a panel for each task."""
    from matplotlib.figure import Figure

    found, tasks = advise.comparison(path)
    drawing = Figure(figsize=(11, 4.8), layout="constrained")
    for axes, (task, methods) in zip(drawing.subplots(1, len(tasks), squeeze=False)[0],
                                     tasks.items(), strict=True):
        about = found["tasks"][task]
        n = about["labels"][-1]
        shares = {name: mean([c for c in found["cells"] if (c["task"], c["method"]) ==
                              (task, name)], "share", None) for name in methods}
        order = sorted(methods, key=shares.get)  # neighbours' names stand above and below in turn
        for i, (name, method) in enumerate(methods.items()):
            share = shares[name]
            place = share or 2e-9 * 6.0**i  # what trains nothing stands side by side, on the left
            score = method.score(n)
            axes.errorbar(place, score.value, [[score.value - score.low],
                          [score.high - score.value]], fmt="o" if share else "s",
                          color="0.1", ecolor="0.6", capsize=2, markersize=5)
            above = order.index(name) % 2
            axes.annotate(name, (place, score.value), xytext=(0, 7 if above else -12), fontsize=7,
                          ha="right" if share > 0.5 else "center", textcoords="offset points",
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})
        axes.set_xscale("log")
        axes.margins(0.1)  # room for the names
        axes.minorticks_off()
        axes.set_xticks([1e-4, 1e-3, 1e-2, 1e-1, 1])
        axes.set(title=f"{about['title']}, {n} labels",
                 xlabel="share of the weights that is trained (squares: none)",
                 ylabel=f"{about['metric']} on held-out rows (share)")
        axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    drawing.savefig(png, dpi=100, metadata={"ftkit": fingerprint(path)})
    return png.getvalue()


def fingerprint(path=advise.STORED):
    """The sha256 of the stored comparison, in hex; the picture carries it."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def rewritten(page):
    """The page with the current text between its marks."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n{text()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    atomic.write(PAGE, rewritten(PAGE.read_text(encoding="utf-8")))
    atomic.write(PICTURE, picture())
    sys.exit(print(f"wrote {PAGE} and {PICTURE}"))
