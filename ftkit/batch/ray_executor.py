"""Runs lessons as tasks of a Ray cluster; what they wrote comes back to the batch that asked."""

import json
import os
import socket
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from ftkit.batch import notebook as nb
from ftkit.batch.supervise import Running, adopting
from ftkit.errors import FtkitError, SettingError
from ftkit.models.hardware import usable_cores, usable_memory

POLL = 0.2  # seconds
KEPT = (".json", ".jsonl")  # of the folder of runs: the records, not the models


@contextmanager
def cluster(address, cpus, gpus, limits):
    """Connect to a Ray cluster, or start one on this machine, and give (start, how many fit).

    start(lesson) returns what behaves as a `Running`. cpus, gpus: that a run needs, declared to Ray
    as its memory is. Raises SettingError when Ray is not installed or the cluster not found.
    """
    try:
        import ray
    except ImportError:
        raise SettingError('--executor ray needs the package ray: pip install "ftkit[ray]".'
                           ) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {} if address else {"num_cpus": usable_cores(), "include_dashboard": False,
                              "_node_ip_address": "127.0.0.1"}
    try:
        if address and (parts := address.rpartition(":"))[1]:  # Ray itself would wait a minute
            socket.create_connection((parts[0].rpartition("/")[2], int(parts[2])), 5).close()
        ray.init(address=address, log_to_driver=False, logging_level="error", **own)
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingError(f"no Ray cluster was found at {address!r}: {error}. Start one with "
                           "`ray start --head`, or leave --address out.") from None
    try:
        limits = {**limits, "cpus": cpus}
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}  # the batch tries again
        options |= {"memory": limits["memory"]} if limits["memory"] else {}
        task = ray.remote(run_there).options(**options)
        has = ray.cluster_resources()
        fits = min(has.get(kind, 0) / need for kind, need in (("CPU", cpus), ("GPU", gpus)) if need)
        if fits < 1:
            raise SettingError(f"a run needs {cpus} CPUs and {gpus} GPUs, and the cluster has "
                               f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}.")
        yield lambda lesson: RemoteRunning(ray, task, lesson, limits), int(fits)
    finally:
        ray.shutdown()


class RemoteRunning:
    """A lesson while it runs on a node of the cluster."""

    def __init__(self, ray, task, lesson, limits):
        self.ray, self.lesson, self.started = ray, lesson, time.monotonic()
        for folder in (lesson.out, lesson.log.parent, lesson.status.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.task = task.remote(lesson, limits)

    def finished(self):
        """Return whether the task has ended, or its node."""
        return bool(self.ray.wait([self.task], timeout=0)[0])

    def state(self):
        """Return the words for how far the lesson is."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        return f"{self.lesson.name} on the cluster {minutes}:{seconds:02d}"

    def settle(self):
        """Return the record of a lesson that ended; write what came back to its place."""
        try:
            record, files = self.ray.get(self.task)
        except self.ray.exceptions.RayError as error:
            seconds = round(time.monotonic() - self.started, 1)
            record, files = self.lesson.record(
                "crashed", f"its worker or node was lost ({type(error).__name__})",
                seconds=seconds), {}
        try:
            for name, content in files.items():
                path = self.lesson.out / name
                path.parent.mkdir(parents=True, exist_ok=True)
                nb.write_file(content, path)
            nb.write_file(json.dumps(record, indent=1), self.lesson.status)
            if record["status"] == "ok":
                self.lesson.failed.unlink(missing_ok=True)
        except FtkitError as error:
            record.update(status="disk", message=str(error), output=None)
            self.lesson.status.unlink(missing_ok=True)
        return record

    def stop(self):
        """End the task; the processes of the lesson end when they lose its worker."""
        self.ray.cancel(self.task, force=True)

    def clean(self):
        """Nothing is left here: the scratch folder was on the node."""


def run_there(lesson, limits):
    """On a node: run a lesson in a folder of its own. Returns its record and {file: bytes}.

    It gets the threads of the CPUs that were declared for it, and where no memory was, as large a
    share of the node's.
    """
    share = min(1, max(limits["cpus"], 1) / usable_cores())
    limits = {**limits, "memory": limits["memory"] or int(0.9 * share * usable_memory())}
    with tempfile.TemporaryDirectory(prefix="ftkit-") as folder, adopting():
        out = Path(folder).resolve()
        lesson.place(out)
        if not lesson.path.exists():  # no file system is shared with the one who asks
            lesson.path = out / "source" / lesson.path.name
            lesson.path.parent.mkdir()
            nb.write(lesson.notebook, lesson.path)
        running = Running(lesson, limits, max(1, round(1 / share)))
        try:
            while not running.finished():
                time.sleep(POLL)
            record = running.settle()
        finally:
            running.stop()
            running.clean()
        kept = [lesson.output, lesson.failed, lesson.log,
                *(path for path in (out / "runs").rglob("*") if path.suffix in KEPT)]
        return record, {path.relative_to(out).as_posix(): path.read_bytes() for path in kept
                        if path.is_file()}
