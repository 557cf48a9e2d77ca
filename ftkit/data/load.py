"""Loads a data set in three splits that do not leak: from the catalog, a file, or the hub."""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from ftkit.assets import catalog, fetch
from ftkit.data import files, formats, own, recipe
from ftkit.data.recipe import Source, hub_dataset, package_file
from ftkit.data.splits import FRACTIONS, SPLITS, deduplicate, merge_groups, split_of, stable_hash
from ftkit.data.values import typed
from ftkit.display import Facts
from ftkit.errors import DataError, SettingError

LONG = 200  # characters of a value that is shown

# Part of the cache key, so that changed code never meets rows of the old one. The text is read now,
# with the code that runs: edited later on, it would name rows that it did not make.
_CODE = recipe.code_of(Path(__file__))
OWN = [*own.NAMES, "task", "split", "drop_empty", "labels"]  # options for data of one's own


class Data(Facts, DatasetDict):
    """A `datasets.DatasetDict` with "train", "validation" and "test", and what they are.

    name; task ("classification", "choice", …); card, the path of its description, "" where there
    is none; rows_read, how many rows the source had before any were removed; tags, the tags of
    tagged text; notes, what was read otherwise than it is written, a sentence each; origin, the
    arguments with which load_data gives it again, {} where it came from memory.
    """

    def __init__(self, splits, *, name: str, task: str, card: str = "", rows_read: int = 0,
                 tags=None, notes=(), origin=None):
        super().__init__(splits)
        self.name = name
        self.task = task
        self.card = card
        self.rows_read = rows_read
        self.tags = tags
        self.notes = list(notes)
        self.origin = dict(origin or {})
        self._hashed: tuple[list | None, str] = (None, "")  # the splits, and their hash

    def facts(self) -> dict[str, str]:
        """What the data are, as {what: value}, with a row of train: the lines of its table."""
        rows = ", ".join(f"{split} {len(self[split]):,}" for split in self)
        first = self["train"][0] if len(self["train"]) else {}
        shown = {name: str(value) for name, value in first.items()}
        return {
            "name": self.name, "task": self.task, "labels": ", ".join(self.labels or ()),
            "rows": rows, "rows of the source": f"{self.rows_read:,}" if self.rows_read else "",
            "read otherwise than written": " ".join(self.notes), "described in": str(self.card),
            **{f"{name}, in the first row": value if len(value) < LONG else f"{value[:LONG]}…"
               for name, value in shown.items()}}

    @property
    def labels(self) -> list[str] | None:
        """The names of the classes, or the tags, in the order of their numbers; None without."""
        if self.tags:
            return list(self.tags)
        feature = self["train"].features.get("label")
        return list(feature.names) if isinstance(feature, ClassLabel) else None

    @property
    def hash(self) -> str:
        """The sha256 of the content, in hex: the same rows in the same order, the same hash."""
        now = [*self.items()]
        if now != self._hashed[0]:  # of data sets each is equal to itself alone
            digest = hashlib.sha256()
            for split, rows in now:
                for part in rows.with_format("arrow").iter(1_000):
                    for row in part.to_pylist():
                        said = json.dumps([split, row], sort_keys=True, default=str)
                        digest.update(said.encode())
            self._hashed = (now, digest.hexdigest())
        return self._hashed[1]


