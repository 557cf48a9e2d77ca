"""One contender, once, in a process of its own that ends with its result.

    python benchmarks/worker.py MODULE FUNCTION FOLDER SEED [OPTION]

first does a few rows of the same work, which are not timed: whatever is loaded on first use is
there then. It prints a line "RESULT {json}".
"""

import gc
import importlib
import json
import os
import platform
import sys
import threading
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

PREFIX = "RESULT "
WARM = "warm"  # the folder with a few rows of a work, beside the whole of it


@contextmanager
def timed():
    """Time a block and watch the memory of this process: seconds, and peak_memory in bytes."""
    import psutil

    found, process, done = SimpleNamespace(peak_memory=0), psutil.Process(), threading.Event()

    def watch():
        while not done.wait(0.05):
            found.peak_memory = max(found.peak_memory, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        yield found
    finally:
        found.seconds = time.perf_counter() - start
        done.set()
        watcher.join()


def machine_name():
    """The processor and the number of threads, in words: what a row was measured on."""
    import torch

    name = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo") as cpuinfo:
        name = next((line.partition(":")[2].strip() for line in cpuinfo
                     if line.startswith("model name")), name)
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''} of {name}"


def main(module, function, folder, seed, *option):
    """Print the result of one run. A failure is a result, too: it says what went wrong."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print as they like
    try:
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
        contend = getattr(importlib.import_module(module), function)
        contend(f"{folder}/{WARM}", int(seed), *option)
        gc.collect()
        result = contend(folder, int(seed), *option) | {"machine": machine_name()}
    except Exception as error:
        import traceback

        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"[:300]}
    print(PREFIX + json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
