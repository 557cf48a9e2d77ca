"""`make soak`: a grid of short notebooks while a random kernel of it is killed every few seconds.

Exits 0 when each run ended once, results equal those of an undisturbed grid, and nothing is left.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import faulty
import psutil
from conftest import notebook_file

from ftkit.batch.run import run_batch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=3, help="mean time between two kills")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"soak with --seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ftkit-soak-") as folder:
        wrong = soak(Path(folder), options)
    print("\n".join(wrong) or "soak: each run ended once, with the results of an undisturbed grid; "
                             "nothing was left")
    return int(bool(wrong))


def soak(folder, options):
    """Return what is wrong, as lines."""
    # Each leaves a child behind that belongs to nobody, under a name of its own.
    child = f"import os\nPATH = {str(folder / 'child-')!r} + str(os.getpid())"
    lesson = notebook_file(folder / "01_a.ipynb", faulty.PARAMETERS, child + faulty.CUT_OFF,
                           faulty.WORK)
    grid = {"rank": list(range(options.runs // 2)), "seed": [0, 1]}
    said, out = [], {name: folder / name / "out" for name in ("killed", "whole")}

    def batch(name, **more):
        return run_batch([lesson], grid=grid, workers=2, out=out[name], report=said.append, **more)

    killer = Killer(out["killed"], options)
    killer.start()
    try:
        killed = batch("killed", retries=20)
    finally:
        killer.stop()
    starts = [line.removesuffix(": started") for line in said if line.endswith(": started")]
    ends = [line.partition(": ")[0] for line in said if ": ok in" in line]
    whole = batch("whole")
    print(f"{len(killed)} runs, {killer.kills} kernels killed, {len(starts)} attempts", flush=True)
    wrong = [f"{r['name']}: {r['status']}: {r['message']}" for r in killed if r["status"] != "ok"]
    if sorted(ends) != sorted(r["name"] for r in killed):
        wrong.append("a run ended twice, or never")
    if sum(r["attempts"] for r in killed) != len(starts):
        wrong.append("the records do not count the attempts that were made")
    if killer.kills and len(starts) == len(killed):
        wrong.append("kernels were killed and nothing was tried again")
    results = [[(r["name"], r["point"], r["claims"]) for r in found] for found in (killed, whole)]
    if results[0] != results[1]:
        wrong.append("the results differ from those of an undisturbed grid")
    for name in out:
        try:
            faulty.nothing_is_left(out[name])
        except AssertionError as error:
            wrong.append(f"left in {name}: {error}")
        wrong += [f"left: {path.name}" for path in out[name].glob("*.failed.ipynb")]
    children = [int(path.read_text() or 0) for path in folder.glob("child-*")]
    wrong += [f"process {pid} outlived its lesson" for pid in children if faulty.lives(pid)]
    wrong += [] if len(children) >= 2 * len(whole) else ["a child is missing"]
    return wrong


class Killer(threading.Thread):
    """Kills a random kernel of the lessons in a folder, every few seconds."""

    def __init__(self, out, options):
        super().__init__(daemon=True)
        self.out, self.mean, self.random = out, options.seconds, random.Random(options.seed)
        self.kills, self.ended = 0, threading.Event()

    def run(self):
        while not self.ended.wait(self.random.uniform(0.3, 1.7) * self.mean):
            kernels = [p for p in faulty.processes_of(self.out) if self.is_kernel(p)]
            if kernels:
                self.random.choice(kernels).kill()
                self.kills += 1

    @staticmethod
    def is_kernel(process):
        try:
            return "ipykernel_launcher" in process.cmdline()
        except psutil.Error:
            return False

    def stop(self):
        self.ended.set()
        self.join()


if __name__ == "__main__":
    sys.exit(main())