def load_data(source, *, n_train=None, n_validation=None, n_test=None, seed=0, **options) -> Data:
    """Return the data set `source` as Data, with "train", "validation" and "test".

    source: a catalog name (`ftkit data` lists them), a file (CSV, TSV, JSONL, JSON, BioASQ's JSON,
    Parquet, text, CoNLL), a folder (saved with `datasets`, or holding train, validation and test
    files), a hub id "owner/name", or what is in memory: a pandas DataFrame, a `datasets.Dataset`,
    or a dict of them by split.
    n_train, n_validation, n_test: how many rows to draw, all by default. The splits are fixed;
    `seed` only chooses the rows, and a smaller draw is the beginning of a larger one.
    options: for a catalog name what it offers, such as form="choice" for "phenotype-definitions"
    or hub=True; for your own data text=, label=, group=, messages= and whatever else own.NAMES
    holds (your column names), task=, split=(0.8, 0.1, 0.1), drop_empty=True (rows with an empty
    field are left out), labels= (the classes in a model's order, such as model.labels; also those
    that do not occur), sep=";" (of a table; found by itself), paragraphs=True (for a text file),
    config= and revision= (for the hub).
    `group` names the unit (a film, a patient) of which no rows may be in two splits.
    Every value of a table is read as it is written: 007, NA and null are texts. Conversations
    (`messages`, `conversations`, `prompt` and `completion`) and preferences (`prompt`, `chosen`,
    `rejected`) are recognized, and IOBES and BILOU tags become BIO.
    Warns (DataWarning) of what was read otherwise than it is written, and of what looks like a
    mistake: texts of the test split in train, labels that differ in case alone.
    Raises DataError when the rows do not fit or are fewer than asked for, SettingError for an
    unknown name or option, FetchError when the data cannot be had.
    """
    sizes = dict(zip(SPLITS, (n_train, n_validation, n_test), strict=True))
    if files.is_table(source):
        content = files.from_memory(source)
        _check_options(options, OWN, "your own data")
        return _drawn(_own_data(content, "the table", options), sizes, seed, {})
    if not isinstance(source, str | Path):
        raise DataError(f"source is a {type(source).__name__}; expected a name, a path, a pandas "
                        "DataFrame, a datasets.Dataset, or a dict of them with train, validation "
                        "and test.")
    name, path = str(source), Path(source).expanduser()
    first: dict[str, int] = {}  # rows of each split that come first in every draw
    if name in recipe.names():
        data, first = _from_recipe(name, options)
    elif path.exists():
        _check_options(options, [*OWN, "paragraphs", "sep"], "your own data")
        how = {key: options[key] for key in ("paragraphs", "sep") if key in options}
        data = _own_data(files.read_own(path, **how), path.name, options)
    elif name in [entry.name for entry in catalog.models()]:
        raise SettingError(f"{name!r} is a model. Load it with load_model.")
    elif _is_hub_id(name, path):
        _check_options(options, [*OWN, "config", "revision"], "your own data")
        splits = hub_dataset(name, options.get("config"), options.get("revision"))
        with _no_progress_bars():
            columns = files.from_datasets(splits)
        data = _own_data(columns, name, options)
    elif "/" in name or path.suffix:
        raise DataError(f"There is no file or folder {name!r} (looked in {Path.cwd()}).")
    else:
        raise SettingError(f"{name!r} is not a data set of the catalog, a file or a hub id. "
                           f"{catalog.nearest(name, recipe.names())}")
    asked = {f"n_{split}": size for split, size in sizes.items()}
    origin = {"source": name, **asked, "seed": seed, **options}
    return _drawn(data, sizes, seed, first, origin)


def _drawn(data: Data, sizes: dict, seed: int, first: dict[str, int],
           origin: dict | None = None) -> Data:
    """Return the data with so many rows of each split."""
    drawn = {split: _draw(data, split, sizes[split], seed, first.get(split, 0)) for split in SPLITS}
    return Data(drawn, name=data.name, task=data.task, card=data.card, rows_read=data.rows_read,
                tags=data.tags, notes=data.notes, origin=origin)


def _is_hub_id(name: str, path: Path) -> bool:
    local = name.startswith((".", "~", "/")) or path.suffix.lower() in files.READERS
    return name.count("/") == 1 and not local


