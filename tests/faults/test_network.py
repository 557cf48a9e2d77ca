"""A network that ends in mid-download leaves nothing, and the next fetch is whole."""

import hashlib
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ftkit.assets import catalog, fetch
from ftkit.errors import FetchError

FILE = "tinyset-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on loopback; index.cut is whether its downloads end half-way."""
    path = tmp_path / FILE
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tinyset/rows", os.urandom(300_000))
        info = "tinyset-1.0.dist-info/"
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tinyset\nVersion: 1.0\n")
        archive.writestr(info + "WHEEL",
                         "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    content = path.read_bytes()

    class Index(BaseHTTPRequestHandler):
        def do_GET(self):
            page = self.path.endswith("/")
            body = f'<a href="/{FILE}">{FILE}</a>'.encode() if page else content
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if page else "application/zip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if server.cut and not page else body)
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.cut = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {"FTKIT_HOME": tmp_path / "home", "PIP_CONFIG_FILE": os.devnull,
                        "PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}/simple",
                        "PIP_RETRIES": 0, "PIP_RESUME_RETRIES": 0, "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("FTKIT_OFFLINE", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(catalog.ARCHIVES, "tinyset", catalog.Archive(
        "tinyset", "1.0", licence="none", sha256=hashlib.sha256(content).hexdigest(),
        size=len(content)))
    yield server
    server.shutdown()


def test_a_download_that_is_cut_leaves_nothing_and_the_next_is_whole(index, tmp_path):
    with pytest.raises(FetchError) as error:
        fetch.fetch("tinyset")
    assert "tinyset" in str(error.value)
    kept = [path for path in (tmp_path / "home").rglob("*")
            if path.is_file() and path.parent.name != "locks"]
    assert kept == []
    index.cut = False
    assert len(fetch.read_member("tinyset", "tinyset/rows")) == 300_000
