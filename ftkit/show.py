"""Figures and tables of the lessons: titled, with units, readable in black and white."""

import html

import numpy as np

from ftkit.errors import DataError, SettingError

MANY = 12  # points of a loss curve, from which on it is smoothed
SIZE = (6, 3.5)  # inches, at 100 dots an inch
MARKERS = "osD^vXP*"
LINES = ("-", "--", "-.", ":")
SHADES = ("0.15", "0.45", "0.65", "0.8")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++")


def _figure(size=SIZE):
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=size, dpi=100, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _done(figure):
    """Close the figure, so that a notebook shows the returned one once and not twice."""
    from matplotlib import pyplot as plt

    plt.close(figure)
    return figure


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
    figure, axes = _figure((max(4, 1.1 * len(estimates) + 1.5), SIZE[1]))
    values, errors = _errors(estimates.values())
    bars = axes.bar(
        range(len(values)), values, color="0.85", edgecolor="0.1", width=0.6,
        yerr=errors if errors.any() else None, capsize=4,
    )
    for i, bar in enumerate(bars):
        bar.set_hatch(HATCHES[i % len(HATCHES)])
    for i, value in enumerate(values):
        label_bar(axes, i, value, errors[:, i])
    if baseline is not None:
        axes.axhline(baseline, color="0.1", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(values)), [_wrap(name) for name in estimates])
    axes.set(title=title, ylabel=ylabel, xlabel="")
    return _done(figure)


def label_bar(axes, place, value, errors, fontsize=9, text=None):
    """Write a bar's value beyond the end of its interval, on the side that the bar points to."""
    up = value >= 0
    axes.annotate(
        text or f"{value:.3g}",
        (place, value + errors[1] if up else value - errors[0]),
        ha="center",
        va="bottom" if up else "top",
        xytext=(0, 2 if up else -2),
        textcoords="offset points",
        fontsize=fontsize,
    )
    axes.margins(y=0.12)  # room for the label


def _wrap(text, width=14):
    import textwrap

    return "\n".join(textwrap.wrap(str(text), width))


