"""Time the kit and its peers on the same work: python benchmarks [WORK ...], or make bench.

Every work is done by all its contenders in turn, at least three times, each time with another seed
and in a process of its own, so that one contender at a time is in memory. What is compared are the
medians of one run of this program on one machine. It writes results.json, and the tables in the
README and in docs/speed.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import growth
from prepare import WORKS
from worker import PREFIX

from ftkit.assets import atomic
from ftkit.models.hardware import usable_cores

HERE = Path(__file__).parent
ROOT = HERE.parent
PYTHON = {"kit": Path(sys.executable), "peers": ROOT / ".venv-peers" / "bin" / "python",
          "lit": ROOT / ".venv-litgpt" / "bin" / "python"}
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl", "litgpt", "lm-eval", "optuna")

# Of each work: what it is, the contenders in words ("kit" is the kit), and the goals: the least
# ratio of a peer's time to the kit's, for a named peer or for the fastest of them all.
TABLE = {
    "full": ("SmolLM2, all weights, {train} question and definition pairs", {
        "kit.full": "ftkit", "kit.loop": "a loop by hand with the kit's parts",
        "peers.trainer": "Trainer", "peers.trainer_grouped": "Trainer, by length, eager attention",
        "peers.sft": "trl SFTTrainer", "peers.sft_best": "trl, the same, no checkpointing",
        "lit.litgpt_full": "litgpt", "peers.loop": "a loop by hand, eager attention",
    }, {"peers.trainer": 4.5, "fastest": 2.0}),
    "lora": ("SmolLM2, LoRA of rank 8 on queries and values, the same pairs", {
        "kit.lora": "ftkit", "peers.sft_lora": "trl and peft, by length, eager attention",
        "lit.litgpt_lora": "litgpt LoRA",
    }, {"fastest": 1.5}),
    "classify": ("MiniLM, all weights, {train} reviews, {epochs} epochs", {
        "kit.classify": "ftkit", "peers.trainer": "Trainer",
        "peers.trainer_grouped": "Trainer, by length, eager attention",
        "peers.loop": "a loop by hand, eager attention",
    }, {"peers.trainer": 4.0, "fastest": 1.2}),
    "top": ("MiniLM, the top block, {train} reviews, {epochs} epochs", {
        "kit.frozen": "ftkit", "peers.trainer_frozen": "Trainer, the same frozen",
        "peers.trainer_frozen_grouped": "the same, by length, eager attention",
    }, {"fastest": 4.0}),
    "head": ("MiniLM, the head alone, {train} reviews, {epochs} epochs", {
        "kit.frozen": "ftkit", "peers.trainer_frozen": "Trainer, the same frozen",
        "peers.trainer_frozen_grouped": "the same, by length, eager attention",
    }, {"fastest": 20.0}),
    "score": ("SmolLM2, {questions} yes-no questions after {shots} examples", {
        "kit.score": "ftkit", "peers.lm_eval": "lm-eval, batches of 16",
        "peers.generate": "generate, batches of 16",
    }, {"peers.lm_eval": 4.0, "peers.generate": 8.0}),
    "sweep": ("MiniLM, {trials} trials over head and top block, {train} reviews", {
        "kit.sweep": "ftkit", "peers.sweep": "optuna and Trainer",
    }, {"fastest": 10.0}),
}
# What each trick of the kit brings: the same work with one of them left off.
TABLE |= {
    "optimizations-decoder": ("SmolLM2, all weights, {train} pairs", {
        "kit.full": "ftkit", "kit.full:group_by_length": "without similar lengths",
        "kit.full:logits_to_keep": "without logits at labels only",
        "kit.full:eager_attention": "without eager attention"}, {}),
    "optimizations-encoder": ("MiniLM, all weights, {train} reviews", {
        "kit.classify": "ftkit", "kit.classify:group_by_length": "without similar lengths",
        "kit.classify:eager_attention": "without eager attention",
        "kit.classify:fast_dropout": "without fast dropout",
        "kit.classify:keep_freed_memory": "without keeping freed memory"}, {}),
    "optimizations-frozen": ("MiniLM, the head alone, {train} reviews, {epochs} epochs", {
        "kit.frozen": "ftkit", "kit.frozen:feature_cache": "without the feature cache"}, {}),
    "optimizations-score": ("SmolLM2, {questions} yes-no questions after {shots} examples", {
        "kit.score": "ftkit", "kit.score:apart": "each prompt by itself"}, {}),
}


def title(name):
    """What a work is, in words with its sizes."""
    return TABLE[name][0].format(**WORKS[name])


def command(module, folder, threads, script, *arguments):
    """How a script is started with the packages of a module: arguments for subprocess."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "FTKIT_CACHE_GB": "0", "FTKIT_PLAIN": "1",
        "FTKIT_RUNS": str(folder / "runs"), "CUDA_VISIBLE_DEVICES": ""}
    return {"args": [str(PYTHON[module]), str(HERE / script), *arguments], "env": environment}


