"""A map of what a model forgets: its tasks by the steps of its training."""

from collections.abc import Mapping

import numpy as np

from ftkit.course.view import Control, View
from ftkit.display import Picture, Table, finished, new_figure
from ftkit.errors import SettingError
from ftkit.evaluation.evaluate import Evaluation

SCORE, FORGOTTEN = "score", "forgotten since its best"


def forgetting_map(
    steps: Mapping[str, Mapping[str, Evaluation]], *, metric: str = "accuracy", show: str = SCORE,
) -> View:
    """Map each task's score over the steps of a training, and what was forgotten of it.

    steps: {step, such as "after month 1": {task: its Evaluation then}}, in the order in which they
    were trained; a step may leave tasks out. metric: one that every evaluation has. show: "score",
    or "forgotten since its best": the best score of the task so far minus that of the step (of a
    loss or a perplexity the step minus the lowest), as in Chaudhry et al. 2018, *Riemannian Walk
    for Incremental Learning*. Returns a View with a row for each task and step: "task", "step",
    "score", its interval "low" to "high", and "forgotten". Drawn from white to blue, a scale that
    the colour-blind see, with each number written in its cell. Control: show.
    Raises SettingError without an evaluation, for a metric that one of them lacks, or another show.
    """
    tasks = list(dict.fromkeys(task for found in steps.values() for task in found))
    if not tasks:
        raise SettingError('there is no evaluation; give {"after month 1": {"task": evaluation}}.')
    sign = -1 if metric in ("loss", "perplexity") else 1
    rows: list[dict] = []
    best: dict[str, float] = {}
    for step, found in steps.items():
        for task, evaluation in found.items():
            now = evaluation[metric]
            best[task] = max(best.get(task, -np.inf), sign * now.value)
            rows.append({"task": task, "step": step, "score": now.value, "low": now.low,
                         "high": now.high, "forgotten": best[task] - sign * now.value})

    def compute(show):
        if show not in (SCORE, FORGOTTEN):
            raise SettingError(f"show={show!r}: choose {SCORE!r} or {FORGOTTEN!r}.")
        return rows

    def render(rows, settings):
        worst = max(rows, key=lambda row: row["forgotten"])
        said = (f"Forgotten most: {worst['task']}, by {worst['forgotten']:.3g} ({worst['step']})"
                if worst["forgotten"] > 0 else "Nothing is lower than it was")
        column, what = ("score", metric) if settings["show"] == SCORE else (
            "forgotten", f"{metric}, {FORGOTTEN}")
        words = "; ".join(f"{task}: " + ", ".join(f"{row['step']} {row[column]:.3g}" for row in rows
                                                  if row["task"] == task) for task in tasks)
        return [Picture(_drawn(rows, tasks, list(steps), column, what), f"{what}. {words}."),
                Table(rows, caption=said)]

    return View(f"{metric} of {len(tasks)} tasks over {len(steps)} steps",
                {"show": Control("show", show, (SCORE, FORGOTTEN))}, compute, render)


def _drawn(rows, tasks, steps, column, what):
    grid = np.full((len(tasks), len(steps)), np.nan)
    for row in rows:
        grid[tasks.index(row["task"]), steps.index(row["step"])] = row[column]
    figure, axes = new_figure((1.3 * len(steps) + 2.5, 0.6 * len(tasks) + 1.6))
    axes.grid(False)
    low, high = min(0, np.nanmin(grid)), max(np.nanmax(grid), 1e-9)
    axes.imshow(grid, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    for (i, j), value in np.ndenumerate(grid):
        dark = (value - low) / (high - low) > 0.6
        axes.text(j, i, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center",
                  color="white" if dark else "black")
    axes.set_xticks(range(len(steps)), steps)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set(title=what, xlabel="step of the training", ylabel="task")
    return finished(figure)
