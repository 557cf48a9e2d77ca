"""Time the kit and its peers on the same work: python benchmarks [WORK ...], or make bench.

Every work is done by all its contenders in turn, at least three times, each time with another seed;
what is compared are the medians of one run of this program. It writes results.json and results.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from prepare import WORKS, prepare
from worker import PREFIX

HERE = Path(__file__).parent
ROOT = HERE.parent
PYTHON = {"kit": Path(sys.executable), "peers": ROOT / ".venv-peers" / "bin" / "python",
          "lit": ROOT / ".venv-litgpt" / "bin" / "python"}
PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl", "litgpt", "lm-eval", "optuna")

# Of each work: what it is, the contenders in words ("kit" is the kit), and the goals: the least
# ratio of a peer's time to the kit's, for a named peer or for the fastest of them all.
TABLE = {
    "full": ("SmolLM2, all weights, 160 question and definition pairs", {
        "kit.full": "ftkit", "kit.loop": "a loop by hand with the kit's parts",
        "peers.trainer": "Trainer", "peers.trainer_grouped": "Trainer, grouped by length",
        "peers.sft": "trl SFTTrainer", "peers.sft_best": "trl, no checkpointing, grouped",
        "lit.litgpt_full": "litgpt", "peers.loop": "a loop by hand, plain attention",
    }, {"peers.trainer": 4.5, "fastest": 2.0}),
    "lora": ("SmolLM2, LoRA of rank 8 on queries and values, the same pairs", {
        "kit.lora": "ftkit", "peers.sft_lora": "trl and peft, no checkpointing, grouped",
        "lit.litgpt_lora": "litgpt LoRA",
    }, {"fastest": 1.5}),
    "classify": ("MiniLM, all weights, 2,000 reviews, 3 epochs", {
        "kit.classify": "ftkit", "peers.trainer": "Trainer",
        "peers.trainer_grouped": "Trainer, grouped by length",
        "peers.loop": "a loop by hand, plain attention",
    }, {"peers.trainer": 4.0, "fastest": 1.2}),
    "top": ("MiniLM, the top block, 600 reviews, 5 epochs", {
        "kit.frozen": "ftkit", "peers.trainer_frozen": "Trainer, the same frozen",
        "peers.trainer_frozen_grouped": "the same, grouped by length",
    }, {"fastest": 4.0}),
    "head": ("MiniLM, the head alone, 600 reviews, 10 epochs", {
        "kit.frozen": "ftkit", "peers.trainer_frozen": "Trainer, the same frozen",
        "peers.trainer_frozen_grouped": "the same, grouped by length",
    }, {"fastest": 20.0}),
    "score": ("SmolLM2, 500 yes-no questions after 8 examples", {
        "kit.score": "ftkit", "peers.lm_eval": "lm-eval, batches of 16",
        "peers.generate": "generate, batches of 16",
    }, {"peers.lm_eval": 4.0, "peers.generate": 8.0}),
    "sweep": ("MiniLM, 20 trials over head and top block, 300 reviews", {
        "kit.sweep": "ftkit", "peers.sweep": "optuna and Trainer",
    }, {"fastest": 10.0}),
}
BY_HAND = "kit.loop"  # no peer: it tells what fit adds to its parts


class Contender:
    """A worker process that does one contender's share of a work when it is asked."""

    def __init__(self, name, folder, threads):
        module, function = name.split(".")
        self.log = open(folder / f"{name}.log", "w")
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads), "FTKIT_KEPT_GB": "0", "FTKIT_PLAIN": "1",
            "FTKIT_RUNS": str(folder / "runs"), "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [str(PYTHON[module]), str(HERE / "worker.py"), module, function, str(folder)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            text=True)

    def run(self, seed):
        """Returns the result of one run, a dict; it has the key "error" when that failed."""
        try:
            print(seed, file=self.process.stdin, flush=True)
            for line in self.process.stdout:
                if line.startswith(PREFIX):
                    return json.loads(line.removeprefix(PREFIX))
        except BrokenPipeError:
            pass
        return {"error": f"the process ended; see {self.log.name}"}

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.log.close()


def run_work(name, rounds, threads, folder):
    """All contenders of a work in turn, `rounds` times. Returns {contender: list of results}."""
    title, names, _ = TABLE[name]
    print(f"\n{name}: {title}", flush=True)
    prepare(name, folder)
    contenders = {each: Contender(each, folder, threads) for each in names}
    found = {each: [] for each in names}
    try:
        for seed in range(rounds):
            order = list(names)[seed % len(names):] + list(names)[: seed % len(names)]
            for each in order:
                result = contenders[each].run(seed)
                found[each].append(result)
                said = result.get("error") or f"{result['seconds']:.1f} s" + (
                    f", loss {result['loss']:.3f}" if result["loss"] is not None else "")
                print(f"  round {seed + 1}: {names[each]}: {said}", flush=True)
    finally:
        for contender in contenders.values():
            contender.close()
    return found


