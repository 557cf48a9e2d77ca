"""What was computed once, in files for later runs: tensors under a key of their content.

A store is a folder of safetensors files that are never changed and read memory-mapped. All stores
together stay below a limit; what was not used for longest goes first.
"""

import json
import os
import shutil
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ftkit.errors import SettingError
from ftkit.fetch import cache_home

LONG = 2.0  # seconds; what took longer is worth its space in files
PART = 256 << 20  # bytes that are collected before a file is written


def root():
    """The folder of all stores, in the cache; it may be deleted at any time."""
    return cache_home() / "kept"


def limit():
    """Bytes that all stores together may take: FTKIT_KEPT_GB, by default 4 GB; 0 keeps nothing."""
    given = os.environ.get("FTKIT_KEPT_GB", "4")
    try:
        if (gigabytes := float(given)) >= 0:
            return int(gigabytes * 1e9)
    except ValueError:
        pass
    raise SettingError(f"FTKIT_KEPT_GB={given!r} is no number of gigabytes; 0 or more is expected.")


class Store:
    """Tensors by key, such as a hash: those put in since the last file are in memory."""

    def __init__(self, kind, fingerprint, *, hold=True):
        """kind: a folder for one purpose. fingerprint: of all that the tensors depend on.

        hold: what no file may or can take stays in memory; without, it is forgotten.
        """
        self.folder, self.broken = root() / kind / fingerprint, not limit()
        self.hold = hold
        self.new, self.size, self.files = {}, 0, {}
        for path in () if self.broken else sorted(self.folder.glob("*.safetensors")):
            self._open(path)
        self.earlier = len(self.files)  # tensors that were there before this process

    def __len__(self):
        return len(self.files.keys() | self.new.keys())

    def get(self, key):
        """The tensor under a key, or None. One from a file is mapped into memory: do not write."""
        if key in self.new:
            return self.new[key]
        return self.files[key].get_tensor(key) if key in self.files else None

    def put(self, key, tensor):
        """Keep a tensor, on the CPU, that nobody will change."""
        if key in self.new or self.broken and not self.hold:
            return
        self.new[key] = tensor
        self.size += tensor.nbytes
        if self.size >= PART:
            self.write()

    def write(self):
        """Write what is new to a file, whole or not at all, and make room; failing only warns."""
        if self.broken:
            return
        self.broken = self.size > limit()
        if self.new and not self.broken:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if shutil.disk_usage(self.folder).free < 2 * self.size:
                    raise OSError(f"the disk has no room for {self.size / 1e6:.0f} MB")
                handle, name = tempfile.mkstemp(suffix=".partial", dir=self.folder)
                os.close(handle)
                try:
                    save_file({k: t.contiguous() for k, t in self.new.items()}, name)
                    path = Path(name).with_suffix(".safetensors")
                    os.replace(name, path)
                finally:
                    Path(name).unlink(missing_ok=True)
                self._open(path)
                _make_room(keep=path)
            except (OSError, SafetensorError) as error:
                self.broken = True
                warnings.warn(f"{self.folder} cannot be written ({error}): what was computed "
                              "will be computed again by later runs.", stacklevel=2)
        if not (self.broken and self.hold):
            self.new, self.size = {}, 0

    def _open(self, path):
        try:
            file = safe_open(path, "pt")
            self.files |= dict.fromkeys(file.keys(), file)
        except (OSError, SafetensorError):
            return  # gone, or damaged: computed again
        with suppress(OSError):  # a cache that others own may be read, not touched
            os.utime(path)  # used now


def once(kind, fingerprint, compute):
    """What compute() returns, from a file where an earlier process kept it; it must be JSON.

    It is kept where it took LONG seconds or more. Tuples come back as lists from a file.
    """
    store = Store(kind, fingerprint)
    if (found := store.get("json")) is not None:
        return json.loads(found.numpy().tobytes())
    start = time.perf_counter()
    value = compute()
    if time.perf_counter() - start >= LONG:
        text = bytearray(json.dumps(value).encode())
        store.put("json", torch.frombuffer(text, dtype=torch.uint8))
        store.write()
    return value


def _make_room(keep):
    """Delete the files that were not used for longest until the limit holds."""
    known = []
    for path in root().rglob("*.*"):
        try:
            known.append((path.stat().st_mtime, path.stat().st_size, path))
        except OSError:
            continue  # another process was faster
    held = sum(size for _, size, _ in known)
    for _, size, path in sorted(known):
        if held <= limit():
            return
        if path != keep:
            path.unlink(missing_ok=True)
            held -= size
