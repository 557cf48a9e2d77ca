"""Why two runs differ: what their records say, and how far each difference moves the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import transformers

from ftkit.display import Table
from ftkit.errors import Diverged, FtkitError, SettingError
from ftkit.models.hardware import this_machine
from ftkit.models.model import Model
from ftkit.models.precision import own
from ftkit.reproduce import facts, rerun
from ftkit.reproduce.facts import BASE, FIXED, GIVEN, PASS, TOKENIZER, TRAIN

LEAST = 4  # updates: after a warm-up's first one of rate 0, the third shows what the rate is
ROUNDING = 1e-6  # share of a loss by which a logged one and its mean over updates may differ


@dataclass(frozen=True)
class Explanation:
    """What differs between two runs, and how far each difference moves the training loss.

    rows: one for each recorded difference, a dict of strings; what moves the loss most comes first.
    moved: {difference: by how much it alone moves A's loss, a mean over `updates` of absolute
    differences} of what was tried. main: what moved it most, None where nothing did. causes: those
    that together take A's losses to B's. gap: between both as run again here; floor: between A and
    A, run twice. left: of the gap, once the causes are applied. comes_out: of "A" and "B", whether
    the losses that it logged in these updates came out again, None where there are none. not_tried:
    {difference: why}. notes: all of this in sentences, and what the records lack.
    """

    rows: list[dict[str, str]]
    moved: dict[str, float]
    main: str | None
    causes: list[str]
    gap: float | None
    floor: float | None
    left: float | None
    updates: int
    comes_out: dict[str, bool | None]
    not_tried: dict[str, str]
    notes: list[str]

    @property
    def explained(self) -> bool:
        """Whether the causes leave no more of a gap than A has to itself, and nothing is open:
        either all was tried, or B's recorded loss came out without the rest."""
        if self.left is None or self.floor is None or self.comes_out.get("B") is False:
            return False
        return self.left <= self.floor and (not self.not_tried or bool(self.comes_out.get("B")))

    def table(self) -> Table:
        """All differences as a table, with what follows from them as its caption."""
        return Table(self.rows, " ".join(self.notes))

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def explain_difference(run_a: Any, run_b: Any, *, model: Model | Sequence[Model] | None = None,
                       data: Any = None, updates: int | None = None) -> Explanation:
    """Say why two runs differ: list every recorded difference, and measure what each one does.

    run_a, run_b: Runs of ft.fit, or the folders of their records (`ftkit runs`). model: the base
    that both were trained from, or a pair; by default it is loaded by its recorded name. data: the
    splits that both were given, or a pair (a tuple); by default they are loaded as they were.
    updates: how many are run again; by default up to the first logged loss, and at least 4.
    A's first updates are run twice, which shows whether A repeats itself: that is the floor. Then
    they are run with one of B's settings at a time (data, base, precision, threads, seed, batch,
    rate, a field of the method, ...), and with several together until B's losses come out. What
    this machine cannot change, such as a package, is listed with the reason. A difference that acts
    later, such as another number of epochs under a constant rate, moves nothing in these updates.
    No record of a rerun is kept, and neither run is changed.
    Returns an Explanation, which shows itself as a table. Raises SettingError for what is no run,
    or updates below 1; DataError where a folder holds no record.
    """
    if updates is not None and (type(updates) is not int or updates < 1):
        raise SettingError(f"updates={updates!r}: a whole number from 1 on is expected.")
    a, b = rerun.recorded(run_a), rerun.recorded(run_b)
    old = [f"the record of {name} lacks {', '.join(one.missing)}, as an earlier version of the kit "
           "wrote it" for name, one in (("A", a), ("B", b)) if one.missing]
    one, two = facts.both(a, b, old=bool(old))
    differ = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    rows = {name: {"difference": name, "A": facts.shown(one.get(name)),
                   "B": facts.shown(two.get(name)), "moved the loss by": "", "gap left": "",
                   "note": ""} for name in differ}
    notes = facts.recorded_gap(a, b)
    if old:
        notes += [f"{'; '.join(old)}: nothing was run again, and what is not there is not known."]
        return Explanation(list(rows.values()), {}, None, [], None, None, None, 0, {}, {}, notes)
    firsts = [logged[0][0] for side in (a, b) if (logged := side.logged())]
    again = _Again(a, b, model, data, updates or max(LEAST, *firsts, 0))
    return again.explain(one, two, rows, notes)


class _Stop(transformers.TrainerCallback):
    """Ends a training after some updates; its schedule is that of the whole."""

    def __init__(self, updates):
        self.updates = updates

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= self.updates


