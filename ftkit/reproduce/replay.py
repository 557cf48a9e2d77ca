"""Does a run again from its capsule, without a network, and compares what comes out."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from ftkit.batch import notebook as nb
from ftkit.batch.report import differences
from ftkit.batch.run import MACHINERY, run_batch
from ftkit.display import Table
from ftkit.errors import DataError, Diverged, FtkitError, SettingError
from ftkit.models.hardware import this_machine
from ftkit.reproduce import capsule as packed
from ftkit.reproduce import rerun

TOLERANCE = 1e-3  # of losses, in their own units
WAY = 0.05  # share of the way from the base by which weights may differ, and losses agree


@dataclass
class Replay:
    """What came out when a run was done again from its capsule.

    rows: one for each thing that was compared, a dict of strings. differs: what did not come out,
    in words. failed: why it could not be done, in words; neither the run nor the capsule is blamed.
    """

    tolerance: float
    rows: list[dict[str, str]] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 where all came out again, 1 where something differs, 3 where it could not be done."""
        return 3 if self.failed else int(bool(self.differs))

    def add(self, what: str, then: str, now: str, same: bool | None) -> None:
        """Add a row. same: whether it is as it should be, None where it is only noted."""
        said = {None: "noted", True: "the same", False: "DIFFERS"}[same]
        self.rows.append({"what": what, "recorded": then, "here": now, "verdict": said})
        if same is False:
            self.differs.append(f"{what}: {then}, and here {now}" if then else f"{what}: {now}")

    def table(self) -> Table:
        """All that was compared."""
        said = "; ".join([*(f"could not be done: {why}" for why in self.failed), *self.differs])
        return Table(self.rows, f"replay: {said or 'the same'} (losses within {self.tolerance:g})")

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def replay(file: str | Path, *, base: Any = None, data: Any = None, tolerance: float = TOLERANCE,
           notebook: bool | None = None) -> Replay:
    """Do a run again from a capsule of `ft.capsule`, offline in a fresh folder, and compare.

    base: a Model, or what ft.load_model takes, where the base is not found by its recorded name.
    data: splits, or a name or path, where the rows are neither in the capsule nor found as they
    were then. tolerance: by how much a loss may differ. notebook: whether a notebook in it is run;
    a notebook is code of whoever packed it, and runs with all that you may do on this machine, so
    that it has to be said: True or False.
    First the sha256 of each file is compared, then the hashes of base and rows; with these the
    training is run as recorded. Compared are all logged losses and, as a share of the way from the
    base, the weights (up to 5%); of a notebook each claim, by its interval. Packages and
    machine are noted: they may be the reason where something differs. Nothing is kept.
    Returns a Replay, which shows itself as a table. Raises SettingError for a tolerance below 0 or
    where `notebook` has to be said; DataError for a file that is no capsule, or not safe to open.
    """
    if not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise SettingError(f"tolerance={tolerance!r}: a number from 0 on is expected.")
    found = Replay(float(tolerance))
    with tempfile.TemporaryDirectory(prefix="ftkit-") as scratch:
        folder = Path(scratch) / "capsule"
        folder.mkdir()
        wrong = packed.unpack(file, folder)
        files = sum(path.is_file() for path in folder.rglob("*"))
        found.add("files", "", "; ".join(wrong) or f"{files} as in the manifest", not wrong)
        if wrong:  # what was changed is not run
            return found
        has_code = (folder / packed.NOTEBOOK).is_file()
        if has_code and notebook is None:
            raise SettingError(f"{file} holds a notebook, whose code would run here with all that "
                               "you may do. Say whether: notebook=True (--notebook run) for a "
                               "capsule that you trust, else notebook=False (--notebook skip).")
        try:
            run = rerun.recorded(folder)
            if run.missing:
                raise DataError(f"its record lacks {', '.join(run.missing)}.")
        except DataError as error:
            raise DataError(f"{file} holds no run that can be done again: {error}") from None
        _note(found, folder, run.record)
        with patch.dict(os.environ, FTKIT_OFFLINE="1", HF_HUB_OFFLINE="1"):
            _train(found, folder, run, base, data, has_code)
            if has_code:
                _claims(found, folder, bool(notebook))
    return found


def _note(found, folder, record):
    others, machine = packed.packages(folder), this_machine()
    shown = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
    found.add("packages", f"{len((folder / packed.LOCK).read_text().splitlines())} versions",
              shown or "the same", None)
    then = record["hardware"]
    found.add("machine", f"{then['device']}, {then['name']}, {then['threads']} threads",
              f"{machine.device}, {machine.name}", None)


