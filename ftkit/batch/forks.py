"""The batch's side of fast starts: which runs are forked, and what asks for the forks.

preload.py is the other side: the process that has imported the libraries.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from ftkit.batch.supervise import MARK, WORK, fresh, own
from ftkit.errors import SettingError

PATIENCE = 300  # seconds that the imports may take
# One thread until the fork: these two libraries start theirs on import.
QUIET = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false",
         # matplotlib reads it on import, where a kernel would have set it.
         "MPLBACKEND": "module://matplotlib_inline.backend_inline",
         "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # whether there is a card is asked without CUDA
         "PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # a debugger's warning that nobody would read
# The folder of the caller is not searched for modules; `-P` would tell kernels the same.
COMMAND = ("import sys; sys.path[:] = filter(None, sys.path); from ftkit.batch import preload; "
           "sys.exit(preload.main())")


def may_fork(lessons, start, executor, launch, commit_to):
    """Return the names of the lessons that are forked from a preloaded process.

    start: "fork", "fresh", or None: fork on the profile smoke where there is more than one run, as
    the preloading takes as long as one of its starts. Raises SettingError for a fork that is asked
    for and cannot be, or whose result would be believed.
    """
    if start not in (None, "fork", "fresh"):
        raise SettingError(f'start={start!r}: "fork" or "fresh" is expected.')
    hinders = ("this system is not Linux" * (sys.platform != "linux")
               or f"the executor {executor} starts its own processes" * (executor != "local")
               or "a launch starts its own processes" * bool(launch)
               or "outputs are committed from fresh processes only" * bool(commit_to))
    if start == "fork":
        results = {lesson.values.get("profile") for lesson in lessons} - {"smoke", None}
        if hinders := hinders or results and (
                f"results, as of the profile {min(map(str, results))}, come from fresh processes"):
            raise SettingError(f"runs cannot be forked: {hinders}. Leave out --start fork.")
        return {lesson.name for lesson in lessons}
    if start == "fresh" or hinders or len(lessons) < 2:
        return set()
    return {lesson.name for lesson in lessons if lesson.values.get("profile") == "smoke"}


@contextmanager
def preloaded(report):
    """Give what starts the processes of runs by forks; report is called when it cannot any more."""
    forks = _Forks(report)
    try:
        yield forks.start
    finally:
        forks.close()


class _Forks:
    """The batch's side: starts the preloading process when it is first needed, and asks it."""

    def __init__(self, report):
        self.report, self.server, self.work, self.lost = report, None, None, False

    def start(self, job, environment, log):
        """Return the process of a run; of one that is not forked any more, a fresh one."""
        if not self.lost:
            with open(log, "w"):  # as a fresh process finds it
                pass
            try:
                if not self.server:
                    self._preload(Path(job).parents[1], environment)
                pid = self._ask({"job": str(job), "environment": environment, "log": str(log),
                                 "cwd": os.getcwd(), "batch": os.getpid()})["pid"]
                _is_own(pid)
                return Child(pid)
            except (_Lost, OSError) as error:
                self.close()
                self.lost = True
                self.report(f"the other runs start in fresh processes, some seconds later each: "
                            f"{error}")
        return fresh(job, environment, log)

    def _preload(self, out, environment):
        # Named as the scratch folders of runs: if this batch is killed, the next one removes it.
        self.work = Path(tempfile.mkdtemp(prefix=f"{WORK}preloaded-", dir=out))
        self.report("the libraries are imported once, and the runs forked from there")
        with open(self.work / "log", "w") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-c", COMMAND, str(os.getpid())], start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=environment | QUIET | {MARK: str(self.work), "TMPDIR": tempfile.gettempdir(),
                                           # torch makes a folder there on import
                                           "TORCHINDUCTOR_CACHE_DIR": str(self.work / "torch")})
        own.add(self.server.pid)
        self._ask(None)

    def _ask(self, request):
        """Return the server's answer, to nothing its first word. Raises _Lost without one."""
        answer, end = b"", time.monotonic() + PATIENCE
        try:
            if request:
                self.server.stdin.write(json.dumps(request).encode() + b"\n")
                self.server.stdin.flush()
            pipe = self.server.stdout.fileno()
            while not answer.endswith(b"\n"):
                if not select.select([pipe], [], [], max(0, end - time.monotonic()))[0]:
                    raise _Lost(f"the preloading process did not answer within {PATIENCE} s")
                if not (part := os.read(pipe, 65536)):
                    raise BrokenPipeError
                answer += part
        except OSError:
            self.server.kill()
            self.server.wait()
            words = (self.work / "log").read_text(errors="replace").strip().splitlines()
            raise _Lost(f"the preloading process ended with code {self.server.returncode} and "
                        f"{words[-1] if words else 'no word'}") from None
        found = json.loads(answer)
        if "wrong" in found:
            raise _Lost(found["wrong"])
        return found

    def close(self):
        """End the preloading process and what it has forked that no run knows."""
        if self.server:
            self.server.kill()
            self.server.wait()
            own.discard(self.server.pid)
            for pipe in (self.server.stdin, self.server.stdout):
                with suppress(OSError):  # an unsent request
                    pipe.close()
            self.server = None
            self._end_strays()
        if self.work:
            shutil.rmtree(self.work, ignore_errors=True)

    def _end_strays(self):
        """End workers whose number never arrived; this process has adopted them."""
        import psutil

        for child in psutil.Process().children():
            with suppress(psutil.Error, OSError):
                if child.pid not in own and child.environ().get(MARK) == str(self.work):
                    for process in [child, *child.children(recursive=True)]:
                        process.kill()
                    child.wait(5)


def _is_own(pid):
    """Raise _Lost where this system did not give a fork's child to the batch."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        raise _Lost("this system does not let a batch adopt processes") from None


class _Lost(Exception):
    """The preloading process is gone or of no use; the words say why."""


class Child:
    """A forked child of this process, as much like subprocess.Popen as is needed."""

    stdin = stdout = stderr = None

    def __init__(self, pid):
        self.pid, self.returncode = pid, None
        own.add(pid)

    def poll(self):
        """Return the exit code, negative for a signal; None while it runs."""
        return self._look(os.WNOHANG)

    def wait(self):
        """Wait for its end and return its exit code."""
        return self._look(0)

    def _look(self, how):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, how)
            except ChildProcessError:  # somebody else took note of its end
                pid, status = self.pid, signal.SIGKILL
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number):
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self):
        """End it."""
        self.send_signal(signal.SIGKILL)
