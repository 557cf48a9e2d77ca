"""Loads a data set in fixed splits that do not leak: from the catalog, a file, or the hub."""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_from_disk

from ftkit import catalog
from ftkit.errors import DataError, SettingError
from ftkit.fetch import cached_folder
from ftkit.sources import SOURCES, Source
from ftkit.splits import SPLITS, distinct, linked, order, split_of

# Their text is part of the cache key, so that a changed reader never meets rows of the old one.
_CODE = ("data.py", "sources.py", "phenotypes.py", "instructions.py", "splits.py")
CARDS = Path(__file__).resolve().parent.parent / "data"

_COLUMNS = {
    "classification": ("text", "label"), "regression": ("text", "label"),
    "tagging": ("tokens", "tags"), "choice": ("question", "choices", "answer"),
    "qa": ("question", "answers"), "text": ("text",), "pairs": ("source", "target"),
    "instruction": ("kind", "instruction", "input", "output"),
}


class Data(DatasetDict):
    """A `datasets.DatasetDict` with "train", "validation" and "test", and what they are."""

    def __init__(self, splits, *, name: str, task: str, card: str = ""):
        super().__init__(splits)
        self.name = name
        self.task = task
        self.card = card

    @property
    def labels(self) -> list[str] | None:
        """The class names in the order of their numbers; None where there are none."""
        feature = self["train"].features.get("label")
        return list(feature.names) if isinstance(feature, ClassLabel) else None

    @cached_property
    def hash(self) -> str:
        """The sha256 of the content, in hex: the same rows in the same order, the same hash."""
        digest = hashlib.sha256()
        for split in self:
            for row in self[split]:
                digest.update(json.dumps([split, row], sort_keys=True, default=str).encode())
        return digest.hexdigest()


def load_data(source, *, n_train=None, n_validation=None, n_test=None, seed=0, **options) -> Data:
    """Return the data set `source` as Data, with "train", "validation" and "test".

    source: a catalog name. The splits are fixed; `seed` only chooses which n_train, n_validation
    and n_test rows are drawn (all by default), and a smaller draw is the beginning of a larger one.
    options: what the data set offers, such as form="choice" for "phenotype-definitions".
    Raises DataError when there are fewer rows than asked for, SettingError for an unknown name or
    option, FetchError when the archive cannot be had.
    """
    data = _from_catalog(source, options)
    sizes = dict(zip(SPLITS, (n_train, n_validation, n_test), strict=True))
    drawn = {split: _draw(data, split, sizes[split], seed) for split in SPLITS}
    return Data(drawn, name=data.name, task=data.task, card=data.card)


def split_rows(rows: list[dict], source: Source) -> dict[str, list[dict]]:
    """Return the rows of each split: no near-duplicate twice, no group in two splits."""
    texts = [_joined(row, source.unique) for row in rows]
    kept = [rows[i] for i in distinct(texts, near=source.near)]
    if source.linked:
        texts = [_joined(row, source.linked) for row in kept]
        groups = linked([row["group"] for row in kept], texts)
        kept = [{**row, "group": group} for row, group in zip(kept, groups, strict=True)]
    fixed = {row["group"]: row["split"] for row in kept if row.get("split")}
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for row in kept:
        split = fixed.get(row["group"]) or split_of(row["group"], source.fractions)
        splits[split].append({key: value for key, value in row.items() if key != "split"})
    if source.per_split:
        splits = {
            split: _first_of_each_kind(members, source.per_split[split])
            for split, members in splits.items()
        }
    return splits


def _first_of_each_kind(rows: list[dict], most: int) -> list[dict]:
    counts: dict[str, int] = {}
    kept = []
    for row in sorted(rows, key=lambda row: order(row["group"])):
        counts[row["kind"]] = counts.get(row["kind"], 0) + 1
        if counts[row["kind"]] <= most:
            kept.append(row)
    return kept


def _joined(row: dict, columns: tuple[str, ...]) -> str:
    return " ".join(row[column] for column in columns)


def _from_catalog(name: str, options: dict) -> Data:
    entry = catalog.find(name)
    if name not in SOURCES:
        raise SettingError(f"{name!r} is a model; load it with load_model.")
    make = SOURCES[name]
    known = list(inspect.signature(make).parameters)
    for option in options:
        if option not in known:
            offers = f"It offers {', '.join(known)}." if known else "It has none."
            raise SettingError(f"{name!r} has no option {option!r}. {offers}")
    source = make(**options)
    chosen = {
        option: options.get(option, parameter.default)
        for option, parameter in inspect.signature(make).parameters.items()
    }
    content = json.dumps([
        chosen, [catalog.ARCHIVES[archive].sha256 for archive in entry.archives], _code_hash(),
    ])

    def build(folder: Path) -> None:
        splits = split_rows(source.read(), source)
        features = _features(splits["train"][0], source)
        with _no_progress_bars():
            DatasetDict({
                split: Dataset.from_list(rows, features=features) for split, rows in splits.items()
            }).save_to_disk(str(folder))

    folder = cached_folder(f"data/{name}-{order(content)[:16]}", build)
    return Data(load_from_disk(str(folder)), name=name, task=source.task,
                card=str(CARDS / entry.card))


@cache
def _code_hash() -> str:
    folder = Path(__file__).parent
    return order(*(folder.joinpath(file).read_text(encoding="utf-8") for file in _CODE))


@contextmanager
def _no_progress_bars():
    """Silence the bars of `datasets` for a step that takes milliseconds."""
    import datasets

    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _features(row: dict, source: Source) -> Features:
    features = {}
    for column, value in row.items():
        if column == "label" and source.labels:
            features[column] = ClassLabel(names=list(source.labels))
        elif isinstance(value, list):
            features[column] = List(Value("string"))
        else:
            kinds = {bool: "bool", int: "int64", float: "float64"}
            features[column] = Value(kinds.get(type(value), "string"))
    return Features(features)


def _draw(data: DatasetDict, split: str, n: int | None, seed: int) -> Dataset:
    import numpy as np

    rows = data[split]
    if n is not None and not 0 <= n <= len(rows):
        raise DataError(
            f"n_{split}={n}: {data.name!r} has {len(rows)} rows in its {split} split. "
            f"Ask for at most that, or leave n_{split} out for all of them."
        )
    drawn = np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(rows))
    if data.task == "instruction" and "kind" in rows.column_names:
        drawn = _in_turn(drawn, rows["kind"][:])
    return rows.select(drawn[:n])


def _in_turn(drawn, kinds: list[str]):
    """Return the order with the kinds taking turns, so that a small draw has as many of each."""
    place: dict[str, int] = {}
    turns = []
    for position in drawn:
        kind = kinds[position]
        place[kind] = place.get(kind, 0) + 1
        turns.append(place[kind])
    return [position for _, position in sorted(zip(turns, drawn, strict=True), key=lambda t: t[0])]
