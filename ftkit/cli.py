"""The command `ftkit`: a thin door to fetch, doctor, batch, runs and the reports."""

import argparse
import ast
import os
import re
import shlex
import sys
from pathlib import Path

import ftkit
from ftkit.errors import FtkitError, SettingError


def main(arguments=None):
    """Run one command. Returns its exit code: 0 done, 1 it found a failure, 2 a bad request."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except FtkitError as error:
        if os.environ.get("FTKIT_DEBUG", "0") != "0":
            raise
        print(f"ftkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("\nftkit: stopped; what was finished is kept.", file=sys.stderr)
        return {("SIGTERM",): 143, ("SIGHUP",): 129}.get(stop.args, 130)
    except BrokenPipeError:  # `ftkit models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser():
    parser = argparse.ArgumentParser(prog="ftkit", description=ftkit.__doc__)
    parser.add_argument("--version", action="version", version=f"ftkit {ftkit.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, text):
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    start = command("start", _start, "write the lessons into a folder of yours, to work in")
    start.add_argument("folder", metavar="FOLDER", help="a new folder, or one of an earlier start")
    fetch = command("fetch", _fetch, "get models and data into the cache")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="a model or a data set")
    fetch.add_argument("--all", action="store_true", help="everything in the catalog")
    command("models", _models, "list the models, with size, licence and whether they are cached")
    command("data", _data, "list the data sets, with size, licence and whether they are cached")
    command("doctor", _doctor, "say what works on this machine, why, and what to do")
    batch = command("batch", _batch, "run lessons, collect their claims, print one table")
    batch.add_argument("paths", nargs="+", metavar="PATH", help="a notebook or a folder of lessons")
    batch.add_argument("--profile", help="smoke, cpu or gpu (default: what the notebook says)")
    batch.add_argument("-p", nargs=2, action="append", default=[], dest="parameters",
                       metavar=("NAME", "VALUE"), help="replace one parameter; can be repeated")
    batch.add_argument("--out", default="artifacts", help="folder for the results (%(default)s)")
    batch.add_argument("--workers", type=int, default=1, help="lessons at a time (%(default)s)")
    batch.add_argument("--timeout", type=float, default=3600, help="seconds a lesson may take")
    batch.add_argument("--cell-timeout", type=float, default=1800, help="seconds a cell may take")
    batch.add_argument("--memory", type=_bytes, help="bytes a lesson may hold, such as 4G")
    again = batch.add_mutually_exclusive_group()
    again.add_argument("--resume", dest="resume", action="store_true", default=True,
                       help="skip what succeeded with the same source and packages (the default)")
    again.add_argument("--fresh", dest="resume", action="store_false", help="run everything")
    batch.add_argument("--commit-to", metavar="FOLDER",
                       help="put the outputs into the notebooks of this folder")
    runs = command("runs", _runs, "list recorded runs")
    runs.add_argument("folder", nargs="?", help="where the records are (default: the cache)")
    report = command("report", _report, "make the results table from the committed notebooks")
    report.add_argument("--notebooks", default="notebooks", help="folder (%(default)s)")
    report.add_argument("--write", metavar="FILE", help="put it between the file's results marks")
    report.add_argument("--figure", metavar="FILE", help="draw the claims into a PNG file")
    return parser


def _start(options):
    from importlib.util import find_spec

    from ftkit.batch.start import start

    done = start(options.folder)
    lessons = [name for name in (*done.written, *done.same, *done.kept)
               if name.startswith("notebooks/") and "/solutions/" not in name]
    print(f"{len(lessons)} lessons with their solutions, and the data cards, are in "
          f"{done.folder}: {len(done.written)} files were written, {len(done.same)} were there.")
    if done.kept:
        print(f"Changed since, and left as they are: {', '.join(done.kept)}. For a new copy, "
              "rename the file and give the command again.")
    lab = "jupyter lab notebooks" if find_spec("jupyterlab") else (
        "pip install jupyterlab && jupyter lab notebooks")
    print(f"""
Next, type:
  cd {shlex.quote(str(done.folder))}
  ftkit doctor         # what works on this machine, and what to do about the rest
  ftkit fetch --all    # models and data, once; after that no network is needed
  {lab}    # and open 00_start_here.ipynb""")


def _fetch(options):
    from ftkit.assets import catalog
    from ftkit.assets import fetch as fetching
    from ftkit.data import recipe

    if bool(options.names) == options.all:
        raise SettingError("name what to fetch (`ftkit models` and `ftkit data` list the names), "
                           "or give --all.")
    known = [*catalog.models(), *recipe.entries()]
    wanted = [catalog.find(name, known) for name in options.names] or known
    models = [entry for entry in wanted if isinstance(entry, catalog.ModelEntry)]
    archives = dict.fromkeys(archive for entry in wanted for archive in entry.archives)
    missing = [name for name in archives if not fetching.is_cached(name, deep=True)]
    if missing:
        _download(missing)
    for key, wrong in fetching.damaged_folders():
        print(f"{key} was damaged ({wrong}); it has been removed", flush=True)
        fetching.remove(key)
    for entry in models:
        if not fetching.is_built(fetching.model_key(entry)):
            print(f"unpacking {entry.name} (once; up to a minute)", flush=True)
            from ftkit.models.load import load_model

            load_model(entry.name)
    print(f"{len(archives)} archives and {len(models)} models are in {fetching.cache_home()}")


