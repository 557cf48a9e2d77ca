"""A notebook in several processes under torchrun: rank 0 is its kernel, the others keep step.

Every rank runs the same cells. Before each, rank 0 names it in the store of torchrun, by the hash
of its code, which the others have from the notebook's file: no code goes over the network.
"""

import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from ftkit.errors import SettingError

LOST = "lost.json"  # in the scratch folder of a run: (status, message) of the first rank that ended
CELL_FAILED = 70  # exit code of a rank that has said itself what went wrong
LONG = timedelta(days=365)
GRACE = timedelta(seconds=10)  # for rank 0 to come upon the error that another rank has met


@dataclass(frozen=True)
class Launch:
    """Processes for one notebook: nproc on each of nnodes machines, of which this is node_rank.

    master: "HOST:PORT" of machine 0, which all can reach; not needed for one machine.
    Raises SettingError for numbers that cannot be.
    """

    nproc: int
    nnodes: int = 1
    node_rank: int = 0
    master: str | None = None

    def __post_init__(self):
        for name, least in (("nproc", 1), ("nnodes", 1), ("node_rank", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise SettingError(f"{name}={value!r}: a whole number from {least} on is expected.")
        if self.node_rank >= self.nnodes:
            raise SettingError(f"node_rank={self.node_rank}: of {self.nnodes} machines the last is "
                               f"number {self.nnodes - 1}.")
        host, _, port = (self.master or "").rpartition(":")
        if self.nnodes > 1 and not (host and port.isdigit() and 0 < int(port) < 65536):
            raise SettingError(f"master={self.master!r}: HOST:PORT of machine 0 is expected, which "
                               "the others can reach, such as node17:29500.")

    def __str__(self):
        """What a result depends on: not on which machines."""
        return f"{self.nproc} processes on each of {self.nnodes} machines"

    def torchrun(self):
        """Return the options for torchrun."""
        if self.nnodes == 1:
            where = ["--standalone", "--local-addr=127.0.0.1"]
        else:
            host, _, port = self.master.rpartition(":")
            where = [f"--nnodes={self.nnodes}", f"--node-rank={self.node_rank}",
                     f"--master-addr={host}", f"--master-port={port}"]
        return [*where, f"--nproc-per-node={self.nproc}"]


def join(paths, profile, parameters, out, launch):
    """Run the ranks of a machine other than number 0, as `run_batch` does; return an exit code."""
    from ftkit.batch.run import lessons_of
    from ftkit.batch.supervise import child_environment

    lesson, = lessons_of(paths, profile, parameters, None, None, out, launch)
    with tempfile.TemporaryDirectory(prefix="ftkit-") as work:
        job = Path(work) / "job.json"
        job.write_text(json.dumps({"input": str(lesson.path), "parameters": lesson.injected,
                                   "key": lesson.key, "launch": asdict(launch)}))
        os.environ.update(child_environment(Path(work), lesson, launch.nproc))
        os.chdir(lesson.path.parent)
        return _agent(job)


def _agent(job_file, *kernel):
    """Start this machine's ranks and wait; note why the first ended. kernel: Jupyter's words."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    launch = Launch(**json.loads(Path(job_file).read_text())["launch"])
    signals = "SIGTERM,SIGINT"
    if kernel:  # Jupyter interrupts a kernel before it ends it, and rank 0 ends by itself
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signals = "SIGTERM"
    try:
        run.run(run.parse_args([
            *launch.torchrun(), f"--signals-to-handle={signals}",
            f"--log-dir={Path(job_file).parent}", "--no-python",
            sys.executable, "-P", "-m", "ftkit.batch.launch", "rank", str(job_file), *kernel]))
    except SignalException as stop:
        if launch.node_rank:
            name = stop.sigval.name
            _lost(job_file, "dead kernel", f"machine {launch.node_rank} was stopped by {name}",
                  launch.master)
            raise KeyboardInterrupt(name) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code != CELL_FAILED:
            words = f"was killed by {signal.Signals(-code).name}, often for lack of memory" if (
                code < 0) else f"ended with exit code {code}"
            _lost(job_file, "dead kernel", f"rank {rank} {words}",
                  launch.master if launch.node_rank else None)
        return 1
    return 0


def _lost(job_file, status, message, master=None):
    """Tell the batch and the log which rank ended and why. master: of the store, from elsewhere."""
    print(f"ftkit: {message}", file=sys.stderr)
    words = json.dumps([status, message])
    (Path(job_file).parent / LOST).write_text(words)
    if master:
        with suppress(RuntimeError):  # machine 0 has ended
            _store(master).set(LOST, words)


def _store(master):
    from torch.distributed import PrefixStore, TCPStore

    host, _, port = master.rpartition(":")
    return PrefixStore("ftkit", TCPStore(host, int(port), None, False, GRACE))


class _Lead:
    """Rank 0: a Jupyter kernel that waits for the others at the end of each cell."""

    def __init__(self, store, job):
        self.store, self.job, self.number = store, job, 0
        self.others = range(1, int(os.environ["WORLD_SIZE"]))

    def begin(self, info):
        self.number += 1
        self.store.set(f"cell {self.number}", _hash(self.job, info.raw_cell))

    def end(self, result):
        self.store.set(f"cell {self.number} ended", "well" if result.success else "in an error")
        if result.success:
            self.store.wait([f"cell {self.number} of {rank}" for rank in self.others], LONG)

    def leave_with_others(self, place, store):
        """Wait until another machine says that it has lost a rank; then nothing can go on."""
        store.wait([LOST], LONG)
        if not place.exists():
            place.write_bytes(store.get(LOST))
        os._exit(CELL_FAILED)

    def run(self, arguments):
        from ipykernel.kernelapp import IPKernelApp

        app = IPKernelApp.instance()
        app.initialize(arguments)
        app.shell.events.register("pre_run_cell", self.begin)
        app.shell.events.register("post_run_cell", self.end)
        try:
            app.start()
        finally:
            self.store.set(f"cell {self.number + 1}", "")


def _follow(store, job, rank):
    """Any other rank: run the cells of rank 0. Returns what went wrong here alone, or None."""
    from IPython.core.interactiveshell import InteractiveShell
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    from traitlets.config import Config

    notebook = load_notebook_node(job["input"].replace("{", "{{").replace("}", "}}"))
    if job["parameters"]:
        notebook = parameterize_notebook(notebook, job["parameters"])
    cells = {_hash(job, cell.source): (number, cell.source)
             for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"}

    class Silent(InteractiveShell):
        def enable_gui(self, gui=None):
            """There is none: what `%matplotlib` asks for is not shown."""

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.environ["MPLBACKEND"] = "agg"
    shell = Silent.instance(config=Config({"HistoryManager": {"enabled": False}}))
    turn = 0
    while True:
        turn += 1
        store.wait([f"cell {turn}"], LONG)
        named = store.get(f"cell {turn}").decode()
        if not named:
            return None
        if named not in cells:
            return (f"what rank 0 runs is not in {job['input']} on this machine: the notebook, its "
                    "parameters or the installed packages differ")
        number, source = cells[named]
        result = shell.run_cell(source)
        if result.success:
            store.set(f"cell {turn} of {rank}", "")
        elif not _failed_too(store, turn):
            error = result.error_before_exec or result.error_in_exec
            return f"cell {number}: {type(error).__name__}: {error}"


def _failed_too(store, turn):
    """Whether rank 0 met an error in the same cell, which the notebook then shows."""
    try:
        store.wait([f"cell {turn} ended"], GRACE)
    except RuntimeError:  # it goes on, or waits for this rank
        return False
    return store.get(f"cell {turn} ended") != b"well"


def _hash(job, code):
    return hashlib.sha256(f"{job['key']} {code}".encode()).hexdigest()


def _rank(job_file, *kernel):
    job = json.loads(Path(job_file).read_text())
    rank, host, port = (os.environ[name] for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    master = f"{host}:{port}"
    if rank == "0":
        lead = _Lead(_store(master), job)
        threading.Thread(target=lead.leave_with_others, daemon=True,
                         args=(Path(job_file).parent / LOST, _store(master))).start()
        lead.run(kernel)
        return 0
    if wrong := _follow(_store(master), job, rank):
        _lost(job_file, "error", f"rank {rank}: {wrong}", master)
        return CELL_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(_rank(*sys.argv[2:]) if sys.argv[1] == "rank" else _agent(*sys.argv[1:]))
