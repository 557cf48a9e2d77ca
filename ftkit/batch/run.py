"""Runs lessons in batch: in parallel, resumable, each believed only when all of it succeeded."""

import difflib
import hashlib
import json
import math
import os
import platform
import shutil
import signal
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path

import ftkit
from ftkit.assets.fetch import cache_home
from ftkit.batch import notebook as nb
from ftkit.batch.forks import may_fork, preloaded
from ftkit.batch.grid import points, run_name
from ftkit.batch.supervise import WORK, Running, adopting
from ftkit.batch.track import track_run
from ftkit.errors import DataError, FtkitError, SettingError
from ftkit.models.hardware import usable_cores, usable_memory
from ftkit.training import tracking

LOCK = ".ftkit-batch.lock"
CHECKPOINTS = ".ftkit-checkpoints"  # of trainings that were cut
# The last one says whose they are.
RESULTS = ("results.png", "results.parquet", "results.md", "results.json")
POLL = 0.2  # seconds between two looks at the running lessons
LESSON_MEMORY = 4e9  # bytes that a lesson of the course may need
# What came from outside and may not come again; a cell's own error would.
RETRIED = ("dead kernel", "crashed", "no kernel")
MACHINERY = (*RETRIED, "disk")  # neither a cell nor a claim is to blame
# Modules that no lesson uses: a change in them does not make a result old.
_OUTSIDE = ("batch", "cli.py", "doctor.py")


def find_notebooks(paths):
    """Return the notebooks that paths name; of a folder, its lessons (NN_topic.ipynb) in order."""
    found = []
    for path in map(Path, paths):
        lessons = sorted(path.glob("[0-9][0-9]_*.ipynb")) if path.is_dir() else [path]
        if not lessons:
            raise SettingError(f"{path} has no lesson in it (a file named like 01_topic.ipynb).")
        found += lessons
    return list(dict.fromkeys(path.resolve() for path in found))


def run_batch(notebooks, *, profile=None, parameters=None, grid=None, seeds=None,
              out="artifacts", workers=1, retries=None, fail_fast=False, timeout=3600,
              cell_timeout=1800, memory=None, resume=True, commit_to=None, executor="local",
              address=None, cpus=1, gpus=0, launch=None, start=None, track=None, report=print,
              live=None):
    """Run notebooks and return one record for each run, in their order.

    The arguments are those of `ft.batch` (front.py); memory is by default 90% of what this process
    may use. Nothing in the folder out is changed or removed that no batch has written. report is
    called with each line of progress, live with the states of what runs.
    A record has name, lesson, point (its values of the grid), status ("ok" or what went wrong),
    message, attempts, seconds, peak_memory (bytes), claims, failure, output and log (relative to
    `out`). Failures do not raise; one run's does not stop another.
    Raises SettingError or DataError before anything runs when a request makes no sense.
    """
    if executor not in ("local", "ray"):
        raise SettingError(f'executor={executor!r}: "local" or "ray" is expected.')
    numbers = {"workers": 1 if workers == "auto" else workers, "timeout": timeout,
               "cell_timeout": cell_timeout, "memory": 1 if memory is None else memory,
               "cpus": cpus}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not (
                math.isfinite(value) and value > 0):
            raise SettingError(f"{name}={value!r}: a number greater than 0 is expected.")
    if retries is None:  # a cluster loses a node now and then
        retries = 2 if executor == "ray" else 0
    if type(retries) is not int or retries < 0:
        raise SettingError(f"retries={retries!r}: a whole number from 0 on is expected.")
    lessons = lessons_of(notebooks, profile, parameters, grid, seeds, out, launch)
    out = Path(out).resolve()
    names = Counter(lesson.name for lesson in lessons)
    if twice := sorted(name for name, times in names.items() if times > 1):
        raise SettingError(f"two notebooks are named {twice[0]}.ipynb; give each its own --out.")
    if commit_to and any(lesson.injected for lesson in lessons):
        raise SettingError("outputs are committed from default parameters only; leave out -p, "
                           "--grid, --seeds and a --profile that is not the notebook's own.")
    _check_out(out, lessons)
    follow = partial(track_run, out=out) if tracking.wanted(track) else None
    forked = may_fork(lessons, start, executor, launch, commit_to)
    limits = {"timeout": timeout, "cell_timeout": cell_timeout, "memory": memory,
              "launch": launch}
    with _only_batch_in(out), _executor(
            executor, lessons, workers, limits, address, cpus, gpus, forked, report) as (
            begin, workers), _stop_on_signal():  # the last, as Ray has handlers of its own
        records = _run_all(lessons, begin, workers, retries, fail_fast, resume, report, live,
                           follow)
    for lesson, record in zip(lessons, records, strict=True):
        if commit_to and record["status"] == "ok":
            try:
                nb.commit(nb.read(lesson.output), Path(commit_to) / lesson.path.name,
                          profile=lesson.values.get("profile"),
                          forbidden=[Path.cwd(), cache_home(), lesson.out])
            except FtkitError as error:
                record.update(status="not committed", message=str(error))
    return records


