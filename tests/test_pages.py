"""Without these, training could lose its time to fresh memory, or keep the memory for good."""

import subprocess
import sys

import pytest
import tiny

import ftkit as ft
from ftkit import pages

COUNT = """
import resource, torch
from ftkit.pages import kept_pages

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(30_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept_pages(False):
    plain = faults()
with kept_pages():
    faults()
    print(plain, faults(), faults())
"""


@pytest.mark.skipif(not pages._mallopt(), reason="another C library than glibc")
def test_freed_memory_is_taken_again_while_training():
    found = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True,
                           check=True)
    plain, *kept = map(int, found.stdout.split())
    assert plain > 100 and max(kept) < plain / 10


def test_a_training_is_the_same_without():
    models = [ft.fit(tiny.encoder(), tiny.reviews(16), epochs=1, quiet=True, without=left).model
              for left in ((), "kept_pages")]
    assert models[0].hash() == models[1].hash()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(pages, "_mallopt", lambda: None)
    with pages.kept_pages():
        pass
