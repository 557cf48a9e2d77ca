"""A forked run must be what a fresh one is, only sooner; where that cannot be, it says so."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ftkit.batch import forks
from ftkit.batch import notebook as nb
from ftkit.batch.run import run_batch
from ftkit.errors import SettingError

SMOKE = ('profile = "smoke"\nseed = 0', ["parameters"])
# What a run sees of its surroundings; the last cell is what differs between two of them.
SEEN = ["""
import os, subprocess, sys, tempfile
import beside
import ftkit, numpy, torch, tqdm.auto
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from threadpoolctl import threadpool_info
ours = {k: v for k, v in os.environ.items() if not k.startswith("KMP_") and k not in (
    "JPY_PARENT_PID", "FTKIT_LESSON", "FTKIT_RUNS", "FTKIT_CHECKPOINTS", "IPYTHONDIR",
    "JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "TORCHINDUCTOR_CACHE_DIR")}
print(sorted(ours.items()), os.getcwd(), tempfile.gettempdir(), sys.path, sys.flags)
print(beside.__file__, __name__, torch.get_num_threads())
print(tqdm.auto.tqdm, DEFAULT_PROGRESS_CALLBACK)  # they ask on import what they are in
print(sorted({(pool["internal_api"], pool["num_threads"]) for pool in threadpool_info()}))
print(subprocess.run([sys.executable, "-c", "import sys; print(sys.flags, sys.path)"],
                     capture_output=True, text=True).stdout)
print(os.getsid(0) == os.getpid(), os.getppid() == int(os.environ["JPY_PARENT_PID"]))
""", """
import matplotlib.pyplot
matplotlib.pyplot.figure(figsize=(1, 1)), matplotlib.pyplot.plot([1, 2])
matplotlib.pyplot.show()
""", """
import random
from datasets.fingerprint import generate_random_fingerprint  # of files that runs share
print(random.random(), numpy.random.rand(), torch.rand(1).item(), torch.initial_seed(),
      generate_random_fingerprint())
"""]


def quiet(text):
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_notebook):
    """Two runs that were forked and a fresh one, as {name: (record, text of each cell)}."""
    folder = tmp_path_factory.mktemp("lessons")
    (folder / "beside.py").write_text("")
    lessons = [write_notebook(folder / f"0{n}_a.ipynb", SMOKE, *SEEN) for n in (1, 2)]
    said, found = [], {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        patch.setenv("OPENBLAS_NUM_THREADS", "2")
        for start, paths in (("fork", lessons), ("fresh", lessons[:1])):
            out = tmp_path_factory.mktemp(start)
            for record in run_batch(paths, out=out, report=said.append):
                assert record["status"] == "ok", record
                cells = nb.read(out / record["output"])["cells"]
                found[f"{start} {record['lesson']}"] = record, [
                    "".join("".join(o.get("text", "")) for o in cell["outputs"])
                    or [(list(o["data"]), o["metadata"]) for o in cell["outputs"]]
                    for cell in cells]
            assert not list(out.glob(".ftkit-run-*"))
    return found, said


def test_on_smoke_a_run_is_forked_and_sees_what_a_fresh_one_sees(runs):
    found, said = runs
    (forked, seen), (fresh, seen_fresh) = found["fork 01_a"], found["fresh 01_a"]
    assert (forked["start"], fresh["start"]) == ("fork", "fresh")
    assert sum("imported once" in line for line in said) == 1
    assert seen[1:3] == seen_fresh[1:3]
    [(kinds, about)] = seen[2]
    assert "image/png" in kinds and about["image/png"]["alt"] and "True True" in seen[1]


def test_two_forks_draw_other_random_numbers(runs):
    found, _ = runs
    one, two = (found[f"fork 0{n}_a"][1][3].split() for n in (1, 2))
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_what_forks_share_is_counted_once(runs):
    """Else a limit of memory would stop runs for the libraries of another process."""
    found, _ = runs
    # The libraries alone take 0.6 GB, and worker and kernel have both of them.
    assert 50e6 < found["fork 02_a"][0]["peak_memory"] < 700e6


def lessons(*profiles):
    return [SimpleNamespace(name=str(number), values={"profile": profile} if profile else {})
            for number, profile in enumerate(profiles)]


@pytest.mark.parametrize(("profiles", "start", "more", "forked"), [
    (["smoke", "smoke"], None, {}, {"0", "1"}), (["smoke", "cpu", None], None, {}, {"0"}),
    (["smoke"], None, {}, set()), (["smoke"], "fork", {}, {"0"}), ([None], "fork", {}, {"0"}),
    (["smoke", "smoke"], "fresh", {}, set()), (["cpu", "gpu"], None, {}, set()),
    (["smoke", "smoke"], None, {"executor": "ray"}, set()),
    (["smoke", "smoke"], None, {"launch": "two processes"}, set()),
    (["smoke", "smoke"], None, {"commit_to": "notebooks"}, set()),
])
def test_smoke_is_forked_and_results_are_fresh(profiles, start, more, forked):
    given = {"executor": "local", "launch": None, "commit_to": None} | more
    assert forks.may_fork(lessons(*profiles), start, **given) == forked


@pytest.mark.parametrize(("profile", "start", "more", "words"), [
    ("cpu", "fork", {}, "profile cpu, come from fresh"), ("gpu", "fork", {}, "profile gpu, come"),
    ("smoke", "fork", {"executor": "ray"}, "ray starts its own"),
    ("smoke", "fork", {"launch": "two"}, "launch starts its own"),
    ("smoke", "fork", {"commit_to": "x"}, "committed from fresh"),
    ("smoke", "spoon", {}, 'start=\'spoon\': "fork" or "fresh"'),
])
def test_a_fork_whose_result_would_be_believed_is_refused(profile, start, more, words):
    given = {"executor": "local", "launch": None, "commit_to": None} | more
    with pytest.raises(SettingError, match=words):
        forks.may_fork(lessons(profile), start, **given)


def test_on_another_system_each_run_is_fresh(monkeypatch):
    monkeypatch.setattr(forks.sys, "platform", "darwin")
    given = {"executor": "local", "launch": None, "commit_to": None}
    assert forks.may_fork(lessons("smoke", "smoke"), None, **given) == set()
    with pytest.raises(SettingError, match="not Linux"):
        forks.may_fork(lessons("smoke"), "fork", **given)


@pytest.mark.parametrize(("code", "words"), [
    ("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
     "has started threads"),
    ("import subprocess; subprocess.Popen(['sleep', '60'])", "has started a process (sleep)"),
    ("import torch; torch.cuda._is_in_bad_fork = torch.cuda.is_available = lambda: True",
     "has initialised CUDA"),
    ("print('no room', file=sys.stderr); os._exit(7)", "ended with code 7 and no room"),
])
def test_where_no_fork_is_sound_the_runs_are_fresh_and_it_is_said(tmp_path, write_notebook,
                                                                 monkeypatch, code, words):
    """In the preloading process for real: something that Python itself imports does it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, sys\nif 'preload.main' in ' '.join(sys.orig_argv):\n"
        "    from ftkit.batch import preload\n    preload.MODULES = ('ipykernel.kernelapp',)\n"
        f"    {code}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"),
                                                      *filter(None, sys.path)]))
    lesson = write_notebook(tmp_path / "01_a.ipynb", SMOKE, "print(seed)")
    said = []
    [record] = run_batch([lesson], start="fork", out=tmp_path / "out", report=said.append)
    assert (record["status"], record["start"]) == ("ok", "fresh")
    assert [line for line in said if "fresh processes" in line and words in line], said
    assert not list((tmp_path / "out").glob(".ftkit-run-*"))


def test_the_command_takes_the_word(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "01_a.ipynb", ('profile = "cpu"', ["parameters"]), "1")
    done = subprocess.run([sys.executable, "-m", "ftkit.cli", "batch", str(lesson), "--start",
                           "fork", "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 2 and "Leave out --start fork" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_child_that_somebody_else_took_note_of_counts_as_killed():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    child = forks.Child(pid)
    assert (child.poll(), child.wait()) == (-9, -9)
    child.kill()  # of one that has ended, nobody else's process


def test_the_record_says_how_the_run_was_started(runs):
    assert json.loads(json.dumps(runs[0]["fork 01_a"][0]))["start"] == "fork"
