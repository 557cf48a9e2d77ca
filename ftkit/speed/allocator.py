"""Memory that a step of training frees stays with the process, for the next step to take again.

The C library of Linux gives large blocks back to the system at once, and the system clears each of
their pages anew when it gives them out, which is a good part of a small model's training.
"""

import ctypes
import os
import threading
from contextlib import contextmanager
from functools import cache

# What mallopt(3) sets, by the numbers of malloc.h, and the values that hold again afterwards: those
# that the library's own adjusting ends with where blocks are large.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
AFTER = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
_lock, _open = threading.Lock(), [0]  # how many are open, over all threads


@contextmanager
def keep_freed_memory(wanted=True):
    """While open, freed memory is not given back to the system; afterwards the library may do so.

    Where several overlap, until the last is closed. wanted=False, settings of malloc in the
    environment, or another C library than glibc: nothing is changed.
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
            for name, value in AFTER.items() if not _open[0] else ():
                setting(name, value)


def _set_by_user():
    """Whether the environment says how malloc shall work (mallopt(3)): it cannot be asked."""
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return tuned or any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)


@cache
def _mallopt():
    """The function that sets how glibc's malloc works; None where there is another C library."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it
        return library.mallopt
    except (AttributeError, OSError, TypeError):
        return None
