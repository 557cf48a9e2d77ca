"""A view of recorded runs: what a setting, such as the learning rate or the depth, changes."""

import json
from pathlib import Path

import numpy as np

from ftkit.course.view import Control, View
from ftkit.display import COLORS, LINES, MARKERS, Picture, Table, finished, new_figure
from ftkit.errors import DataError, SettingError

RESULTS = ("metrics.", "seconds", "peak_memory", "added_memory")
ALL = "all runs"
RATE, METHOD, DEPTH = "settings.learning_rate", "settings.method", "trainable.blocks"
STORED = Path(__file__).with_name("stored_runs.json")  # written by benchmarks/stored_runs.py


def stored_runs():
    """The runs that come with the kit, a DataFrame with columns as of ft.runs().

    Trainings of minilm-l6 on film reviews at several learning rates and depths, each with several
    seeds; benchmarks/stored_runs.py trains them anew and says which. Without times and memory,
    which are those of a machine.
    """
    import pandas as pd

    return pd.DataFrame(json.loads(STORED.read_text(encoding="utf-8"))["runs"])


def explore_runs(runs=None, *, x=RATE, y="metrics.eval_loss", only=ALL):
    """Compare recorded runs by a setting, without training anything anew.

    runs: a DataFrame, as ft.runs() returns it, or a part of it; by default those that come with the
    kit, trainings of minilm-l6 on film reviews, made by benchmarks/stored_runs.py. x: a column of a
    setting that is not the same in all runs, such as "settings.learning_rate", "settings.method" or
    "trainable.blocks" (the depth: in how many blocks something is trained). y: a column of a
    result, such as "metrics.eval_loss" or "seconds".
    only: a method, as in the column settings.method, or "all runs". Returns a View with a row for
    each run, in the order of x: "run", "method", the learning rate, x and y; and a figure of the
    rows, in which runs with the same x stand above each other, with a line through their means for
    each method, or for each learning rate where x is the depth or the method. Controls: x, y, only.
    Raises DataError for fewer than two runs, or none that have both columns, SettingError for a
    column or method that cannot be chosen, with those that can.
    """
    runs = stored_runs() if runs is None else runs
    if len(runs) < 2:
        raise DataError(f"{len(runs)} runs are recorded there; a comparison needs two or more. "
                        "Name their folder: ft.runs(FOLDER), or look at those that come with the "
                        "kit: ft.explore_runs().")
    results = [name for name in runs if name.startswith(RESULTS) and _numbers(runs[name])]
    settings = [name for name in runs if name.startswith(("settings.", "trainable."))
                and len({str(value) for value in runs[name].dropna()}) > 1]
    methods = [ALL, *dict.fromkeys(map(str, runs[METHOD]))]
    for name, value, known in (("x", x, settings), ("y", y, results), ("only", only, methods)):
        if value not in known:
            raise SettingError(f"{name}={value!r}: choose one of {', '.join(known) or 'none'}.")

    def compute(x, y, only):
        rows = [{"run": row["name"], "method": str(row[METHOD]), RATE: row[RATE], x: row[x],
                 y: row[y]} for row in runs.dropna(subset=[x, y]).to_dict("records")
                if only in (ALL, str(row[METHOD]))]
        numbers = all(isinstance(row[x], int | float) for row in rows)
        return sorted(rows, key=lambda row: row[x] if numbers else str(row[x]))

    def render(rows, settings):
        if not rows:
            return [Table([], caption="No run has both; choose another setting or result.")]
        return [Picture(_drawn(rows, settings["x"], settings["y"])), Table(
            {name: f"{value:.4g}" if isinstance(value, float) else value
             for name, value in row.items()} for row in rows)]

    if not compute(x, y, only):
        raise DataError(f"no run has both {x} and {y}; choose others.")
    controls = {"x": Control("setting", x, settings), "y": Control("result", y, results),
                "only": Control("method", only, methods)}
    return View(f"{len(runs)} recorded runs", controls, compute, render)


def _numbers(column):
    return len(column.dropna()) and all(isinstance(v, int | float) and not isinstance(v, bool)
                                        for v in column.dropna())


def _drawn(rows, x, y):
    figure, axes = new_figure()
    values = [row[x] for row in rows]
    numbers = all(isinstance(value, int | float) for value in values)
    names = list(dict.fromkeys(map(str, values)))
    by_rate = x == METHOD or x.startswith("trainable.")  # which says what is trained, as x does
    lines = {}
    for row in sorted(rows, key=lambda row: row[RATE]) if by_rate else rows:
        name = f"learning rate {row[RATE]:g}" if by_rate else row["method"]
        lines.setdefault(name, []).append(row)
    for i, (name, chosen) in enumerate(lines.items()):
        at = [row[x] if numbers else names.index(str(row[x])) for row in chosen]
        way = dict(color=COLORS[i % len(COLORS)], marker=MARKERS[i % len(MARKERS)])
        axes.plot(at, [row[y] for row in chosen], linestyle="", label="_nolegend_", **way)
        means = {place: np.mean([row[y] for row, here in zip(chosen, at, strict=True)
                                 if here == place]) for place in dict.fromkeys(at)}
        axes.plot([*means], [*means.values()], label=name, linestyle=LINES[i % len(LINES)],
                  markevery=(len(means), 1), **way)  # its mark is in the legend alone
    if not numbers:
        axes.set_xticks(range(len(names)), names)
    elif min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale("log")
    axes.set(title=f"{_short(y)} by {_short(x)}", xlabel=_short(x), ylabel=_short(y))
    if len(lines) > 1:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9,
                      title="the marks are runs, the lines go through their means")
    return finished(figure)


def _short(column):
    if column == DEPTH:
        return "blocks that are trained"
    unit = " (bytes)" if column.endswith("_memory") else ""
    return column.rpartition(".")[2].replace("_", " ") + unit
