"""Figures and tables of the lessons: titled, with units, readable in black and white."""

import html

import numpy as np

from ftkit.display import (
    COLORS,
    LINES,
    MARKERS,
    SIZE,
    display,
    finished,
    label_bar,
    new_figure,
    show_table,
)
from ftkit.errors import DataError, SettingError


def _errors(estimates):
    """Values and the lengths of their intervals below and above, for matplotlib; a plain number,
    such as a time, has none."""
    values, low, high = (
        np.array([getattr(e, part, e) for e in estimates]) for part in ("value", "low", "high")
    )
    return values, np.abs(np.stack([values - low, high - values]))


def plot_bars(estimates, title, ylabel, *, baseline=None):
    """Bars with 95% intervals. estimates: {name: Estimate, or a number without an interval};
    baseline: a value to draw across.

    Returns the matplotlib Figure.
    """
    from matplotlib.colors import to_rgba

    figure, axes = new_figure((max(4, 1.1 * len(estimates) + 1.5), SIZE[1]))
    values, errors = _errors(estimates.values())
    # Each bar has its name below it, so that one look does for all: a tint on which the interval
    # can be read, in print as well.
    axes.bar(range(len(values)), values, color=to_rgba(COLORS[1], 0.3), edgecolor=COLORS[1],
             width=0.6, yerr=errors if errors.any() else None, capsize=4)
    for i, text in enumerate(_alike(values)):
        label_bar(axes, i, values[i], errors[:, i], text)
    if baseline is not None:
        axes.axhline(baseline, color="0.1", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(values)), [_wrap(name) for name in estimates])
    axes.set(title=title, ylabel=ylabel, xlabel="")
    return finished(figure)


def _alike(values):
    """The numbers in three digits, all with as many decimals as the one that needs most."""
    short = [f"{value:.3g}" for value in values]
    if any("e" in text for text in short):
        return short
    decimals = max((len(text.partition(".")[2]) for text in short), default=0)
    return [f"{value:.{decimals}f}" for value in values]


def _wrap(text, width=14):
    import textwrap

    return "\n".join(textwrap.wrap(str(text), width))


def plot_curve(curves, title, xlabel, ylabel, *, logx=False, baseline=None):
    """Lines with 95% intervals. curves: {name: (xs, [Estimate or number])}.

    baseline: (name, value) of a dotted line across. Returns the matplotlib Figure.
    """
    from ftkit.evaluation.resampling import Estimate

    figure, axes = new_figure()
    every = sorted({x for xs, _ in curves.values() for x in xs})
    for i, (name, (xs, ys)) in enumerate(curves.items()):
        if len(xs) != len(ys):
            raise SettingError(f"curve {name!r} has {len(xs)} x values and {len(ys)} y values.")
        ys = [y if isinstance(y, Estimate) else Estimate(y, y, y) for y in ys]
        values, errors = _errors(ys)
        axes.errorbar(
            xs,
            values,
            yerr=errors if errors.any() else None,  # or the legend shows bars that are not there
            label=name,
            marker=MARKERS[i % len(MARKERS)],
            linestyle=LINES[i % len(LINES)],
            color=COLORS[i % len(COLORS)],
            capsize=3,
        )
    if baseline:
        axes.axhline(baseline[1], color="0.1", linestyle=":", linewidth=1, label=baseline[0])
    if logx:
        axes.set_xscale(
            "symlog" if min(every) <= 0 else "log",
            **({"linthresh": min(x for x in every if x > 0)} if min(every) <= 0 else {}),
        )
        axes.minorticks_off()
    if logx or len(every) <= 8:
        axes.set_xticks(every, [f"{x:,g}" for x in every])
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if len(curves) > 1 or baseline:
        axes.legend(frameon=False, fontsize=9)
    return finished(figure)


def plot_confusion(evaluation, title="What was taken for what"):
    """Counts of each class and what it was taken for. Returns the Figure."""
    counts, labels = evaluation.confusion(), evaluation.labels
    figure, axes = new_figure((1.2 * len(labels) + 2.2, 1.0 * len(labels) + 1.6))
    axes.grid(False)
    axes.imshow(counts, cmap="Greys", vmin=0, vmax=counts.max() * 1.6)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, f"{count:,}", ha="center", va="center")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(title=title, xlabel="predicted (count)", ylabel="true (count)")
    return finished(figure)


def plot_calibration(evaluations, title="Is the model as sure as it should be?", bins=10):
    """Confidence against accuracy. evaluations: one Evaluation, or {name: Evaluation}.

    Examples are put in `bins` equally large groups by confidence. Returns the Figure.
    """
    if not isinstance(evaluations, dict):
        evaluations = {"model": evaluations}
    figure, axes = new_figure((4.5, 4))
    for i, (name, ev) in enumerate(evaluations.items()):
        if ev.probabilities is None:
            raise SettingError(f"{name!r} has no probabilities, so its confidence is not known.")
        sure, right = ev.probabilities.max(1), ev.predictions == ev.references
        parts = np.array_split(np.argsort(sure, kind="stable"), min(bins, len(sure)))
        axes.plot([sure[p].mean() for p in parts], [right[p].mean() for p in parts], label=name,
                  marker=MARKERS[i], linestyle=LINES[i], color=COLORS[i])
    axes.plot([0, 1], [0, 1], color="0.1", linewidth=1, linestyle=":", label="as sure as right")
    axes.set(title=title, xlabel="confidence (probability)", ylabel="accuracy (share right)",
             xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=9)
    return finished(figure)


