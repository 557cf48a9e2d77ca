"""`ftkit start FOLDER`: writes the lessons, their solutions and what they link to into a folder.

They travel inside the wheel, so that nobody needs a checkout of the repository. A lesson's copy
keeps the course's outputs, told apart from a learner's own by its cells without a number.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import unquote

from ftkit.assets import atomic
from ftkit.batch import notebook as nb
from ftkit.display import Banner, image
from ftkit.errors import DataError, FetchError

NOTE = ".ftkit-lessons.json"  # what was written, so that later changes are seen
_PACKAGE = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


@dataclass
class Started:
    """What a start did. Each a list of paths, relative to the folder and sorted.

    written: new, or of an older version and untouched since. same: there already. worked_in: run or
    changed by the learner, and left as they are. outdated: those of them that the course has a
    newer version of. kept: what somebody else put there, left as it is, too.
    """

    folder: Path
    written: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    worked_in: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def lessons() -> dict[str, Path]:
    """The lessons and the pages that they link to: {path in the new folder: the file}, sorted."""
    inside = (_PACKAGE / "_lessons").is_dir()
    home = {"notebooks": "_lessons", "data": "_data", "docs": "_docs"} if inside else {}
    found: dict[str, Path] = {}
    for name, pattern in (("notebooks", "*.ipynb"), ("notebooks", "solutions/*.ipynb"),
                          ("notebooks", "templates/*.ipynb"), ("notebooks", "questions/*.md"),
                          ("data", "*.md"), ("docs", "*.md"), ("docs", "*.png")):
        root = (_PACKAGE if inside else _PACKAGE.parent) / home.get(name, name)
        found |= {f"{name}/{path.relative_to(root).as_posix()}": path
                  for path in root.glob(pattern)}
    if not found:
        raise FetchError(f"the lessons are not beside the package in {_PACKAGE}; install ftkit "
                         "again from its wheel or its repository.")
    return dict(sorted(found.items()))


def start(folder: str | Path) -> Started:
    """Write the lessons into a folder. Returns a Started.

    A lesson that was run or changed since it was written is left as it is; so is a file that
    somebody else put there. Each file is written whole or not at all.
    Raises FetchError where the folder is a file or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FetchError(f"{folder} is a file; give a folder, new or old.")
    done, known = Started(folder), _known(folder)
    try:
        course = lessons()
        for name, source in course.items():
            content = working_copy(source) if name.endswith(".ipynb") else page(name, course)
            place, before = folder / name, known.get(name)
            now = {"file": hashlib.sha256(content).hexdigest(), "cells": _source(name, course)}
            untouched = (before is not None and _cells(place) == before["cells"]
                         and not _ran(place))
            if _sha(place) == now["file"] or untouched and before == now:
                done.same.append(name)
            elif untouched or not (place.exists() or place.is_symlink()):
                atomic.write(place, content)
                done.written.append(name)
            elif before is None:
                done.kept.append(name)
                continue
            else:
                done.worked_in.append(name)
                if before["cells"] != now["cells"]:
                    done.outdated.append(name)
                continue
            known[name] = now
        atomic.write(folder / NOTE, json.dumps(known, indent=1, sort_keys=True))
    except OSError as error:
        raise FetchError(f"{folder} could not be filled: {error}. What is there is whole; make "
                         "room or choose another folder, and give the command again.") from error
    return done


def outdated(folder: Path) -> set[str]:
    """The files of a start that the course has another version of now; as `start` names them."""
    known = _known(folder)
    course = lessons() if known else {}
    return {name for name in course
            if name in known and known[name]["cells"] != _source(name, course)}


def working_copy(source: Path) -> bytes:
    """The content of a lesson's copy: its outputs stand, marked as those of another machine.

    Its cells have no numbers until they are run, and the first one says what that means, in an
    output that its own run replaces. Figures are HTML, since JupyterLab gives the text alternative
    of a picture to nobody (4.6).
    """
    notebook = nb.read(source)
    shown = [cell for _, cell in nb.code_cells(notebook) if cell["outputs"]]
    for _, cell in nb.code_cells(notebook):
        cell["execution_count"] = None
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = None
            if words := output.get("metadata", {}).get("image/png", {}).get("alt"):
                picture = "".join(output["data"].pop("image/png"))
                output["data"]["text/html"] = image(words, picture)
    if shown:
        profile = notebook["metadata"].get("ftkit", {}).get("profile")
        nb.code_cells(notebook)[0][1]["outputs"].insert(0, _banner(profile))
    return (json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def page(name: str, course: dict[str, Path]) -> bytes:
    """The content of a file that is no notebook, as it stands in the new folder.

    course: what the folder will hold, as of `lessons`. A link to what it will not hold, such as the
    kit's own code, becomes its words; the rest is as it was.
    """
    if not name.endswith(".md"):
        return course[name].read_bytes()
    folders = {str(parent) for path in course for parent in PurePosixPath(path).parents}

    def kept(match):
        target = unquote(match[2].partition("#")[0])
        where = normpath(PurePosixPath(name).parent / target) if target else name
        there = re.match(r"[a-z]+:", target) or where in course or where in folders
        return match[0] if there else match[1]

    return _LINK.sub(kept, course[name].read_text(encoding="utf-8")).encode()


def _banner(profile):
    chosen = f" with the profile {profile}" if profile else ""
    said = Banner("The outputs below are not yours yet.", (
        f"They come with the course, measured{chosen} on another machine. [ ] beside a cell "
        "means that you have not run it; a number such as [3], that its output is yours. "
        "Restarted, or back the next day? The kernel remembers nothing: choose Run, then Run "
        "All Above Selected Cell, and go on."))
    return {"output_type": "display_data", "metadata": {},
            "data": {"text/html": said.html(), "text/plain": repr(said)}}


def _sha(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _source(name: str, course: dict[str, Path]) -> str | None:
    """A hash of what the course has under a name now, as _cells gives it of what was written."""
    if name.endswith(".ipynb"):
        return _cells(course[name])
    return hashlib.sha256(page(name, course)).hexdigest()


def _cells(path: Path) -> str | None:
    """What a notebook says before it is run, or all that another file holds, as a hash."""
    try:
        return nb.whole_hash(nb.read(path)) if path.suffix == ".ipynb" else _sha(path)
    except DataError:  # no notebook any more, or none yet
        return None


def _ran(path: Path) -> bool:
    """Whether a cell of a notebook has been run since it was written."""
    return path.suffix == ".ipynb" and path.is_file() and any(
        cell.get("execution_count") for _, cell in nb.code_cells(nb.read(path)))


def _known(folder: Path) -> dict[str, dict[str, str | None]]:
    """What an earlier start wrote, {path: hashes}; {} where that cannot be told."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return {name: both for name, both in found.items() if both.keys() == {"file", "cells"}}
    except (OSError, ValueError, AttributeError):
        return {}
