"""What is measured while something runs: seconds, memory, energy, and the machine's own peak."""

import ctypes
import gc
import threading
import time
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

from ftkit.models.hardware import this_machine


@contextmanager
def only_new_garbage():
    """Leave out what is there already when garbage is collected; as before at the end.

    To go through all objects of the libraries takes longer than a few updates of a small model.
    """
    if gc.get_freeze_count() > 5000:  # someone's own, or a block around; Python has some hundreds
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def measured():
    """Measure a block of code: yields a namespace that gets seconds, memory and energy.

    peak_memory: bytes of this process (on CUDA, of the device). added_memory: the part of it that
    the block itself needed; on a CPU at the moments that it names by `look(place, size)`, such as
    "forward", a pass over a batch of that size. energy: joules of the processor package where the
    system lets it be read, else None.
    """
    import psutil
    import torch

    cuda = this_machine().device == "cuda"
    process, done, used = psutil.Process(), threading.Event(), []
    due, largest = {}, {}

    def look(place, size=0):
        # The C library counts what it holds for milliseconds, in a process with a large model: so
        # only where there may be more than before, and for a hundredth of the time at most.
        known = largest.get(place, 0)
        if cuda or size < 0.95 * known or time.perf_counter() < due.get(place, 0):
            return
        largest[place], start = max(size, known), time.thread_time()
        used.append(process.memory_info().rss - _unused())
        due[place] = time.perf_counter() + 100 * (time.thread_time() - start)

    def watch():
        while not done.wait(0.02):
            found.peak_memory = max(found.peak_memory, process.memory_info().rss)

    found = SimpleNamespace(seconds=0.0, peak_memory=0, added_memory=0, energy=None, look=look)
    gc.collect()  # what earlier work left behind is no one else's memory
    watcher = threading.Thread(target=watch, daemon=True)
    if cuda:
        used.append(torch.cuda.memory_allocated())
        torch.cuda.reset_peak_memory_stats()
    else:
        look("begin")
        found.peak_memory = process.memory_info().rss
        watcher.start()
    joules, start = _joules(), time.perf_counter()
    try:
        with only_new_garbage():  # a training collects at its end, too
            yield found
    finally:
        found.seconds = time.perf_counter() - start
        done.set()
        if cuda:
            found.peak_memory = torch.cuda.max_memory_allocated()
            used.append(found.peak_memory)
        else:
            watcher.join()
            look("end")
        found.added_memory = max(used) - used[0]
        if joules is not None and (after := _joules()) is not None and after >= joules:
            found.energy = after - joules


def held():
    """Bytes that this process holds now; on CUDA, of the device."""
    import psutil
    import torch

    if this_machine().device == "cuda":
        return torch.cuda.memory_allocated()
    return psutil.Process().memory_info().rss


def _unused():
    """Bytes that this process freed and its C library still holds; 0 where it does not say.

    Returned to the system before, they would cost the next training a tenth of its time.
    """
    ask = _mallinfo()
    return ask().fordblks if ask else 0


@cache
def _mallinfo():
    """glibc's account of its memory; None where there is another C library."""
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    ask.restype = type("mallinfo2", (ctypes.Structure,),
                       {"_fields_": [(name, ctypes.c_size_t) for name in names]})
    return ask


def _joules():
    try:
        with open("/sys/class/powercap/intel-rapl:0/energy_uj") as counter:
            return int(counter.read()) / 1e6
    except (OSError, ValueError):
        return None
