"""`ft.advise`: which method, from the stored comparison of all of them (lesson 19)."""

import json
import math
from dataclasses import dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from statistics import NormalDist

import numpy as np

from ftkit.errors import SettingError
from ftkit.evaluation.evaluate import from_scores
from ftkit.evaluation.resampling import Estimate, over_seeds

STORED = Path(__file__).with_name("comparison.json")  # written by `make compare`
MARGIN = 0.02  # of the share of right answers; methods this near to the best count as equal


@dataclass(frozen=True)
class Method:
    """What was measured of one method on one task.

    labels: numbers of labels, rising. values: shape (labels, seeds), shares of right answers.
    samples: shape (labels, seeds, resamples). seconds: of training, in those of full fine-tuning.
    stored, memory: bytes for each task, and while it trains. whole: whether it stores all weights.
    """

    name: str
    labels: tuple
    values: np.ndarray
    samples: np.ndarray
    groups: float
    covers: str
    seconds: float
    stored: float
    memory: float
    whole: bool

    def at(self, n):
        """(values, samples) with n labels: on a line, over log n, between those measured."""
        places = [math.log(max(size, 1)) for size in self.labels]
        place = min(max(math.log(max(n, 1)), places[0]), places[-1])
        i = min(max(int(np.searchsorted(places, place)) - 1, 0), max(len(places) - 2, 0))
        j = min(i + 1, len(places) - 1)
        share = (place - places[i]) / (places[j] - places[i]) if j > i else 0.0
        return tuple(part[i] + share * (part[j] - part[i]) for part in (self.values, self.samples))

    def score(self, n, other=None):
        """Estimate of the share of right answers with n labels, or of what `other` lacks to it."""
        values, samples = self.at(n)
        if other is not None:
            theirs = other.at(n)
            values, samples = values - theirs[0], samples - theirs[1]
        covers = f"{self.covers} and {len(values)} training samples"
        return over_seeds(values, samples, self.groups, covers=covers,
                          span=(0, 1) if other is None else (-1, 1))

    def room(self, base, n_tasks):
        """Bytes of n tasks side by side: one base for all, unless each has weights of its own."""
        return n_tasks * self.stored if self.whole else base + n_tasks * self.stored


@dataclass(frozen=True)
class Advice:
    """What `advise` recommends: method, score (an Estimate of the share of right answers), sure
    (the probability that its strongest rival is at most MARGIN ahead; None without a rival), and
    the reasons in words."""

    method: str
    score: Estimate
    sure: float | None
    reasons: tuple
    would_change: tuple
    source: str

    def __repr__(self):
        lines = [f"{self.method}: expect {self.score} right", *self.reasons]
        lines += [f"would change its mind: {text}" for text in self.would_change]
        return "\n".join([*lines, f"from: {self.source}"])


