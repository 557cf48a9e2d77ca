"""Grids: a notebook with several values of its parameters and several seeds, in one table."""

import hashlib
import io
import itertools
import json
import math
import re
import textwrap

from ftkit.batch import notebook as nb
from ftkit.batch.claims import as_float, estimate, number
from ftkit.batch.figure import MOST
from ftkit.errors import SettingError

JUDGED = ("ok", "claim not held")  # of runs whose claims can be believed, held or not
BEST, WORSE, OPEN = "best", "worse", "cannot be told from best"
HEADER = ("held", "runs", "failed", "seconds", "peak memory", "standing")


def points(grid=None, seeds=None, fixed=()):
    """Return the values of each run of a notebook as dicts, seeds innermost; [{}] without a grid.

    grid: {parameter: values}. seeds: how many; the parameter `seed` gets 0, 1, 2 and so on.
    fixed: names of the parameters that have one value for all runs.
    Raises SettingError for a parameter without values, or with a value or a meaning twice.
    """
    axes = dict(grid or {})
    if seeds is not None:
        if type(seeds) is not int or seeds < 1:
            raise SettingError(f"seeds={seeds!r}: how many seeds, a whole number from 1 on, is "
                               "expected; name them by a grid: seed=1,5,9.")
        if "seed" in axes:
            raise SettingError("seed has values in the grid and by seeds; give one of the two.")
        axes["seed"] = list(range(seeds))
    for name, values in axes.items():
        if name in fixed:
            raise SettingError(f"{name} has one value for all runs and several in the grid; give "
                               "one of the two.")
        if not isinstance(values, list | tuple) or not values:
            raise SettingError(f"the grid has {name}={values!r}; a list of values is expected, "
                               f"such as {name}=1,2 or, in Python, {{{name!r}: [1, 2]}}.")
        if twice := [v for i, v in enumerate(values) if v in values[:i]]:
            raise SettingError(f"the grid has {name}={twice[0]!r} twice; name each value once.")
    return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())]


def run_name(lesson, point):
    """Return the name of a run and of its files, such as `09_lora--rank=4--seed=1`."""
    whole = "--".join([lesson, *(f"{name}={value}" for name, value in point.items())])
    safe = re.sub(r"[^\w.,+=-]", "_", whole) if point else whole
    if safe == whole and len(safe) <= 120:
        return whole
    return f"{safe[:100]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def over_seeds(values):
    """Return mean and 95% interval (Student's t) of one value for each seed, as a dict.

    low and high are None for one seed, which says nothing about others; all three where a value is.
    """
    from scipy import stats

    n = len(values)
    mean = None if None in values else math.fsum(values) / n
    if n < 2 or mean is None:
        return {"value": mean, "low": None, "high": None}
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    half = float(stats.t.ppf(0.975, n - 1)) * spread
    return {"value": mean, "low": mean - half, "high": mean + half}


def table(records):
    """Return a row for each claim at each point of the grid, over its seeds, as dicts.

    A row has lesson, point (the grid's values without the seed), claim (None where a notebook shows
    none), metric, value and difference (mean, low and high over the seeds; None where no run could
    be believed; no difference where the claim is about one value), seeds and values (lists), held
    and judged (how many), runs, failed, seconds (mean), peak_memory (most, in bytes) and standing:
    whether its mean is the best of its claim and, if not, whether it is worse, which takes a
    difference, seed by seed, with an interval without 0.
    """
    groups = {}
    for record in records:
        point = {name: v for name, v in record["point"].items() if name != "seed"}
        groups.setdefault((record["lesson"], json.dumps(point, default=repr)),
                          (point, []))[1].append(record)
    rows = []
    for (lesson, _), (point, runs) in groups.items():
        whole = [run for run in runs if run["status"] in JUDGED]
        seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
        facts = {"runs": len(runs), "failed": len(runs) - len(whole),
                 "seconds": math.fsum(seconds) / len(seconds) if seconds else None,
                 "peak_memory": max((run["peak_memory"] or 0 for run in runs), default=0) or None}
        texts = dict.fromkeys(claim["claim"] for run in whole for claim in run["claims"])
        for text in texts or [None]:
            found = {run["point"].get("seed", run["parameters"].get("seed", 0)): claim
                     for run in whole for claim in run["claims"] if claim["claim"] == text}
            rows.append({"lesson": lesson, "point": point, "claim": text,
                         **_measured(found), **facts, "standing": ""})
    same = {}
    for row in rows:
        same.setdefault((row["lesson"], row["claim"]), []).append(row)
    for rivals in same.values():
        _mark_best(rivals)
    return rows


def _measured(found):
    """Return what the claims of several seeds say together."""
    def value(part):  # JSON has no NaN
        return None if math.isnan(as_float(part["value"])) else as_float(part["value"])

    values = {seed: value(claim.get("after") or claim["difference"])
              for seed, claim in found.items()}
    first = next(iter(found.values()), None)
    return {"metric": first and first["metric"], "lower_is_better": bool(
                first and "at_most" in first.get("bound", {})),
            "value": over_seeds(list(values.values())) if found else None,
            "difference": over_seeds([value(claim["difference"]) for claim in found.values()])
            if first and first.get("before") else None,
            "relative": bool(first and first["relative"]), "seeds": list(values),
            "values": list(values.values()),
            "held": sum(c["held"] for c in found.values() if c["judged"]),
            "judged": sum(c["judged"] for c in found.values())}


