"""Requests of customers and replies in a house style, written for the course."""

from __future__ import annotations

from itertools import product

from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import stable_hash

from . import _replies_held_out
from ._replies import ISSUES, ITEMS, NAMES

ENTRY = DataEntry(
    title="Requests of customers, and replies in the house style of an invented shop",
    licence="Apache-2.0 (this kit)",
)
INSTRUCTION = "Reply to this customer of Fernway."
# In the splits of `_KEPT`, whole issues.
_KEPT = {
    "validation": ("late parcel", "invoice"),
    "test": (
        "wrong item", "cancel", "missing part", "loud complaint", "gift", "warranty", "praise",
    ),
}


def source() -> Source:
    # the pairs of an issue are alike on purpose; an issue is in one split only
    return Source(_pairs, "instruction", ("input",), near=False)


def _pairs() -> Rows:
    """Return every request of an issue with every reply to it, for customers of changing names."""
    split = {issue: name for name, issues in _KEPT.items() for issue in issues}
    held_out = _issues(_replies_held_out.ISSUES)
    split |= {issue: "test" for issue, *_ in held_out}
    rows = []
    for issue, requests, replies in [*_issues(ISSUES), *held_out]:
        for request, (what, step) in product(requests, replies):
            slots = _slots(f"{request}\n{what}")
            reply = f"Hello {{name}},\n{what}\nNext step: {step}\nWarmly, the Fernway team"
            rows.append({
                "kind": issue, "instruction": INSTRUCTION, "input": request.format(**slots),
                "output": reply.format(**slots), "group": issue,
                "split": split.get(issue, "train"),
            })
    return rows


def _issues(text: str) -> list[tuple[str, list[str], list[tuple[str, str]]]]:
    found = []
    for block in text.strip().replace("\n  ", " ").removeprefix("# ").split("\n# "):
        issue, *lines = block.splitlines()
        requests, answers, steps = (
            [line[2:] for line in lines if line.startswith(mark)] for mark in ("Q ", "A ", "N ")
        )
        found.append((issue, requests, list(zip(answers, steps, strict=True))))
    return found


def _slots(seed: str) -> dict[str, str]:
    """Return a name, an article and the number of an order, drawn by a text."""
    number = int(stable_hash(seed)[:12], 16)
    return {
        "name": NAMES[number % len(NAMES)],
        "item": ITEMS[number // 100 % len(ITEMS)],
        "order": f"FW-{10_000 + number // 10_000 % 90_000}",
    }
