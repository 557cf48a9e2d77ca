"""Time the kit and its peers on a card: python benchmarks/card.py --minutes 4 --out FOLDER.

All works once by all their contenders, in the order of their importance; then again with other
seeds, up to --rounds times, as long as the time allows. Each contender has a process of its own,
and one works at a time. What was measured is added to FOLDER/results.json; what did not fit into
the time is named. --tiny tries everything on a CPU, with small random networks.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import card_tables
from card_works import WORKS
from worker import PREFIX

HERE = Path(__file__).parent
ROOT = HERE.parent
FULL = ["kit", "trainer_best", "loop", "trainer", "kit_default", "loop_plain", "trainer_liger",
        "sft", "sft_liger", "trainer_compiled"]
LORA = ["kit", "trainer_best", "loop", "trainer_liger", "kit_default", "loop_plain", "sft",
        "sft_liger", "trainer", "trainer_compiled"]
# The contenders of each work, the kit first, then in the order of their importance.
CONTENDERS = {
    "full-135m": FULL, "random-135m": FULL, "lora-135m": LORA, "lora-0.6b": LORA, "full-0.6b": FULL,
    "qlora-1.7b": ["kit", "trainer_best", "loop_plain", "sft", "trainer_liger", "sft_liger"],
    "lora-1.7b": LORA, "full-1.7b": FULL,
    "classify": ["kit", "trainer_best", "loop", "trainer", "loop_plain", "trainer_compiled"],
    "score": ["kit", "lm_eval", "generate"],
    "generate": ["kit", "generate"],
}
FIRST = 4  # contenders of a work that come before the rest of all works
RUN = 100  # seconds that one run may take; compiling is the longest part
LATE = "no time was left"
GUESS = 15  # seconds that a run is thought to take before any was seen


def _path():
    """The kit of this folder before any other, and what the caller put on the path."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