def _mark_best(rivals):
    sound = [row for row in rivals if row["value"] and row["value"]["value"] is not None]
    if len(sound) < 2:
        return
    sign = -1 if sound[0]["lower_is_better"] else 1
    best = max(sound, key=lambda row: sign * row["value"]["value"])
    best["standing"] = BEST
    of_best = dict(zip(best["seeds"], best["values"], strict=True))
    for row in sound:
        if row is not best:
            gaps = [sign * (of_best[seed] - value) for seed, value
                    in zip(row["seeds"], row["values"], strict=True) if seed in of_best]
            gap = over_seeds(gaps) if len(gaps) > 1 else None
            row["standing"] = WORSE if gap and gap["low"] > 0 else OPEN


def header(rows):
    """Return the columns of the table for readers."""
    names = dict.fromkeys(name for row in rows for name in row["point"])
    return ["lesson", *names, "claim", "metric", "mean [95% over seeds]", "difference", *HEADER]


def words(rows):
    """Return the table's rows as lists of words, in the order of `header`."""
    names = dict.fromkeys(name for row in rows for name in row["point"])
    made = []
    for row in rows:
        held = f"{row['held']} of {row['judged']}" if row["judged"] else "not judged"
        seconds = "–" if row["seconds"] is None else f"{row['seconds']:.0f}"
        peak = "–" if row["peak_memory"] is None else f"{row['peak_memory'] / 1e9:.1f} GB"
        made.append([row["lesson"], *(str(row["point"].get(name, "–")) for name in names),
                     row["claim"] or "no claim", row["metric"] or "–", _mean(row["value"]),
                     _mean(row["difference"], relative=row["relative"], sign=True),
                     held if row["claim"] else "–", str(row["runs"]), str(row["failed"]),
                     seconds, peak, row["standing"]])
    return made


def _mean(value, **looks):
    text = estimate(value, **looks)
    return text.partition(" [")[0] if value and value["low"] is None else text


def parquet(rows):
    """Return the table as the bytes of a Parquet file: a column for each number and parameter."""
    import pyarrow
    from pyarrow import parquet as pq

    flat = []
    for row in rows:
        made = {key: row[key] for key in ("lesson", "claim", "metric", "held", "judged", "runs",
                                          "failed", "seconds", "peak_memory", "standing")}
        for key in ("value", "difference"):
            made |= {key if end == "value" else f"{key}_{end}": (row[key] or {}).get(end)
                     for end in ("value", "low", "high")}
        made |= {"seeds": [str(seed) for seed in row["seeds"]],
                 "values": row["values"]}
        flat.append(made | {f"{k}_" if k in made else k: v for k, v in row["point"].items()})
    columns = {}
    for name in dict.fromkeys(name for row in flat for name in row):
        column = [row.get(name) for row in flat]
        kinds = {type(value) for value in column} - {type(None)}
        mixed = len(kinds - {int}) > 1 or (int in kinds and kinds - {int, float})
        columns[name] = [v if v is None else str(v) for v in column] if mixed else column
    kept = io.BytesIO()
    pq.write_table(pyarrow.table(columns), kept)
    return kept.getvalue()


def figure(rows):
    """Return a PNG: of each claim the points of the grid, with every seed, mean and interval."""
    from matplotlib.figure import Figure

    panels = {}
    for row in rows:
        if row["value"] and row["value"]["value"] is not None:
            panels.setdefault((row["lesson"], row["claim"]), []).append(row)
    shown = list(panels.items())[:MOST]
    columns = min(2, len(shown))
    heights = [max(len(shown[i][1]) for i in range(start, min(start + columns, len(shown))))
               for start in range(0, len(shown), columns)]
    drawing = Figure(figsize=(6.2 * columns, sum(1.5 + 0.34 * n for n in heights)), dpi=100,
                     layout="constrained")
    places = drawing.add_gridspec(len(heights), columns, height_ratios=[1.5 + n for n in heights])
    for i, ((lesson, claim), found) in enumerate(shown):
        axes = drawing.add_subplot(places[i // columns, i % columns])
        for y, row in enumerate(found):
            mean, best = row["value"], row["standing"] == BEST
            axes.plot(row["values"], [y] * len(row["values"]), "o", color="0.6",
                      markersize=4, label="one seed")
            if mean["low"] is not None:
                axes.plot([mean["low"], mean["high"]], [y, y], "k-", linewidth=1.5,
                          label="95% interval over seeds")
            axes.plot(mean["value"], y, "D", markersize=8, markeredgecolor="black",
                      color="black" if best else "white", label="mean, best" if best else "mean")
            axes.annotate(number(mean["value"]), (mean["value"], y), xytext=(0, 6), ha="center",
                          textcoords="offset points", fontsize=8)
        labels = [", ".join(f"{k} {v}" for k, v in row["point"].items()) or lesson for row in found]
        axes.set_yticks(range(len(found)), [textwrap.shorten(label, 40) for label in labels])
        axes.set_ylim(len(found) - 0.5, -0.7)
        better = "lower" if found[0]["lower_is_better"] else "higher"
        axes.set_xlabel(f"{(row['metric'] or 'value').replace('_', ' ')} ({better} is better)")
        axes.set_title(textwrap.fill(f"{lesson}: {claim}", 60), fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    legend = {label: handle for axes in drawing.axes
              for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    drawing.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=4, fontsize=8)
    left = f" (the first {MOST} of {len(panels)} claims)" * (len(panels) > MOST)
    drawing.suptitle(f"The grid: mean over seeds on held-out data{left}", fontsize=11)
    png = io.BytesIO()
    drawing.savefig(png)
    return png.getvalue()


def write(rows, out):
    """Write results.parquet and results.png of a grid into a folder; a figure only with claims."""
    nb.write_file(parquet(rows), out / "results.parquet")
    if any(row["value"] and row["value"]["value"] is not None for row in rows):
        nb.write_file(figure(rows), out / "results.png")
