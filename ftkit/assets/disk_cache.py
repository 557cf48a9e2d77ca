"""What was computed once, in files for later runs: tensors under a key of their content.

A store is a folder of safetensors files, never changed and read memory-mapped, of this code and
these versions of the packages: whatever else a value depends on is in its fingerprint or key. All
stores together stay below a limit; what was not used for longest goes first.
"""

import json
import os
import secrets
import shutil
import time
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ftkit.assets import atomic
from ftkit.assets.fetch import cache_home
from ftkit.assets.versions import versions
from ftkit.errors import SettingError

LONG = 2.0  # seconds; what took longer is worth its space in files
PART = 256 << 20  # bytes that are collected before a file is written
# The code that computes what is kept: read now, and not when the files may have been edited.
_CODE = xxhash.xxh3_128_hexdigest(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py")))
)
# Of a configuration, what no block reads: where it is from, names, and heads.
_BESIDE = ("_name_or_path", "architectures", "id2label", "label2id", "problem_type", "use_cache")
# Of a tokenizer: where it is from and how it was called; the backend speaks for itself.
_ORIGIN = ("name_or_path", "files_loaded", "vocab_file", "merges_file", "init_inputs",
           "init_kwargs", "deprecation_warnings", "verbose", "_tokenizer", "_vocab", "_merges")


def root():
    """The folder of all stores, in the cache; it may be deleted at any time."""
    return cache_home() / "computed"


def limit():
    """Bytes that all stores together may take: FTKIT_CACHE_GB, by default 4 GB; 0 keeps nothing."""
    given = os.environ.get("FTKIT_CACHE_GB", "4")
    with suppress(ValueError, OverflowError):  # of words, of infinity
        if (gigabytes := float(given)) >= 0:
            return int(gigabytes * 1e9)
    raise SettingError(f"FTKIT_CACHE_GB={given!r} is no number of gigabytes; 0 or more is "
                       "expected.")


@cache
def environment():
    """A fingerprint of what every kept value depends on: the kit's own code, and the packages."""
    return xxhash.xxh3_64_hexdigest(f"{_CODE} {versions()}".encode())


def config_text(config):
    """All that a network's configuration says about how it computes, as one string."""
    said = json.loads(config.to_json_string(use_diff=False))
    return json.dumps({k: v for k, v in said.items() if k not in _BESIDE}, sort_keys=True)


def tokenizer_text(tokenizer):
    """All that decides how a tokenizer with a `backend_tokenizer` encodes, as one string."""
    # How it was called last is in the backend's state, too; that changes nothing here.
    steps = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    own = {k: repr(v) for k, v in vars(tokenizer).items() if k not in _ORIGIN}
    return json.dumps([type(tokenizer).__qualname__, steps, own], sort_keys=True)


class Store:
    """Tensors by key, such as a hash: those put in since the last file are in memory."""

    def __init__(self, kind, fingerprint, *, hold=True):
        """kind: a folder for one purpose. fingerprint: of all that the tensors depend on.

        hold: what no file may or can take stays in memory; without, it is forgotten.
        """
        self.folder = root() / kind / f"{fingerprint}-{environment()}"
        self.broken = not limit()
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
        if (file := self.files.get(key)) is None:
            return None
        try:
            return file.get(key)
        except (SafetensorError, ValueError) as error:
            self._drop(file.path, error)
            return None

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
                path = self.folder / f"{secrets.token_hex(8)}.safetensors"
                tensors = {k: t.contiguous() for k, t in self.new.items()}
                sums = {key: _checksum(tensor) for key, tensor in tensors.items()}
                with atomic.new_file(path) as scratch:
                    save_file(tensors, scratch, metadata={"checksums": json.dumps(sums)})
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
            file = _File(path)
        except OSError:
            return  # gone: computed again
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            self._drop(path, error)
            return
        self.files |= dict.fromkeys(file.sums, file)
        with suppress(OSError):  # a cache that others own may be read, not touched
            os.utime(path)  # used now

    def _drop(self, path, error):
        """Forget a damaged file, and delete it where that is allowed."""
        warnings.warn(f"{path} was damaged ({error}) and is removed: what it held is computed "
                      "again.", stacklevel=4)
        self.files = {key: file for key, file in self.files.items() if file.path != path}
        with suppress(OSError):
            path.unlink(missing_ok=True)


class _File:
    """Tensors of a file, each compared with its checksum when it is read for the first time."""

    def __init__(self, path):
        self.path, self.handle, self.compared = path, safe_open(path, "pt"), set()
        self.sums = json.loads(self.handle.metadata()["checksums"])
        if self.sums.keys() != set(self.handle.keys()):
            raise ValueError("it holds other tensors than its checksums say")

    def get(self, key):
        tensor = self.handle.get_tensor(key)
        if key not in self.compared:
            if _checksum(tensor) != self.sums[key]:
                raise ValueError(f"{key} has another content")
            self.compared.add(key)
        return tensor


def _checksum(tensor):
    found = xxhash.xxh3_64(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    if tensor.numel():
        found.update(tensor.flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def memoize(kind, fingerprint, compute):
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
        with suppress(OSError):  # another process was faster
            known.append((path.stat().st_mtime, path.stat().st_size, path))
    held = sum(size for _, size, _ in known)
    for _, size, path in sorted(known):
        if held <= limit():
            return
        if path != keep:
            path.unlink(missing_ok=True)
            held -= size
