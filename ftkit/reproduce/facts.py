"""What the records of two runs say a training depends on, fact by fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ftkit.data.fingerprint import row_hashes
from ftkit.reproduce.rerun import Recorded

TRAIN, VALIDATION = "rows of train", "rows of validation"
BASE, TOKENIZER = "base model", "tokenizer"
PASS = "examples of a pass"
GIVEN = "= given"  # ends the name of what fit was given and no record holds
SHOWN = 5  # rows named
# What no rerun on this machine can change, and why.
FIXED = {"device": "this machine computes on {device}",
         "machine": "this is another machine, or the same one",
         "processes": "one process runs here; ftkit launch starts several",
         "package": "another version needs an environment of its own",
         "task": "the task decides what is trained and measured",
         "pooling": "it belongs to the base model",
         VALIDATION: "it acts at evaluations, and these updates come before them",
         "patience": "it acts at evaluations, and these updates come before them"}


def both(a: Recorded, b: Recorded, old: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that two records say a training depends on, by name, alike for both."""
    pair = [_of_old(side.record) if old else _of_record(side.record) for side in (a, b)]
    if old:
        return pair[0], pair[1]
    if pair[0]["method"] == pair[1]["method"]:  # the class: its fields are compared one by one
        for facts, side in zip(pair, (a, b), strict=True):
            method = side.record["fit"]["method"]
            fields = method["fields"] | method["left_out"]  # the second in words
            facts.update({f"method: {name}": value for name, value in fields.items()})
    else:
        for facts, side in zip(pair, (a, b), strict=True):
            facts["method"] = side.record["fit"]["method"]
    # How a batch was split follows from its size and the memory; alone it is worth a line.
    if pair[0]["batch_size"] == pair[1]["batch_size"]:
        for facts, side in zip(pair, (a, b), strict=True):
            facts[PASS] = side.record["settings"]["per_device_train_batch_size"]
    if pair[0].get(PASS) == pair[1].get(PASS):
        for facts in pair:
            facts.pop(PASS, None)
    return pair[0], pair[1]


def _of_record(record):
    told = record["fit"]
    found = {TRAIN: record["splits"]["train"]["hash"],
             VALIDATION: record["splits"].get("validation", {}).get("hash"),
             BASE: record["base"]["hash"], TOKENIZER: record["base"]["tokenizer"],
             "task": record["base"]["task"], "pooling": record["base"]["pooling"],
             "method": told["method"]["class"]}
    found |= {name: value for name, value in told.items()
              if name not in ("method", "arguments", "left_out", "dtype")}
    found |= {"precision": told["dtype"], **told["arguments"]}
    found |= {f"{name}{GIVEN}": "not recorded" for name in told["left_out"]}
    return found | _of_machine(record)


def _of_old(record):
    """Of a record that does not say what fit was told: what it resolved, as far as it is there."""
    found = {"data": record.get("data_hash"), BASE: record.get("model"), "task": record.get("task")}
    found |= {name: value for name, value in (record.get("settings") or {}).items()
              if name not in ("use_cpu", "bf16", "fp16")}
    return found | {"precision": record.get("dtype")} | _of_machine(record)


def _of_machine(record):
    machine = record.get("hardware") or {}
    found = {"device": machine.get("device"), "machine": machine.get("name"),
             "threads": machine.get("threads"), "processes": machine.get("processes", 1)}
    return found | {f"package {name}": version
                    for name, version in (record.get("versions") or {}).items()}


def shown(value: Any) -> str:
    """A fact as a cell of a table: hashes and texts are shortened."""
    if isinstance(value, dict) and "class" in value:
        fields = ", ".join(f"{k}={shown(v)}" for k, v in value["fields"].items())
        return f"{value['class']}({fields})"
    text = "–" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= 60 else f"{text[:57]}…"


def recorded_gap(a: Recorded, b: Recorded) -> list[str]:
    """Sentences on how far the recorded losses lie apart."""
    said, both = [], [dict(side.logged()) for side in (a, b)]
    if shared := sorted(both[0].keys() & both[1].keys()):
        one, two = (logged[shared[-1]] for logged in both)
        said.append(f"Recorded training loss at update {shared[-1]}: A {one:.6g}, B {two:.6g}.")
    ends = [(side.record.get("metrics") or {}).get("eval_loss") for side in (a, b)]
    if None not in ends:
        said.append(f"Recorded validation loss: A {ends[0]:.6g}, B {ends[1]:.6g}.")
    return said


def which_rows(sides: Sequence[Any]) -> str:
    """Which rows are in one of two data sets alone, in words; row 0 is the first."""
    one, two = (row_hashes(side)["train"] for side in sides)
    said = []
    for name, mine, other in (("A", one, two), ("B", two, one)):
        moved = [i for i, row in enumerate(mine) if other[i:i + 1] != [row]]
        spare = Counter(other[i] for i, row in enumerate(other) if mine[i:i + 1] != [row])
        places = []
        for place in moved:
            spare[mine[place]] -= 1
            if spare[mine[place]] < 0:
                places.append(str(place))
        if places:
            more = ", …" if len(places) > SHOWN else ""
            said.append(f"{len(places)} in {name} alone (row {', '.join(places[:SHOWN])}{more})")
    return "; ".join(said) or "the same rows in another order"
