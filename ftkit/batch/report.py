"""Tables and a figure of what lessons claimed and measured, in a batch or as committed."""

import hashlib
import json
import os
import platform
import re
import textwrap
from importlib import metadata
from pathlib import Path

from ftkit.batch import notebook as nb
from ftkit.batch.claims import as_float, claim_cells, estimate, leading, number, verdict
from ftkit.batch.figure import png
from ftkit.display import markdown_table
from ftkit.errors import DataError
from ftkit.models.hardware import usable_cores

MARKS = ("results", "lessons")  # of a document: all claims, or a row for each lesson
GRID_NOTE = (
    "The mean over seeds with its 95% interval (Student's t), which covers other seeds and not "
    "other test examples. A row is *worse* than the best mean of its claim where the difference, "
    "seed by seed, has an interval without 0; else, or with one seed, it *cannot be told from "
    "best*. The intervals are not widened for the number of rows: choose a winner among many on "
    "validation data, and measure it once on the test set.")


HEADER = ("lesson", "claim", "opponent", "its value", "method", "difference [95% interval]",
          "needed", "held")


def _rows(records):
    """Return a row of words for each claim, and one for each lesson without a claim."""
    rows = []
    for record in records:
        seconds = "–" if record["seconds"] is None else f"{record['seconds']:.0f}"
        peak = "–" if record["peak_memory"] is None else f"{record['peak_memory'] / 1e9:.1f} GB"
        ended = record["status"] == "ok"
        cells = [claim_cells(claim) for claim in record["claims"]]
        if not ended and record["status"] != "claim not held" or not cells:
            words = "no claims" if ended else f"{record['status'].upper()}: {record['message']}"
            cells.append((words, *"–––––", "–" if ended else "NO"))
        for i, row in enumerate(cells):
            rows.append([record["name"] if i == 0 else "", *row,
                         *((seconds, peak) if i == 0 else ("", ""))])
    return rows


def text_table(records, width=44):
    """Return the table of a batch for a terminal; the claims are folded at `width` characters."""
    header = ["lesson", "claim", "opponent", "method", "difference [95%]", "needed", "held", "s",
              "peak"]
    opponent = HEADER.index("opponent")  # for a page that is wider than a terminal
    rows = [header] + [[*row[:opponent], *row[opponent + 1 :]] for row in _rows(records)]
    folded = [[textwrap.wrap(w, width) or [""] for w in row] for row in rows]
    widths = [max(len(line) for row in folded for line in row[i]) for i in range(len(header))]
    lines = []
    for n, row in enumerate(folded):
        for i in range(max(map(len, row))):
            words = [column[i] if i < len(column) else "" for column in row]
            lines.append("  ".join(w.ljust(s) for w, s in zip(words, widths, strict=True)).rstrip())
        if n == 0:
            lines.append("  ".join("-" * size for size in widths))
    return "\n".join(lines)


def write_results(records, out, *, profile, parameters, over_grid=False):
    """Write results.json, .md and .png, and of a grid .parquet, into `out`.

    Returns the content of the first as a dict; `grid` has the rows of `grid.table`.
    """
    from ftkit.batch import grid

    out = Path(out)
    results = {"ftkit": metadata.version("ftkit"), "profile": profile, "parameters": parameters,
               "machine": machine(), "lessons": records,
               "all_held": all(r["status"] == "ok" for r in records)}
    rows = grid.table(records) if over_grid else []
    if over_grid:
        results["grid"] = rows
        table = f"{markdown_table(grid.header(rows), grid.words(rows))}\n\n{GRID_NOTE}"
    else:
        table = markdown_table([*HEADER, "seconds", "peak memory"], _rows(records))
    words = ", ".join(f"{k} {v}" for k, v in results["machine"].items())
    # First, as it is removed last: it says that the others are of a batch.
    nb.write_file(json.dumps(results, indent=1, default=repr) + "\n", out / "results.json")
    nb.write_file(f"# Results\n\n{table}\n\nMeasured on: {words}.\n", out / "results.md")
    if over_grid:
        grid.write(rows, out)
    elif any(record["claims"] for record in records):
        figure(records, out / "results.png")
    else:
        (out / "results.png").unlink(missing_ok=True)  # of an earlier batch
    return results


def machine():
    """Return what a reader must know of the machine to judge seconds and bytes."""
    import psutil

    return {"system": f"{platform.system()} {platform.machine()}",
            "cores": usable_cores(),
            "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
            "Python": platform.python_version(), "torch": metadata.version("torch")}


def committed(folder):
    """Return records (name, claims) of the lessons in a folder, from their committed outputs."""
    found = [{"name": path.stem, "claims": nb.claims(nb.read(path))}
             for path in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))]
    if not any(record["claims"] for record in found):
        raise DataError(f"no lesson in {folder} has a claim in its outputs; run "
                        f"`ftkit batch {folder} --profile cpu --commit-to {folder}` first.")
    return found


