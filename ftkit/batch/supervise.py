"""Runs one lesson as processes that are watched, limited and ended together."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from ftkit.batch import notebook as nb
from ftkit.batch.launch import LOST
from ftkit.batch.worker import set_subreaper
from ftkit.errors import DataError, FtkitError
from ftkit.models.hardware import usable_cores

WORK = ".ftkit-run-"  # how the scratch folder of a running lesson begins
MARK = "FTKIT_LESSON"  # of the environment of a lesson's processes: its scratch folder
START_TIMEOUT = 180  # seconds until a kernel has answered
STARTING = "its start-up"
LOOPBACK = "It is spoken to over the loopback interface; is that up?"

own = set()  # pids of this process's children that no lesson has left behind


@contextmanager
def adopting():
    """While it is open, what a killed worker leaves becomes a child of this process (on Linux)."""
    import psutil

    before = set_subreaper(True)
    others = {child.pid for child in psutil.Process().children()} - own
    own.update(others)
    try:
        yield
    finally:
        set_subreaper(before)
        own.difference_update(others)


def fresh(job, environment, log):
    """Start the worker of a run as a new Python; its output goes into the file log."""
    with open(log, "w") as file:
        process = subprocess.Popen([sys.executable, "-P", "-m", "ftkit.batch.worker", str(job)],
                                   env=environment, stdin=subprocess.DEVNULL, stdout=file,
                                   stderr=file, start_new_session=True)
    own.add(process.pid)
    return process


class Running:
    """A lesson while it runs: the worker, its kernel, all that they start. start: as `fresh`."""

    def __init__(self, lesson, limits, workers, start=None):
        import psutil

        self.psutil, self.lesson, self.limits = psutil, lesson, limits
        self.peak, self.verdict, self.family, self.next_search = 0, None, {}, 0.0
        self.shared, self.next_own = 0, 0.0  # bytes that several processes count, as last asked
        for folder in (lesson.out, lesson.log.parent, lesson.status.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix=f"{WORK}{lesson.name}-", dir=lesson.out))
        self.partial = self.work / "partial.ipynb"
        job = {"input": str(lesson.path), "output": str(self.partial),
               "cwd": str(lesson.path.parent), "parameters": lesson.injected,
               "cell_timeout": limits["cell_timeout"],
               "progress": str(self.work / "progress"),
               "verdict": str(self.work / "verdict.json"),
               "key": lesson.key, "launch": asdict(limits["launch"]) if limits["launch"] else None}
        try:
            (self.work / "job.json").write_text(json.dumps(job))
            processes = limits["launch"].nproc if limits["launch"] else 1
            environment = child_environment(self.work, lesson, workers * processes)
            _name_kernel(self.work, limits["launch"])
            self.process = (start or fresh)(self.work / "job.json", environment, lesson.log)
            self.started = time.monotonic()  # what is preloaded for all is not this run's time
        except BaseException:  # a signal, too, may come in between
            self.clean()
            raise

    def finished(self):
        """Look at the processes; return whether the worker ended or had to be stopped."""
        ended = self.process.poll() is not None
        held = self._watch()
        self.peak = max(self.peak, held)
        if ended:
            return True
        spent = time.monotonic() - self.started
        if held > self.limits["memory"]:
            limit = self.limits["memory"]
            self.verdict = ("memory", f"stopped in {self.where()}: its processes held "
                            f"{held / 1e9:.2f} GB, the limit is {limit / 1e9:.2f} GB. Choose a "
                            "smaller profile or batch size, or raise --memory")
        elif spent > START_TIMEOUT and self.where() == STARTING:
            self.verdict = ("no kernel", f"no Python process answered within {START_TIMEOUT} s. "
                            f"{LOOPBACK}")
        elif spent > self.limits["timeout"]:
            self.verdict = ("timeout", f"stopped after {spent:.0f} s, the limit for a lesson, "
                            f"in {self.where()}")
        return self.verdict is not None

    def where(self):
        """Return the words for the cell that is running, as far as the worker has told."""
        try:
            cell, cells = (self.work / "progress").read_text().split()
            return f"cell {cell} of {cells}"
        except (OSError, ValueError):
            return STARTING

    def state(self):
        """Return the words for how far the lesson is."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        return f"{self.lesson.name} {self.where()} {minutes}:{seconds:02d}"

    def _watch(self):
        """Return the bytes that all processes of the lesson hold; new ones are looked for."""
        if time.monotonic() >= self.next_search:
            start = time.thread_time()
            self._search()
            # Looking through all processes of a machine costs: a hundredth of the time, or so.
            pause = min(2, 100 * (time.thread_time() - start))
            self.next_search = time.monotonic() + pause
        # What processes share is counted once. Asking for that takes milliseconds, in which the
        # lesson waits: a hundredth of the time at most, and before anything is stopped for it.
        held = self._sum(lambda process: process.memory_info().rss)
        near = held - self.shared
        due = near > self.peak and time.monotonic() >= self.next_own
        if due or near > self.limits["memory"]:
            start = time.monotonic()
            near = self._sum(_own_memory)
            self.shared = held - near
            self.next_own = time.monotonic() + 100 * (time.monotonic() - start)
        return near

    def _sum(self, measure):
        held = 0
        for process in self.family.values():
            with suppress(self.psutil.Error):
                held += measure(process)
        return held

    def _search(self):
        # Kernels lead sessions of their own, so every descendant is remembered from when it is
        # first seen: it may outlive the worker.
        with suppress(self.psutil.Error):
            worker = self.psutil.Process(self.process.pid)
            for child in [worker, *worker.children(recursive=True)]:
                self.family.setdefault((child.pid, child.create_time()), child)
        for process in list(self.family.values()):
            with suppress(self.psutil.Error):
                for child in process.children(recursive=True):
                    self.family.setdefault((child.pid, child.create_time()), child)

    def stop(self):
        """Kill whatever of the lesson is still running."""
        self._search()
        self._kill([*self.family.values()])
        self.process.wait()
        own.discard(self.process.pid)
        # What a cell has cut off from all its parents still has the environment it was given, or
        # was adopted when a signal ended the worker, which else ends all that it has.
        for _ in range(5):  # a process may start another while it is being ended
            left = [p for p in self.psutil.process_iter() if self._carries_mark(p)]
            if self.process.returncode < 0:
                left += [p for p in self.psutil.Process().children() if self._adopted(p)]
            if not left:
                break
            self._kill(left)

    def _kill(self, processes):
        for process in processes:
            with suppress(self.psutil.Error):
                process.kill()  # psutil compares the start time: a reused pid is not touched
        end = time.monotonic() + 5  # gigabytes are not given back at once
        while any(map(self._lives, processes)) and time.monotonic() < end:
            time.sleep(0.02)

    def _lives(self, process):
        try:
            ended = (self.psutil.STATUS_ZOMBIE, self.psutil.STATUS_DEAD)
            return process.is_running() and process.status() not in ended
        except self.psutil.Error:
            return False

    def _adopted(self, child):
        """Return whether a child of this process was left by a killed worker, and lives."""
        try:  # what this process has started itself is of its session, or a known worker
            if os.getsid(child.pid) == os.getsid(0) or child.pid in own:
                return False
            os.waitpid(child.pid, os.WNOHANG)  # of one that has ended, nobody else takes note
            return self._lives(child)
        except OSError:  # gone
            return False

    def _carries_mark(self, process):
        try:
            return process.environ().get(MARK) == str(self.work)
        except (self.psutil.Error, OSError):  # another user's, or gone
            return False

    def clean(self):
        shutil.rmtree(self.work, ignore_errors=True)

    def settle(self):
        """Return the record of a lesson that ended; move its output to its place."""
        seconds = time.monotonic() - self.started
        self.stop()
        lesson = self.lesson
        measured = {"seconds": round(seconds, 1), "peak_memory": self.peak,
                    "start": "fresh" if isinstance(self.process, subprocess.Popen) else "fork"}
        try:
            executed = nb.scrub(nb.read(self.partial))
        except FtkitError:
            executed = None  # killed while writing, or before
        claims, broken = [], None
        try:
            claims = nb.claims(executed) if executed else []
        except DataError as error:
            broken = str(error)
        status, message, failure = self._judge(executed, claims)
        if broken and status == "ok":
            status, message = "error", broken
        record = lesson.record(status, message, failure=failure, **measured)
        try:
            if executed:
                record["claims"] = claims
                executed["metadata"]["ftkit"] = {
                    "source_hash": nb.source_hash(lesson.notebook),
                    "profile": lesson.values.get("profile"), "parameters": lesson.values}
                target = lesson.output if status == "ok" else lesson.failed
                nb.write(executed, target)
                record.update(output=target.name, sha256=nb.file_hash(target))
                if status == "ok":
                    lesson.failed.unlink(missing_ok=True)
                    shutil.rmtree(lesson.checkpoints.parent, ignore_errors=True)
            nb.write_file(json.dumps(record, indent=1), lesson.status)
        except FtkitError as error:
            record.update(status="disk", message=str(error), output=None)
            with suppress(OSError):  # of an earlier run: the next start shall not believe it
                lesson.status.unlink(missing_ok=True)
        finally:
            self.clean()
        return record

    def _judge(self, executed, claims):
        """Return (status, message, failure): "ok" only when everything says so."""
        failure = nb.failure(executed) if executed else None
        if self.verdict:
            return *self.verdict, None
        try:
            said = json.loads((self.work / "verdict.json").read_text())
        except (OSError, ValueError):
            tail = _last_words(self.lesson.log)
            return "crashed", (f"its process ended with code {self.process.returncode} and no word "
                               f"in {self.where()}: {tail}"), None
        if said["error"] == "CellTimeoutError":
            return "cell timeout", (f"{self.where()} ran longer than "
                                    f"{self.limits['cell_timeout']:g} s"), None
        with suppress(OSError):
            status, message = json.loads((self.work / LOST).read_text())
            if failure and failure["error"] != "NotExecuted":  # the others feel that one is lost
                message += f"; rank 0 in {_words(failure)}"
            return status, message, failure
        if said["error"] == "DeadKernelError":
            return "dead kernel", (f"the Python process died in {self.where()}, often for lack of "
                                   f"memory (its peak here was {self.peak / 1e9:.2f} GB)"), None
        if said["error"] == "RuntimeError" and self.where() == STARTING:
            return "no kernel", f"no Python process answered: {said['message']}. {LOOPBACK}", None
        if failure and failure["error"] == "ClaimNotHeld":
            return "claim not held", failure["message"], failure
        if failure and failure["error"] != "NotExecuted":
            return "error", _words(failure), failure
        if said["error"]:
            disk = said.get("errno") in nb.NO_SPACE
            return "disk" if disk else "error", f"{said['error']}: {said['message']}", failure
        if failure:
            return "not executed", f"cell {failure['cell'] + 1} was not executed", failure
        return self._judge_claims(claims)

    def _judge_claims(self, claims):
        lost = [claim["claim"] for claim in claims
                if claim.get("judged") and not claim["held"] and claim.get("expect") != "open"]
        if lost:
            return "claim not held", f"the run did not show: {'; '.join(lost)}", None
        concludes = any("conclude(" in nb.source(c) for _, c in nb.code_cells(self.lesson.notebook))
        if concludes and not claims:
            return "no claim", "the lesson calls conclude() but shows no claim", None
        return "ok", "", None


