"""Writes the facts of each data card from its recipe and the data: `python tools/cards.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ftkit.data.recipe import DataEntry, archives, entries, find, package_file
from ftkit.data.splits import SPLITS

BEGIN = "<!-- facts: written by `python tools/cards.py`, checked by a test -->"
END = "<!-- end of facts -->"
LESSONS = Path(__file__).resolve().parents[1] / "notebooks"
SHOWN = 160  # characters of a field of the example


def facts(entry: DataEntry) -> str:
    """Return the generated part of a card, as Markdown."""
    from ftkit.data.load import load_data

    lines = [
        f"- Task: {entry.task}",
        f"- Licence: {entry.licence}",
        *([f"- More: <{entry.link}>"] if entry.link else []),
        f"- Used in: {_used_in(entry.name)}",
        f"- Read from: {_origin(entry)}",
        f"- On the hub: {_on_hub(entry)}",
    ]
    if entry.warning:
        lines.append(f"- **Warning**: {entry.warning}")
    if entry.needs:  # what a machine has decides the rows
        return "\n".join([*lines, f"- Needs: {entry.needs}"])
    rows, columns = [], {}
    for options in entry.forms:
        data = load_data(entry.name, **options)
        form = ", ".join(f'{key}="{value}"' for key, value in options.items()) or "all"
        counts = [len(data[split]) for split in SPLITS]
        groups = len({group for split in SPLITS for group in data[split]["group"][:]})
        numbers = [data.rows_read, *counts, groups, _shares(data)]
        rows.append([form, *(f"{n:,}" if isinstance(n, int) else n for n in numbers)])
        columns.setdefault(", ".join(f"`{name}`" for name in data["train"].column_names), form)
        if options == entry.forms[0]:
            example = next((row for row in data["train"] if set(row.get("tags", "?")) != {"O"}), {})
    head = ["form", "rows read", *SPLITS, "groups", "test labels"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    table = [head, ["---"] * len(head), *rows]
    lines += ["", *("| " + " | ".join(row) + " |" for row in table), ""]
    lines += [
        f"- Columns{'' if len(columns) == 1 else f' ({form})'}: {names}"
        for names, form in columns.items()
    ]
    source = find(entry.name).source(**entry.forms[0])
    lines.append(
        "- In no split are rows that repeat another word for word"
        + (", or nearly so" if source.near else "")
        + (", and those above a fixed number of each kind" if source.per_kind else "") + "."
    )
    if not entry.warning:  # which a reader has read before seeing a row
        lines += ["", "A row of train:", "", "```json", _example(example), "```"]
    return "\n".join(lines)


def rewritten(text: str, entry: DataEntry) -> str:
    """Return a card's text with its facts as they are now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{facts(entry)}\n{END}{rest.split(END)[1]}"


def _example(row: dict) -> str:
    """Return a row as JSON, its long texts cut."""
    def cut(value):
        if isinstance(value, list):
            return [cut(part) for part in value]
        long = isinstance(value, str) and len(value) > SHOWN
        return f"{value[:SHOWN].rsplit(' ', 1)[0]} …" if long else value

    fields = (f"{json.dumps(name)}: {json.dumps(cut(value), ensure_ascii=False)}"
              for name, value in row.items())
    return "{" + ",\n ".join(fields) + "}"


def _used_in(name: str) -> str:
    """Return links to the lessons whose code names a data set."""
    found = []
    for path in sorted(LESSONS.glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        if re.search(rf"""["']{re.escape(name)}["']""", code):
            found.append(f"[lesson {int(path.name[:2])}](../notebooks/{path.name})")
    return ", ".join(found) or "no lesson so far"


def _origin(entry: DataEntry) -> str:
    if not entry.archives:
        return "this machine" if entry.needs else "this folder"
    read = (archives()[name] for name in entry.archives)
    return ", ".join(f"{archive.name} {archive.version} ({archive.licence})" for archive in read)


def _on_hub(entry: DataEntry) -> str:
    if not entry.hub:
        return "not offered: the rows there differ, or need code of their own to be read"
    return f"`{entry.hub}`, revision `{entry.revision}` (`hub=True`)"


def _shares(data) -> str:
    """Return how often each label occurs in the test split."""
    if not data.labels or "label" not in data["test"].column_names:
        return ""
    labels = data["test"]["label"][:]
    return ", ".join(
        f"{name} {labels.count(number) / len(labels):.0%}"
        for number, name in enumerate(data.labels)
    )


def main() -> None:
    for entry in entries():
        path = package_file(entry.card)
        path.write_text(rewritten(path.read_text(encoding="utf-8"), entry), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
