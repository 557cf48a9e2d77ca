"""From what was measured on a card to tables: rows, ratios, goals, in Markdown."""

from collections import defaultdict
from statistics import median

from card_works import TITLES, WORKS

START, END = "<!-- card:start -->", "<!-- card:end -->"
NOTHING = "Not measured on a card yet."
NAMES = {
    "kit": "ftkit", "kit_default": "ftkit, nothing compiled",
    "trainer": "Trainer as it comes", "trainer_best": "Trainer, by length",
    "trainer_liger": "the same, Liger kernels", "trainer_compiled": "the same, compiled",
    "sft": "trl SFTTrainer, by length", "sft_liger": "the same, Liger kernels",
    "loop": "a loop by hand, compiled blocks", "loop_plain": "the same, not compiled",
    "lm_eval": "lm-eval, batches of 64", "generate": "transformers' generate",
}
# Of each work: the least ratio of a peer's steady time to the kit's; the least share of the bf16
# matrix peak; the most memory in GB.
GOALS = {
    "full-135m": {"trainer": 5.0, "fastest": 1.3, "share": 0.25},
    "random-135m": {"trainer": 5.0, "fastest": 1.3, "share": 0.25},
    "lora-0.6b": {"fastest": 1.3, "share": 0.45},
    "full-0.6b": {"share": 0.45},
    "lora-1.7b": {"share": 0.45},
    "full-1.7b": {"share": 0.45},
    "qlora-1.7b": {"memory": 8.0},
    "score": {"lm_eval": 10.0},
}
LEAST_PEERS = 3  # measured, before one of them is called the fastest
DIFFERS = 0.02  # of the kit's held-out loss: a row that is further off did other work
NEWEST = "call"


def rows(results):
    """The rows of all works: {(card, work): {contender: row}}, cards in the order of measuring.

    A contender's row is made of its runs in the newest call that has any; one that never succeeded
    says why.
    """
    found = defaultdict(lambda: defaultdict(list))
    for run in results.get("bench", []):
        found[run["card"], run["work"]][run["contender"]].append(run)
    order = list(results.get("cards", {}))
    keys = sorted(found, key=lambda key: (order.index(key[0]), list(WORKS).index(key[1])))
    return {key: _work(found[key], results["cards"][key[0]]["matrix_peak"]) for key in keys}


def _work(runs, peak):
    made = {}
    for name in [n for n in NAMES if n in runs]:
        done = [run for run in runs[name] if "steady_seconds" in run]
        if not done:
            last = runs[name][-1]
            made[name] = {"failed": last.get("error") or last.get("missing") or last.get("late")}
            continue
        newest = max(run[NEWEST] for run in done)
        done = [run for run in done if run[NEWEST] == newest]
        made[name] = _row(done, peak)
    if "steady" in made.get("kit", {}):
        kit = made["kit"]
        for row in (row for row in made.values() if "steady" in row):
            row["ratio"] = row["steady"] / kit["steady"]
            if row["loss"] is not None and kit["loss"]:
                row["differs"] = abs(row["loss"] - kit["loss"]) > DIFFERS * kit["loss"]
            row["apart"] = row["call"] != kit["call"]
    return made


def _row(runs, peak):
    def middle(key):
        values = [run[key] for run in runs if run.get(key) is not None]
        return median(values) if values else None

    row = {"steady": middle("steady_seconds"), "total": middle("seconds"), "loss": middle("loss"),
           # The first of a process pays for what is compiled.
           "first": next((run["seconds"] for run in runs if run["seed"] == 0), None),
           "memory": max(run["peak_memory"] for run in runs), "runs": len(runs),
           "precision": runs[-1]["precision"], "call": runs[-1]["call"],
           "source": runs[-1].get("source"), "accuracy": middle("accuracy"),
           "same": middle("same"), "rate": None, "share": None}
    if runs[0].get("steady_tokens"):
        row["rate"] = runs[0]["steady_tokens"] / row["steady"]
        row["share"] = runs[0]["steady_operations"] / row["steady"] / peak
    return row


def goals(found):
    """Every goal of the works that were measured: card, work, words, goal, reached, met."""
    judged = []
    for (card, work), made in found.items():
        kit = made.get("kit", {})
        if "steady" not in kit:
            continue
        peers = {n: row for n, row in made.items() if not n.startswith("kit") and "steady" in row}
        best = min(peers.values(), key=lambda row: row["steady"], default=None)

        def judge(words, goal, reached, most=False, judged_at_all=True, card=card, work=work):
            met = reached is not None and (reached <= goal if most else reached >= goal)
            met = met and judged_at_all
            judged.append({"card": card, "work": work, "words": words, "goal": goal,
                           "reached": reached, "met": met})

        for what, goal in GOALS.get(work, {}).items():
            if what == "share":
                judge("share of the bf16 matrix peak, at least", goal, kit["share"])
            elif what == "memory":
                judge("GB of memory, at most", goal, kit["memory"] / 1e9, most=True)
            elif what == "fastest":
                few = len(peers) < LEAST_PEERS  # the fastest may be among those that did not run
                only = "".join(f", of {NAMES[name]} alone" for name in peers) if few else ""
                judge(f"times the fastest peer{only}, at least", goal, best and best["ratio"],
                      judged_at_all=not few)
            else:
                judge(f"times {NAMES[what]}, at least", goal, peers.get(what, {}).get("ratio"))
        if best and WORKS[work]["kind"] in ("causal", "classes"):
            judge("memory in shares of the fastest peer's, at most", 1.0,
                  kit["memory"] / best["memory"] if best["memory"] else None, most=True,
                  judged_at_all=len(peers) >= LEAST_PEERS)
    return judged