def _words(failure):
    return f"cell {failure['cell'] + 1}: {failure['error']}: {failure['message']}"


def _name_kernel(work, launch):
    """Tell Jupyter how the process is started that runs the cells."""
    kernel = work / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    start = ["-P", "-m", "ftkit.batch.launch", str(work / "job.json")] if launch else (
        ["-m", "ipykernel_launcher"])
    (kernel / "kernel.json").write_text(json.dumps({
        "argv": [sys.executable, *start, "-f", "{connection_file}"],
        "display_name": "Python 3 (ipykernel)", "language": "python",
        "env": {"TMPDIR": tempfile.gettempdir()}}))


def child_environment(work, lesson, workers):
    """Return the environment of one lesson: fair threads, no user settings."""
    environment = dict(os.environ)
    environment.pop("MPLBACKEND", None)  # figures go into the notebook, whatever the caller uses
    environment.pop("JPY_SESSION_NAME", None)  # a lesson run here is not the one somebody has open
    threads = str(max(1, usable_cores() // workers))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment.setdefault(name, threads)
    return {**environment, MARK: str(work), "TMPDIR": str(work),  # the kernel's own keeps the usual
            "FTKIT_RUNS": str(lesson.out / "runs"), "FTKIT_CHECKPOINTS": str(lesson.checkpoints),
            "TOKENIZERS_PARALLELISM": "false", "FTKIT_PLAIN": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONUNBUFFERED": "1",
            # Jupyter looks here first, so neither a kernel nor a setting of the user gets between.
            "JUPYTER_PATH": str(work / "jupyter"), "JUPYTER_RUNTIME_DIR": str(work / "runtime"),
            "JUPYTER_CONFIG_DIR": str(work / "config"), "IPYTHONDIR": str(work / "ipython")}


def _last_words(log):
    """Return the last line of a log that is not one of the kernel's own notes."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:  # a cell has deleted it
        return "its log is gone"
    return next((line for line in reversed(lines) if "[IPKernelApp]" not in line), "no word")


def _own_memory(process):
    """Return the bytes of a process, those shared by n processes as an nth where that is known."""
    facts = process.memory_full_info()
    return getattr(facts, "pss", facts.rss)
