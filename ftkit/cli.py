"""The command `ftkit`: a thin door to fetch, doctor, batch, runs, reports and the ship gate."""

import argparse
import ast
import os
import re
import sys
import traceback
from pathlib import Path

import ftkit
from ftkit.errors import DataError, FtkitError, SettingError


def main(arguments=None):
    """Run one command and return its exit code.

    0 done, 1 it found a failure, 2 a bad request, 3 (of `batch` and `replay`) a run had no chance:
    its process was killed or could not start, or the disk is full.
    """
    options = _parser().parse_args(sys.argv[1:] or ["--help"] if arguments is None else arguments)
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


class _Parser(argparse.ArgumentParser):
    """Says what was probably meant by a command that does not exist."""

    def error(self, message):
        from ftkit.assets.catalog import nearest

        if found := re.search(r"COMMAND: invalid choice: '([^']*)' \(choose from (.*)\)", message):
            message = f"{found[1]!r} is no command. " + nearest(
                found[1], re.findall(r"[\w-]+", found[2]))
        super().error(message)


def _parser():
    parser = _Parser(prog="ftkit", description=ftkit.__doc__, epilog=(
        "Begin with: ftkit start my-lessons --lab"))
    parser.add_argument("--version", action="version", version=f"ftkit {ftkit.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, text):
        # No abbreviations: `--seed 7` would mean `--seeds 7`.
        made = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    start = command("start", _start, "write the lessons into a folder of yours, to work in")
    start.add_argument("folder", metavar="FOLDER", help="a new folder, or one of an earlier start")
    start.add_argument("--lab", action="store_true", help="and open them in JupyterLab")
    progress = command("progress", _progress, "say what is done: lessons, exercises, questions")
    progress.add_argument("folder", nargs="?", default=".", metavar="FOLDER",
                          help="that of `ftkit start` (default: this one)")
    fetch = command("fetch", _fetch, "get models and data into the cache")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="a model or a data set")
    fetch.add_argument("--all", action="store_true", help="everything in the catalog")
    command("models", _models, "list the models, with size, licence and whether they are cached")
    command("data", _data, "list the data sets, with size, licence and whether they are cached")
    command("doctor", _doctor, "say what works on this machine, why, and what to do")
    batch = command("batch", _batch, "run lessons, collect their claims, print one table")
    batch.add_argument("paths", nargs="+", metavar="PATH", help="a notebook or a folder of lessons")
    batch.add_argument("--grid", action="append", default=[], metavar="NAME=V1,V2",
                       help="run with each of these values; can be repeated")
    batch.add_argument("--seeds", type=int, metavar="N", help="run with the seeds 0 to N-1")
    batch.add_argument("--workers", type=_workers, default=1, metavar="N",
                       help="runs at a time, or auto (%(default)s)")
    after = batch.add_mutually_exclusive_group()
    after.add_argument("--keep-going", dest="fail_fast", action="store_false", default=False,
                       help="run the rest after a failure (the default)")
    after.add_argument("--fail-fast", dest="fail_fast", action="store_true",
                       help="start nothing more after a failure")
    batch.add_argument("--commit-to", metavar="FOLDER",
                       help="put the outputs into the notebooks of this folder")
    batch.add_argument("--start", choices=["fork", "fresh"], help="runs from one process that has "
                       "imported the libraries (default on smoke), or each in one of its own")
    batch.add_argument("--executor", choices=["local", "ray"], default="local",
                       help="where runs happen: on this machine, or on a Ray cluster")
    batch.add_argument("--address", help="of the Ray cluster (default: one is started here)")
    batch.add_argument("--cpus", type=float, default=1, help="a run needs, on the cluster")
    batch.add_argument("--gpus", type=float, default=0, help="a run needs, on the cluster")
    launch = command("launch", _launch, "run a notebook's cells in several processes at a time, "
                     "under torchrun: one training on several cards or machines")
    launch.add_argument("paths", nargs=1, metavar="NOTEBOOK", help="as for one process")
    launch.add_argument("--nproc", type=int, required=True, metavar="N",
                        help="processes on each machine: as many as it has cards")
    launch.add_argument("--nnodes", type=int, default=1, metavar="N",
                        help="machines; the command is given on each (%(default)s)")
    launch.add_argument("--node-rank", type=int, default=0, metavar="N",
                        help="which of them this is; number 0 writes the results (%(default)s)")
    launch.add_argument("--master", metavar="HOST:PORT", help="of machine 0, for the others")
    launch.set_defaults(grid=[], seeds=None, workers=1, fail_fast=False, commit_to=None,
                        executor="local", address=None, cpus=1, gpus=0, start=None)
    for made in (batch, launch):
        made.add_argument("--profile", help="smoke, cpu or gpu (default: what the notebook says)")
        made.add_argument("-p", nargs=2, action="append", default=[], dest="parameters",
                          metavar=("NAME", "VALUE"), help="replace one parameter; can be repeated")
        made.add_argument("--out", default="artifacts", help="folder for the results (%(default)s)")
        made.add_argument("--retries", type=int, metavar="N",
                          help="further attempts after a killed process, not after an error "
                          "(default: 0, on a cluster 2)")
        made.add_argument("--timeout", type=float, default=3600, help="seconds a run may take")
        made.add_argument("--cell-timeout", type=float, default=1800,
                          help="seconds a cell may take")
        made.add_argument("--memory", type=_bytes, help="bytes a run may hold here, such as 4G")
        again = made.add_mutually_exclusive_group()
        again.add_argument("--resume", dest="resume", action="store_true", default=True,
                           help="skip what succeeded with the same source and packages (the "
                           "default)")
        again.add_argument("--fresh", dest="resume", action="store_false", help="run everything")
    runs = command("runs", _runs, "list recorded runs")
    runs.add_argument("folder", nargs="?", help="where the records are (default: the cache)")
    report = command("report", _report, "make the results table from the committed notebooks")
    report.add_argument("--notebooks", default="notebooks", help="folder (%(default)s)")
    report.add_argument("--write", metavar="FILE", help="put it between the file's results marks")
    report.add_argument("--figure", metavar="FILE", help="draw the claims into a PNG file")
    serve = command("serve", _serve, "serve a chat model on this machine, for OpenAI clients; the "
                    "token is FTKIT_TOKEN, or a new one that is printed")
    serve.add_argument("model", metavar="MODEL", help="a name, a folder or registry:NAME@ALIAS")
    serve.add_argument("--port", type=int, default=8000, help="0 for any (%(default)s)")
    serve.add_argument("--feedback", metavar="FILE", help="keep what users say in this file")
    ship = command("ship", _ship, "decide whether one model may take the place of another: exit "
                   "code 0 where the task is won and nothing else got worse, else 1")
    ship.add_argument("candidate", metavar="CANDIDATE", help="such as registry:NAME@candidate")
    ship.add_argument("champion", metavar="CHAMPION", help="the model in use")
    ship.add_argument("--data", required=True, metavar="NAME", help="a data set or a file of your "
                      "own; its test split is the task")
    ship.add_argument("--metric", required=True, help="what is to be won, such as loss or accuracy")
    ship.add_argument("--generate", action="store_true", help="for metrics of written answers")
    ship.add_argument("--rows", type=int, default=200,
                      help="of each part of the general suite (%(default)s)")
    ship.add_argument("--promote", metavar="ALIAS",
                      help="point this alias to the candidate if it may ship")
    capsule = command("capsule", _capsule, "pack a recorded run into one file that can be replayed")
    capsule.add_argument("folder", metavar="RUN_FOLDER", help="of its record (see `ftkit runs`)")
    capsule.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    capsule.add_argument("--model", metavar="FOLDER", help="its saved model (RUN_FOLDER/model)")
    capsule.add_argument("--notebook", metavar="FILE", help="as it was executed, with its claims")
    capsule.add_argument("--with-data", action="store_true", help="pack the rows, too")
    replay = command("replay", _replay, "do a run again from its capsule, offline, and compare: "
                     "exit code 0 where all came out again, 1 where not, 3 where it had no chance")
    replay.add_argument("file", metavar="FILE", help="a capsule")
    replay.add_argument("--notebook", choices=["run", "skip"], help="whether its code is run")
    for made in (capsule, replay):
        made.add_argument("--data", metavar="NAME", help="a data set or file: its rows, where they "
                          "are not found as they were then")
    replay.add_argument("--base", metavar="MODEL", help="its base, where it has another name here")
    replay.add_argument("--tolerance", type=float, default=1e-3, help="of losses (%(default)s)")
    return parser