def _download(names):
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from ftkit.assets import catalog, fetch

    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
                  TimeRemainingColumn(), disable=not sys.stdout.isatty()) as progress:
        for name in names:
            size = catalog.ARCHIVES[name].size
            if progress.disable:
                print(f"fetching {name} ({size / 1e6:.0f} MB)", flush=True)
            task = progress.add_task(name, total=size)
            fetch.fetch(name, progress=lambda done, total, task=task: progress.update(
                task, completed=done, total=total))


def _models(options):
    from ftkit.assets import catalog

    _list(catalog.models())


def _data(options):
    from ftkit.data import recipe

    _list(recipe.entries())


def _list(entries):
    """Print catalog entries as a table, with the notes that a user should see before using one."""
    from ftkit.assets import fetch

    rows = [("name", "task", "download", "licence", "cached", "what it is")]
    for entry in entries:
        needs = getattr(entry, "needs", "")  # of data sets that not every machine can have
        without = "elsewhere" if needs else "with ftkit"
        size = f"{entry.size / 1e6:.1f} MB" if entry.archives else without
        cached = "yes" if all(map(fetch.is_cached, entry.archives)) and not needs else "no"
        rows.append((entry.name, entry.task, size, entry.licence, cached, entry.title))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(w.ljust(n) for w, n in zip(row, widths, strict=False)), row[-1]]))
    notes = [f"{entry.name}: {entry.warning}" for entry in entries if entry.warning]
    notes += [f"{entry.name}: needs {entry.needs}." for entry in entries
              if getattr(entry, "needs", "")]
    if notes:
        print("\n" + "\n".join(notes))


def _doctor(options):
    from ftkit import doctor

    return doctor.main()


def _batch(options):
    from ftkit.batch.report import text_table, write_results
    from ftkit.batch.run import run_batch

    live = _StatusLine() if sys.stderr.isatty() else None
    parameters = {name: _value(text) for name, text in options.parameters}
    records = run_batch(
        options.paths, profile=options.profile, parameters=parameters, out=options.out,
        workers=options.workers, timeout=options.timeout, cell_timeout=options.cell_timeout,
        memory=options.memory, resume=options.resume, commit_to=options.commit_to,
        report=live.line if live else lambda text: print(text, flush=True), live=live,
    )
    for record in records:
        if record["status"] != "ok":
            print(_failure(record, Path(options.out)))
    print(f"\n{text_table(records)}\n", flush=True)
    results = write_results(records, options.out, profile=options.profile, parameters=parameters)
    figure = ", .md and .png" if any(record["claims"] for record in records) else " and .md"
    print(f"The executed notebooks and results.json{figure} are in {options.out}/.")
    return 0 if results["all_held"] else 1


def _failure(record, out):
    """Return what a reader needs to see of a lesson that did not succeed."""
    lines = [f"\n--- {record['name']}: {record['status']}: {record['message']}"]
    if failure := record["failure"]:
        lines += [f"cell {failure['cell'] + 1}:"]
        lines += [f"    {line}" for line in failure["source"].splitlines()[:12]]
        lines += ["\n".join(failure["traceback"][-3:])]
    if record["output"]:
        lines.append(f"as far as it went: {out / record['output']}")
    lines.append(f"log: {out / record['log']}")
    return "\n".join(lines)


class _StatusLine:
    """On a terminal, one line below the others that says which cell each lesson is at."""

    def __call__(self, states):
        width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
        print(f"\r\033[K{'  |  '.join(states)[:width]}", end="", file=sys.stderr, flush=True)

    def line(self, text):
        print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(text, flush=True)


def _value(text):
    """Return the value that a parameter's text means: a Python literal, else the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _bytes(text):
    """Return the bytes that a size means, such as 500M or 4G; an ArgumentTypeError says why not."""
    units = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "": 1}
    found = re.fullmatch(r"([0-9.]+)([KMGT]?)B?", text.strip().upper())
    try:
        size = float(found[1]) * units[found[2]]
    except (TypeError, ValueError):
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; write a number of bytes above 0, such as 500M or 4G")
    return int(size)


def _runs(options):
    frame = ftkit.runs(options.folder)
    print("no runs are recorded there yet" if frame.empty else frame.to_string(index=False))


def _report(options):
    from ftkit.batch import report
    from ftkit.batch.notebook import write_file

    folder = Path(options.notebooks)
    if options.figure:
        report.figure(report.committed(folder), Path(options.figure))
    document = Path(options.write) if options.write else None
    base = document.parent if document else Path()
    link = Path(os.path.relpath(folder, base)).as_posix() + "/"
    if document:
        text = report.with_tables(document.read_text(encoding="utf-8"), folder, link)
        write_file(text, document)
    else:
        print(report.committed_table(folder, link))


if __name__ == "__main__":
    sys.exit(main())
