"""The machine's own best rate of matrix products, which every other rate is measured against."""

import time
from functools import cache

from ftkit.models.hardware import this_machine


def matrix_peak(dtype="float32", size=2048, repeats=5):
    """Measure the best rate of a square matrix product, in floating-point operations per second."""
    import torch

    from ftkit.models.precision import FORMATS

    device = this_machine().device
    own = torch.Generator(device).manual_seed(0)  # a training's draws must not depend on it
    a = torch.randn(size, size, generator=own, device=device).to(FORMATS[dtype])
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ a
        if device != "cpu":
            getattr(torch, device).synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


@cache
def rough_peak(dtype="float32"):
    """matrix_peak in a few hundredths of a second, measured once a process: for estimates."""
    return matrix_peak(dtype, size=4096 if this_machine().device == "cuda" else 1024, repeats=2)
