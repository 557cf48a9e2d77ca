"""The figure of a batch: each claim a row, its opponent and the tuned model side by side."""

import io
import math
import textwrap

from ftkit.batch.claims import as_float, leading, number, verdict

MOST = 16  # rows of a figure; of more claims, one stands for each lesson
SHARE, RATIO, ALONE = "shares", "ratios", "values"
HEADINGS = {SHARE: "share of held-out examples, with 95% intervals (of a gap, less is better)",
            RATIO: "relative to the opponent, with the 95% interval of the difference; "
                   "of a loss, less is better",
            ALONE: "a measure of its own, with its interval"}
FOUND = {"held": ("o", "#0072b2"), "did not hold (open question)": ("D", "#d55e00"),
         "held (open question)": ("o", "#0072b2"), "not judged": ("o", "0.5"),
         "NOT HELD": ("X", "#a00000")}


def _numbers(measured):
    """Return value, low and high of a claim's dict; NaN where there is none."""
    return [as_float((measured or {}).get(key)) for key in ("value", "low", "high")]


def kind_of(claim):
    """Return in which panel a claim is drawn: SHARE, RATIO (losses and the like) or ALONE."""
    before, after = _numbers(claim.get("before")), _numbers(claim.get("after"))
    shown = [x for x in before + after if not math.isnan(x)]
    if not claim.get("after") or not shown:
        return ALONE
    if all(0 <= x <= 1 for x in shown) and "loss" not in (claim.get("metric") or ""):
        return SHARE
    return RATIO if before[0] > 0 else ALONE


def _points(claim, kind):
    """Return the opponent's and the tuned model's [value, low, high] as their panel draws them."""
    before, after = _numbers(claim.get("before")), _numbers(claim.get("after"))
    if kind == SHARE:
        return before, after
    difference = _numbers(claim.get("difference"))
    if kind == ALONE:
        return [math.nan] * 3, after if claim.get("after") else difference
    size = 1 if claim["relative"] else before[0]
    return [1, 1, 1], [1 + x / size for x in difference]


def _draw_row(axes, y, claim, kind):
    """Draw one claim at height y: hollow its opponent, filled the method, in a line each."""
    held = verdict(claim, "held", "NOT HELD")
    marker, color = FOUND[held]
    opponent, tuned = _points(claim, kind)
    for (value, low, high), height, face, label in (
            (opponent, y - 0.13, "white", "opponent"), (tuned, y + 0.13, color, f"method: {held}")):
        if math.isnan(value):
            if label != "opponent":
                axes.annotate("NaN", (0.5, height), xycoords=("axes fraction", "data"),
                              va="center", fontsize=8)
            continue
        axes.plot([low, high], [height, height], "-", color="0.45" if face == "white" else color,
                  linewidth=1.5)
        axes.plot(value, height, "s" if face == "white" else marker, color=face, markersize=7,
                  markeredgecolor="0.25" if face == "white" else color, clip_on=False, label=label)
    said = [number(x) for x in (_numbers(claim.get("before"))[0], _numbers(claim.get("after"))[0])
            if not math.isnan(x)] or [number(tuned[0])]
    axes.annotate(" → ".join(said), (1.01, y), xycoords=("axes fraction", "data"), va="center",
                  fontsize=8.5)


def _label(axes, y, lesson, claim):
    """Write at the left of a row which lesson claims what, and below it, in grey, against what."""
    said = textwrap.wrap(f"{lesson.replace('_', ' ')}: {claim['claim']}", 76)
    if len(said) > 2:
        said = [said[0], textwrap.shorten(" ".join(said[1:]), 76, placeholder=" ...")]
    against = claim.get("opponent") or ("the value before" if claim.get("before") else None)
    lines = [(line, "black") for line in said]
    if against:
        lines.append((textwrap.shorten(f"against: {against}", 76, placeholder=" ..."), "0.45"))
    for i, (line, color) in enumerate(lines):
        axes.annotate(line, (-1.05, y + (i - (len(lines) - 1) / 2) * 0.28), color=color,
                      xycoords=("axes fraction", "data"), va="center", fontsize=8.5,
                      annotation_clip=False)


def figure(records):
    """Return a matplotlib figure of what a batch claimed: shares in one panel, losses in another.

    records: as `ftkit.batch.report.write_results` takes them. Of more than MOST claims one stands
    for each lesson, the first that it relies on.
    """
    from matplotlib.figure import Figure

    claims = [(record["name"], claim) for record in records for claim in record["claims"]]
    if len(claims) > MOST:
        claims = [(record["name"], leading(record["claims"])) for record in records
                  if record["claims"]]
    panels = {kind: found for kind in HEADINGS
              if (found := [row for row in claims if kind_of(row[1]) == kind])}
    rows = sum(len(found) for found in panels.values())
    tall = 1.1 + 0.5 * rows + 0.8 * (len(panels) - 1)
    drawing = Figure(figsize=(11, tall), dpi=100)
    places = drawing.add_gridspec(
        len(panels), 1, left=0.46, right=0.89, top=1 - 0.75 / tall, bottom=0.35 / tall,
        height_ratios=[len(found) for found in panels.values()],
        hspace=0.8 * len(panels) / (0.5 * rows))
    for place, (kind, found) in zip(places, panels.items(), strict=True):
        axes = drawing.add_subplot(place)
        for y, (lesson, claim) in enumerate(found):
            _draw_row(axes, y, claim, kind)
            _label(axes, y, lesson, claim)
        axes.set_yticks([])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_title(HEADINGS[kind], fontsize=9, loc="left")
        if kind == SHARE:
            axes.set_xlim(0, 1)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        for y in range(len(found) - 1):
            axes.axhline(y + 0.5, color="0.9", linewidth=0.8)
    legend = {label: handle for axes in drawing.axes
              for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    drawing.legend(legend.values(), legend.keys(), loc="upper left", ncols=4, fontsize=9,
                   frameon=False)
    return drawing


def png(records, claims_hash):
    """Return the figure as the bytes of a PNG, with the claims' hash in its metadata."""
    kept = io.BytesIO()
    figure(records).savefig(kept, metadata={"ftkit": claims_hash})
    return kept.getvalue()
