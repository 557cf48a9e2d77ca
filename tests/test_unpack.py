"""Without these, a machine that no network reaches could be brought something broken or unsafe."""

import importlib.util
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from bundles import HERE, ROOT, bundle, make_wheel, only_index, repack, unpack
from packaging.requirements import Requirement

ARCHIVE = "data-1.0-py3-none-any.whl"
SYSTEM = {"Linux": "linux", "Darwin": "macos"}[platform.system()]


@pytest.fixture(scope="session")
def tool_wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    return [repack(folder, name) for name in ("pip", "packaging")]


@pytest.fixture(scope="module")
def packed(tool_wheels, tmp_path_factory):
    """A function that makes a bundle of small packages, a project file and one archive."""
    home = tmp_path_factory.mktemp("bundles")
    index = home / "index"
    index.mkdir()
    for path in tool_wheels:
        shutil.copy(path, index)
    make_wheel(index, "kit-core", requires=["kit-low>=1", "kit-pair"])
    make_wheel(index, "kit-low", "1.5")
    make_wheel(index, "kit-pair", "1.5", requires=["kit-of-pair==1.5"])
    make_wheel(index, "kit-of-pair", "1.5")
    make_wheel(index, "kit-extra")
    own = make_wheel(home, "ftkit", "0.1.0")
    archive = home / ARCHIVE
    archive.write_bytes(os.urandom(2_500_000))
    made = {}

    def make(*arguments):
        if arguments not in made:
            folder = home / f"bundle{len(made)}"
            with pytest.MonkeyPatch.context() as patch:
                only_index(patch, index)
                patch.setattr(bundle, "project_files",
                              lambda: ["pyproject.toml", "data/capitals.md"])
                patch.setattr(bundle, "project_wheel", lambda names, folder: own)
                patch.setattr(bundle, "own_requirements",
                              lambda extras: [Requirement("kit-core")])
                patch.setattr(bundle, "chosen_archives", lambda names: ["some-data"])
                patch.setattr(bundle, "fetched", lambda name: archive)
                # the first part has room for all but the end of the archive
                assert bundle.main([
                    "--out", str(folder), "--platform", f"{SYSTEM}-{platform.machine()}",
                    "--glibc", "2.17", "--part-mb", "3.4", "--also", "kit-extra",
                    *arguments]) == 0
            made[arguments] = folder
        return made[arguments]

    return make


@pytest.fixture
def made(packed, tmp_path):
    """A function that gives the test a bundle of its own, to damage."""

    def make(*arguments):
        number = len(list(tmp_path.glob("bundle*")))
        return Path(shutil.copytree(packed(*arguments), tmp_path / f"bundle{number}"))

    return make


