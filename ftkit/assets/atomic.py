"""Writes a file or a folder whole or not at all: no reader, and no crash, meets half of one."""

import ctypes
import os
import secrets
import shutil
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

_CWD, _SWAP = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS alike


def write(path, content):
    """Write text (as UTF-8) or bytes, whole or not at all; OSError where the system refuses."""
    with new_file(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_file(path):
    """Yield an empty file beside `path` that takes its place when the block ends without error.

    On the disk before it has the name, with the permissions of any new file. Folders above are
    made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = beside(path)
    try:
        open(scratch, "xb").close()
        mode = scratch.stat().st_mode
        yield scratch
        scratch.chmod(stat.S_IMODE(mode))  # safetensors puts a file of its own there, for its owner
        _sync(scratch)
        os.replace(scratch, path)
        _sync_folder(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def new_folder(path):
    """Yield an empty folder beside `path` that takes its place when the block ends without error.

    All in it is on the disk before it has the name. A folder that was there stays complete until
    then; a new one that failed is deleted. Folders above are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = beside(path)
    try:
        scratch.mkdir()  # unlike a temporary folder, for everybody whom the umask lets in
        yield scratch
        for each in [*scratch.rglob("*"), scratch]:
            if not each.is_symlink():
                _sync_folder(each) if each.is_dir() else _sync(each)
        exchange(scratch, path) if path.is_dir() else os.replace(scratch, path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def open_to_readers(folder):
    """Give every file in a new folder the permissions that the umask gives to a new file."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(stat.S_IMODE(folder.stat().st_mode) & 0o666)


def beside(path):
    """Return a hidden name in the same folder, `.NAME-…`, that nothing has yet."""
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}")


def exchange(one, other):
    """Give each of two folders the other's name: in one step where that can be, else in three."""
    if _exchanged_at_once(one, other):
        return
    aside = beside(other)
    os.replace(other, aside)
    try:
        os.replace(one, other)
    except OSError:
        os.replace(aside, other)
        raise
    os.replace(aside, one)


def _exchanged_at_once(one, other):
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return libc.renamex_np(*names, _SWAP) == 0
        return libc.renameat2(_CWD, names[0], _CWD, names[1], _SWAP) == 0
    except (AttributeError, OSError, TypeError):  # the system has no such call
        return False


def _sync(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder):
    """Make the names in a folder last through a power cut, where the system can be asked to."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