def split_rows(rows: list[dict], source: Source) -> dict[str, list[dict]]:
    """Return the rows of each split: no near-duplicate twice, no group in two splits."""
    texts = [_joined(row, source.unique) for row in rows]
    kept = [rows[i] for i in deduplicate(texts, near=source.near)]
    if source.linked:
        texts = [_joined(row, source.linked) for row in kept]
        groups = merge_groups([row["group"] for row in kept], texts)
        kept = [{**row, "group": group} for row, group in zip(kept, groups, strict=True)]
    fixed = {row["group"]: row["split"] for row in kept if row.get("split")}
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for row in sorted(kept, key=lambda row: (not row.get("first"), stable_hash(str(row["group"])))):
        split = fixed.get(row["group"]) or split_of(row["group"], source.fractions)
        splits[split].append({**row, "group": _short(row["group"])})
    if source.per_kind:
        splits = {split: _some_of_each_kind(members, source.per_kind[split])
                  for split, members in splits.items()}
    return splits


def _short(group: str) -> str:
    """Return a group as it is, or a hash of it where a group is a whole text."""
    return group if len(group) <= 60 else stable_hash(group)[:16]


def _some_of_each_kind(rows: list[dict], most: int) -> list[dict]:
    """Return at most so many rows of each kind, from as many groups as there are."""
    counts: dict[str, int] = {}
    kept = []
    for row in sorted(rows, key=lambda row: (not row.get("first"), stable_hash(row["input"]))):
        counts[row["kind"]] = counts.get(row["kind"], 0) + 1
        if counts[row["kind"]] <= most:
            kept.append(row)
    return kept


def _joined(row: dict, columns: tuple[str, ...]) -> str:
    values = (row[column] for column in columns)
    return " ".join(value if isinstance(value, str) else " ".join(value) for value in values)


def _from_recipe(name: str, options: dict) -> tuple[Data, dict[str, int]]:
    """Return a data set of the catalog, and how many rows of a split come first in every draw."""
    found = recipe.find(name)
    _check_options(options, list(inspect.signature(found.source).parameters), name)
    source = found.source(**options)

    def build(folder: Path) -> None:
        rows = source.read()
        splits = split_rows(rows, source)
        first = {split: sum(bool(row.get("first")) for row in splits[split]) for split in splits}
        facts = {"rows_read": len(rows), "first": first}
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        with _no_progress_bars():
            columns = {split: files.as_columns({k: v for k, v in row.items()
                                                if k not in ("split", "first")} for row in members)
                       for split, members in splits.items()}
            _to_datasets(columns, source.labels).save_to_disk(str(folder))

    folder = fetch.cached_folder(cache_key(found, options), build)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    # in memory, or `map` would keep its results beside the files of the cache
    splits = datasets.load_from_disk(str(folder), keep_in_memory=True)
    data = Data(splits, name=name, task=source.task, card=str(package_file(found.entry.card)),
                rows_read=facts["rows_read"],
                tags=source.labels if source.task == "tagging" else None)
    return data, facts["first"]


def cache_key(found: recipe.Recipe, options: dict) -> str:
    """Return where the cache keeps the rows of a recipe, with all that decides them in its name."""
    offered = inspect.signature(found.source).parameters
    chosen = {key: options.get(key, parameter.default) for key, parameter in offered.items()}
    archives = [catalog.ARCHIVES[archive].sha256 for archive in found.entry.archives]
    content = json.dumps(
        [chosen, archives, found.entry.revision, found.code, _CODE, datasets.__version__]
    )
    return f"data/{found.entry.name}-{stable_hash(content)[:16]}"