def run(folder, into=None, *arguments, **environment):
    """Run unpack.sh where no network is, if this machine can cut it; its words and exit status."""
    cut = ["unshare", "-rn"] if shutil.which("unshare") and not subprocess.run(
        ["unshare", "-rn", "true"], capture_output=True).returncode else []
    done = subprocess.run(
        [*cut, "sh", str(folder / "unpack.sh"), *(["--into", str(into)] if into else []),
         *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHON": sys.executable, **environment})
    return done.returncode, done.stdout


def python_of(into, code):
    done = subprocess.run([into / "bin" / "python", "-c", code], capture_output=True, text=True,
                          cwd=into.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_parts_come_one_at_a_time_and_are_installed_beside_what_is_there(made, tmp_path):
    folder, into, here = made(), tmp_path / "with space", tmp_path / "arrived"
    parts = sorted(folder.glob("part-*"))
    assert len(parts) == 2
    here.mkdir()
    for name in ("unpack.sh", "unpack.py", "manifest.json"):
        shutil.copy(folder / name, here)

    shutil.move(parts[0], here)
    status, said = run(here, into)
    assert status == unpack.WAITING and f"Still missing: {parts[1].name}" in said
    # the packages are of use before the data has come, and the machine's own are seen beside them
    where = python_of(into, "import kit_core, ftkit, packaging; print(packaging.__file__)")
    assert Path(where).is_relative_to(sys.prefix)
    assert importlib.util.find_spec("kit_core") is None
    assert not list(into.glob("cache/archives/*"))

    (here / parts[0].name).unlink()  # it was taken, and need not stay
    shutil.move(parts[1], here)
    status, said = run(here, into)
    assert status == 0, said
    python_of(into, "import kit_core, kit_extra")
    assert (into / "project/data/capitals.md").read_bytes() == (
        ROOT / "data/capitals.md").read_bytes()
    assert (into / "cache/archives" / ARCHIVE).stat().st_size == 2_500_000
    shell = f". '{into}/env.sh'; echo $FTKIT_HOME; python -c 'import sys; print(sys.prefix)'"
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True).stdout
    assert said.splitlines() == [f"{into}/cache", str(into)]
    assert run(here, into)[0] == 0  # again: nothing is left to do, and no part is asked for


def test_a_package_of_the_machine_that_will_do_is_left_alone(made, tmp_path):
    """The machine is an environment of its own here, as on a node where python3 is one."""
    machine = tmp_path / "machine"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", machine], check=True)
    own = machine / "lib" / f"python{HERE}" / "site-packages"
    for name, requires in (("kit-low", ()), ("kit-pair", ["kit-of-pair==1.2"]),
                           ("kit-of-pair", ())):
        with zipfile.ZipFile(make_wheel(tmp_path, name, "1.2", requires)) as wheel:
            wheel.extractall(own)
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    into = tmp_path / "into"
    status, said = run(made("--newer", "kit-low"), into, PYTHON=str(machine / "bin" / "python"))
    assert status == 0, said
    # kit-low was asked for newer; of the pair, which belongs together, none comes from here
    code = ("import kit_low, kit_pair, kit_of_pair; "
            "print(kit_low.version, kit_pair.version, kit_of_pair.version)")
    assert python_of(into, code) == "1.5 1.2 1.2"
    assert "this machine's own: kit-pair 1.2, kit-of-pair 1.2" in said
    assert before == {path: path.stat().st_mtime_ns for path in own.rglob("*")
                      if path.is_file() and "__pycache__" not in path.parts}


def test_what_the_machine_lacks_is_said(made, tmp_path, monkeypatch, capsys):
    manifest = unpack.read_manifest(made() / "manifest.json")
    manifest["packages"] = [package for package in manifest["packages"]
                            if package["name"] not in ("kit-low", "kit-pair")]
    installation = unpack.Installation(manifest, tmp_path, tmp_path / "into", tmp_path)
    monkeypatch.setattr(installation, "_allows", lambda versions, version: versions != ">=1")
    _, wanted = installation._choose(["packages"], {})
    assert wanted == {"ftkit": "", "kit-core": "", "kit-low": ">=1", "kit-pair": ""}
    there = {"ftkit": "0.1.0", "kit-core": "1.0", "kit-low": "0.5"}
    monkeypatch.setattr(installation, "_present", lambda python=None: there)
    installation._say_what_lacks(wanted, manifest["packages"][:2])
    said = capsys.readouterr().out
    assert "Left out of the bundle and not here: kit-pair." in said
    assert "not in a version that was tested: kit-low 0.5 (wanted: >=1)." in said
    there["kit-core"] = "0.1"  # the Python there imports another one than was installed
    with pytest.raises(unpack.UnpackError, match="sees 0.1: something comes before it"):
        installation._say_what_lacks(wanted, manifest["packages"][:2])


def test_a_damaged_part_is_named_and_a_good_one_mends_it(made, tmp_path):
    folder, into = made(), tmp_path / "into"
    part, other = sorted(folder.glob("part-*"))
    good = part.read_bytes()
    part.write_bytes(good[:5000] + b"!" + good[5001:])
    status, said = run(folder)
    assert status == 1 and f"{part.name}: damaged" in said and f"{other.name}: whole" in said
    status, said = run(folder, into)
    assert status == 1 and f"{part.name} is damaged" in said
    assert [path.name for path in into.iterdir()] == ["store"]  # nothing of it was installed
    part.write_bytes(good[:-1])
    assert f"{len(good) - 1:,} of {len(good):,} bytes" in run(folder)[1]
    part.unlink()
    assert run(folder)[0] == unpack.WAITING
    part.write_bytes(good)
    assert run(folder)[0] == 0


@pytest.fixture
def quick_unpack(monkeypatch):
    """unpack.main in this process, with pip and venv replaced by a list of what they were given."""
    calls = []

    def command(words, environment=None):
        calls.append(words)
        return "[]"

    monkeypatch.setattr(unpack, "subprocess_or_error", command)
    monkeypatch.setattr(unpack.Installation, "_say_what_lacks", lambda *arguments: None)
    return lambda folder, into: (calls.clear(), unpack.main(
        ["--parts", str(folder), "--into", str(into)]), list(calls))[1:]


def test_a_run_that_dies_anywhere_is_finished_by_the_next(made, tmp_path, quick_unpack,
                                                          monkeypatch):
    folder, replace = made(), os.replace

    class Died(BaseException):
        pass

    for at in range(1, 100):
        into, count = tmp_path / f"into{at}", [0]

        def replaced(source, final, at=at, count=count):
            count[0] += 1
            if count[0] == at:  # as good as killed: nothing gets its name any more
                raise Died
            replace(source, final)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replaced)
            try:
                quick_unpack(folder, into)
                break  # it got through without dying: all moments have been tried
            except Died:
                pass
        status, _ = quick_unpack(folder, into)
        assert status == 0, at
        assert (into / "cache/archives" / ARCHIVE).stat().st_size == 2_500_000
        assert (into / "project/pyproject.toml").is_file()
        assert quick_unpack(folder, into) == (0, [])
        shutil.rmtree(into)
    assert 15 < at < 99


def test_packages_that_were_cut_short_are_installed_again(made, tmp_path, quick_unpack,
                                                         monkeypatch):
    folder, into = made(), tmp_path / "into"
    command = unpack.subprocess_or_error

    def fails(words, environment=None):
        if "pip" in words:
            raise unpack.UnpackError("pip failed")
        return command(words, environment)

    with monkeypatch.context() as patch:
        patch.setattr(unpack, "subprocess_or_error", fails)
        assert quick_unpack(folder, into)[0] == 1
    status, calls = quick_unpack(folder, into)
    assert status == 0
    assert any("kit_core-1.0-py3-none-any.whl" in word for call in calls for word in call)


def test_nothing_that_is_there_is_overwritten(made, tmp_path, quick_unpack, capsys):
    folder, into = made(), tmp_path / "into"
    into.mkdir()
    (into / "mine").write_text("mine")
    assert quick_unpack(folder, into)[0] == 1 and "not empty" in capsys.readouterr().err
    assert [path.name for path in into.iterdir()] == ["mine"]
    cache = tmp_path / "new" / "cache" / "archives"
    cache.mkdir(parents=True)
    (cache / ARCHIVE).write_text("mine")
    into = tmp_path / "other"
    assert unpack.main(["--parts", str(folder), "--into", str(into),
                        "--cache", str(cache.parent)]) == 1
    assert "there already and differs" in capsys.readouterr().err
    assert (cache / ARCHIVE).read_text() == "mine"
    assert quick_unpack(made("--without", "kit-low"), into)[0] == 1
    assert "another bundle" in capsys.readouterr().err


def rewrite(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(made, tmp_path, capsys, name):
    folder = made()

    def change(manifest):
        manifest["files"][name] = next(iter(manifest["files"].values()))

    rewrite(folder, change)
    assert unpack.main(["--parts", str(folder), "--into", str(tmp_path / "into")]) == 1
    assert "leads out" in capsys.readouterr().err and not (tmp_path / "into").exists()


@pytest.mark.parametrize("kind", ["climbs", "link"])
def test_a_project_archive_that_leads_out_is_refused(tmp_path, kind):
    into = tmp_path / "a" / "into"
    (into / "store" / "scratch").mkdir(parents=True)
    with tarfile.open(into / "store" / "project.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("../../../evil" if kind == "climbs" else "evil")
        if kind == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info, io.BytesIO(b""))
    with pytest.raises(tarfile.FilterError):  # main() says it, as it does every TarError
        unpack.Installation({}, tmp_path, into, tmp_path)._unpack_project()
    assert not [path for path in tmp_path.rglob("*") if path.name == "evil"]
    assert not (into / "project").exists()


def test_a_bundle_for_another_machine_is_refused(made, tmp_path, capsys):
    folder, into = made(), tmp_path / "into"
    for changes, words in (({"python": "3.4"}, "for Python 3.4"),
                           ({"python": HERE, "platform": "linux-s390x"}, "for linux-s390x")):
        rewrite(folder, lambda manifest, changes=changes: manifest.update(changes))
        assert unpack.main(["--parts", str(folder), "--into", str(into)]) == 1
        assert words in capsys.readouterr().err and not into.exists()
    status, said = run(folder, PYTHON="/no/python")
    assert status == 1 and "/no/python was not found" in said