def run_once(name, seed, threads, folder):
    """One contender's share of a work. Returns its result, with the key "error" when it failed."""
    module, _, function = name.partition(".")
    function, *option = function.split(":")
    worker = command(module, folder, threads, "worker.py", module, function, str(folder),
                     str(seed), *option)
    log = folder / f"{name}.{seed}.log"
    with open(log, "w") as errors:
        done = subprocess.run(**worker, stdout=subprocess.PIPE, stderr=errors, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith(PREFIX)]
    if not found:
        return {"error": f"the process ended with code {done.returncode}; see {log}"}
    return json.loads(found[-1].removeprefix(PREFIX))


def run_work(name, rounds, threads, folder):
    """All contenders of a work in turn, `rounds` times.

    Returns {contender: list of results}, and the loss of a constant answer (None for questions).
    """
    names = TABLE[name][1]
    print(f"\n{name}: {title(name)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(**command("kit", folder, threads, "prepare.py", name, str(folder)), check=True)
    constant = json.loads((folder / "work.json").read_text()).get("constant")
    found = {each: [] for each in names}
    for seed in range(rounds):
        order = list(names)[seed % len(names):] + list(names)[: seed % len(names)]
        for each in order:
            result = run_once(each, seed, threads, folder)
            found[each].append(result)
            said = result.get("error") or f"{result['seconds']:.1f} s, {result['precision']}" + (
                f", loss {result['loss']:.3f}" if result["loss"] is not None else "")
            print(f"  round {seed + 1}: {names[each]}: {said}", flush=True)
    return found, constant


def judge(name, found, constant=None):
    """Medians, ranges, ratios to the kit, agreement of losses, and each goal of one work.

    constant: the held-out loss of a constant answer; who is not below it has learned nothing.
    Only rows of one machine share a ratio.
    """
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
            for key in ("precision", "machine"):
                row[key] = " or ".join(sorted({r[key] for r in done}))
            for key in ("tokens_per_second", "accuracy", "share_of_peak", "peak"):
                if key in done[0]:
                    row[key] = median(r[key] for r in done)
            if losses and constant is not None:
                row["learned"] = median(losses) < constant
        rows[each] = row
    kit = next(iter(rows.values()))
    for row in rows.values():
        if "median" in row and "median" in kit and row["machine"] == kit["machine"]:
            row["ratio"] = row["median"] / kit["median"]
            row["agrees"] = _agrees(kit, row)
    peers = {k: r for k, r in rows.items() if not k.startswith("kit.") and "ratio" in r}
    judged = []
    for against, least in goals.items():
        known = peers if against == "fastest" else {k: peers[k] for k in [against] if k in peers}
        reached = min((row["ratio"] for row in known.values()), default=None)
        judged.append({"against": names.get(against, "the fastest peer"), "goal": least,
                       "reached": reached, "met": reached is not None and reached >= least})
    return {"title": title(name), "constant": constant, "contenders": rows, "goals": judged}


def _agrees(kit, peer):
    """Whether the kit's median loss lies within the spread of the peer's seeds, widened by it."""
    if not kit["losses"] or not peer["losses"] or peer is kit:
        return None
    low, high = min(peer["losses"]), max(peer["losses"])
    return low - (high - low) <= median(kit["losses"]) <= high + (high - low)


def run_growth(rounds, threads, folder):
    """How the kit's time grows, measured in a process of its own. Returns what growth.py says."""
    print("\ngrowth: length of texts, amount of data, processes", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(**command("kit", folder, threads, "growth.py", str(rounds)),
                          capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith(PREFIX):
            return json.loads(line.removeprefix(PREFIX))
    sys.exit(f"growth failed:\n{done.stderr[-2000:]}")


def versions():
    """The versions of the packages that matter, in the kit's environment and in the peers'."""
    code = ("import json, sys, importlib.metadata as m\n"
            "have = {d.name.lower().replace('_', '-'): d.version for d in m.distributions()}\n"
            f"print(json.dumps({{p: have[p] for p in {PACKAGES!r} if p in have}}))")
    return {name: json.loads(subprocess.run([str(python), "-c", code], capture_output=True,
                                            text=True, check=True).stdout)
            for name, python in PYTHON.items()}


def _rows(works):
    """Markdown table rows of some works: a line for each contender."""
    lines = ["| work | contender | seconds (least, most) | time / ftkit | precision | memory "
             "| held-out loss | machine |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for work in works:
        title = work["title"]
        if work["constant"] is not None:
            title += f" (a constant answer: {work['constant']:.3f})"
        for row in work["contenders"].values():
            cells = [row["contender"], "failed", *[""] * 5]
            if "median" in row:
                loss = f"{row.get('accuracy', 0):.2f} right"
                if row["losses"]:
                    loss = f"{median(row['losses']):.3f}"
                loss += " (differs)" if row.get("agrees") is False else ""
                loss += " (has learned nothing)" if row.get("learned") is False else ""
                ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
                cells[1:] = [f"{row['median']:.1f} ({row['least']:.1f}, {row['most']:.1f})", ratio,
                             row["precision"], f"{row['peak_memory'] / 1e9:.1f} GB", loss,
                             row["machine"]]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
            title = ""
    return lines


def _goals(works):
    """Markdown table rows of the goals; one that was reached is bold."""
    lines = ["| work | against | goal | ratio | precision of ftkit |",
             "| --- | --- | --- | --- | --- |"]
    for work in works:
        kit = next(iter(work["contenders"].values()))
        for goal in work["goals"]:
            bold = "**" * goal["met"]
            ratio = "–" if goal["reached"] is None else f"{bold}{goal['reached']:.2f}{bold}"
            lines.append(f"| {work['title']} | {goal['against']} | {goal['goal']:g} | {ratio} | "
                         f"{kit.get('precision', '')} |")
    return lines


def _lines(works):
    """Lines of works that were measured alike: where, and how many times as fast as which peer."""
    lines = []
    for work in works:
        peers, known = {}, ""
        for key, row in work["contenders"].items():
            # "the same, by length" is the one above it, with something else
            name = row["contender"].replace("the same", known, 1) if known else row["contender"]
            known = known if row["contender"].startswith("the same") else name
            if not key.startswith("kit.") and "ratio" in row:
                peers[name] = row["ratio"]
        name = min(peers, key=peers.get, default=None)
        words = f"{peers[name]:.1f} times as fast as {name}" if name else "no peer was measured"
        lines.append(f"- {work['title']}: {words}")
    dates = sorted({work["date"] for work in works})
    return [f"{works[0]['machine']}, medians of {works[0]['rounds']} rounds in turn, "
            f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}:", "", *lines, ""]


def _head(works):
    """What a reader must know of works that were measured alike."""
    first, dates = works[0], sorted({work["date"] for work in works})
    found = first["versions"]["lit"] | first["versions"]["peers"]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    return [f"{first['machine']}, medians of {first['rounds']} rounds in turn, "
            f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; {packages}.", ""]


def _alike(works):
    """The works in groups that were measured on one machine with the same packages."""
    groups = {}
    for work in works:
        alike = json.dumps([work["machine"], work["rounds"], work["versions"]], sort_keys=True)
        groups.setdefault(alike, []).append(work)
    return groups.values()


def tables(results):
    """The same results as three Markdown texts: for the README, for the docs, and in full."""
    works = results["works"]
    peers = [work for name, work in works.items() if not name.startswith("optimizations")]
    optimizations = [work for name, work in works.items() if name.startswith("optimizations")]
    short, full = [], []
    for group in _alike(peers):
        short += _lines(group)
        full += [*_head(group), *_goals(group), "", *_rows(group), ""]
    for work in peers:
        for row in work["contenders"].values():
            if "share_of_peak" in row:
                full += [f"{work['title']}: {row['contender']} did the products of the texts' own "
                         f"tokens at {row['share_of_peak']:.0%} of the {row['peak'] / 1e9:.0f} "
                         "billion operations a second that large matrices reached in the "
                         f"same process ({row['precision']}, {row['machine']}).", ""]
    for group in _alike(optimizations):
        full += ["Each part left off by itself:", "", *_head(group), *_rows(group), ""]
    if "growth" in results:
        full += [growth.sentences(results["growth"]), "", "![Growth](growth.png)"]
    return {"README.md": "\n".join(short).strip(), "docs/speed.md": "\n".join(full).strip()}


def rewritten(text, table):
    """A document with the table between its marks."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{table}\n{END}{rest.partition(END)[2]}"


def write(results, out):
    """Write results.json; with the benchmark's own folder, also the documents that show it."""
    text = json.dumps(results, indent=1) + "\n"
    atomic.write(out / "results.json", text)
    if out == HERE:
        if "growth" in results:
            growth.plot(results["growth"], ROOT / "docs" / "growth.png")
        for name, table in tables(results).items():
            document = ROOT / name
            atomic.write(document, rewritten(document.read_text(encoding="utf-8"), table))


def main():
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("works", nargs="*", metavar="WORK",
                        help=f"of {', '.join([*TABLE, 'growth'])}; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    if wrong := [name for name in options.works if name not in [*WORKS, "growth"]]:
        parser.error(f"{wrong[0]!r} is no work; choose of {', '.join([*TABLE, 'growth'])}")
    if missing := [path for path in PYTHON.values() if not path.exists()]:
        parser.error(f"{missing[0]} is missing; `make bench` makes the peers' environments")
    about = {"date": time.strftime("%Y-%m-%d"), "rounds": options.rounds, "versions": versions()}
    results, failed = {"works": {}}, []
    file = options.out / "results.json"
    if options.works and file.exists():  # the others stay as they were measured
        results |= json.loads(file.read_text())
    for name in options.works or [*TABLE, "growth"]:
        folder = ROOT / "build" / "bench" / name
        if name == "growth":
            grown = run_growth(options.rounds, options.threads, folder)
            results["growth"] = grown | {"date": about["date"]}
        else:
            judged = judge(name, *run_work(name, options.rounds, options.threads, folder))
            rows = judged["contenders"].values()
            machine = next((row["machine"] for row in rows if "machine" in row), "no machine")
            results["works"][name] = {"machine": machine, **about, **judged}
            results["works"] = {k: results["works"][k] for k in TABLE if k in results["works"]}
            failed += [f"{name}: {row['contender']}" for row in rows if "median" not in row]
        write(results, options.out)
    print("\n" + tables(results)["docs/speed.md"])
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
