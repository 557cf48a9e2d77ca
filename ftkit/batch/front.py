"""`ft.batch`: what a reader sees of a batch while it runs, and the files it leaves at its end."""

import html
import os
import sys
from pathlib import Path

from ftkit.batch import grid as grids
from ftkit.batch.report import text_table, write_results
from ftkit.batch.run import run_batch
from ftkit.display import Table, display, in_notebook


def batch(notebooks, *, profile=None, parameters=None, grid=None, seeds=None, out="artifacts",
          workers=1, retries=None, fail_fast=False, timeout=3600, cell_timeout=1800, memory=None,
          resume=True, commit_to=None, executor="local", address=None, cpus=1, gpus=0,
          launch=None, start=None, track=None):
    """Run notebooks, each once or over a grid, and write one table of what they claimed.

    notebooks: paths of notebooks, or folders of lessons (NN_topic.ipynb). profile, parameters:
    values for the `parameters` cell of all. grid: {parameter: [values]}, every combination is run;
    seeds: each of them with seed 0, 1, and so on. out: the folder for executed notebooks, logs,
    records and results.json, .md and .png (of a grid .parquet, too). workers: runs at a time, or
    "auto", by the cores and the memory that may be used. retries: further attempts for a run whose
    process was killed or never answered, never after a cell's own error; by default none, and 2 on
    a cluster. fail_fast: start nothing more after a failure. timeout, cell_timeout: seconds a run
    and a cell may take. memory: bytes a run and all its processes may hold. resume: skip what
    succeeded with the same source, parameters and packages. commit_to: a folder whose notebooks of
    the same name get the outputs. executor:
    "local", or "ray": each run a task on the Ray cluster at address (None starts one on this
    machine) that gets so many cpus and gpus (needs the package ray). launch: a
    ftkit.batch.launch.Launch, for cells that several processes run together. start: "fork" the
    processes of runs from one that has imported the libraries, which saves each run some seconds,
    or "fresh" for each; None forks on the profile smoke alone, as results come from fresh ones.
    track: whether each run that ends is sent to MLflow (extra `track`) with its parameters, claims,
    figures and executed notebook; by default what FTKIT_TRACK says.
    Shows each run as it ends, in a terminal or a notebook how far the others are, and the table.
    Returns the content of results.json as a dict: `lessons` has a record for each run, `grid` the
    rows of the table, `all_held` whether all succeeded and all claims hold.
    Raises SettingError or DataError before anything runs for a request that makes no sense.
    """
    paths = [notebooks] if isinstance(notebooks, str | Path) else notebooks
    live = _live()
    try:
        records = run_batch(
            paths, profile=profile, parameters=parameters, grid=grid, seeds=seeds, out=out,
            workers=workers, retries=retries, fail_fast=fail_fast, timeout=timeout,
            cell_timeout=cell_timeout, memory=memory, resume=resume, commit_to=commit_to,
            executor=executor, address=address, cpus=cpus, gpus=gpus, launch=launch, start=start,
            track=track, report=live.line if live else _line, live=live)
    finally:
        if live:
            live([])
    for record in records:
        if record["status"] not in ("ok", "not started"):
            print(_failure(record, Path(out)))
    results = write_results(records, out, profile=profile, parameters=parameters or {},
                            over_grid=bool(grid or seeds))
    if rows := results.get("grid"):
        columns = grids.header(rows)
        display(Table(dict(zip(columns, row, strict=True)) for row in grids.words(rows)))
    else:
        print(f"\n{text_table(records)}\n")
    written = [path.suffix for path in sorted(Path(out).glob("results.*")) if
               path.suffix != ".json"]
    print(f"The executed notebooks and results.json, {', '.join(written)} are in {out}/.",
          flush=True)
    return results


def _line(text):
    print(text, flush=True)


def _failure(record, out):
    """Return what a reader needs to see of a run that did not succeed."""
    lines = [f"\n--- {record['name']}: {record['status']}: {record['message']}"]
    if failure := record["failure"]:
        lines += [f"cell {failure['cell'] + 1}:"]
        lines += [f"    {line}" for line in failure["source"].splitlines()[:12]]
        lines += ["\n".join(failure["traceback"][-3:])]
    if record["output"]:
        lines.append(f"as far as it went: {out / record['output']}")
    if (log := out / record["log"]).exists():  # not where nothing could be written
        lines.append(f"log: {log}")
    return "\n".join(lines)


def _live():
    """Return what shows the running lessons: in a terminal or a notebook; None elsewhere."""
    if sys.stderr.isatty():
        return _InTerminal()
    return _InNotebook() if in_notebook() else None


class _InTerminal:
    """One line below the others that says which cell each lesson is at."""

    def __call__(self, states):
        # A terminal that does not know its width says 0.
        width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        print(f"\r\033[K{'  |  '.join(states)[:width]}", end="", file=sys.stderr, flush=True)

    def line(self, text):
        self([])
        _line(text)


class _InNotebook:
    """An output of its own that is replaced, a line for each running lesson."""

    def __init__(self):
        from IPython.display import HTML, display

        self.html, self.shown = HTML, None
        self.handle = display(HTML(""), display_id=True)

    def __call__(self, states):
        if states != self.shown:
            self.shown = states
            self.handle.update(self.html(f"<pre>{html.escape(chr(10).join(states))}</pre>"))

    line = staticmethod(_line)