def lines(found):
    """A line for each work: how many times as fast as which peer, in how much memory."""
    said = []
    for (card, work), made in found.items():
        peers = {n: r for n, r in made.items() if not n.startswith("kit") and "ratio" in r}
        if "steady" not in made.get("kit", {}) or not peers:
            continue
        name, best = min(peers.items(), key=lambda item: item[1]["ratio"])
        of = f"the fastest of {len(peers)} peers" if len(peers) > 1 else "the one peer measured"
        said.append(f"- {TITLES[work]}: {best['ratio']:.1f} times as fast as {NAMES[name]} ({of}), "
                    f"in {made['kit']['memory'] / 1e9:.1f} GB where it took "
                    f"{best['memory'] / 1e9:.1f} ({card})")
    return said


def head(results):
    """A sentence for each card: its name, memory, driver, packages, peak."""
    said = []
    for name, card in results.get("cards", {}).items():
        versions = ", ".join(f"{p} {v}" for p, v in card["versions"].items())
        driver = f", driver {card['driver']}" if card["driver"] else ""
        said.append(f"{name}, {card['memory'] / 1e9:.0f} GB{driver}; {versions}. Products of "
                    f"bf16 matrices reached {card['matrix_peak'] / 1e12:.0f} TFLOP/s.")
    return "\n\n".join(said)


HEADER = ["work", "contender", "precision", "tokens/s", "share of peak", "time / ftkit",
          "seconds of the first fit", "memory", "held-out loss", "rounds"]


def _cells(row):
    if "failed" in row:
        return ["", row["failed"], "", "", "", "", "", ""]
    quality = "" if row["loss"] is None else f"{row['loss']:.3f}"
    if row["accuracy"] is not None:
        quality = f"{row['accuracy']:.2f} right"
    if row["same"] is not None:
        quality = f"{row['same']:.0%} of the texts the same"
    quality += " (differs)" * bool(row.get("differs"))
    rate = f"{row['rate']:,.0f}" if row["rate"] else f"{row['steady']:.2f} s"
    first = row["first"] or row["total"]
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
    ratio += " (another call)" * bool(row.get("apart"))
    return [row["precision"], rate, "" if row["share"] is None else f"{row['share']:.0%}",
            ratio, f"{first:.1f}", f"{row['memory'] / 1e9:.1f} GB", quality, str(row["runs"])]


def _table(header, lines):
    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "/") for c in cells) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, lines)])


def bench(results):
    """The benchmark in full, as Markdown; a sentence where nothing was measured."""
    found = rows(results)
    if not found:
        return NOTHING
    parts = [head(results), goals_table(found)]
    for name in results["cards"]:
        lines = []
        for work in (work for card, work in found if card == name):
            title = TITLES[work]
            for contender, row in found[name, work].items():
                lines.append([title, NAMES[contender], *_cells(row)])
                title = ""
        if lines:
            parts += [f"**{name}**" * (len(results["cards"]) > 1), _table(HEADER, lines)]
    return "\n\n".join(part for part in parts if part)


def goals_table(found):
    """What was aimed at and what was reached; bold where it was met."""
    many = len({card for card, _ in found}) > 1
    lines = []
    for goal in goals(found):
        reached = "–" if goal["reached"] is None else f"{goal['reached']:.2f}"
        bold = "**" * goal["met"]
        lines.append([*([goal["card"]] if many else []), TITLES[goal["work"]], goal["words"],
                      f"{goal['goal']:g}", f"{bold}{reached}{bold}"])
    header = [*(["card"] if many else []), "work", "goal", "", "reached"]
    return _table(header, lines) if lines else ""


def lessons(results):
    """Lessons on the gpu profile: claims held, seconds, memory, and on which card."""
    lines = []
    for name, each in sorted(results.get("lessons", {}).items()):
        for card, record in each.items():
            judged = [c for c in record["claims"] if c.get("judged")]
            held = f"{sum(bool(c['held']) for c in judged)} of {len(judged)}" if judged else "–"
            memory = record.get("peak_memory")
            lines.append([name, card, record["status"], held, f"{record['seconds'] or 0:.0f}",
                          f"{memory / 1e9:.1f} GB" if memory else "–"])
    if not lines:
        return ""
    return _table(["lesson", "card", "status", "claims held", "seconds", "memory"], lines)


def tests(results):
    """A sentence for each run of the tests that need a card."""
    said = []
    for each in results.get("tests", []):
        words = (f"Tests that need a card, on {each['card']}, {each['call']}: "
                 f"{each['passed']} passed, {each['failed']} failed, {each['skipped']} skipped")
        said.append(f"{words}, in {each['seconds']:.0f} s.")
    return said[-1] if said else ""


def profile(found):
    """Where the time of some updates went, in words."""
    lines = [f"{found['seconds'] / found['updates'] * 1e3:.1f} ms an update under the profiler, "
             f"the card busy for {found['busy']:.0%}, {found['kernels']:,.0f} kernels an update"]
    lines += [f"      {share:6.1%}  {count:8.1f} an update  {name}"
              for name, share, count in found["longest"]]
    return "\n".join(lines)


def documents(results):
    """The texts between the marks: {"README.md": short, "docs/results.md": full}."""
    found = rows(results)
    parts = [bench(results), tests(results), lessons(results)]
    full = "\n\n".join(part for part in parts if part and part != NOTHING) or NOTHING
    short = "\n".join(lines(found)) or NOTHING
    return {"README.md": short, "docs/results.md": full}


def rewritten(text, table):
    """A document with the table between its marks."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{table}\n{END}{rest.partition(END)[2]}"
