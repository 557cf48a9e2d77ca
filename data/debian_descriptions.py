"""What Debian says of its packages: English with French or German, and text with its synopsis."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.errors import DataError

from ._options import one_of

FORMS = ("fr", "de", "synopsis")
ENTRY = DataEntry(
    title="Debian's package descriptions: to French, to German, or text to synopsis",
    licence="several, all free (each package's own)",
    link="https://www.debian.org/international/l10n/ddtp",
    needs="apt, with its lists of descriptions",
    forms=tuple({"form": form} for form in FORMS),
)
_HELPER = "/usr/lib/apt/apt-helper"  # reads a list however it is compressed
_UPDATE = "apt-get -o Acquire::Languages=fr,de,en update"


def source(form: str = "fr") -> Source:
    one_of("form", form, FORMS)
    return Source(
        lambda: _read(form), "pairs", ("source",), linked=("source",), fractions=(0.8, 0.05, 0.15)
    )


def _read(form: str) -> Rows:
    origin = {entry["Package"]: entry.get("Source", entry["Package"]).split()[0]
              for entry in stanzas(apt_lists("Packages"))}
    english = described("en")
    other = english if form == "synopsis" else described(form)
    rows = []
    for key, (package, synopsis, paragraphs) in english.items():
        if key not in other:
            continue
        _, synopsis_there, paragraphs_there = other[key]
        if form == "synopsis":
            pairs = [(paragraphs[0], synopsis)] if paragraphs else []
        else:
            pairs = [(synopsis, synopsis_there)]
            if len(paragraphs) == len(paragraphs_there):
                pairs += [pair for pair in zip(paragraphs, paragraphs_there, strict=True)
                          if _one_sentence(pair[0]) and _one_sentence(pair[1])]
        rows += [
            {"source": a, "target": b, "package": package, "group": origin.get(package, package)}
            for a, b in pairs if a != b and len(a.split()) > 2
        ]
    return rows


def described(language: str) -> dict[str, tuple[str, str, list[str]]]:
    """Return package, synopsis and paragraphs of each description, by the checksum it is known by.

    A translation has the checksum of the English that it translates, so none is out of date.
    """
    found = {}
    for entry in stanzas(apt_lists("Translations", language)):
        lines = entry.get(f"Description-{language}", "").split("\n")
        paragraphs = " ".join(line if line != "." else "\n" for line in lines[1:]).split("\n")
        found[entry["Description-md5"]] = (
            entry["Package"], lines[0].strip(),
            [" ".join(part.split()) for part in paragraphs if part.strip()],
        )
    if not found:
        raise _missing(f"no descriptions in {language!r} among apt's lists")
    return found


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the entries of a Debian control file; a field's further lines keep their breaks."""
    for block in text.split("\n\n"):
        entry: dict[str, str] = {}
        field = ""
        for line in block.split("\n"):
            if line[:1] in (" ", "\t"):
                entry[field] += "\n" + line[1:].rstrip()
            elif ":" in line:
                field, _, value = line.partition(":")
                entry[field] = value.strip()
        if "Package" in entry:
            yield entry


def apt_lists(kind: str, language: str = "") -> str:
    """Return the text of all lists of a kind that apt has on this machine."""
    if not (shutil.which("apt-get") and shutil.which(_HELPER)):
        raise _missing("there is no apt on this machine")
    wanted = [f"Created-By: {kind}", *([f"Language: {language}"] if language else [])]
    files = _output("apt-get", "-o", "Acquire::Languages=fr,de,en", "indextargets",
                    "--format", "$(FILENAME)", *wanted).split("\n")
    return "\n\n".join(_output(_HELPER, "cat-file", file) for file in files if file)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _missing(what: str) -> DataError:
    return DataError(
        f"debian-descriptions: {what}. It is read from the package lists of Debian and its "
        f"relatives; there, `{_UPDATE}` (as root, 20 MB) fetches what it needs. No lesson does."
    )


def _one_sentence(text: str) -> bool:
    return text.endswith(".") and ". " not in text and "\u2022" not in text and "* " not in text
