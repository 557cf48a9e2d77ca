"""Reads a data set from the hub, at the revision that its entry pins."""

from __future__ import annotations

from collections.abc import Iterator

from ftkit.data.recipe import DataEntry, hub_dataset


def hub_rows(entry: DataEntry, config: str | None = None) -> Iterator[dict]:
    """Yield the rows of every split of the hub repository of an entry."""
    for split in hub_dataset(entry.hub, config, entry.revision).values():
        yield from split
