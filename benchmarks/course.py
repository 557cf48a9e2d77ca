"""The lessons on smoke by `ftkit batch` and by a shell loop of papermill, side by side.

`python benchmarks/course.py --write docs/batch.md`, or `make bench-course`. Wall time is what a
reader waits for; both run the same cells on the same machine, one after the other. The batch goes
first, so that what is read from a cold disk is counted against it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from ftkit.batch import notebook as nb  # noqa: E402
from ftkit.batch.report import insert_table, machine  # noqa: E402
from ftkit.display import markdown_table  # noqa: E402

RESULTS = Path(__file__).parent / "course.json"
GOAL = 0.5  # of the loop's wall time, at most
LOOP = "a shell loop of papermill"
BATCH = "ftkit batch --workers auto"
ARMS = {
    BATCH: ["-m", "ftkit.cli", "batch", "--profile", "smoke", "--workers", "auto", "--out", "{out}",
            "{notebooks}"],
    "ftkit batch, one at a time": ["-m", "ftkit.cli", "batch", "--profile", "smoke", "--out",
                                   "{out}", "{notebooks}"],
    "the same, in fresh processes": ["-m", "ftkit.cli", "batch", "--profile", "smoke", "--start",
                                     "fresh", "--out", "{out}", "{notebooks}"],
    LOOP: None,
}
SHELL = ('for book in "$@"; do "$PYTHON" -m papermill "$book" "$OUT/${book##*/}" -p profile smoke '
         '--cwd "${book%/*}" --no-progress-bar; done')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lessons", nargs="+", metavar="NN", help="some alone, by their numbers")
    parser.add_argument("--rounds", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--arms", nargs="+", type=int, metavar="N", default=range(len(ARMS)),
                        help="some alone, by their places in the table, from 0 on")
    parser.add_argument("--write", metavar="FILE", help="put the table into this document")
    options = parser.parse_args()
    notebooks = [path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
                 if not options.lessons or path.name[:2] in options.lessons]
    arms = [list(ARMS)[place] for place in options.arms]
    load = os.getloadavg()[0]
    rounds = [{arm: seconds(arm, notebooks) for arm in arms} for _ in range(options.rounds)]
    found = {"date": str(date.today()), "machine": machine(), "load": round(load, 1),
             "threads": os.environ.get("OMP_NUM_THREADS", "all"),
             "papermill": metadata.version("papermill"),
             "lessons": [path.stem for path in notebooks],
             "of": len(list((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))), "rounds": rounds}
    nb.write_file(json.dumps(found, indent=1) + "\n", RESULTS)
    print(text := table(found))
    if options.write:
        document = Path(options.write)
        nb.write_file(insert_table(document.read_text(encoding="utf-8"), text, "course"), document)


def seconds(arm, notebooks):
    """Run the notebooks and return the wall time; what fails ends the benchmark."""
    with tempfile.TemporaryDirectory(prefix="ftkit-course-") as out:
        environment = os.environ | {"PYTHON": sys.executable, "OUT": out, "FTKIT_PLAIN": "1",
                                    "FTKIT_RUNS": f"{out}/runs", "PYTHONPATH": os.pathsep.join(
                                        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        names = list(map(str, notebooks))
        command = ["sh", "-ec", SHELL, "sh", *names]
        if arm != LOOP:
            words = [word.replace("{out}", out) for word in ARMS[arm][:-1]]
            command = [sys.executable, *words, *names]
        start = time.monotonic()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        spent = time.monotonic() - start
        print(f"{arm}: {spent:.0f} s", flush=True)
        if done.returncode or len(list(Path(out).glob("*.ipynb"))) != len(notebooks):
            sys.exit(f"{arm} did not run all:\n{done.stdout[-3000:]}")
    return round(spent, 1)


def table(found):
    """The table for readers, with the words that say what it is of."""
    medians = {arm: statistics.median(one[arm] for one in found["rounds"])
               for arm in found["rounds"][0]}
    rows = [(arm, f"{value:.0f}", f"{value / medians[LOOP]:.2f}")
            for arm, value in medians.items()]
    lessons, about = found["lessons"], found["machine"]
    which = f"All {found['of']} lessons" if len(lessons) == found["of"] else (
        f"{len(lessons)} of {found['of']} lessons ({', '.join(name[:2] for name in lessons)})")
    reached = medians[BATCH] / medians[LOOP] <= GOAL
    times = f", medians of {len(found['rounds'])} rounds" * (len(found["rounds"]) > 1)
    return "\n\n".join((
        markdown_table(("smoke", "wall time, s", "ratio"), rows),
        f"{which}{times}, on {about['cores']} cores ({about['system']}; load before: "
        f"{found['load']}, threads of a lesson: {found['threads']}), papermill "
        f"{found['papermill']}, {found['date']}. The goal, half the time of the loop at most, is "
        f"{'met' if reached else 'not met'}."))


if __name__ == "__main__":
    main()
