"""Source archives: nothing in them is run or written, and they come from where pip would look."""

import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading

import pytest

from ftkit.assets import catalog, fetch, sdist
from ftkit.errors import FetchError

NAME, FILE = "Tiny_Set", "Tiny_Set-1.0.tar.gz"


def make_sdist(path, ran):
    """Write a source archive whose setup.py would leave a file behind."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {
            "Tiny_Set-1.0/setup.py": f"open({str(ran)!r}, 'w')",
            "Tiny_Set-1.0/data/rows.txt": "one\ntwo\n",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("Tiny_Set-1.0/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    return path


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A folder laid out as a package index, with one source archive that the catalog knows."""
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FTKIT_OFFLINE", raising=False)
    for name in ("FIND_LINKS", "INDEX_URL", "EXTRA_INDEX_URL", "NO_INDEX", "CERT"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "simple" / "tiny-set"
    folder.mkdir(parents=True)
    path = make_sdist(folder / FILE, tmp_path / "ran")
    (folder / "index.html").write_text(f'<html><body><a href="{FILE}">{FILE}</a></body></html>')
    monkeypatch.setitem(catalog.ARCHIVES, NAME, catalog.Archive(
        NAME, "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size, "none",
        "sdist"))
    yield path
    assert not (tmp_path / "ran").exists(), "setup.py was run"


@pytest.fixture
def index(archive):
    """The folder served over HTTP on this machine; its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler,
                                directory=str(archive.parents[2]))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def test_it_comes_from_the_users_index_and_setup_py_is_not_run(archive, index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index)
    seen = []
    path = fetch.fetch(NAME, progress=lambda done, size: seen.append((done, size)))
    assert path.name == FILE and seen[-1] == (path.stat().st_size,) * 2
    assert fetch.read_member(NAME, "Tiny_Set-1.0/data/rows.txt") == b"one\ntwo\n"


@pytest.mark.parametrize("setting", ["FIND_LINKS", "INDEX_URL"])
def test_it_comes_from_a_folder_of_pips_settings(archive, monkeypatch, setting):
    """A machine without a network has its packages in a folder."""
    monkeypatch.setattr(sdist, "_from_index", lambda *_: pytest.fail("the network was touched"))
    place = archive.parent if setting == "FIND_LINKS" else archive.parents[1].as_uri()
    monkeypatch.setenv(f"PIP_{setting}", str(place))
    assert fetch.fetch(NAME).read_bytes() == archive.read_bytes()


def test_another_file_than_the_pinned_one_is_refused(archive, index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index)
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(FetchError, match="wrong checksum"):
        fetch.fetch(NAME)


def test_an_index_without_it_and_one_that_is_down_are_named(archive, index, monkeypatch):
    archive.rename(archive.with_name("other.tar.gz"))
    (archive.parent / "index.html").write_text("<html><body></body></html>")
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(FetchError, match="does not list it.*Connection") as caught:
        fetch.fetch(NAME)
    assert "secret" not in str(caught.value)


def test_no_index_means_no_network(archive, monkeypatch):
    monkeypatch.setattr(sdist, "_from_index", lambda *_: pytest.fail("the network was touched"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match="pip has no index"):
        fetch.fetch(NAME)


def test_a_link_inside_is_not_followed_and_a_wrong_name_gets_a_hint(archive, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    with pytest.raises(FetchError, match="has no file"):
        fetch.read_member(NAME, "Tiny_Set-1.0/link.txt")
    with pytest.raises(FetchError, match="Did you mean 'Tiny_Set-1.0/data/rows.txt'"):
        fetch.read_member(NAME, "Tiny_Set-1.0/data/row.txt")
