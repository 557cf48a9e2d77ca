"""`ftkit start FOLDER`: writes the lessons, their solutions and the data cards into a folder.

They travel inside the wheel, so that nobody needs a checkout of the repository.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from ftkit.assets import atomic
from ftkit.errors import FetchError

NOTE = ".ftkit-lessons.json"  # what was written, so that later changes are seen
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass
class Started:
    """What a start did. Each a list of paths, relative to the folder and sorted.

    written: new, or of an older version and unchanged since. same: there already. kept: changed by
    somebody, and left as they are.
    """

    folder: Path
    written: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def lessons() -> dict[str, Path]:
    """The files that belong to the lessons: {path in the new folder: the file}, sorted."""
    inside = (_PACKAGE / "_lessons").is_dir()
    home = {"notebooks": "_lessons", "data": "_data"} if inside else {}
    found: dict[str, Path] = {}
    for name, pattern in (("notebooks", "*.ipynb"), ("notebooks", "solutions/*.ipynb"),
                          ("data", "*.md")):
        root = (_PACKAGE if inside else _PACKAGE.parent) / home.get(name, name)
        found |= {f"{name}/{path.relative_to(root).as_posix()}": path
                  for path in root.glob(pattern)}
    if not found:
        raise FetchError(
            f"the lessons are not beside the package in {_PACKAGE}; install ftkit again from its "
            "wheel or its repository."
        )
    return dict(sorted(found.items()))


def start(folder: str | Path) -> Started:
    """Write the lessons into a folder. Returns a Started.

    A file that is there and was changed since it was written is left as it is; so is one that
    somebody else put there. Each file is written whole or not at all.
    Raises FetchError where the folder is a file or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FetchError(f"{folder} is a file; give a folder, new or old.")
    done, known = Started(folder), _known(folder)
    try:
        for name, source in lessons().items():
            content, place = source.read_bytes(), folder / name
            digest = hashlib.sha256(content).hexdigest()
            there = _digest(place)
            if there == digest:
                done.same.append(name)
            elif there is not None and there != known.get(name):
                done.kept.append(name)
                continue
            else:
                atomic.write(place, content)
                done.written.append(name)
            known[name] = digest
        atomic.write(folder / NOTE, json.dumps(known, indent=1, sort_keys=True))
    except OSError as error:
        raise FetchError(
            f"{folder} could not be filled: {error}. What is there is whole; make room or choose "
            "another folder, and give the command again."
        ) from error
    return done


def _digest(path: Path) -> str | None:
    """The sha256 of a file; None where there is nothing. What is no file has been put there."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "no file" if path.exists() or path.is_symlink() else None


def _known(folder: Path) -> dict[str, str]:
    """What an earlier start wrote, {path: sha256}; {} where that cannot be told."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