def lessons_of(notebooks, profile, parameters, grid, seeds, out, launch):
    """Return what is to be run, a `Lesson` each. Arguments and errors are those of `run_batch`."""
    values = dict(parameters or {}, **({"profile": profile} if profile else {}))
    # What was run by one process says nothing about several.
    environment = f"{_environment()}{launch or ''}"
    # Each is read once: the runs of a large grid share it.
    books = {path: nb.read(path) for path in find_notebooks(notebooks)}
    return [Lesson(path, book, {**values, **point}, point, Path(out).resolve(), environment)
            for path, book in books.items() for point in points(grid, seeds, values)]


@contextmanager
def _executor(executor, lessons, workers, limits, address, cpus, gpus, forked, report):
    """Give (start, workers): what starts a lesson, how many run at a time. forked: their names."""
    if executor == "ray":
        from ftkit.batch.ray_executor import cluster

        with cluster(address, cpus, gpus, limits) as (start, fits):
            yield start, fits if workers == "auto" else workers
        return
    if workers == "auto":
        workers = auto_workers({lesson.values.get("profile") for lesson in lessons})
    workers = min(workers, len(lessons))  # so that they have the threads of all cores
    limits["memory"] = limits["memory"] or int(0.9 * usable_memory())
    with adopting(), preloaded(report) as fork:
        yield (lambda lesson: Running(lesson, limits, workers, fork if lesson.name in forked
                                      else None)), workers


