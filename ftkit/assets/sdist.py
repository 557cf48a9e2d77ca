"""Source archives: found by an index's file list, without running their setup.py, as pip would.

pip runs code of the package to learn its metadata. Here the list of files is read (PEP 503 and 691,
by pypi-simple), the file downloaded, and its members are read where they lie.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ftkit.assets.catalog import Archive
from ftkit.errors import FetchError

_TIMEOUT = 60  # seconds without a byte


class Sdist:
    """A compressed tar file that is read and never unpacked."""

    def __init__(self, path: Path):
        self._tar = tarfile.open(path, "r:gz")

    def __enter__(self) -> Sdist:
        return self

    def __exit__(self, *_) -> None:
        self._tar.close()

    def namelist(self) -> list[str]:
        """Return the names of its files."""
        return [member.name for member in self._tar if member.isfile()]

    def read(self, member: str) -> bytes:
        """Return the content of a file; KeyError when there is none, or it is a link."""
        info = self._tar.getmember(member)
        file = self._tar.extractfile(info) if info.isfile() else None
        if file is None:
            raise KeyError(f"{member!r} is no file")
        return file.read()


def index_download(archive: Archive, scratch: Path, progress=None) -> Path:
    """Download a source archive from where the user's pip would, into `scratch`; return the file.

    progress is called with the bytes so far and in all. Raises FetchError when no place has it.
    """
    target, settings, said = scratch / archive.filename, pip_settings(), []
    for folder in map(_folder, settings["find-links"] + settings["index"]):
        for found in (folder / archive.filename, folder / _project(archive) / archive.filename):
            if folder.parts and found.is_file():
                shutil.copyfile(found, target)
                return target
    for index in settings["index"]:
        if urlsplit(index).scheme in ("http", "https"):
            try:
                if _from_index(index, archive, target, settings, progress):
                    return target
                said.append(f"{_host(index)} does not list it.")
            except Exception as error:  # of requests, of pypi-simple, of the network
                said.append(f"{_host(index)}: {type(error).__name__}: {error}.")
    raise FetchError(f"{archive.filename} could not be downloaded. "
                     f"{' '.join(said) or 'pip has no index.'} Check the network, the proxy, and "
                     "that your package index carries source archives (`pip config list` shows "
                     "which is used). What was fetched before works without a network.")


def pip_settings() -> dict[str, list[str]]:
    """Return where the user's pip looks: "index", "find-links", "cert", "proxy", each a list."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    command = [sys.executable, "-m", "pip", "config", "list"]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    lines = re.findall(r"^([\w:.-]+)=('.*'|\".*\")$", output, re.MULTILINE)
    known = {key: ast.literal_eval(value).split() for key, value in lines}
    found: dict[str, list[str]] = {
        name: next((known[f"{part}.{name}"] for part in (":env:", "download", "global")
                    if f"{part}.{name}" in known), [])
        for name in ("index-url", "extra-index-url", "find-links", "no-index", "cert", "proxy")
    }
    own = [] if found["no-index"] in (["1"], ["true"], ["yes"], ["on"]) else [
        *(found["index-url"] or [PYPI_SIMPLE_ENDPOINT]), *found["extra-index-url"]
    ]
    return {"index": own, **{name: found[name] for name in ("find-links", "cert", "proxy")}}


def _from_index(index, archive, target, settings, progress) -> bool:
    """Download the archive from an index, and return whether it is there."""
    import requests
    from pypi_simple import NoSuchProjectError, PyPISimple

    with requests.Session() as session:
        if settings["cert"]:
            session.verify = settings["cert"][0]
        if settings["proxy"]:
            session.proxies = dict.fromkeys(("http", "https"), settings["proxy"][0])
        try:
            page = PyPISimple(index, session=session).get_project_page(
                _project(archive), timeout=_TIMEOUT)
        except NoSuchProjectError:
            return False
        link = next((file for file in page.packages if file.filename == archive.filename), None)
        if link is None:
            return False
        with session.get(link.url, stream=True, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            with open(target, "wb") as file:
                for part in answer.iter_content(1 << 18):
                    file.write(part)
                    if progress:
                        progress(min(file.tell(), archive.size), archive.size)
    return True


def _project(archive: Archive) -> str:
    return re.sub(r"[-_.]+", "-", archive.name).lower()


def _folder(place: str) -> Path:
    """Return the folder that a place of pip's settings is, an empty path when it is elsewhere."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(os.path.expanduser(place)) if not parts.netloc else Path()


def _host(index: str) -> str:
    return urlsplit(index).hostname or index  # without the user's password
