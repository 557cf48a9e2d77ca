"""Fast starts: the processes of runs are forked from this one, which has imported the libraries.

A batch starts it once and asks it for a worker for each run (forks.py). The worker forks the kernel
before it does anything else, so that both come from a process of one thread that has drawn no
random number and not touched a card. The worker becomes a child of the batch, which watches,
limits and ends it as any other; this process may die without a run noticing.
"""

import gc
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from ftkit.batch import worker
from ftkit.batch.forks import Child
from ftkit.display import describe_figures

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


def main():
    """Import, then fork a worker for each request; in a child, its work. Returns the exit code."""
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the batch, also while importing
    if os.getppid() != int(sys.argv[1]):
        return 1
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
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
_generators = []  # of random numbers, that libraries have made on import


def _import():
    before = set(os.environ)
    sys.modules["rfc3987_syntax"] = None  # see worker.py
    with _as_in_a_kernel():
        for name in MODULES:
            try:
                importlib.import_module(name)
            except ImportError:
                if name.startswith("ftkit"):
                    raise
    del sys.modules["rfc3987_syntax"]
    _added.update((name, os.environ[name]) for name in set(os.environ) - before)
    _generators.extend(one for one in gc.get_objects() if issubclass(type(one), random.Random))
    gc.collect()
    gc.freeze()  # else the first collection of a kernel would copy all pages


@contextmanager
def _as_in_a_kernel():
    """Libraries that ask on import whether they are in a notebook's kernel will be in one."""
    import IPython

    real, pretended = IPython.get_ipython, [SimpleNamespace(config={"IPKernelApp": {}})]

    def get_ipython():  # some keep it
        return real() or next(iter(pretended), None)

    IPython.get_ipython = get_ipython
    try:
        yield
    finally:
        IPython.get_ipython = real
        pretended.clear()


def _hindrance():
    """Return why no kernel may be forked from this process, None when it may."""
    import psutil

    from ftkit.compat import cuda_before_fork

    if children := psutil.Process().children():
        return f"a library that was imported has started a process ({children[0].name()})"
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
    from ipykernel.kernelapp import IPKernelApp

    sys.argv = ["ipykernel_launcher.py", *said["arguments"]]
    app = IPKernelApp.instance(parent_handle=os.getppid())  # of the environment on import
    app.initialize()
    describe_figures()  # as `import ftkit` does in a kernel, and it is done already
    app.start()
    return 0


def _take(environment):
    os.environ.clear()
    os.environ.update(_added | environment)
    tempfile.tempdir = None  # it follows TMPDIR


def _reseed():
    """Seed anew what each Python seeds when it begins: else all forks would draw the same."""
    for generator in _generators:  # datasets names files by its own
        generator.seed()
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