class _Again:
    """Runs the first updates of A again, with some facts taken from B."""

    def __init__(self, a, b, model, data, updates):
        self.a, self.b, self.updates = a, b, updates
        self.models, self.tokenizers, self.data = {}, {}, {}  # by their hash
        self.reasons, self.comes_out = {}, {}
        models = list(model) if isinstance(model, Sequence) else [model, model]
        rows = list(data) if isinstance(data, tuple) else [data, data]
        for name, given in (("model", models), ("data", rows)):
            if len(given) != 2:
                raise SettingError(f"{name} has {len(given)} parts; give one for both, or a pair.")
        for side, base, split in zip((a, b), models, rows, strict=True):
            # Of what evaluations read nothing is run again.
            record = side.record | {"splits": {"train": side.record["splits"]["train"]}}
            key, cut = record["base"]["hash"], record["base"]["tokenizer"]
            if key not in self.models or cut not in self.tokenizers:
                found = self._at_hand((key, cut), rerun.base_model, rerun.other_base, record, base)
                if found is not None:
                    self.models[key], self.tokenizers[cut] = found, found.tokenizer
            key = record["splits"]["train"]["hash"]
            if key not in self.data:
                found = self._at_hand((key,), rerun.rows_of, rerun.other_rows, record, split)
                if found is not None:
                    self.data[key] = found["train"]

    def _at_hand(self, keys, get, other, record, given):
        """A base, or rows; None where they are not at hand, with the reason kept under keys."""
        try:
            found = get(record, given)
            if not (wrong := other(record, found)):
                return found
        except (FtkitError, OSError) as error:
            wrong = rerun.refused(error)
        self.reasons.update(dict.fromkeys(keys, wrong))
        return None

    def explain(self, one, two, rows, notes):
        """The Explanation of two dicts of facts. rows: of the table, by difference."""
        not_tried = {name: why for name in rows if (why := self._cannot(name, two))}
        try:
            first, second = self.losses(one), self.losses(one)
        except FtkitError as error:
            notes.append(f"A cannot be run again here: {rerun.refused(error)}.")
            return self._done(rows, notes, {}, [], None, None, None,
                              {name: "A cannot be run again here" for name in rows})
        floor = _distance(first, second)
        notes.append("A repeats itself exactly." if floor == 0 else
                     f"A does not repeat itself: two runs lie {floor:.3g} apart, the floor.")
        notes += self._comes_out("A", self.a, first)
        alone = {}
        for name in rows:
            if name not in not_tried:
                try:
                    alone[name] = self.losses(_with(one, two, [name]))
                except FtkitError as error:
                    not_tried[name] = rerun.refused(error)
        moved = {name: _distance(first, found) for name, found in alone.items()}
        order = sorted(moved, key=lambda name: -moved[name])
        target = first if not order else alone[order[0]] if len(order) == 1 else self.losses(
            _with(one, two, order))
        gap, left, causes = _distance(first, target), {}, []
        for count, name in enumerate(order, 1):
            if count == 1 or count == len(order):
                found = alone[name] if count == 1 else target
            else:
                found = self.losses(_with(one, two, order[:count]))
            left[name] = _distance(found, target)
            causes.append(name)
            if left[name] <= floor:
                break
        rest = left[causes[-1]] if causes else gap
        causes = [name for name in causes if moved[name] > floor]
        notes += self._comes_out("B", self.b, target)
        notes.insert(0, self._verdict(gap, rest, floor, causes, moved, not_tried))
        for name, row in rows.items():
            row["moved the loss by"] = f"{moved[name]:.3g}" if name in moved else ""
            row["gap left"] = f"{left[name]:.3g}" if name in left else ""
            row["note"] = f"not tried here, because {not_tried[name]}" if name in not_tried else ""
            if name == TRAIN and not row["note"]:
                row["note"] = facts.which_rows([self.data[side[TRAIN]] for side in (one, two)])
        sorted_rows = {name: rows[name] for name in [*order, *not_tried]}
        return self._done(sorted_rows, notes, moved, causes, gap, floor, rest, not_tried)

    def _done(self, rows, notes, moved, causes, gap, floor, left, not_tried):
        for name, why in not_tried.items():
            rows[name]["note"] = f"not tried here, because {why}"
        return Explanation(list(rows.values()), moved, causes[0] if causes else None, causes, gap,
                           floor, left, self.updates, self.comes_out, not_tried, notes)

    def _cannot(self, name, two):
        """Why a fact of B cannot be tried, or ""."""
        kind = name.partition(" ")[0] if name.startswith("package ") else name
        if kind in FIXED:
            return FIXED[kind].format(device=this_machine().device)
        if name.endswith(GIVEN):
            return "a record cannot hold what was given"
        if name == "threads" and this_machine().device != "cpu":
            return "they are those of a processor"
        kept = {TRAIN: self.data, BASE: self.models, TOKENIZER: self.tokenizers}.get(name)
        return self.reasons[two[name]] if kept is not None and two[name] not in kept else ""

    def losses(self, chosen):
        """The losses of the first updates of a training with these facts, a list."""
        for what, kept in ((BASE, self.models), (TOKENIZER, self.tokenizers), (TRAIN, self.data)):
            if chosen[what] not in kept:
                raise SettingError(f"the {what}: {self.reasons[chosen[what]]}.")
        model, rows = self.models[chosen[BASE]], self.data[chosen[TRAIN]]
        tokenizer = self.tokenizers[chosen[TOKENIZER]]
        if tokenizer is not model.tokenizer:
            model = replace(model, tokenizer=tokenizer)
        given = rerun.arguments(self._told(chosen), own(model.net))
        given |= {"patience": None, "logging_steps": 1, "logging_strategy": "steps",
                  "eval_strategy": "no", "callbacks": [_Stop(self.updates)]}
        with rerun.apart(chosen["threads"]):
            try:
                found = rerun.train(model, rows, given).history["loss"]
            except Diverged as error:
                return [row["loss"] for row in error.history if "loss" in row] or [math.inf]
        return [float(loss) for loss in found]

    def _told(self, chosen):
        """The part "fit" of a record, from facts."""
        source = self.a.record["fit"]
        told = {name: chosen[name] for name in source
                if name not in ("method", "arguments", "left_out", "dtype")}
        names = {*source["arguments"], *self.b.record["fit"]["arguments"]}
        passed = {name: chosen[name] for name in names if name in chosen}
        if size := chosen.get(PASS):
            passed["per_device_train_batch_size"] = size
            passed["gradient_accumulation_steps"] = max(1, chosen["batch_size"] // size)
        method = chosen["method"]
        if not isinstance(method, dict):
            fields = {name.removeprefix("method: "): value for name, value in chosen.items()
                      if name.startswith("method: ")}
            method = {"class": method, "fields": fields,
                      "left_out": source["method"]["left_out"]}
        left = [name.removesuffix(GIVEN) for name in chosen if name.endswith(GIVEN)]
        return told | {"method": method, "arguments": passed, "dtype": chosen["precision"],
                       "left_out": left}

    def _comes_out(self, name, side, losses):
        """Notes whether the logged losses of a record come out again; a sentence in a list."""
        before, worst, count = 0, (0.0, 0.0, 0.0), 0
        for step, logged in side.logged():
            if before < step <= len(losses):  # logged is a mean since the last time
                again = sum(losses[before:step]) / (step - before)
                worst = max(worst, (abs(again - logged), logged, again))
                count += 1
            before = step
        if not count:
            self.comes_out[name] = None
            return [f"The record of {name} logs no loss in these {len(losses)} updates."]
        apart, logged, again = worst
        self.comes_out[name] = apart <= ROUNDING * max(1.0, abs(logged))
        if self.comes_out[name]:
            return [f"The losses that {name} logged in them come out again."]
        return [f"The losses that {name} logged do NOT come out here: {logged:.6g} then, "
                f"{again:.6g} now; what moved them is not recorded, or cannot be changed here."]

    def _verdict(self, gap, left, floor, causes, moved, not_tried):
        where = f"in the first {self.updates} updates"
        if not moved:
            return (f"What differs was not tried here ({len(not_tried)} listed)." if not_tried else
                    "No recorded difference.")
        if gap <= floor and not causes:
            return f"What differs moves nothing {where}."
        if not causes:
            return f"A gap of {gap:.3g} {where} has no cause among what could be tried."
        one = len(causes) == 1
        named = causes[0] if one else f"{', '.join(causes[:-1])} and {causes[-1]} together"
        done = f"explain{'s' * one} all of it" if left <= floor else f"leave{'s' * one} {left:.3g}"
        return (f"Main cause: {causes[0]}. The losses lie {gap:.3g} apart {where}, and {named} "
                f"{done}.")


def _with(one: Mapping[str, Any], two: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The facts of A with some of B's; what B does not have is taken out."""
    found = {name: value for name, value in one.items() if name not in names or name in two}
    return found | {name: two[name] for name in names if name in two}


def _distance(one: Sequence[float], two: Sequence[float]) -> float:
    """The mean absolute difference of losses over the updates that both have."""
    gaps = [abs(x - y) for x, y in zip(one, two, strict=False)]
    found = sum(gaps) / len(gaps)
    return found if math.isfinite(found) else math.inf