def plot_curve(curves, title, xlabel, ylabel, *, logx=False, baseline=None):
    """Lines with 95% intervals. curves: {name: (xs, [Estimate or number])}.

    baseline: (name, value) of a dotted line across. Returns the matplotlib Figure.
    """
    from ftkit.resampling import Estimate

    figure, axes = _figure()
    every = sorted({x for xs, _ in curves.values() for x in xs})
    for i, (name, (xs, ys)) in enumerate(curves.items()):
        if len(xs) != len(ys):
            raise SettingError(f"curve {name!r} has {len(xs)} x values and {len(ys)} y values.")
        ys = [y if isinstance(y, Estimate) else Estimate(y, y, y) for y in ys]
        values, errors = _errors(ys)
        axes.errorbar(
            xs,
            values,
            yerr=errors,
            label=name,
            marker=MARKERS[i % len(MARKERS)],
            linestyle=LINES[i % len(LINES)],
            color=SHADES[i % len(SHADES)],
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
    return _done(figure)


def plot_history(run):
    """The loss of a run on training and validation data over the epochs. Returns the Figure."""
    figure, axes = _figure()
    for i, (column, name) in enumerate((("loss", "training"), ("eval_loss", "validation"))):
        if column in run.history:
            rows = run.history.dropna(subset=[column])
            values = rows[column]
            if column == "loss" and len(values) >= MANY:
                # Batches hold texts of similar length, so that one differs a lot from the next.
                axes.plot(rows["epoch"], values, color="0.75", linewidth=0.8, zorder=1)
                name = "training (running mean)"
                values = values.rolling(max(3, len(values) // 5), center=True, min_periods=1).mean()
            axes.plot(
                rows["epoch"],
                values,
                label=name,
                color=SHADES[i],
                marker=MARKERS[i],
                linestyle=LINES[i],
                markersize=4 + 2 * i,
            )
    if "best_epoch" in run.metrics:
        axes.axvline(
            run.metrics["best_epoch"], color="0.1", linestyle=":", linewidth=1, label="weights kept"
        )
    unit = "nats a token" if run.model.task.endswith("lm") else "nats an example"
    unit = {"regression": "squared error", "tagging": "nats a word"}.get(run.model.task, unit)
    axes.set(title="Loss while training", xlabel="epochs", ylabel=f"loss ({unit})")
    axes.legend(frameon=False, fontsize=9)
    return _done(figure)


def plot_confusion(evaluation, title="What was taken for what"):
    """Counts of each class and what it was taken for. Returns the Figure."""
    counts, labels = evaluation.confusion(), evaluation.labels
    figure, axes = _figure((1.2 * len(labels) + 2.2, 1.0 * len(labels) + 1.6))
    axes.grid(False)
    axes.imshow(counts, cmap="Greys", vmin=0, vmax=counts.max() * 1.6)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, f"{count:,}", ha="center", va="center")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(title=title, xlabel="predicted (count)", ylabel="true (count)")
    return _done(figure)


def plot_calibration(evaluations, title="Is the model as sure as it should be?", bins=10):
    """Confidence against accuracy. evaluations: one Evaluation, or {name: Evaluation}.

    Examples are put in `bins` equally large groups by confidence. Returns the Figure.
    """
    if not isinstance(evaluations, dict):
        evaluations = {"model": evaluations}
    figure, axes = _figure((4.5, 4))
    for i, (name, ev) in enumerate(evaluations.items()):
        if ev.probabilities is None:
            raise SettingError(f"{name!r} has no probabilities, so its confidence is not known.")
        sure, right = ev.probabilities.max(1), ev.predictions == ev.references
        parts = np.array_split(np.argsort(sure, kind="stable"), min(bins, len(sure)))
        axes.plot(
            [sure[p].mean() for p in parts],
            [right[p].mean() for p in parts],
            label=name,
            marker=MARKERS[i],
            linestyle=LINES[i],
            color=SHADES[i],
        )
    axes.plot([0, 1], [0, 1], color="0.1", linewidth=1, linestyle=":", label="as sure as right")
    axes.set(
        title=title,
        xlabel="confidence (probability)",
        ylabel="accuracy (share right)",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=9)
    return _done(figure)


class Table:
    """Rows of a table: HTML in a notebook, plain text elsewhere. Cells are shown as text."""

    def __init__(self, rows, caption=None):
        self.rows, self.caption = [dict(row) for row in rows], caption
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))

    def _cell(self, row, column):
        value = row.get(column, "")
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    def __repr__(self):
        lines = [self.columns, *([self._cell(r, c) for c in self.columns] for r in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        return f"{self.caption}\n{text}" if self.caption else text

    def _repr_html_(self):
        style = "style='text-align:left'"
        head = "".join(f"<th {style}>{html.escape(str(c))}</th>" for c in self.columns)
        body = "".join(
            "<tr>"
            + "".join(f"<td {style}>{html.escape(self._cell(r, c))}</td>" for c in self.columns)
            + "</tr>"
            for r in self.rows
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<tr>{head}</tr>{body}</table>"


def show_table(rows, caption=None):
    """Display rows (dicts of column: value) as a table. Returns nothing."""
    from ftkit.evidence import _display

    _display(Table(rows, caption))


def show_examples(dataset, before, after, n=6, which="flips", metric="accuracy", seed=0):
    """Show what two evaluations answered to the same examples, side by side.

    dataset: rows in any form that a task reads, conversations and preferences too. which: "flips"
    (both ways), "gained", "lost" or "any". n: examples, drawn by `seed`. Texts are cut at 160
    characters, conversations at their beginning. Returns nothing.
    Raises DataError where no column holds what was asked.
    """
    from ftkit.comparing import compare

    found = compare(after, before, metric)
    pools = {
        "gained": found.gained,
        "lost": found.lost,
        "any": np.arange(len(after)),
        "flips": None,
    }
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
            {
                **_asked(row),
                **({} if after.references is None else {"right answer": _truth(after, i, row)}),
                "before": _answer(before, i, row, metric),
                "after": _answer(after, i, row, metric),
                "flip": "gained" if i in found.gained else "lost" if i in found.lost else "",
            }
        )
    show_table(rows)


def _draw(random, pool, n):
    return random.choice(pool, size=min(n, len(pool)), replace=False) if len(pool) else []


def _asked(row):
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
        raise DataError(
            f"the data has the columns {', '.join(row)}; one of {', '.join(known)}, or chosen and "
            "rejected, was expected to show. Rename one."
        )
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


def _answer(evaluation, i, row, metric):
    if evaluation.texts is not None:
        return _cut(evaluation.texts[i])
    if evaluation.predictions is None:
        return f"{evaluation.per_example(metric)[i]:.3g}"
    return _label(evaluation, evaluation.predictions[i], row)


def _truth(evaluation, i, row):
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
        return (
            f"<p style='font-family:monospace;line-height:2'>{''.join(spans)}</p>"
            f"<p>boxed: {sum(self.labelled)} of {len(self.pieces)} tokens carry loss</p>"
        )


def show_tokens(model, record, loss_on="response"):
    """Show the tokens of one record as the model reads them, and which of them carry loss.

    record: a dict with the columns that `fit` would train on. Returns nothing.
    """
    import datasets

    from ftkit.batching import IGNORED, encode
    from ftkit.evidence import _display

    row = encode(datasets.Dataset.from_list([dict(record)]), model, loss_on=loss_on)[0]
    pieces = [model.tokenizer.decode([token]) for token in row["input_ids"]]
    labels = row.get("labels")
    labels = labels if isinstance(labels, list) else [labels] * len(pieces)
    _display(Tokens(pieces, [label not in (IGNORED, None) for label in labels]))
