"""One contender in a process of its own: for each seed that is asked for, it answers with a result.

    python benchmarks/worker.py MODULE FUNCTION FOLDER [OPTION]

reads seeds from its input, one a line, and answers each with a line "RESULT {json}".
"""

import importlib
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

PREFIX = "RESULT "


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


def main(module, function, folder, *option):
    """Answer seeds until the input ends. A failure is a result, too: it says what went wrong."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print as they like
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    contend = getattr(importlib.import_module(module), function)
    for line in sys.stdin:
        try:
            result = contend(folder, int(line), *option)
        except Exception as error:
            import traceback

            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(PREFIX + json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
