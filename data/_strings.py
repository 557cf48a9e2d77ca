"""Rows of software strings with their translation, whatever program they are from."""

from __future__ import annotations

import re

from ftkit.data.splits import normalized

_MARKUP = re.compile(r"%[(%sdr\d]|\{|<|https?:|\n")


def pair(source: str, target: str, kind: str) -> dict:
    """Return a row; `placeholders` marks a string with a variable, markup or a line break in it."""
    return {
        "source": source.strip(),
        "target": target.strip(),
        "kind": kind,
        "placeholders": bool(_MARKUP.search(source)),
        "group": normalized(source),
    }