def _start(options):
    from ftkit.batch import index

    index.begin(options.folder, options.lab)


def _progress(options):
    from ftkit.batch import index

    print(index.progress(options.folder))


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

    print(catalog.listed(catalog.models()))


def _data(options):
    from ftkit.assets import catalog
    from ftkit.data import recipe

    print(catalog.listed(recipe.entries()))


def _doctor(options):
    from ftkit import doctor

    return doctor.main()


def _launch(options):
    from ftkit.batch.launch import Launch, join

    launch = Launch(options.nproc, options.nnodes, options.node_rank, options.master)
    if launch.node_rank == 0:
        return _batch(options, launch)
    return join(options.paths, options.profile, _parameters(options), options.out, launch)


def _parameters(options):
    return {name: _value(text) for name, text in options.parameters}


def _batch(options, launch=None):
    from ftkit.batch.run import exit_code

    same = ("profile", "seeds", "out", "workers", "retries", "fail_fast", "timeout", "cell_timeout",
            "memory", "resume", "commit_to", "executor", "address", "cpus", "gpus", "start")
    return _judged(lambda: exit_code(ftkit.batch(
        options.paths, parameters=_parameters(options), grid=_grid(options.grid), launch=launch,
        **{name: getattr(options, name) for name in same})["lessons"]))