def show_examples(dataset, before, after, n=6, which="flips", metric="accuracy", seed=0):
    """Show what two evaluations answered to the same examples, side by side.

    dataset: rows in any form that a task reads, conversations and preferences too. which: "flips"
    (both ways), "gained", "lost" or "any". n: examples, drawn by `seed`. Texts are cut at 160
    characters, conversations at their beginning. Returns nothing.
    Raises DataError where no column holds what was asked.
    """
    from ftkit.evaluation.compare import compare

    found = compare(after, before, metric)
    pools = {"gained": found.gained, "lost": found.lost, "any": np.arange(len(after)),
             "flips": None}
    if which not in pools:
        raise SettingError(f"which={which!r} does not exist; choose one of {', '.join(pools)}.")
    random = np.random.default_rng(seed)
    if which == "flips":
        half = (n + 1) // 2
        index = [*_draw(random, found.gained, half), *_draw(random, found.lost, n - half)]
    else:
        index = _draw(random, pools[which], n)
    rows = []
    for i in index:
        row = dataset[int(i)]
        rows.append(
            {**asked_of(row),
             **({} if after.references is None else {"right answer": truth_of(after, i, row)}),
             "before": answer_of(before, i, row, metric), "after": answer_of(after, i, row, metric),
             "flip": "gained" if i in found.gained else "lost" if i in found.lost else ""}
        )
    show_table(rows)


def _draw(random, pool, n):
    return random.choice(pool, size=min(n, len(pool)), replace=False) if len(pool) else []


def asked_of(row):
    """What a row asks, by column: its text, its conversation up to the answer, its two answers."""
    known = ("messages", "text", "question", "instruction", "source", "prompt", "input", "tokens")
    found = {name: row[name] for name in known if row.get(name) is not None}
    found = dict([*found.items()][:1])
    if "instruction" in found and row.get("input"):
        found["instruction"] += f"\n{row['input']}"
    if "messages" in found:
        turns = found["messages"]
        found["messages"] = turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
    found |= {name: row[name] for name in ("chosen", "rejected") if row.get(name) is not None}
    if not found:
        raise DataError(f"the data has the columns {', '.join(row)}; one of {', '.join(known)}, or "
                        "chosen and rejected, was expected to show. Rename one.")
    return {name: _shown(value) for name, value in found.items()}


def _shown(value):
    """A text, words or a conversation in one line; of a conversation the end, which is asked."""
    if not isinstance(value, list):
        return _cut(value)
    if not value or not isinstance(value[0], dict):
        return _cut(" ".join(map(str, value)))
    text = " | ".join(f"{turn['role']}: {turn['content']}" for turn in value)
    return _cut(text[::-1])[::-1]


def _cut(text, length=160):
    text = " ".join(str(text).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def answer_of(evaluation, i, row, metric):
    if evaluation.texts is not None:
        return _cut(evaluation.texts[i])
    if evaluation.predictions is None:
        return f"{evaluation.per_example(metric)[i]:.3g}"
    return _label(evaluation, evaluation.predictions[i], row)


def truth_of(evaluation, i, row):
    return _label(evaluation, evaluation.references[i], row)


def _label(evaluation, value, row):
    if evaluation.labels is not None and isinstance(value, int | np.integer):
        return str(evaluation.labels[int(value)])
    if "choices" in row and isinstance(value, int | np.integer):
        return str(row["choices"][int(value)])
    return _cut(value)


class Tokens:
    """Tokens of one record; those that carry loss are boxed (in plain text: in brackets)."""

    def __init__(self, pieces, labelled):
        self.pieces, self.labelled = pieces, labelled

    def __repr__(self):
        return "".join(
            f"[{p}]" if on else p for p, on in zip(self.pieces, self.labelled, strict=True)
        )

    def _repr_html_(self):
        spans = []
        for piece, on in zip(self.pieces, self.labelled, strict=True):
            shown = html.escape(piece).replace("\n", "⏎<br>").replace(" ", "&nbsp;")
            style = "border:1px solid;font-weight:bold" if on else "opacity:.6"
            spans.append(f"<span style='{style};padding:1px;margin:1px'>{shown}</span>")
        return (f"<p style='font-family:monospace;line-height:2'>{''.join(spans)}</p>"
                f"<p>boxed: {sum(self.labelled)} of {len(self.pieces)} tokens carry loss</p>")


def show_tokens(model, record, loss_on="response"):
    """Show the tokens of one record as the model reads them, and which of them carry loss.

    record: a dict with the columns that `fit` would train on. Returns nothing.
    """
    import datasets

    from ftkit.models.structure import IGNORED
    from ftkit.tasks.batching import encode

    row = encode(datasets.Dataset.from_list([dict(record)]), model, loss_on=loss_on)[0]
    pieces = [model.tokenizer.decode([token]) for token in row["input_ids"]]
    labels = row.get("labels")
    labels = labels if isinstance(labels, list) else [labels] * len(pieces)
    display(Tokens(pieces, [label not in (IGNORED, None) for label in labels]))