class Worker:
    """A contender's process. It starts at once and is then idle until it is asked."""

    def __init__(self, name, folder, logs, tiny):
        self.name = name
        environment = os.environ | {
            "FTKIT_CACHE_GB": "0", "FTKIT_PLAIN": "1", "FTKIT_RUNS": str(folder / "runs"),
            "HF_HUB_OFFLINE": "1", "PYTHONPATH": _path()}
        # One card, where there are more: the Trainer would take them all.
        seen = "" if tiny else os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        environment["CUDA_VISIBLE_DEVICES"] = seen
        self.log = open(logs / f"{name}.log", "a")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "card_worker.py"), name], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment, cwd=folder,
            start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def ask(self, request, limit):
        """The answer to a request: a dict, with "error" when it failed or took too long."""
        end = time.monotonic() + limit
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            while (line := self.lines.get(timeout=max(0, end - time.monotonic()))) is not None:
                if line.startswith(PREFIX):
                    return json.loads(line.removeprefix(PREFIX))
        except queue.Empty:
            self.stop()  # what it holds of the card is free again
            return {"late": f"stopped after {limit:.0f} s"}
        except BrokenPipeError:
            pass
        self.stop()
        return {"error": f"the process ended; see {self.log.name}"}

    def stop(self):
        """End it and what it started, such as the compiler's processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def alive(self):
        return self.process.poll() is None


class Workers:
    """The processes of all contenders: begun together where there are cores for it."""

    def __init__(self, names, *where):
        self.where, self.found = where, {}
        for name in names if (os.cpu_count() or 1) >= 8 else []:
            self[name]

    def __getitem__(self, name):
        if name not in self.found or not self.found[name].alive():
            self.found[name] = Worker(name, *self.where)
        return self.found[name]

    def stop(self):
        for worker in self.found.values():
            if worker.alive():
                worker.stop()


def schedule(works, rounds, contenders=None):
    """Every (work, contender, seed), the most important first."""
    once = [(work, [c for c in CONTENDERS[work] if not contenders or c in contenders])
            for work in works]
    once = [(work, names) for work, names in once if names]
    runs = [(work, each, 0) for work, names in once for each in names[:FIRST]]
    runs += [(work, each, 0) for work, names in once for each in names[FIRST:]]
    for seed in range(1, rounds):
        # In turn: each round begins with another contender.
        runs += [(work, each, seed) for work, names in once
                 for each in names[seed % len(names) :] + names[: seed % len(names)]]
    return runs


class Call:
    """One call of this program: what it measured, what it could not, and the time it has left."""

    def __init__(self, options, say):
        self.options, self.say = options, say
        self.begin, self.name = time.monotonic(), time.strftime("%Y-%m-%d %H:%M:%S")
        # Networks of gigabytes stay out of the results, and are there for the next call.
        self.folder = ROOT / "build" / ("card-tiny" if options.tiny else "card")
        self.logs = options.out / "logs"
        self.limit = options.run_limit or (6 * RUN if options.tiny else RUN)
        self.done, self.undone, self.card, self.workers = [], [], None, None
        self.gone, self.taken, self.prepared = {}, {}, set()  # gone: (work, name): why

    def left(self):
        """Seconds; without a limit, more than any run takes."""
        minutes = self.options.minutes
        return minutes * 60 - (time.monotonic() - self.begin) if minutes else 1e9

    def measure(self, runs):
        """All runs that the time allows, in their order."""
        for folder in (self.folder, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        names = ["prepare", *dict.fromkeys(name for _, name, _ in runs)]
        self.workers = Workers(names, self.folder, self.logs, self.options.tiny)
        try:
            if self._see_card():
                for each in runs:
                    self._one(*each)
            else:
                self.undone = [(*each, LATE) for each in runs]
        finally:
            self.workers.stop()

    def _see_card(self):
        self.card = self.workers["prepare"].ask({"card": True}, min(self.limit, self.left()))
        if "error" in self.card:
            raise RuntimeError(f"the card cannot be used: {self.card['error']}; see {self.logs}")
        if "late" in self.card:
            return False
        rate = f"bf16 products at {self.card['matrix_peak'] / 1e12:.1f} TFLOP/s (measured)"
        left = f", {self.left():.0f} s left" if self.options.minutes else ""
        self.say(f"{self.card['name']}: {rate}{left}")
        return True

    def _one(self, work, name, seed):
        why = self.gone.get((work, name))
        if not why and self.left() < 1.3 * self.taken.get((work, name), GUESS):
            why = LATE
        if not why and work not in self.prepared:
            why = self._prepare(work)
        if why:
            self.undone.append((work, name, seed, why))
            return
        start, asked = time.monotonic(), {"work": str(self.folder / work), "seed": seed}
        if self.options.profile:
            asked["profile"] = str(self.options.out / f"profile-{work}-{name}.txt")
        result = self.workers[name].ask(asked, min(self.limit, self.left()))
        self.taken[work, name] = taken = time.monotonic() - start
        if why := result.get("missing") or result.get("late"):
            self.gone[work, name] = why
            self.undone.append((work, name, seed, why))
        elif "error" in result:
            self.gone[work, name] = "it failed before"
        result["wall"] = round(taken, 1)
        self._keep(work, name, seed, result)
        self.say(f"  {work}: {card_tables.NAMES[name]}: {_words(result)}")

    def _prepare(self, work):
        """Write a work for everybody. Returns why that was not possible, or None."""
        self.prepared.add(work)
        made = self.workers["prepare"].ask(
            {"prepare": work, "folder": str(self.folder), "tiny": self.options.tiny},
            min(self.limit, self.left()))
        if "prepared" in made:
            return None
        why = LATE if "late" in made else f"not prepared: {made.get('error')}"
        self.gone |= {(work, name): why for name in CONTENDERS[work]}
        if "late" not in made:
            self._keep(work, "kit", 0, {"error": why})
        return why

    def _keep(self, work, name, seed, result):
        named = {"work": work, "contender": name, "seed": seed, "call": self.name}
        self.done.append(result | named)
        _same_texts(self.done, work)
        place = "profiles" if self.options.profile else "bench"
        add(self.options.out, self.card, source_hash(), self.done, self.options.tiny, place)


def run(options, say=print):
    """Measure what the time allows. Returns (results of this call, what was not done)."""
    call, works = Call(options, say), options.works or list(WORKS)
    if options.profile:  # of trainings
        works = [work for work in works if "method" in WORKS[work]]
    call.measure(schedule(works, 1 if options.profile else options.rounds, options.contenders))
    if call.undone:
        say("not measured: " + "; ".join(_undone(call.undone)))
    return call.done, call.undone


def _undone(undone):
    whys = {}
    for work, name, seed, why in undone:
        whys.setdefault(why, []).append(f"{work} {name}" + f" (round {seed + 1})" * bool(seed))
    return [f"{', '.join(names)}: {why}" for why, names in whys.items()]


def _words(result):
    if why := result.get("error") or result.get("missing") or result.get("late"):
        return why
    if "profile" in result:
        return card_tables.profile(result["profile"])
    if "steady_tokens" in result:
        rate = f", {result['steady_tokens'] / result['steady_seconds']:,.0f} tokens/s when warm"
    else:
        rate = f", {result['steady_seconds']:.2f} s when warm"
    loss = f", loss {result['loss']:.3f}" if result.get("loss") is not None else ""
    loss += f", {result['accuracy']:.2f} right" if "accuracy" in result else ""
    return (f"{result['seconds']:.1f} s in all{rate}{loss}, {result['peak_memory'] / 1e9:.1f} GB, "
            f"{result['wall']:.0f} s with loading and judging")


def _same_texts(done, work):
    """Replace what a peer generated by the share of it that is the kit's; texts are not kept."""
    here = [result for result in done if result["work"] == work]
    kits = [result for result in here if result["contender"] == "kit" and "texts" in result]
    said = kits[-1]["texts"] if kits else []
    for result in here:
        if result["contender"] != "kit" and (texts := result.pop("texts", None)) and said:
            result["same"] = sum(a == b for a, b in zip(texts, said, strict=True)) / len(said)


