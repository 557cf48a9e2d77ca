"""Hashes of rows: whether two data sets are the same, and which rows came or went."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ftkit import compat

REMEMBERED = 64  # hashes of splits, by their fingerprints
_SEEN: dict[str, str] = {}


def row_hash(row: Mapping[str, Any]) -> str:
    """A hash of one row, 16 hex digits; a changed byte of any column changes it."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16]


def row_hashes(data: Any) -> dict[str, list[str]]:
    """A hash of each row, 16 hex digits, by split; a data set without splits is one, "train"."""
    splits = data if isinstance(data, Mapping) else {"train": data}
    return {name: [row_hash(row) for row in split] for name, split in splits.items()}


def hash_of_split(split: Any) -> str:
    """The split_hash of a Dataset's rows; of one that was asked about before it is remembered."""
    known = compat.fingerprint(split)  # another for every change of a Dataset
    if known is None:
        return split_hash(row_hash(row) for row in split)
    if known not in _SEEN:
        while len(_SEEN) >= REMEMBERED:
            _SEEN.pop(next(iter(_SEEN)))
        _SEEN[known] = split_hash(row_hash(row) for row in split)
    return _SEEN[known]


def split_hash(rows: Iterable[str]) -> str:
    """The sha256 of the hashes of rows, in hex: the same rows in the same order, the same hash."""
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
