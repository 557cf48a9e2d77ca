"""Everything that needs a card, most important first, within the minutes there are: make gpu.

    python tools/gpu.py [all|doctor|tests|bench|lessons|tables] [--minutes 8] [--out FOLDER]

`all` looks at the machine, runs the tests that need a card, the benchmark, and the lessons on the
gpu profile. Each piece can be called alone, so that a long run can be cut into several: each adds
to FOLDER/results.json, and what did not fit into its time is named. `tables` adds these results to
benchmarks/card.json and writes docs/results.md and the README from all that is there.
Exit code: 0 when all that ran passed, 1 when something failed, 2 without a card.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
COMMITTED = ROOT / "benchmarks" / "card.json"
# In the order of what they are worth to a reader; lessons that are not in it come after these.
LESSONS = (1, 5, 9, 14, 4, 10, 13, 7, 8, 11, 12, 15, 16, 17, 2, 3, 6, 0)
# Of the whole time, what a step may take; what one leaves over goes to the next.
SHARES = {"doctor": 0.1, "tests": 0.25, "bench": 0.6, "lessons": 1.0}
NO_CARD = ("make gpu needs a CUDA card, and PyTorch finds none on this machine; "
           "`make test` and `make bench` are for machines without one.")
GRACE = 15  # seconds that a step gets to end in an orderly way


class Step:
    """What a step is told: where results go, the seconds it has, and what it could not do."""

    def __init__(self, options, seconds):
        self.options, self.out, self.undone = options, options.out, []
        self.end = time.monotonic() + seconds

    def left(self):
        return max(0.0, self.end - time.monotonic())

    def call(self, command, interrupt=signal.SIGINT):
        """Run a command until it ends or the time does. Returns its exit code; None when late."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "FTKIT_PLAIN": "1"}
        if self.options.tiny:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment)
        try:
            return process.wait(min(self.left(), 1e6))
        except subprocess.TimeoutExpired:
            process.send_signal(interrupt)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return None
        except BaseException:
            process.send_signal(interrupt)
            process.wait()
            raise


def find_card():
    """The card as PyTorch reports it, a dict of name and memory in bytes; None without one."""
    code = ("import json, torch\n"
            "found = torch.cuda.is_available() and torch.cuda.get_device_properties(0)\n"
            "print(json.dumps({'name': found.name, 'memory': found.total_memory} if found else None"
            "))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"make gpu needs PyTorch in {sys.executable}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


def doctor(step):
    """What works on this machine; its warnings are shown and do not fail."""
    return step.call(["-m", "ftkit.cli", "doctor"], signal.SIGTERM)


def tests(step):
    """The tests marked gpu, and nothing else of their suite."""
    files = [path for path in sorted((ROOT / "tests").glob("test_*.py"))
             if re.search(r"mark\.gpu\b", path.read_text(encoding="utf-8"))]
    report = step.out / "tests.xml"
    report.unlink(missing_ok=True)
    start = time.monotonic()
    code = step.call(["-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "--tb=short",
                      f"--junitxml={report}", *files])
    if code is None:
        step.undone.append("the tests after those that are counted")
    if not report.exists():
        step.undone.append("the tests: they wrote no report")
        return code or 1
    found = read_tests(report) | {"card": step.options.card["name"], "call": now(),
                                  "seconds": round(time.monotonic() - start, 1),
                                  "complete": code is not None}
    update(step.out, lambda results: results.setdefault("tests", []).append(found))
    print(f"tests: {found['passed']} passed, {found['failed']} failed, "
          f"{found['skipped']} skipped", flush=True)
    return code if code is not None else int(found["failed"] > 0)


def read_tests(report):
    """Counts, and of each test that failed its name and first words, from a JUnit file."""
    counts = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "skips": {}, "slowest": []}
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    for case in cases:
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        bad = case.find("failure")
        bad = case.find("error") if bad is None else bad
        skip = case.find("skipped")
        if bad is not None:
            counts["failed"] += 1
            counts["failures"].append({"test": name, "said": (bad.get("message") or "")[:300]})
        elif skip is not None:
            counts["skipped"] += 1
            counts["skips"][name] = (skip.get("message") or "")[:120]
        else:
            counts["passed"] += 1
    slow = sorted(cases, key=lambda case: -float(case.get("time", 0)))[:5]
    counts["slowest"] = [[case.get("name"), round(float(case.get("time", 0)), 1)] for case in slow]
    return counts


def bench(step):
    """The benchmark, by benchmarks/card.py; it keeps its own time and names what is left."""
    import card

    minutes = step.left() / 60 if step.options.minutes else None
    asked = ["--out", str(step.out), "--rounds", str(step.options.rounds)]
    asked += ["--minutes", f"{minutes:.3f}"] if minutes else []
    asked += ["--works", *step.options.works] if step.options.works else []
    asked += ["--contenders", *step.options.contenders] if step.options.contenders else []
    asked += ["--tiny"] if step.options.tiny else []
    return card.main(asked, step.undone)