@cache
def comparison(path=STORED):
    """The stored comparison: (the file's content, {task: {name: Method}})."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    tasks = {}
    for task, about in found["tasks"].items():
        cells = [cell for cell in found["cells"] if cell["task"] == task]
        full = np.mean([c["seconds"] * c["speed"] for c in cells if c["method"] == "full"])
        tasks[task] = {name: _method(name, [c for c in cells if c["method"] == name], about, full)
                       for name in dict.fromkeys(cell["method"] for cell in cells)}
    return found, tasks


def _method(name, cells, about, full):
    labels = sorted({cell["labels"] for cell in cells})
    scores = [[from_scores("right", np.array([*cell["hits"]], dtype=float),
                           groups=about["groups"])["right"]
               for cell in sorted(cells, key=lambda cell: cell["seed"]) if cell["labels"] == n]
              for n in labels]
    seeds = max(map(len, scores))  # what has no training sample has one run, which stands for all
    scores = [row if len(row) == seeds else row * seeds for row in scores]
    if seeds == 1:
        scores = [row * len(about["seeds"]) for row in scores]
    first = scores[0][0]
    return Method(name, tuple(labels), np.array([[score.value for score in row] for row in scores]),
                  np.array([[score.samples for score in row] for row in scores]), first.groups,
                  first.covers,
                  float(np.mean([cell["seconds"] * cell["speed"] for cell in cells]) / full),
                  float(np.mean([cell["stored"] for cell in cells])),
                  float(max(cell["memory"] for cell in cells)), cells[0]["share"] == 1)


def advise(task, n_examples, *, memory=None, n_tasks=1):
    """Recommend a method, from the comparison that is stored with the package (lesson 19).

    task: "classification" or "causal-lm", the kinds that were compared. n_examples: labels for
    training, beside some to choose a rate by. memory: bytes that may be used, by training and by
    all tasks side by side; by default no limit. n_tasks: how many such tasks one base shall serve.
    Of the methods that fit and lie within MARGIN of the best, it takes the one that trains fastest,
    or with several tasks the one that stores least. Between the numbers of labels that were
    measured it draws a line over their logarithm; beyond them it says so.
    Returns an Advice; print it. Raises SettingError for a task that was not compared, for numbers
    that cannot be, and where no method fits or gets anything right.
    """
    found, tasks = comparison(STORED)
    if task not in tasks:
        raise SettingError(f"task is {task!r}; compared were {', '.join(map(repr, tasks))}.")
    for name, value, least in (("n_examples", n_examples, 0), ("n_tasks", n_tasks, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingError(f"{name} is {value!r}; a whole number from {least} on is expected.")
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, Real)
                               or not memory > 0):
        raise SettingError(f"memory is {memory!r}; bytes are expected, such as 4e9, or None.")
    about, methods = found["tasks"][task], tasks[task]

    def pick(n=n_examples, limit=memory, served=n_tasks):
        fits = {name: m for name, m in methods.items() if m.labels[0] <= n and m.values.any()
                and max(m.memory, m.room(about["base_bytes"], served)) <= (limit or math.inf)}
        values = {name: m.at(n)[0].mean() for name, m in fits.items()}
        near = [m for name, m in fits.items() if values[name] >= max(values.values()) - MARGIN]
        cost = (lambda m: m.seconds) if served == 1 else (
            lambda m: m.room(about["base_bytes"], served))
        chosen = min(near, key=cost, default=None)
        return chosen, [m for m in fits.values() if m is not chosen]

    chosen, rivals = pick()
    if chosen is None:
        able = [m for m in methods.values() if m.values.any()]
        first = min(m.labels[0] for m in able)
        if n_examples < first:
            raise SettingError(f"n_examples is {n_examples}, and nothing that was measured gets "
                               f"anything right below {first} labels.")
        least = min(max(m.memory, m.room(about["base_bytes"], n_tasks)) for m in able
                    if m.labels[0] <= n_examples)
        raise SettingError(f"no method fits into memory={memory:g} with {n_tasks} tasks; the least "
                           f"that was measured is {least:.3g} bytes.")
    sure, reasons = _sure(chosen, rivals, n_examples)
    most = max(m.labels[-1] for m in methods.values())
    if later := [m for m in methods.values() if m.labels[0] > n_examples and m.values.any()]:
        reasons.append(f"not measured with so few labels: {', '.join(m.name for m in later)}")
    if n_examples > most:
        reasons.append(f"extrapolated: {n_examples:,} labels are more than the {most:,} that were "
                       "measured, and the score is that of those; training gains most from more")
    return Advice(
        chosen.name, chosen.score(n_examples), sure, tuple(reasons),
        tuple(_turns(pick, chosen.name, n_examples, n_tasks, methods, memory, most)),
        f"{about['title']}, {about['model']}, {about['date']}, {about['machine']}; another task "
        "or model may rank methods otherwise: measure the first two on yours",
    )


def _sure(chosen, rivals, n):
    """(The probability that no rival is more than MARGIN better, that in words)."""
    if not rivals:
        return None, ["nothing else that was measured fits"]
    found = []
    for rival in rivals:
        gap = chosen.score(n, rival)
        deviation = max((gap.high - gap.low) / 2 / NormalDist().inv_cdf(0.975), 1e-9)
        found.append((NormalDist().cdf((gap.value + MARGIN) / deviation), gap, rival.name))
    sure, gap, name = min(found, key=lambda one: one[0])  # of the most dangerous rival
    word = "sure" if sure >= 0.95 else "fairly sure" if sure >= 0.8 else "not sure"
    told = "is apart from" if gap.low > 0 or gap.high < 0 else "cannot be told from"
    return sure, [f"{word} ({sure:.0%}) that it is no more than {MARGIN:g} behind; it {told} "
                  f"{name}: {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"]


def _turns(pick, name, n_examples, n_tasks, methods, memory, most):
    """At which other numbers the answer is another, in words."""
    sizes = np.unique(np.geomspace(1, most, 80).round().astype(int)).tolist()
    for word, found in (("fewer", sorted((n for n in sizes if n < n_examples), reverse=True)),
                        ("more", [n for n in sizes if n > n_examples])):
        other = next(((n, m) for n in found if (m := pick(n)[0]) and m.name != name), None)
        if other:
            yield f"{word} labels: {other[1].name} with {other[0]:,}"
    needs = sorted((m.memory for m in methods.values()), reverse=True)
    for limit in [None, *needs]:
        other = pick(limit=limit)[0]
        if other and other.name != name and (limit or math.inf) != (memory or math.inf):
            yield f"memory of {f'{limit / 1e9:.2g} GB' if limit else 'any size'}: {other.name}"
            break
    for served in (1, 2, 5, 10, 100, 1000):
        other = pick(served=served)[0]
        if served != n_tasks and other and other.name != name:
            yield f"{served:,} task{'s'[: served != 1]}: {other.name}"
            break
