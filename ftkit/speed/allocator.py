"""Memory that a step of training frees stays with the process, for the next step to take again.

The C library of Linux gives large blocks back to the system at once, and the system clears each of
their pages anew when it gives them out, which is a good part of a small model's training.
"""

import ctypes
import os
import threading
from contextlib import contextmanager
from functools import cache

from ftkit.models.hardware import usable_memory

# What mallopt(3) sets, by the numbers of malloc.h, and the values that hold again afterwards: those
# that the library's own adjusting ends with where blocks are large.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
AFTER = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
# What is held back for the next training may be this share of the machine's memory; to take two
# gigabytes anew costs one to three seconds.
HELD = 1 / 8
_lock, _open = threading.Lock(), [0]  # how many are open, over all threads


@contextmanager
def keep_freed_memory(wanted=True):
    """While open, freed memory is not given back to the system; afterwards the library may do so.

    What is free at the end is left for the next training, unless it is much of the machine. Where
    several overlap, the last one ends it. wanted=False, settings of malloc in the environment, or
    another C library than glibc: nothing is changed.
    """
    setting = _mallopt() if wanted and not _set_by_user() else None
    if setting is None:
        yield
        return
    with _lock:
        _open[0] += 1
        if _open[0] == 1:
            setting(MMAP_MAX, 0)
            setting(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _lock:
            _open[0] -= 1
            last = not _open[0]
            for name, value in AFTER.items() if last else ():
                setting(name, value)
        if last and unused() > HELD * usable_memory():
            _library().malloc_trim(0)


def unused():
    """Bytes that this process freed and its C library still holds; 0 where it does not say."""
    ask = _mallinfo()
    return ask().fordblks if ask else 0


@cache
def _mallinfo():
    """glibc's account of its memory; None where there is another C library."""
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    try:
        ask = _library().mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    ask.restype = type("mallinfo2", (ctypes.Structure,),
                       {"_fields_": [(name, ctypes.c_size_t) for name in names]})
    return ask


@cache
def _library():
    """The C library of this process."""
    return ctypes.CDLL(None)


def _set_by_user():
    """Whether the environment says how malloc shall work (mallopt(3)): it cannot be asked."""
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return tuned or any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)


@cache
def _mallopt():
    """The function that sets how glibc's malloc works; None where there is another C library."""
    try:
        library = _library()
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it
        return library.mallopt
    except (AttributeError, OSError, TypeError):
        return None