def lessons(step):
    """Lessons on the gpu profile, several side by side where the card has room for them."""
    options = step.options
    profile = "smoke" if options.tiny else "gpu"
    paths = ordered(options.lessons)
    out, workers = step.out / f"lessons-{profile}", options.workers or side_by_side(options.card)
    before = {path.stem: _stamp(out, path.stem) for path in paths}
    limit = ["--timeout", f"{step.left():.0f}"] if options.minutes else []
    code = step.call(["-m", "ftkit.cli", "batch", *paths, "--profile", profile, "--out", out,
                      "--workers", workers, *limit], signal.SIGTERM)
    found, failed = {}, False
    for path in paths:
        record = _record(out, path.stem)
        if record is None or (_stamp(out, path.stem) == before[path.stem] and code is None):
            step.undone.append(f"lesson {path.stem}")
            continue
        failed |= record["status"] != "ok"
        found[path.stem] = {
            "status": record["status"], "message": record["message"][:300],
            "seconds": record["seconds"], "peak_memory": record["peak_memory"],
            "claims": record["claims"], "workers": workers, "profile": profile, "call": now()}

    def put(results):
        for name, record in found.items():
            results.setdefault("lessons", {}).setdefault(name, {})[options.card["name"]] = record

    update(step.out, put)
    return code if code is not None else int(failed)


def ordered(numbers=None):
    """The lessons' notebooks in the order of their value, or those of some numbers as given."""
    found = {int(path.name[:2]): path for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    if unknown := [n for n in numbers or () if n not in found]:
        sys.exit(f"there is no lesson {unknown[0]}; there are {', '.join(map(str, sorted(found)))}")
    order = numbers or [*LESSONS, *sorted(set(found) - set(LESSONS))]
    return [found[n] for n in order if n in found]


def side_by_side(card):
    """How many lessons run at a time: each has up to 16 GB of the card and three cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(4, int(card["memory"] / 16e9), cores // 3))


def _record(out, name):
    try:
        return json.loads((out / "status" / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def _stamp(out, name):
    path = out / "status" / f"{name}.json"
    return path.stat().st_mtime_ns if path.exists() else None


STEPS = {"doctor": doctor, "tests": tests, "bench": bench, "lessons": lessons}


def run(names, options):
    """Do some steps, each within its share of the time. Returns the exit code."""
    total = options.minutes * 60 if options.minutes else 1e9
    end = time.monotonic() + total
    codes, undone = {}, []
    for name in names:
        left = end - time.monotonic()
        share = SHARES[name] if len(names) > 1 and options.minutes else 1.0
        step = Step(options, min(left, max(share * total, 20) if name != names[-1] else left))
        if left < 5:
            undone.append(f"all of {name}")
            continue
        print(f"\n== {name}" + (f", {step.left():.0f} s" if options.minutes else ""), flush=True)
        start = time.monotonic()
        try:
            codes[name] = STEPS[name](step)
        except Exception as error:  # one step's failure must not cost the next its minutes
            print(f"{name} failed: {type(error).__name__}: {error}", flush=True)
            codes[name] = 1
        undone += step.undone
        note = {"step": name, "card": options.card["name"], "call": now(), "exit": codes[name],
                "seconds": round(time.monotonic() - start, 1), "undone": step.undone}
        update(options.out, lambda results, note=note: results.setdefault("steps", []).append(note))
    print("\n" + "\n".join(f"{n}: {'passed' if c in (0, None) else 'FAILED'}"
                           + " as far as it went" * (c is None) for n, c in codes.items()))
    if undone:
        print("no time was left for, or not possible here: " + "; ".join(undone))
    print(f"results: {options.out / 'results.json'}; `python tools/gpu.py tables --out "
          f"{options.out}` puts them into the documents", flush=True)
    return 1 if any(codes.values()) or not codes else 0


def now():
    return time.strftime("%Y-%m-%d %H:%M:%S")


def update(out, change):
    """Change results.json; what other calls put there stays."""
    from card import write

    file = out / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    change(results)
    write(results, file)


def tables(options):
    """Add the results to those in the benchmark's folder, and write the documents from all."""
    import card
    import card_tables

    file = options.out / "results.json"
    if not file.exists() and not COMMITTED.exists():
        sys.exit(f"nothing was measured: there is no {file}")
    results = {}
    for each in (COMMITTED, file):
        results = card.merged(results, json.loads(each.read_text()) if each.exists() else {})
    card.write(results, COMMITTED)
    for name, table in card_tables.documents(results).items():
        document = ROOT / name
        text = card_tables.rewritten(document.read_text(encoding="utf-8"), table)
        document.write_text(text, encoding="utf-8")
        print(f"{name} shows {COMMITTED.relative_to(ROOT)}")
    return 0


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="gpu.py", description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", default="all", choices=["all", *STEPS, "tables"])
    parser.add_argument("--minutes", type=float, help="all there are; without it, no limit")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "gpu")
    parser.add_argument("--rounds", type=int, default=3, help="of the benchmark (%(default)s)")
    parser.add_argument("--works", nargs="+", metavar="WORK", help="of the benchmark")
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="of the benchmark")
    parser.add_argument("--lessons", nargs="+", type=int, metavar="NUMBER")
    parser.add_argument("--workers", type=int, help="lessons at a time (by the card's memory)")
    parser.add_argument("--tiny", action="store_true",
                        help="a trial on the CPU: small networks, the smoke profile")
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "tables":
        return tables(options)
    options.card = {"name": "a CPU (tiny)", "memory": 0} if options.tiny else find_card()
    if options.card is None:
        print(NO_CARD, file=sys.stderr)
        return 2
    return run(list(STEPS) if options.what == "all" else [options.what], options)


if __name__ == "__main__":
    sys.exit(main())