def _judged(run):
    """The exit code that run() returns; 3 for an error of ftkit or of the machine."""
    try:
        return run()
    except (SettingError, DataError):
        raise
    except Exception as error:  # told apart from a lesson's
        known = isinstance(error, FtkitError)
        print(f"ftkit: {error}" if known else traceback.format_exc(), file=sys.stderr)
        return 3


def _grid(texts):
    """Return {parameter: values} for words such as `rank=4,8`."""
    grid = {}
    for text in texts:
        name, is_there, values = text.partition("=")
        if not (name and is_there and values):
            raise SettingError(f"--grid {text}: NAME=V1,V2 is expected, such as rank=4,8.")
        if name in grid:
            raise SettingError(f"--grid has {name} twice; give all its values at once.")
        try:
            grid[name] = list(ast.literal_eval(f"({values},)"))
        except (ValueError, SyntaxError):  # words without quotes
            grid[name] = [_value(value) for value in values.split(",")]
    return grid


def _workers(text):
    if text != "auto" and not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number from 1 on nor "auto"')
    return text if text == "auto" else int(text)


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
    from ftkit.training.records import runs_home

    where = options.folder or runs_home()
    print(f"no runs are recorded in {where} yet" if frame.empty else frame.to_string(index=False))


def _report(options):
    from ftkit.batch import report

    if shown := report.publish(options.notebooks, options.write, options.figure):
        print(shown)


def _serve(options):
    token = os.environ.get("FTKIT_TOKEN", "")
    with ftkit.serve(options.model, port=options.port, token=token,
                     feedback=options.feedback) as service:
        print(f"{service.name} answers at {service.url}", flush=True)
        print("token: that of FTKIT_TOKEN" if token else f"token: {service.token}", flush=True)
        if options.feedback:
            print(f"page for feedback: {service.url.removesuffix('v1')}#TOKEN", flush=True)
        service.wait()


def _ship(options):
    if options.promote and not options.candidate.startswith("registry:"):
        raise SettingError(f"--promote needs a registered candidate, such as registry:NAME/3, and "
                           f"{options.candidate!r} is none.")
    path = Path(options.data)
    test = ftkit.load_data(path if path.exists() else options.data)["test"]
    models = [ftkit.load_model(name) for name in (options.candidate, options.champion)]
    new, old = (ftkit.evaluate(model, test, generate=options.generate) for model in models)
    won = ftkit.compare(new, old, options.metric)
    verdict = ftkit.ship(*models, [won], ftkit.general_suite(options.rows))
    print(verdict)
    if verdict.ship and options.promote:
        now = ftkit.promote(options.candidate, options.promote)
        print(f"{now.name}@{options.promote} is version {now.number} now")
    return 0 if verdict.ship else 1


def _capsule(options):
    print(ftkit.capsule(options.folder, options.out, model=options.model, data=options.data,
                        notebook=options.notebook, with_data=options.with_data))


def _replay(options):
    def run():
        found = ftkit.replay(
            options.file, base=options.base, data=options.data, tolerance=options.tolerance,
            notebook=options.notebook and options.notebook == "run")
        print(found)
        return found.exit_code

    return _judged(run)


if __name__ == "__main__":
    sys.exit(main())
