"""Fast starts: the processes of runs are forked from one that has imported the libraries.

A batch starts that process once and asks it for a worker for each run. The worker forks the kernel
before it does anything else, so that both come from a process of one thread that has drawn no
random number and not touched a card. The worker becomes a child of the batch, which watches,
limits and ends it as any other; the preloading process may die without a run noticing.
"""

import gc
import importlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from ftkit.batch import worker
from ftkit.batch.supervise import MARK, WORK, fresh, own
from ftkit.errors import SettingError

PATIENCE = 300  # seconds that the imports may take
# What nearly all lessons have imported at their end: libraries, what these import late, and of
# ftkit where the rest hangs on. What is not installed is left out.
MODULES = (
    "papermill.execute", "ipykernel.kernelapp", "ipykernel.debugger", "ipywidgets", "sqlite3",
    "torch", "torch._dynamo", "transformers", "transformers.trainer", "datasets", "peft",
    "transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama", "matplotlib.pyplot", "pandas", "scipy.stats",
    "sklearn.linear_model", "sklearn.feature_extraction.text", "transformers.utils.notebook",
    "matplotlib.backends.backend_agg",
    "ftkit.training.fit", "ftkit.evaluation.evaluate", "ftkit.evaluation.generation",
    "ftkit.data.load", "ftkit.models.load", "ftkit.course.claims", "ftkit.course.exercises",
    "ftkit.course.plots")
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
                return Child(pid)
            except _Lost as error:
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
        import psutil

        if not self.server:
            return
        self.server.kill()
        self.server.wait()
        own.discard(self.server.pid)
        for pipe in (self.server.stdin, self.server.stdout):
            with suppress(OSError):  # an unsent request
                pipe.close()
        # A worker whose number never arrived has been adopted by this process.
        for child in psutil.Process().children():
            with suppress(psutil.Error, OSError):
                if child.pid not in own and child.environ().get(MARK) == str(self.work):
                    for process in [child, *child.children(recursive=True)]:
                        process.kill()
                    child.wait(5)
        shutil.rmtree(self.work, ignore_errors=True)
        self.server = None


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


def main():
    """The preloading process: import, then fork a worker for each request, until there are no more.

    In a child it does the child's work instead. Returns the exit code.
    """
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the batch, also while importing
    if os.getppid() != int(sys.argv[1]):
        return 1
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what libraries print is no answer
    _import()
    wrong = _hindrance()
    _say(replies, {"wrong": wrong} if wrong else {"ready": True})
    while not wrong and (line := requests.readline()):
        try:
            pid, role = _fork(json.loads(line))
        except OSError as error:
            _say(replies, {"wrong": f"no process could be forked: {error.strerror}"})
            continue
        if role:
            requests.close()
            replies.close()
            return role()
        _say(replies, {"pid": pid})
    return 0


def _say(replies, answer):
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


_added = {}  # to the environment, by libraries on import


def _import():
    before = set(os.environ)
    sys.modules["rfc3987_syntax"] = None  # see worker.py
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            if name.startswith("ftkit"):
                raise
    del sys.modules["rfc3987_syntax"]
    _added.update((name, os.environ[name]) for name in set(os.environ) - before)
    gc.collect()
    gc.freeze()  # else the first collection of a kernel would copy all pages


def _hindrance():
    """Return why no kernel may be forked from this process, None when it may."""
    from ftkit.compat import cuda_before_fork

    names = [Path(f"/proc/self/task/{task}/comm").read_text().strip()
             for task in os.listdir("/proc/self/task")]
    if len(names) > 1:
        return f"a library that was imported has started threads ({', '.join(sorted(names[1:]))})"
    if cuda_before_fork():
        return "a library that was imported has initialised CUDA"
    return None


def _fork(request):
    """Fork a worker whose parent will be the batch. Returns (pid, None), in it (0, its work)."""
    read, write = os.pipe()
    middle = os.fork()
    if middle:
        os.close(write)
        with os.fdopen(read) as told:
            pid = told.read()
        os.waitpid(middle, 0)  # now its child belongs to the batch, the next who adopts
        if not pid:
            raise BlockingIOError(0, "too many processes, or too little memory")
        return int(pid), None
    above = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os._exit(1)
    if pid:
        os.write(write, str(pid).encode())
        os._exit(0)
    os.close(read)
    os.close(write)
    return 0, partial(_work, request, above)


def _work(request, middle):
    """A worker's work: as worker.py when it is started, but the kernel is there already."""
    while os.getppid() == middle:
        time.sleep(0.001)
    if os.getppid() != request["batch"]:
        return 1
    os.setsid()
    _prctl(15, b"ftkit-worker")  # PR_SET_NAME, for those who look with ps or top
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(request["cwd"])
    _take(request["environment"])
    worker.set_subreaper(True)
    read, write = os.pipe()
    kernel = os.fork()
    if not kernel:
        os.close(write)
        return _kernel(read)
    os.close(read)
    code = worker.main(request["job"], kernel_manager_class=_manager(kernel, write))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing was registered for its end


def _manager(pid, pipe):
    """Return the class of a kernel manager for a forked kernel that waits at the end of a pipe."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    class Waiting(LocalProvisioner):
        async def launch_kernel(self, cmd, **options):
            environment = options["env"] | {"JPY_PARENT_PID": str(os.getpid())}
            self.cwd = options.get("cwd") or os.getcwd()
            with os.fdopen(pipe, "w") as told:
                json.dump({"arguments": cmd[cmd.index("-f"):], "environment": environment,
                           "cwd": self.cwd}, told)
            self.process, self.pid, self.pgid = Child(pid), pid, pid
            return self.connection_info

    class Manager(AsyncKernelManager):
        def __init__(self, **options):
            super().__init__(**options)
            self.provisioner = Waiting(kernel_spec=self.kernel_spec, parent=self)

    return Manager


def _kernel(pipe):
    """Wait until Jupyter says how, then be the kernel. It ends as any Python, with its handlers."""
    os.setsid()
    _prctl(15, b"ftkit-kernel")
    with os.fdopen(pipe) as told:
        words = told.read()
    if not words:  # the worker has ended before
        return 1
    said = json.loads(words)
    _reseed()
    _threads(said["environment"].get("OPENBLAS_NUM_THREADS", ""))
    _take(said["environment"])
    os.chdir(said["cwd"])
    from ipykernel import kernelapp

    # It has read the environment's JPY_PARENT_PID on import.
    sys.argv = ["ipykernel_launcher.py", *said["arguments"],
                f"--IPKernelApp.parent_handle={os.getppid()}"]
    kernelapp.launch_new_instance()
    return 0


def _take(environment):
    os.environ.clear()
    os.environ.update(_added | environment)
    tempfile.tempdir = None  # it follows TMPDIR


def _reseed():
    """Seed anew what each Python seeds when it begins: else all forks would draw the same."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()


def _threads(number):
    """Give OpenBLAS the threads that it would have read from the environment."""
    if number.isdigit() and int(number) > 1:
        from threadpoolctl import ThreadpoolController

        ThreadpoolController().select(internal_api="openblas").limit(limits=int(number))


def _prctl(option, value):
    import ctypes

    ctypes.CDLL(None).prctl(option, value)