def committed_table(folder, link):
    """Return the Markdown table of the committed claims; `link` goes before a file's name."""
    rows = []
    for record in committed(folder):
        for i, claim in enumerate(record["claims"]):
            lesson = f"[{record['name']}]({link}{record['name']}.ipynb)" if i == 0 else ""
            rows.append((lesson, *claim_cells(claim)))
    return markdown_table(HEADER, rows)


def lessons_table(folder, link):
    """Return the Markdown table of lessons: title, minutes on a laptop, and what they claim."""
    rows = []
    for record in committed(folder):
        header = nb.source(nb.read(Path(folder) / f"{record['name']}.ipynb")["cells"][0])
        title = header.splitlines()[0].lstrip("# ").partition(":")[0]
        laptop = re.search(r"\| `cpu` \|\s*([^|]+?)(?: on [^|]*)?\s*\|", header)
        claim = leading(record["claims"])
        sides = [claim.get("before"), claim.get("after")] if claim else []
        if claim and not any(sides):  # a value alone
            sides = [claim.get("difference")]
        numbers = " → ".join(number(side["value"]) for side in sides if side)
        asked = [c for c in record["claims"] if c.get("expect") == "open"]
        rows.append((f"[{title}]({link}{record['name']}.ipynb)", laptop[1] if laptop else "–",
                     claim["claim"] if claim else "", numbers,
                     verdict(claim, "held", "NO") if claim else "",
                     f"{sum(c['held'] for c in asked)} of {len(asked)}" if asked else "–"))
    return markdown_table(["lesson", "on a laptop", "what it claims, on held-out data",
                           "opponent → method", "verdict", "open questions that held"], rows)


def insert_table(text, table, mark="results"):
    """Return a document with a table between its marks. Raises DataError without them."""
    first, last = f"<!-- {mark}:start -->", f"<!-- {mark}:end -->"
    before, start, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (start and end):
        raise DataError(f"the document has no place for the table: put {first} and {last} in it, "
                        "each on a line.")
    return f"{before}{first}\n{table}\n{last}{after}"


def with_tables(text, folder, link):
    """Return a document with the tables that it has marks for; DataError where it has none."""
    made = {"results": committed_table, "lessons": lessons_table}
    found = [mark for mark in MARKS if f"<!-- {mark}:start -->" in text] or ["results"]
    for mark in found:
        text = insert_table(text, made[mark](folder, link), mark)
    return text


def claims_hash(records):
    """Return the sha256 of all claims, kept in the figure so that a test can see its age."""
    claims = [[record["name"], record["claims"]] for record in records]
    return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()


def figure(records, path):
    """Write the figure of all claims, the opponents beside the tuned models, into a PNG file.

    Of a whole course there are too many to read: then one claim stands for each lesson.
    """
    nb.write_file(png(records, claims_hash(records)), path)


def publish(notebooks, document=None, picture=None):
    """Draw the claims of committed notebooks into a PNG file, and put their tables into a document.

    notebooks: their folder. Returns the table of claims where no document is named, else None.
    """
    folder = Path(notebooks)
    if picture:
        figure(committed(folder), Path(picture))
    base = Path(document).parent if document else Path()
    link = Path(os.path.relpath(folder, base)).as_posix() + "/"
    if not document:
        return committed_table(folder, link)
    text = with_tables(Path(document).read_text(encoding="utf-8"), folder, link)
    nb.write_file(text, Path(document))
    return None


def differences(stored, rerun):
    """Return a line for each stored claim that the claims of a rerun do not bear out.

    An interval without width, as of a plain number, says nothing about what another run may give:
    there only whether the claim holds is compared.
    """
    lines, found = [], {claim["claim"]: claim for claim in rerun}
    for claim in stored:
        name, again = claim["claim"], found.pop(claim["claim"], None)
        if again is None:
            lines.append(f"{name!r} is stored, and the rerun does not show it")
            continue
        parts = [part for part in ("before", "after", "difference")
                 if not _overlap(claim.get(part), again.get(part))]
        lines += [f"{name!r}: {part} was {estimate(claim.get(part))} and is now "
                  f"{estimate(again.get(part))}" for part in parts]
        relied = claim["judged"] and claim["held"] and claim.get("expect") != "open"
        if relied and not again["held"]:
            lines.append(f"{name!r} held and holds no more: it is now "
                         f"{estimate(again['difference'])}, needed {again.get('bound')}")
    return lines + [f"{name!r} is shown by the rerun and not stored" for name in found]


def _overlap(one, other):
    if one is None or other is None:
        return one is other
    ends = [as_float(part[end]) for part in (one, other) for end in ("low", "high")]
    if ends[0] == ends[1] or ends[2] == ends[3]:
        return True
    nothing = [end != end for end in ends]
    return all(nothing) if any(nothing) else ends[0] <= ends[3] and ends[2] <= ends[1]