def auto_workers(profiles=()):
    """Return how many lessons run best at a time: by cores and memory; one where a card is used."""
    if "gpu" in profiles:
        return 1
    return max(1, min(usable_cores(), int(usable_memory() // LESSON_MEMORY)))


def exit_code(records):
    """Return 0 when all succeeded and all claims hold, 3 when the machinery failed, else 1."""
    failed = {record["status"] for record in records} - {"ok"}
    return 3 if failed & set(MACHINERY) else int(bool(failed))


def _check_out(out, lessons):
    """Raise SettingError where a result would take the place of a file that no batch wrote."""
    sources = {lesson.path for lesson in lessons}
    foreign = []
    for lesson in lessons:
        for target in (lesson.output, lesson.failed):
            if target in sources:
                raise SettingError(f"the outputs would be written over {target}, the source of a "
                                   "lesson; choose another --out.")
            if not _is_record(lesson.status) and not _is_output(target):
                foreign.append(target)
        foreign += [] if _is_record(lesson.status) else [lesson.status]
        foreign += [] if lesson.status.parent.is_dir() else [lesson.log]
    if not _is_json_with(out / "results.json", "lessons", "all_held"):
        foreign += [out / name for name in RESULTS]
    if found := next((path for path in foreign if path.exists()), None):
        raise SettingError(f"{found} was not written by a batch, and a result would take its "
                           "place; choose another --out, or move it.")


def _is_record(path):
    return _is_json_with(path, "name", "status", "key")


def _is_output(path):
    try:
        return "parameters" in nb.read(path)["metadata"].get("ftkit", {})
    except DataError:
        return False


def _is_json_with(path, *keys):
    try:
        return set(keys) <= json.loads(path.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _run_all(lessons, start, workers, retries, fail_fast, resume, report, live, follow):
    records, waiting, running = {}, [], []

    def halted():
        return fail_fast and any(record["status"] != "ok" for record in records.values())

    def ended(record):
        records[record["name"]] = record
        report(_line(record))
        if follow:
            follow(record)
        if halted():
            for lesson in waiting:
                records[lesson.name] = lesson.record(
                    "not started", f"left out, because {record['name']} failed (--fail-fast)")
            waiting.clear()

    for lesson in lessons:
        if resume and (record := lesson.earlier()):
            report(f"{lesson.name}: done before with this source, these parameters and packages; "
                   "not run again")
            records[lesson.name] = dict(record, resumed=True)
        else:
            waiting.append(lesson)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                lesson = waiting.pop(0)
                lesson.attempts += 1
                report(f"{lesson.name}: started")
                try:
                    running.append(start(lesson))
                except OSError as error:
                    ended(lesson.record(
                        "disk", f"could not start in {lesson.out}: {error.strerror}. "
                        f"{nb.remedy(error)}, or choose another --out"))
            time.sleep(POLL)
            if live:
                live([run.state() for run in running])
            for run in [run for run in running if run.finished()]:
                record = run.settle()
                running.remove(run)
                again = record["status"] in RETRIED and run.lesson.attempts <= retries
                if again and not halted():
                    report(f"{_line(record)}; trying again")
                    waiting.insert(0, run.lesson)
                else:
                    ended(record)
    finally:
        for run in running:
            run.stop()
            run.clean()
    return [records[lesson.name] for lesson in lessons]


class Lesson:
    """A notebook to run, the values it gets, and where its files are."""

    def __init__(self, path, notebook, values, point, out, environment):
        self.path, self.notebook, self.attempts = path, notebook, 0
        defaults = nb.parameters(self.notebook, path.name)
        for name, value in values.items():
            if name not in defaults:
                near = difflib.get_close_matches(str(name), defaults, 1)
                raise SettingError(
                    f"{path.name} has no parameter {name!r}"
                    f"{f'; did you mean {near[0]!r}?' if near else '.'} "
                    f"Its parameters are: {', '.join(defaults) or 'none'}.")
            values = values | {name: _fitting(name, value, defaults[name], path.name)}
        # A value equal to the default is not injected: the run then is one of the source itself.
        self.injected = {k: v for k, v in values.items()
                         if (type(v), v) != (type(defaults[k]), defaults[k])}
        # As JSON has them, without tuples and sets: they go into records and file names.
        self.values = json.loads(json.dumps({**defaults, **values}, default=repr))
        self.point = {name: self.values[name] for name in point}
        self.name = run_name(path.stem, self.point)
        self.key = hashlib.sha256(json.dumps([
            nb.whole_hash(self.notebook), self.values, environment,
        ], sort_keys=True, default=repr).encode()).hexdigest()
        self.place(out)

    def place(self, out):
        """Set where the files of this lesson are."""
        self.out = out
        self.output = out / f"{self.name}.ipynb"
        self.failed = out / f"{self.name}.failed.ipynb"
        self.status = out / "status" / f"{self.name}.json"
        self.log = out / "logs" / f"{self.name}.log"
        self.checkpoints = out / CHECKPOINTS / self.name / self.key[:12]  # none of another source

    def earlier(self):
        """Return the record of an earlier success that still holds, None when there is none."""
        try:
            record = json.loads(self.status.read_text())
            same = record["key"] == self.key and record["status"] == "ok"
            return record if same and record["sha256"] == nb.file_hash(self.output) else None
        except (OSError, ValueError, KeyError):
            return None

    def record(self, status, message, **more):
        """Return what the batch knows of this lesson's run, as a dict for JSON."""
        blank = {"seconds": None, "peak_memory": None, "claims": [], "failure": None,
                 "output": None}
        return {"name": self.name, "lesson": self.path.stem, "point": self.point,
                "status": status, "message": message, "key": self.key,
                "parameters": self.values, "resumed": False, "attempts": self.attempts,
                "log": str(self.log.relative_to(self.out)), **blank, **more}


def _fitting(name, value, default, notebook):
    """Return a value for a parameter as its default's type. Raises SettingError for another."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return type(default)(value)
    if default is None or value is None or type(value) is type(default):
        return value
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "text",
             list: "a list", tuple: "a list", dict: "a dict"}
    kind = kinds.get(type(default), type(default).__name__)
    quote = f"; write it in quotes, \"'{value}'\"" if isinstance(default, str) else ""
    raise SettingError(f"{notebook}: the parameter {name} is {kind} (here {default!r}), and "
                       f"{value!r} is not{quote}.")


@contextmanager
def _only_batch_in(out):
    """Hold an output folder for one batch, and remove what a killed one left in it."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / LOCK, timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SettingError(f"another batch is writing into {out}; wait for it or choose "
                           "another --out.") from None
    except OSError as error:
        raise SettingError(f"the output folder {out} cannot be used: {error.strerror}. Choose "
                           "another --out or make it writable.") from error
    with lock:
        for leftover in out.glob(f"{WORK}*"):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
        for name in RESULTS:  # they are of an earlier batch, and this one may be stopped
            (out / name).unlink(missing_ok=True)
        yield


class _stop_on_signal:
    """While lessons run, SIGTERM and SIGHUP end the batch in the same orderly way as ^C."""

    def __enter__(self):
        self.before = {}
        try:
            for number in (signal.SIGTERM, signal.SIGHUP):
                self.before[number] = signal.signal(number, self._stop)
        except ValueError:
            pass  # not the main thread: whoever owns it handles signals

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @staticmethod
    def _stop(number, frame):
        raise KeyboardInterrupt(signal.Signals(number).name)


def _environment():
    """Return the hash of what a result depends on besides the notebook: ftkit and the packages."""
    digest = hashlib.sha256(f"{platform.python_version()} {platform.machine()}".encode())
    for name in ("FTKIT_DISABLE", "FTKIT_DTYPE"):  # rounding, and seconds above all
        digest.update(f"{name}={os.environ.get(name, '')} ".encode())
    root = Path(ftkit.__file__).parent
    for path in sorted([*root.rglob("*.py"), *(root.parent / "data").glob("*.*")]):
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in _OUTSIDE:
            continue
        digest.update(path.name.encode() + path.read_bytes())
    installed = {f"{d.name}=={d.version}" for d in metadata.distributions()}
    digest.update(" ".join(sorted(installed)).encode())
    return digest.hexdigest()


def _line(record):
    """Return the line that says how a lesson ended."""
    if record["status"] != "ok":
        return f"{record['name']}: {record['status'].upper()}: {record['message']}"
    held = sum(claim["held"] for claim in record["claims"] if claim.get("judged"))
    claims = f", {held} claims held" if held else ""
    if unanswered := [c for c in record["claims"] if c.get("judged") and not c["held"]]:
        claims += f", {len(unanswered)} open did not hold"
    return (f"{record['name']}: ok in {record['seconds']:.0f} s, "
            f"{record['peak_memory'] / 1e9:.1f} GB at most{claims}")
