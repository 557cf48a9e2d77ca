"""Without these, training could lose its time to fresh memory, or keep the memory for good."""

import gc
import subprocess
import sys

import pytest
import tiny

import ftkit as ft
from ftkit.speed import allocator

COUNT = """
import resource, torch
from ftkit.speed.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(30_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with keep_freed_memory(False):
    plain = faults()
with keep_freed_memory():
    faults()
    print(plain, faults(), faults())
"""


HELD = """
import sys, psutil, torch
from ftkit.speed import allocator

allocator.usable_memory = lambda: int(sys.argv[1])
with allocator.keep_freed_memory():
    torch.ones(100_000_000)
print(psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(not allocator._mallopt(), reason="another C library than glibc")
def test_what_a_training_freed_goes_back_where_it_is_much_of_the_machine():
    large, small = (int(subprocess.run([sys.executable, "-c", HELD, memory], capture_output=True,
                                       text=True, check=True).stdout)
                    for memory in ("100_000_000_000", "2_000_000_000"))
    assert large - small > 350e6  # of 400


@pytest.mark.skipif(not allocator._mallopt(), reason="another C library than glibc")
def test_freed_memory_is_taken_again_while_training():
    found = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True,
                           check=True)
    plain, *kept = map(int, found.stdout.split())
    assert plain > 100 and max(kept) < plain / 10


def test_a_training_is_the_same_without():
    models = [ft.fit(tiny.encoder(), tiny.reviews(16), epochs=1, quiet=True, disable=left).model
              for left in ((), "keep_freed_memory")]
    assert models[0].hash() == models[1].hash()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_mallopt", lambda: None)
    with allocator.keep_freed_memory():
        pass


def test_overlapping_trainings_set_it_once_and_the_last_one_puts_it_back(monkeypatch):
    said = []
    monkeypatch.setattr(
        allocator, "_mallopt", lambda: lambda name, value: said.append((name, value))
    )
    for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    one, two = allocator.keep_freed_memory(), allocator.keep_freed_memory()
    one.__enter__()
    two.__enter__()
    opened = list(said)
    one.__exit__(None, None, None)
    assert said == opened and (allocator.MMAP_MAX, 0) in opened
    two.__exit__(None, None, None)
    assert said[len(opened):] == list(allocator.AFTER.items())


@pytest.mark.parametrize(("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "100000"),
                                             ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=3")])
def test_what_the_user_set_for_malloc_is_left_alone(name, value, monkeypatch):
    said = []
    monkeypatch.setattr(allocator, "_mallopt", lambda: lambda *given: said.append(given))
    monkeypatch.setenv(name, value)
    with allocator.keep_freed_memory():
        pass
    assert not said


def test_a_training_leaves_the_users_objects_to_the_garbage_collector():
    before = gc.get_freeze_count()
    ft.fit(tiny.encoder(), tiny.reviews(8)["train"], epochs=1, quiet=True)
    assert gc.get_freeze_count() == before
