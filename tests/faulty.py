"""What the tests of faults share: short notebooks, a batch as a process, and what it may leave."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import psutil

CLAIM = "application/vnd.ftkit.claim+json"
# A second's work whose claim depends on the parameters alone.
WORK = f"""
import random, time
from IPython.display import display
time.sleep(float(seconds))
value = random.Random(f"{{rank}} {{seed}}").random()
part = {{"value": value, "low": value, "high": value}}
display({{"{CLAIM}": {{"claim": "it is measured", "metric": "accuracy", "before": None,
    "after": part, "difference": part, "bound": {{"at_least": 0}}, "relative": False,
    "held": True, "judged": True}}, "text/plain": "a claim"}}, raw=True)
"""
PARAMETERS = ("rank = 4\nseed = 0\nseconds = 0.2", ["parameters"])
# Two forks, a session of its own and an empty environment: nothing says whose child it is.
CUT_OFF = """
import os, subprocess, sys, time
code = '''
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
'''
subprocess.run([sys.executable, "-c", code, PATH], env={})
while not (os.path.exists(PATH) and open(PATH).read()): time.sleep(.01)
"""


def cut_off(path):
    """Return a cell that leaves such a child, and its pid in a file."""
    return f"PATH = {str(path)!r}{CUT_OFF}"


def may_mount():
    """Whether a disk of its own can be made for a test; where not, that is said in a warning.

    Another fault that looks the same to the batch then stands in for it.
    """
    done = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"],
                          capture_output=True) if shutil.which("unshare") else None
    if may := done is not None and done.returncode == 0:
        return may
    warnings.warn("no disk may be mounted here, so this fault is not caused by one", stacklevel=2)
    return False


def start(*arguments, prefix=(), **environment):
    """Start `ftkit batch` as a process of its own, with a temporary folder of its own.

    It may be stopped as in a terminal: a background job would ignore ^C.
    """
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "ftkit.cli", "batch", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def run(*arguments, **more):
    """Return (exit code, what was printed) of a batch that ends by itself."""
    batch = start(*arguments, **more)
    printed = batch.communicate(timeout=300)[0]
    return batch.returncode, printed


def records(out):
    """Return {name: record} of what a batch has written into its output folder."""
    return {path.stem: json.loads(path.read_text()) for path in (out / "status").glob("*.json")}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def processes_of(out):
    """Return the processes that belong to runs in an output folder, by their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FTKIT_LESSON", "").startswith(str(out)) and lives(
                    process.pid):
                found.append(process)
        except psutil.Error:
            continue
    return found


def nothing_is_left(out, temporary=None):
    """Assert that no process, held lock, scratch folder or temporary file of a batch is there."""
    from filelock import FileLock

    from ftkit.batch.run import CHECKPOINTS, LOCK

    wait_for(lambda: not processes_of(out), 10)
    left = [path.name for path in out.rglob(".*") if path.name != LOCK]
    left += [path.name for path in out.rglob("*.partial")]
    assert [name for name in left if name != CHECKPOINTS] == []
    if (out / LOCK).exists():
        with FileLock(out / LOCK, timeout=0):
            pass
    if temporary:
        assert list(temporary.iterdir()) == []