def judge(name, found):
    """Medians, ranges, ratios to the kit, agreement of losses, and each goal of one work."""
    _, names, goals = TABLE[name]
    rows = {}
    for each, results in found.items():
        done = [r for r in results if "error" not in r]
        row = {"contender": names[each], "runs": results}
        if done:
            seconds = [r["seconds"] for r in done]
            losses = [r["loss"] for r in done if r["loss"] is not None]
            row |= {"median": median(seconds), "least": min(seconds), "most": max(seconds),
                    "peak_memory": max(r["peak_memory"] for r in done), "losses": losses}
            for key in ("tokens_per_second", "accuracy", "share_of_peak", "peak"):
                if key in done[0]:
                    row[key] = median(r[key] for r in done)
        rows[each] = row
    kit = next(iter(rows.values()))
    peers = {k: r for k, r in rows.items() if not k.startswith("kit.") and "median" in r}
    for row in rows.values():
        if "median" in row and "median" in kit:
            row["ratio"] = row["median"] / kit["median"]
            row["agrees"] = _agrees(kit, row)
    judged = []
    for against, least in goals.items():
        known = peers if against == "fastest" else {k: peers[k] for k in [against] if k in peers}
        reached = min((row["ratio"] for row in known.values()), default=None)
        judged.append({"against": names.get(against, "the fastest peer"), "goal": least,
                       "reached": reached, "met": reached is not None and reached >= least})
    return {"title": TABLE[name][0], "contenders": rows, "goals": judged}


def _agrees(kit, peer):
    """Whether the kit's median loss lies within the spread of the peer's seeds, widened by it."""
    if not kit["losses"] or not peer["losses"] or peer is kit:
        return None
    low, high = min(peer["losses"]), max(peer["losses"])
    return low - (high - low) <= median(kit["losses"]) <= high + (high - low)


def versions():
    """The versions of the packages that matter, in the kit's environment and in the peers'."""
    code = ("import json, sys, importlib.metadata as m\n"
            "have = {d.name.lower(): d.version for d in m.distributions()}\n"
            f"print(json.dumps({{p: have[p] for p in {PACKAGES!r} if p in have}}))")
    return {name: json.loads(subprocess.run([str(python), "-c", code], capture_output=True,
                                            text=True, check=True).stdout)
            for name, python in PYTHON.items()}


def table(results):
    """The results as a Markdown table."""
    machine = results["machine"]
    lines = [
        f"{machine['cores']} threads of {machine['name']}, float32, medians of "
        f"{results['rounds']} rounds in turn; made by `make bench` on {results['date']}.", "",
        "| work | contender | seconds (least, most) | peer / kit | peak memory | loss |",
        "| --- | --- | --- | --- | --- | --- |"]
    for work in results["works"].values():
        title = work["title"]
        for row in work["contenders"].values():
            if "median" not in row:
                lines.append(f"| {title} | {row['contender']} | failed | | | |")
            else:
                loss = f"{median(row['losses']):.3f}" if row["losses"] else (
                    f"{row['accuracy']:.2f} right")
                loss += {True: "", None: "", False: " (differs)"}[row["agrees"]]
                lines.append(
                    f"| {title} | {row['contender']} | {row['median']:.1f} ({row['least']:.1f}, "
                    f"{row['most']:.1f}) | {row['ratio']:.2f} | {row['peak_memory'] / 1e9:.1f} GB "
                    f"| {loss} |")
            title = ""
    lines += ["", "| goal | least | reached |", "| --- | --- | --- |"]
    for work in results["works"].values():
        for goal in work["goals"]:
            reached = "–" if goal["reached"] is None else f"{goal['reached']:.2f}"
            lines.append(f"| {work['title']}: against {goal['against']} | {goal['goal']:g} | "
                         f"{reached}{'' if goal['met'] else ' (not reached)'} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of {', '.join(TABLE)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    if wrong := [name for name in options.works if name not in WORKS]:
        parser.error(f"{wrong[0]!r} is no work; choose of {', '.join(TABLE)}")
    if missing := [path for path in PYTHON.values() if not path.exists()]:
        parser.error(f"{missing[0]} is missing; `make bench` makes the peers' environments")
    from ftkit.hardware import this_machine

    machine = this_machine()
    results = {"date": time.strftime("%Y-%m-%d"), "rounds": options.rounds,
               "machine": {"name": machine.name, "cores": options.threads,
                           "memory": machine.memory}, "versions": versions(), "works": {}}
    file = options.out / "results.json"
    if options.works and file.exists():  # the others stay as they were measured
        results["works"] = json.loads(file.read_text())["works"]
    for name in options.works or TABLE:
        folder = ROOT / "build" / "bench" / name
        results["works"][name] = judge(name, run_work(name, options.rounds, options.threads,
                                                      folder))
        results["works"] = {k: results["works"][k] for k in TABLE if k in results["works"]}
        file.write_text(json.dumps(results, indent=1) + "\n")
        (options.out / "results.md").write_text(table(results))
    print("\n" + table(results))
    failed = [f"{name}: {row['contender']}" for name, work in results["works"].items()
              for row in work["contenders"].values() if "median" not in row]
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