def source_hash():
    """What stands for the kit's code: times of another one are not its own."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted((ROOT / "ftkit").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def add(out, card, source, runs, tiny=False, place="bench"):
    """Put this call's runs into out/results.json; what other calls measured stays."""
    file = Path(out) / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    key = card["name"] + " (tiny)" * tiny
    results.setdefault("cards", {})[key] = {k: v for k, v in card.items() if k != "name"}
    marked = [{**{k: v for k, v in run.items() if k != "texts"}, "card": key,
               "source": source} for run in runs]
    calls = {run["call"] for run in marked}
    kept = [run for run in results.get(place, []) if run["call"] not in calls]
    results[place] = kept + marked
    write(results, file)


def merged(earlier, newer):
    """Two files of results as one: what either measured, once. Of a lesson, what is newer."""
    found = dict(earlier)
    for key, value in newer.items():
        if isinstance(value, list):
            found[key] = [*found.get(key, []), *(v for v in value if v not in found.get(key, []))]
        elif key == "lessons":
            found[key] = {name: found.get(key, {}).get(name, {}) | value.get(name, {})
                          for name in {**found.get(key, {}), **value}}
        else:
            found[key] = found.get(key, {}) | value
    return found


def write(results, file):
    """Whole or not at all: another step may be reading it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(".part")
    scratch.write_text(json.dumps(results, indent=1) + "\n")
    scratch.replace(file)


def parser():
    made = argparse.ArgumentParser(prog="card.py", description=__doc__.split("\n")[0])
    made.add_argument("--minutes", type=float, help="all there are; without it, no limit")
    made.add_argument("--out", type=Path, default=ROOT / "artifacts" / "gpu")
    made.add_argument("--works", nargs="+", choices=list(WORKS), metavar="WORK")
    made.add_argument("--contenders", nargs="+", choices=list(card_tables.NAMES), metavar="NAME")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--run-limit", type=float, metavar="SECONDS",
                      help=f"that one run may take ({RUN})")
    made.add_argument("--profile", action="store_true",
                      help="say what ten warm updates spend the card's time on; times nothing")
    made.add_argument("--tiny", action="store_true", help="small networks on the CPU, as a trial")
    return made


def main(arguments=None, undone=None):
    """Returns 0, or 1 when a contender failed or nothing could be measured.

    undone: a list that gets what was not measured, in words.
    """
    options = parser().parse_args(arguments)
    options.out = options.out.resolve()
    done, missed = run(options, say=lambda text: print(text, flush=True))
    if undone is not None:
        undone += _undone(missed)
    results = json.loads((options.out / "results.json").read_text()) if done else {}
    if not options.profile:
        print(f"\n{card_tables.bench(results) if results else 'nothing was measured'}", flush=True)
    failed = [f"{r['work']}: {r['contender']}: {r['error']}" for r in done if "error" in r]
    if failed:
        print("failed: " + "; ".join(failed))
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
