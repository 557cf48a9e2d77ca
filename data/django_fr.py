"""The English strings of the web framework Django with their French translation."""

from __future__ import annotations

from ftkit.assets.fetch import open_archive
from ftkit.data.recipe import DataEntry, Rows, Source

from ._archives import DJANGO
from ._strings import pair

ENTRY = DataEntry(
    title="English strings of a web framework with their French",
    licence="BSD-3-Clause",
    link="https://www.djangoproject.com",
    archives=(DJANGO,),
)


def source() -> Source:
    return Source(strings, "pairs", ("source",), fractions=(0.6, 0.1, 0.3))


def strings() -> Rows:
    """Return a row a string; `kind` is the part of Django that it is from."""
    import polib

    rows = []
    with open_archive(DJANGO) as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith(".po") or "/locale/fr/" not in member:
                continue
            kind = member.split("/locale/")[0].rsplit("/", 1)[-1].replace("conf", "core")
            for entry in polib.pofile(archive.read(member).decode("utf-8")):
                if entry.translated() and not entry.fuzzy:
                    rows += [pair(source, target, kind) for source, target in _both(entry)]
    return rows


def _both(entry) -> list[tuple[str, str]]:
    """Return the (English, French) pairs of a PO entry: one, or singular and plural."""
    if not entry.msgid_plural:
        return [(entry.msgid, entry.msgstr)]
    french = [entry.msgstr_plural[number] for number in sorted(entry.msgstr_plural)]
    return [(entry.msgid, french[0]), (entry.msgid_plural, french[-1])]