def _own_data(content, name: str, options: dict) -> Data:
    """Return Data of columns, or of splits of them; a split that is missing is taken from train."""
    given = content if next(iter(content), None) in SPLITS and isinstance(
        next(iter(content.values())), dict) else {"train": content}
    if "train" not in given:
        raise DataError(f"{name} has no train split, only {', '.join(given) or 'none'}.")
    names, labels = {column: options.get(column) for column in own.NAMES}, options.get("labels")
    split, notes = tuple(options.get("split", FRACTIONS)), list[str]()
    called = {part: f"{name} ({part})" if len(given) > 1 else name for part in given}
    rows_read = sum(map(files.count, given.values()))
    for part, columns in given.items():
        columns = own.named_columns(own.trimmed(columns, called[part], notes), names, called[part])
        given[part] = formats.recognized(columns, called[part])
    task = own.find_task(given["train"], options.get("task"), name, notes)
    for part, columns in given.items():
        own.find_task(columns, task, called[part], notes)
        columns = own.filled(columns, task, called[part], options.get("drop_empty", False), notes)
        given[part] = typed(columns, own.COLUMNS[task], task, called[part], notes)
    if task == "tagging":
        given = own.read_tags(given, name, notes)
    if len(given) > 1:
        own.check_shared(given, name, notes)
    absent = [part for part in SPLITS if part not in given]
    if absent:
        kept = 1 - sum(share for part, share in zip(SPLITS, split, strict=True) if part in absent)
        shares = tuple(kept if part == "train" else share if part in absent else 0.0
                       for part, share in zip(SPLITS, split, strict=True))
        parts = own.split_own(given["train"], shares if len(given) > 1 else split, name)
        given = {part: parts[part] if part == "train" or part in absent else given[part]
                 for part in SPLITS}
    tags = classes = None
    if labels and task != "classification":
        raise DataError(f"labels= names classes, and {name} is read as {task}; leave it out, or "
                        'give task="classification".')
    if task == "tagging":
        tags = own.label_names(given, task, name, notes)
    elif task == "classification":
        classes = (own.check_labels(given, labels, name, notes) if labels
                   else own.label_names(given, task, name, notes))
        numbers = {label: number for number, label in enumerate(classes)}
        given = {part: columns | {"label": [numbers[label] for label in columns["label"]]}
                 for part, columns in given.items()}
    return Data(_to_datasets(given, classes), name=name, task=task, rows_read=rows_read, tags=tags,
                notes=notes)


def _check_options(options: dict, offered: list[str], name: str) -> None:
    for option in options:
        if option not in offered:
            hint = catalog.nearest(option, offered) if offered else "It has none."
            raise SettingError(f"{option!r} is not an option of {name}. {hint}")


def _to_datasets(splits: files.Splits, labels: tuple[str, ...] | None) -> DatasetDict:
    """Return columns as datasets whose columns have the same types in every split."""
    sample: dict = {}  # the first value of each column that has one
    for columns in splits.values():
        for column, values in columns.items():
            if sample.get(column) in (None, []):
                sample[column] = next((v for v in values if v not in (None, [])), [])
    features = Features({column: ClassLabel(names=list(labels)) if column == "label" and labels
                         else _feature(value) for column, value in sample.items()})
    return DatasetDict({
        split: Dataset.from_dict(
            {column: columns.get(column, [None] * files.count(columns)) for column in sample},
            features=features,
        ) for split, columns in splits.items()
    })


def _feature(value):
    if isinstance(value, list):
        return List(_feature(value[0]) if value else Value("string"))
    if isinstance(value, dict):
        return {name: _feature(part) for name, part in value.items()}
    kinds = {bool: "bool", int: "int64", float: "float64"}
    return Value(kinds.get(type(value), "string"))


@contextmanager
def _no_progress_bars():
    """Silence the bars of `datasets` for a step that takes milliseconds."""
    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not silent:
            datasets.enable_progress_bars()


def _draw(data: Data, split: str, n: int | None, seed: int, first: int) -> Dataset:
    import numpy as np

    rows = data[split]
    if n is not None and not 0 <= n <= len(rows):
        raise DataError(f"n_{split}={n}: {data.name!r} has {len(rows)} rows in its {split} split. "
                        f"Ask for at most that, or leave n_{split} out for all of them.")
    drawn = np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(rows))
    drawn = np.concatenate([np.arange(first), drawn[drawn >= first]])
    if data.task == "instruction" and "kind" in rows.column_names:
        drawn = _in_turn(drawn, np.array(rows["kind"][:]))
    return rows.select(drawn[:n])


def _in_turn(drawn, kinds):
    """Return the order with the kinds taking turns, so that a small draw has as many of each."""
    import numpy as np

    turns = np.empty(len(drawn), int)
    for kind in np.unique(kinds):
        chosen = kinds[drawn] == kind
        turns[chosen] = np.arange(chosen.sum())
    return drawn[np.argsort(turns, kind="stable")]
