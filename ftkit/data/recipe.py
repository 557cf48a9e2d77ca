"""Data sets of the course: how one is described, and how its recipe is found in the folder `data/`.

NAME.md is the card of a data set and NAME.py (with _ for -) its recipe, which has `ENTRY`, a
DataEntry, and `source(**options)`, which returns a Source. No list names them; files that begin
with _ are what recipes share.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ftkit.assets import catalog, fetch
from ftkit.assets.catalog import ARCHIVES, Archive, ModelEntry
from ftkit.data.splits import FRACTIONS, stable_hash
from ftkit.errors import DataError, FetchError, SettingError

Rows = list[dict]
_PACKAGE = "ftkit._data"  # what the folder of the recipes is called among the modules
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class DataEntry:
    """What a data set is, the archives it is read from, and the hub repository of the same rows.

    revision: a full commit of that repository. forms: the options of each form of a data set that
    has several, the default first. link: where to read more. needs: what not every machine has.
    `name` and `task` are set where it is found.
    """

    title: str
    licence: str
    archives: tuple[str, ...] = ()
    hub: str | None = None
    revision: str | None = None
    warning: str = ""
    forms: tuple[dict[str, str], ...] = ({},)
    link: str = ""
    needs: str = ""
    name: str = ""
    task: str = ""

    @property
    def card(self) -> str:
        """The file of the folder `data/` that describes it."""
        return f"{self.name}.md"

    @property
    def size(self) -> int:
        """Bytes to download (archives are shared between data sets)."""
        return sum(ARCHIVES[name].size for name in self.archives)


@dataclass(frozen=True)
class Source:
    """How a data set is read, cleaned and split.

    Every row has `group`, the unit that stays in one split. A row with `split` puts its group
    there; one with `first` comes first in every draw. unique: columns that, read together, may
    occur only once. near: whether near-duplicates count there too. linked: columns whose
    near-duplicates stay in one split. per_kind: at most so many rows of each `kind`, for each
    split.
    """

    read: Callable[[], Rows]
    task: str
    unique: tuple[str, ...]
    near: bool = True
    linked: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    fractions: tuple[float, float, float] = FRACTIONS
    per_kind: dict[str, int] | None = None


@dataclass(frozen=True)
class Recipe:
    """A recipe that was found: its entry, its function `source`, and the hash of what it runs."""

    entry: DataEntry
    source: Callable[..., Source]
    code: str


def package_file(name: str) -> Path:
    """Return a file of the data folder: beside the package in a clone, inside it when installed."""
    inside = _HERE.parent / "_data"
    return (inside if inside.is_dir() else _HERE.parents[1] / "data") / name


def names() -> list[str]:
    """Return the names of the data sets that have a recipe."""
    return sorted(path.stem.replace("_", "-") for path in package_file("").glob("[!_]*.py"))


def entries() -> list[DataEntry]:
    """Return the entries of all data sets."""
    return [find(name).entry for name in names()]


def archives() -> dict[str, Archive]:
    """Return the pinned archives of models and data sets by their names."""
    used: list[ModelEntry | DataEntry] = [*catalog.models(), *entries()]  # a recipe pins its own
    return {name: ARCHIVES[name] for entry in used for name in entry.archives}


@cache
def find(name: str) -> Recipe:
    """Return the recipe of a data set.

    Raises SettingError, with the nearest name, where there is none, DataError where it is
    incomplete.
    """
    if name not in names():
        raise SettingError(f"{name!r} is not a data set. {catalog.nearest(name, names())}")
    stem = name.replace("-", "_")
    path = package_file(f"{stem}.py")
    # before it runs: edited later on, the text would name rows that it did not make
    code = stable_hash(
        code_of(path), *(_text(table) for table in sorted(path.parent.glob("*.csv")))
    )
    recipe = module(stem)
    entry, source = getattr(recipe, "ENTRY", None), getattr(recipe, "source", None)
    if not isinstance(entry, DataEntry) or not callable(source):
        raise DataError(f"{path} is no recipe: expected ENTRY = DataEntry(…) and a function "
                        "source() that returns a Source. A file that recipes share begins with _.")
    return Recipe(replace(entry, name=name, task=source().task), source, code)


def module(stem: str) -> ModuleType:
    """Return a module of the data folder, which is a package to Python, so that they can import
    each other relatively."""
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(package_file(""))]
        sys.modules[_PACKAGE] = package
    return import_module(f"{_PACKAGE}.{stem}")


def code_of(path: Path) -> str:
    """Return a hash of a file and of all that it imports, directly or not, of `data/` (relatively)
    and `ftkit.data`: the code that decides which rows there are."""
    texts: dict[Path, str] = {}
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path not in texts and path.is_file():
            texts[path] = _text(path)
            waiting += _imported(texts[path], path.parent)
    return stable_hash(*(texts[path] for path in sorted(texts, key=lambda path: path.name)))


@cache
def _imported(text: str, folder: Path) -> list[Path]:
    """Return where the modules that a text imports would be."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            inside = node.module or ""
            if node.level == 0:
                if not f"{inside}.".startswith("ftkit.data."):
                    continue
                base, inside = _HERE, inside.removeprefix("ftkit.data").removeprefix(".")
            else:
                base = folder
            stems = [inside] if inside else [alias.name for alias in node.names]
            found += [base / f"{stem}.py" for stem in stems]
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def hub_dataset(repository: str, config: str | None = None, revision: str | None = None):
    """Return a data set of the hub, a `datasets.DatasetDict`; FetchError where it is not given."""
    if fetch.offline():
        raise FetchError(f"{repository!r} is on the hub and FTKIT_OFFLINE forbids the network. "
                         "Unset it, or use a data set of the catalog (`ftkit data` lists them) or "
                         "a local file.")
    import datasets

    try:
        return datasets.load_dataset(repository, config, revision=revision)
    except Exception as error:  # the hub's client raises many kinds; each means the same here
        raise FetchError(f"The hub did not give {repository!r} (revision "
                         f"{revision or 'main'}): {error} Check the name, the network, "
                         "and whether it needs a login.") from error
