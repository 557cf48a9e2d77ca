"""Checksums of the files in a folder, kept in it: whether each is still what was written."""

import hashlib
import json
from contextlib import suppress

import xxhash

from ftkit.assets import atomic

FILE = ".checksums.json"


def seal(folder):
    """Note the size, the checksum and the times of every file in a folder that is complete."""
    found = {path.relative_to(folder).as_posix(): [digest(path), *stamp(path)]
             for path in sorted(folder.rglob("*")) if path.is_file() and path.name != FILE}
    atomic.write(folder / FILE, json.dumps(found, indent=1))


def damage(folder, *, deep=False):
    """Return what is wrong with a folder in words, "" when every file is as it was sealed.

    Files of the same size and times are taken for unchanged; deep=True reads all of them.
    """
    try:
        noted = json.loads((folder / FILE).read_text())
        items = [(name, *facts) for name, facts in noted.items()]
        moved = False
        for name, checksum, *before in items:
            path = folder / name
            now = stamp(path)
            if now[0] != before[0]:
                return f"{name} has {now[0]:,} bytes, not {before[0]:,}"
            if deep or now != before:
                if digest(path) != checksum:
                    return f"{name} has another content"
                moved |= now != before
    except FileNotFoundError as error:
        return f"{error.filename.rpartition('/')[2]} is missing"
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"{FILE}: {error}"
    if moved:  # a copy of the cache, or times that were set: not to be read again each time
        with suppress(OSError):
            seal(folder)
    return ""


def hub_damage(folder, notes):
    """Return what is wrong with a model's folder in the cache of huggingface_hub, "" when nothing.

    Its files are links to blobs named by their checksum: sha256, or git's sha1 of small ones.
    notes: a file for the times of those that were compared already.
    """
    try:
        known = json.loads(notes.read_text())
    except (OSError, ValueError):
        known = {}
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        name, blob = path.relative_to(folder).as_posix(), path.resolve()
        if not blob.is_file():
            return f"{name} is missing"
        found[name] = [blob.name, *stamp(blob)]
        if known.get(name) != found[name] and not _is_blob(blob):
            return f"{name} has another content ({stamp(blob)[0]:,} bytes)"
    if found != known:
        with suppress(OSError):  # a cache that others own: compared again next time
            atomic.write(notes, json.dumps(found))
    return ""


def _is_blob(path):
    """Whether a file's name is its checksum, or nothing that could be one."""
    if len(path.name) not in (40, 64) or not set(path.name) <= set("0123456789abcdef"):
        return True
    found = hashlib.sha256()
    if len(path.name) == 40:
        found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: found).hexdigest() == path.name


def stamp(path):
    """Return the size and the times that change with every write: bytes, and nanoseconds."""
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def digest(path):
    """Return the xxh3 checksum of a file, in hex (several gigabytes a second)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
