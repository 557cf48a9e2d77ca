"""The English strings of JupyterLab with their French translation."""

from __future__ import annotations

import json

from ftkit.assets.fetch import open_archive
from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import JUPYTERLAB
from ._strings import pair

ENTRY = DataEntry(
    title="English strings of JupyterLab with their French",
    licence="BSD-3-Clause",
    link="https://github.com/jupyterlab/language-packs",
    archives=(JUPYTERLAB,),
)


def source() -> Source:
    return Source(strings, "pairs", ("source",), fractions=(0.6, 0.1, 0.3))


def strings() -> Rows:
    """Return a row a string; `kind` is the extension of JupyterLab that it is from."""
    rows = []
    with open_archive(JUPYTERLAB) as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith(".json") or "/LC_MESSAGES/" not in member:
                continue
            kind = member.rsplit("/", 1)[-1].removesuffix(".json")
            for source, targets in json.loads(archive.read(member)).items():
                # the empty source holds the headers; a context may stand before the string
                if source and len(targets) == 1 and targets[0]:
                    rows.append(pair(source.rsplit("\x04", 1)[-1], targets[0], kind))
    return rows
