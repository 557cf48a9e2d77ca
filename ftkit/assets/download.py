"""Downloads a package archive with the user's own pip and its settings."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ftkit.assets.catalog import Archive
from ftkit.errors import FetchError

Progress = Callable[[int, int], None]  # bytes so far, bytes in all

_NETWORK_SIGNS = ("NewConnectionError", "name resolution", "NameResolutionError", "ConnectTimeout",
                  "ConnectionError", "Connection refused", "Network is unreachable", "ReadTimeout",
                  "ProxyError")


def pip_download(archive: Archive, scratch: Path, progress: Progress | None) -> Path:
    """Download one archive into a folder inside `scratch`, and return the file.

    progress is called with the bytes so far and in all. Raises FetchError with pip's own words.
    """
    target = scratch / "download"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
               *(["--python-version", archive.python] if archive.python else []), "-d", str(target),
               archive.requirement]
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
        raise failed(archive, output)
    files = list(target.iterdir())
    if len(files) != 1:
        raise FetchError(f"pip downloaded {len(files)} files for {archive.requirement}, not one.")
    if progress:
        progress(archive.size, archive.size)
    return files[0]


def failed(archive: Archive, output: str) -> Exception:
    """Return the error that says what pip's output means, and what to do."""
    if "No space left on device" in output:
        return OSError(errno.ENOSPC, "No space left on device")
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
    return FetchError(f"{archive.filename} could not be downloaded: pip download "
                      f"{archive.requirement} said: {last} {remedy}")


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for root, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):  # pip moved it meanwhile
                sizes.append(os.stat(os.path.join(root, file)).st_size)
    return max(sizes)