def _train(found, folder, run, base, data, has_code):
    record = run.record
    try:
        model = rerun.base_model(record, base)
    except (FtkitError, OSError, ValueError) as error:
        found.failed.append(f"the base: {packed.readable(error)}")
        return
    wrong = rerun.other_base(record, model)
    found.add("base", f"{record['base']['name']} {record['base']['hash'][:12]}",
              wrong or model.fingerprint()[:12], not wrong)
    inside = folder / packed.DATA
    try:
        rows = rerun.rows_of(record, packed.read_rows(inside) if inside.is_dir() and data is None
                             else data)
    except (FtkitError, OSError, ValueError) as error:
        found.failed.append(f"the data: {packed.readable(error)}")
        return
    other = rerun.other_rows(record, rows)
    known = ", ".join(f"{facts['rows']:,} {name}" for name, facts in record["splits"].items())
    found.add("data", f"{known} rows", other or "the same hashes", not other)
    if wrong or other:
        return
    try:
        given = rerun.arguments(record["fit"], record["base"]["dtype"])
    except SettingError as error:
        if not has_code:
            raise
        found.add("training", "", f"not run by itself: {rerun.refused(error)}", None)
        return
    threads = record["hardware"]["threads"] if this_machine().device == "cpu" else None
    with rerun.apart(threads) as scratch:
        try:
            again = rerun.train(model, {name: rows[name] for name in record["splits"]}, given)
        except Diverged as error:
            found.add("training", "to its end", str(error), False)
            return
        except (FtkitError, OSError, MemoryError, RuntimeError) as error:
            found.failed.append(f"the training: {packed.readable(error)}")
            return
        again.model.save(scratch / packed.MODEL)
        _losses(found, run, again)
        _weights(found, folder / packed.MODEL, scratch / packed.MODEL, model)


def _losses(found, run, again):
    for column, name in (("loss", "training loss"), ("eval_loss", "validation loss")):
        then = {row["step"]: row[column] for row in run.history if row.get(column) is not None}
        if not then:
            continue
        rows = again.history.dropna(subset=[column]) if column in again.history else []
        now = dict(zip(rows["step"], rows[column], strict=True)) if len(rows) else {}
        if then.keys() != now.keys():
            found.add(name, f"logged {len(then)} times", f"{len(now)} times, or elsewhere", False)
            continue
        worst = max(abs(then[step] - now[step]) for step in then)
        last = max(then)
        found.add(name, f"{then[last]:.6g} at the end", f"{now[last]:.6g}; at most {worst:.2g} "
                  f"apart in {len(then)} places", worst <= found.tolerance)


def _weights(found, then, now, base):
    """Compare the stored weights with the new ones, as a share of the way from the base."""
    sides = [{}, {}]
    for tensors, folder in zip(sides, (then, now), strict=True):
        for path in sorted(folder.rglob("*.safetensors")):
            tensors |= {f"{path.name} {name}": value for name, value in load_file(path).items()}
    one, two = sides
    if {k: v.shape for k, v in one.items()} != {k: v.shape for k, v in two.items()}:
        found.add("weights", f"{len(one)} tensors", "others, or of other shapes", False)
        return
    start, apart, way = base.net.state_dict(), 0.0, 0.0
    for name, stored in one.items():
        first = start.get(name.partition(" ")[2])
        at = first.cpu().double() if first is not None and first.shape == stored.shape else 0.0
        apart += float(((stored.double() - two[name].double()) ** 2).sum())
        way += float(((stored.double() - at) ** 2).sum())
    same = all(torch.equal(stored, two[name]) for name, stored in one.items())
    share = (apart / way) ** 0.5 if way else float(apart > 0)
    found.add("weights", f"{len(one)} tensors", "bit for bit the same" if same else
              f"{share:.2g} of the way from the base apart", share <= WAY)


def _claims(found, folder, run_it):
    stored = json.loads((folder / packed.CLAIMS).read_text())
    if not run_it:
        found.add("claims", f"{len(stored)} claims", "not run again (notebook=False)", None)
        return
    path = folder / packed.NOTEBOOK
    given = nb.read(path)["metadata"].get("ftkit", {}).get("parameters", {})
    [record] = run_batch([path], parameters=given, out=folder.parent / "out", report=str)
    if record["status"] in MACHINERY:
        found.failed.append(f"the notebook: {record['status']}: {record['message']}")
        return
    if record["status"] not in ("ok", "claim not held"):
        found.add("claims", f"{len(stored)} claims", record["message"], False)
        return
    wrong = differences(stored, record["claims"])
    held = sum(bool(claim["held"]) for claim in record["claims"])
    found.add("claims", f"{sum(bool(c['held']) for c in stored)} of {len(stored)} held",
              "; ".join(wrong) or f"{held} of {len(record['claims'])} held, by their intervals",
              not wrong)
