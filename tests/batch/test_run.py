"""A user who starts a batch and walks away must be able to believe what it says afterwards."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from ftkit.batch import notebook as nb
from ftkit.batch import report
from ftkit.batch.run import LOCK, find_notebooks, run_batch
from ftkit.batch.supervise import WORK
from ftkit.errors import DataError, FtkitError, SettingError

PARAMETERS = ('profile = "cpu"  # smoke, cpu or gpu\nseed = 0  # any whole number', ["parameters"])
# A child of the kernel: it must not outlive the lesson.
CHILD = ("import pathlib, subprocess, sys, time\n"
         "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
         "pathlib.Path({path!r}).write_text(str(child.pid))\n")
CLAIM = {
    "claim": "tuned beats base", "metric": "accuracy",
    "before": {"value": 0.5, "low": 0.4, "high": 0.6},
    "after": {"value": 0.8, "low": 0.7, "high": 0.9},
    "difference": {"value": 0.3, "low": 0.2, "high": 0.4},
    "bound": {"at_least": 0}, "relative": False, "held": True, "judged": True,
    "profile": "cpu", "n": 500,
}
NOTHING = {"value": "NaN", "low": "NaN", "high": "NaN"}


def show(claim):
    return ("from IPython.display import display\n"
            f"display({{'{nb.CLAIM}': {claim!r}, 'text/plain': 'a claim'}}, raw=True)")


# The good output of an earlier day, as a batch leaves it.
EARLIER = json.dumps({"cells": [], "metadata": {"ftkit": {"parameters": {}}}, "nbformat": 4})


def quiet(text):
    pass


@pytest.fixture(scope="module")
def everything_wrong(tmp_path_factory, write_notebook):
    """One batch over a good lesson and one of each kind of failure."""
    folder = tmp_path_factory.mktemp("lessons")
    out = tmp_path_factory.mktemp("artifacts")
    child = folder / "child"
    hold = "import time\nheld = bytearray(900_000_000)\nfor i in range(0, 900_000_000, 4096):\n"
    lessons = {
        "01_good": ["#md # Good", PARAMETERS, "import os, sys, tempfile\n"
                    "print(seed, os.getcwd())\nprint(sys.executable, tempfile.gettempdir())",
                    show(CLAIM)],
        "02_error": ["1 / 0", "print('never')"],
        "03_dead": ["import os\nos._exit(3)", "print('never')"],
        "04_hang": [CHILD.format(path=str(child)) + "time.sleep(600)"],
        "05_memory": [hold + "    held[i] = 1\ntime.sleep(600)"],
        "06_early": ["import sys\nsys.exit(0)", "print('never')"],
        "07_lost": [show({**CLAIM, "held": False})],
        # As ft.claim showed NaN once, before it wrote None: Jupyter makes the word `nan` of it.
        "09_open": [show({**CLAIM, "held": False, "expect": "open", "difference": NOTHING})
                    .replace("'NaN'", "float('nan')")],
        "08_silent": ["def conclude():\n    pass", "conclude()"],
        "09_no_claim": [show({"claim": "of an older version"})],
    }
    for name, cells in lessons.items():
        write_notebook(folder / f"{name}.ipynb", *cells)
    # A kernel of the user's that shadows python3 and does not work.
    broken = folder / "jupyter" / "kernels" / "python3"
    broken.mkdir(parents=True)
    (broken / "kernel.json").write_text(json.dumps(
        {"argv": ["/bin/false"], "display_name": "broken", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        records = run_batch([folder], out=out, workers=2, cell_timeout=10, memory=800_000_000,
                            report=quiet)
    return {record["name"]: record for record in records}, out, int(child.read_text())


def test_a_good_lesson_is_ok_with_its_claims(everything_wrong):
    records, out, _ = everything_wrong
    good = records["01_good"]
    assert (good["status"], good["output"]) == ("ok", "01_good.ipynb")
    assert good["claims"] == [CLAIM]
    assert good["seconds"] > 0 and good["peak_memory"] > 20e6


def test_an_open_question_without_an_answer_fails_no_lesson_and_ends_no_batch(everything_wrong):
    record = everything_wrong[0]["09_open"]
    assert record["status"] == "ok" and record["claims"][0]["difference"]["value"] == "nan"
    cells = report.claim_cells(record["claims"][0])
    assert cells[-3::2] == ("nan [nan, nan]", "did not hold (open question)")


def test_the_kernel_is_this_python_in_the_notebooks_folder(everything_wrong):
    _, out, _ = everything_wrong
    executed = nb.read(out / "01_good.ipynb")
    printed = "".join("".join(o.get("text", "")) for o in executed["cells"][2]["outputs"])
    assert "lessons" in printed and f"{sys.executable} {tempfile.gettempdir()}" in printed


def test_the_executed_file_says_what_made_it_and_nothing_of_the_machine(everything_wrong):
    _, out, _ = everything_wrong
    executed = nb.read(out / "01_good.ipynb")
    assert executed["metadata"]["ftkit"]["source_hash"] == nb.source_hash(executed)
    assert executed["metadata"]["ftkit"]["parameters"] == {"profile": "cpu", "seed": 0}
    text = json.dumps([executed["metadata"], [c["metadata"] for c in executed["cells"]]])
    assert "papermill" not in text and "T00" not in text and str(out) not in text


@pytest.mark.parametrize(("name", "status", "words"), [
    ("02_error", "error", "cell 1: ZeroDivisionError"),
    ("03_dead", "dead kernel", "died in cell 1 of 2"),
    ("04_hang", "cell timeout", "longer than 10 s"),
    ("05_memory", "memory", "the limit is 0.80 GB"),
    ("06_early", "error", "SystemExit"),
    ("07_lost", "claim not held", "tuned beats base"),
    ("08_silent", "no claim", "conclude()"),
    ("09_no_claim", "error", "cell 1 shows a claim without"),
])
def test_each_failure_has_its_name_and_never_counts_as_done(everything_wrong, name, status, words):
    records, out, _ = everything_wrong
    assert records[name]["status"] == status
    assert words in records[name]["message"]
    assert not (out / f"{name}.ipynb").exists()


def test_a_failing_cell_is_kept_for_looking_at(everything_wrong):
    records, out, _ = everything_wrong
    failure = records["02_error"]["failure"]
    assert failure["source"] == "1 / 0" and "division by zero" in failure["traceback"][-1]
    assert nb.failure(nb.read(out / records["02_error"]["output"]))["cell"] == 0


def test_nothing_outlives_its_lesson(everything_wrong):
    _, out, child = everything_wrong
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    assert not [path for path in out.glob(".*") if path.is_dir()]


def test_a_lesson_that_takes_too_long_is_stopped(tmp_path, write_notebook):
    hang = write_notebook(tmp_path / "hang.ipynb", "import time", "time.sleep(600)")
    [record] = run_batch([hang], out=tmp_path / "out", timeout=8, report=quiet)
    assert record["status"] == "timeout" and "after 8 s" in record["message"]
    assert record["seconds"] < 30


def test_resume_runs_only_what_is_not_done(tmp_path, write_notebook, monkeypatch):
    lesson = write_notebook(tmp_path / "01_a.ipynb", PARAMETERS, "print(seed)")
    out = tmp_path / "out"

    class Ran(Exception):
        pass

    def runs(**options):
        with monkeypatch.context() as patch:
            patch.setattr("ftkit.batch.run.Running", lambda *_: (_ for _ in ()).throw(Ran))
            try:
                [record] = run_batch([lesson], out=out, report=quiet, **options)
            except Ran:
                return True
            assert record["resumed"] and record["status"] == "ok"
            return False

    assert runs()
    [record] = run_batch([lesson], out=out, report=quiet)
    assert not record["resumed"]
    assert not runs()
    assert runs(resume=False)
    assert runs(parameters={"seed": 7})
    for name, value in (("FTKIT_DISABLE", "all"), ("FTKIT_DTYPE", "bf16")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert runs()
    monkeypatch.setattr("ftkit.batch.run._environment", lambda: "another package was installed")
    assert runs()
    monkeypatch.undo()
    assert not runs()
    (out / "01_a.ipynb").write_text("{}")  # the output is not the one that was recorded
    assert runs()
    write_notebook(lesson, PARAMETERS, "print(seed + 1)")
    assert runs()


def test_parameters_are_injected_only_when_they_differ(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "a.ipynb", PARAMETERS, "print(profile, seed)")
    [record] = run_batch([lesson], profile="cpu", parameters={"seed": 7}, out=tmp_path / "out",
                         report=quiet)
    executed = nb.read(tmp_path / "out" / "a.ipynb")
    assert nb.INJECTED in nb.tags(executed["cells"][1])
    assert "profile" not in nb.source(executed["cells"][1])
    assert "cpu 7" in "".join(executed["cells"][2]["outputs"][0]["text"])
    assert nb.source_hash(executed) == nb.source_hash(nb.read(lesson))


def start_batch(*arguments, **environment):
    return subprocess.Popen([sys.executable, "-m", "ftkit.cli", "batch", *map(str, arguments)],
                            env=os.environ | environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            # A shell's background job ignores ^C, and its children inherit that.
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143),
                                              (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
def test_a_stopped_batch_leaves_no_process_and_no_half_file(tmp_path, write_notebook, number, code):
    pid = tmp_path / "pid"
    hang = write_notebook(tmp_path / "hang.ipynb",
                          CHILD.format(path=str(pid)) + "time.sleep(600)")
    out = tmp_path / "out"
    out.mkdir()
    (out / "hang.ipynb").write_text(EARLIER)
    (tmp_path / "tmp").mkdir()
    batch = start_batch(hang, "--out", out, TMPDIR=str(tmp_path / "tmp"))
    wait_for(lambda: pid.exists() and pid.read_text())
    family = psutil.Process(batch.pid).children(recursive=True)
    assert len(family) >= 3  # the worker, its kernel and the kernel's child
    batch.send_signal(number)
    batch.wait(120)
    assert batch.returncode == code, batch.stdout.read()
    psutil.wait_procs(family, timeout=20)
    assert not [p for p in family if p.is_running() and p.status() != "zombie"]
    assert (out / "hang.ipynb").read_text() == EARLIER
    assert not list((tmp_path / "tmp").glob("*.json")), "a kernel's connection file was left"
    if number != signal.SIGKILL:
        assert not [path for path in out.glob(f"{WORK}*")]


def test_a_full_disk_keeps_the_output_that_was_there(tmp_path, write_notebook, monkeypatch):
    lesson = write_notebook(tmp_path / "a.ipynb", "print(1)")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.ipynb").write_text(EARLIER)
    earlier = out / "status" / "a.json"
    earlier.parent.mkdir()
    earlier.write_text(json.dumps({"name": "a", "status": "ok", "key": "of an earlier source"}))

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    [record] = run_batch([lesson], out=out, report=quiet)
    assert record["status"] == "disk"
    assert "a.ipynb" in record["message"] and "Free some space" in record["message"]
    assert (out / "a.ipynb").read_text() == EARLIER
    assert not earlier.exists(), "a second start would believe a record that is not of this run"
    assert not [p for p in out.rglob(".*") if p.name != LOCK]


def test_two_batches_do_not_share_a_folder(tmp_path, write_notebook):
    from filelock import FileLock

    lesson = write_notebook(tmp_path / "a.ipynb", "print(1)")
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / LOCK), pytest.raises(FtkitError, match="another batch"):
        run_batch([lesson], out=out, report=quiet)


def test_requests_that_make_no_sense_are_refused_before_anything_runs(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "01_a.ipynb", PARAMETERS, "print(1)")
    out = tmp_path / "out"
    for paths, options, error, words in [
        ([lesson], {"parameters": {"sed": 7}}, SettingError, "no parameter 'sed'.*profile, seed"),
        ([lesson], {"workers": 0}, SettingError, "greater than 0"),
        ([tmp_path / "none.ipynb"], {}, DataError, "does not exist"),
        ([tmp_path / "out2"], {}, DataError, "does not exist"),
        ([lesson], {"profile": "smoke", "commit_to": tmp_path}, SettingError, "default parameters"),
    ]:
        with pytest.raises(error, match=words):
            run_batch(paths, out=out, report=quiet, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match="no lesson"):
        find_notebooks([tmp_path / "empty"])
    (tmp_path / "bad.ipynb").write_text('{"cells": [')
    with pytest.raises(DataError, match="not a notebook"):
        run_batch([tmp_path / "bad.ipynb"], out=out, report=quiet)
    write_notebook(lesson, ("seed = int('3')", ["parameters"]))
    with pytest.raises(SettingError, match="literal value"):
        run_batch([lesson], out=out, report=quiet)
    assert not out.exists()


def everything_in(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None
            for p in folder.rglob("*")}


def test_a_folder_full_of_other_things_may_be_the_output_folder(tmp_path, write_notebook):
    out = tmp_path / "project"
    others = [".venv-peers/bin/python", ".pre-commit-cache/a", ".git-backup/HEAD", ".env-prod/x",
              "notes-of-mine/a", ".lock", "01_b.ipynb", "results/results.json"]
    for name in others:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"mine: {name}")
    before = everything_in(out)
    (out / f"{WORK}01_a-killed").mkdir()  # what a killed batch left
    lesson = write_notebook(tmp_path / "01_a.ipynb", "print(1)")
    [record] = run_batch([lesson], out=out, report=quiet)
    after = everything_in(out)
    assert record["status"] == "ok" and before.items() <= after.items()
    assert after.keys() - before.keys() <= {"01_a.ipynb", "logs", "logs/01_a.log", "status",
                                            "status/01_a.json", LOCK}


def test_no_output_takes_the_place_of_what_no_batch_wrote(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "lessons" / "01_a.ipynb", PARAMETERS, "print(seed)")
    committed = write_notebook(tmp_path / "course" / "01_a.ipynb", "print(1)")
    notebook = nb.read(committed)
    notebook["metadata"]["ftkit"] = {"source_hash": "…", "profile": "cpu"}
    nb.write(notebook, committed)
    (tmp_path / "linked").symlink_to(tmp_path / "lessons")
    for name, text in [("bench/results.json", '{"works": {}}'), ("docs/results.md", "# Mine"),
                       ("job/status/01_a.json", '{"name": "01_a"}'), ("app/logs/01_a.log", "x")]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = everything_in(tmp_path)
    for out, words in [("lessons", "the source of a lesson"), ("linked", "the source of a lesson"),
                       ("course", "course/01_a.ipynb was not written by a batch"),
                       ("bench", "bench/results.json was not"), ("docs", "docs/results.md was not"),
                       ("job", "job/status/01_a.json was not"), ("app", "app/logs/01_a.log was")]:
        with pytest.raises(SettingError, match=f"{words}.*choose another --out"):
            run_batch([lesson], out=tmp_path / out, report=quiet)
    assert everything_in(tmp_path) == before


def test_results_of_an_earlier_batch_are_gone_when_the_next_begins(tmp_path, write_notebook):
    """Stopped half-way, it must not be taken for one in which all claims held."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("results.md", "results.png"):
        (out / name).write_text("earlier")
    (out / "results.json").write_text('{"lessons": [], "all_held": true}')
    pid = tmp_path / "pid"
    hang = write_notebook(tmp_path / "hang.ipynb",
                          CHILD.format(path=str(pid)) + "time.sleep(600)")
    batch = start_batch(hang, "--out", out)
    wait_for(lambda: pid.exists() and pid.read_text())
    batch.send_signal(signal.SIGTERM)
    assert batch.wait(120) == 143
    assert not list(out.glob("results.*"))


# A child that cuts itself off: two forks and a session of its own; it may empty its environment.
CUT_OFF = """
import os, pathlib, subprocess, sys, time
code = '''
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open(sys.argv[1], "w").write(str(os.getpid()))
held = bytearray(int(sys.argv[2]))
held[::4096] = bytes([1]) * len(held[::4096])
time.sleep(600)
'''
path = pathlib.Path({path!r})
subprocess.run([sys.executable, "-c", code, str(path), "{size}"], env={environment})
while not (path.exists() and path.read_text()): time.sleep(.01)
"""


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_a_child_that_cuts_itself_off_does_not_outlive_its_lesson(tmp_path, write_notebook):
    cells, paths = {}, {name: tmp_path / name for name in ("01_last", "02_dead", "03_session")}
    for name, environment in (("01_last", "None"), ("02_dead", "{}")):
        cells[name] = CUT_OFF.format(path=str(paths[name]), size=0, environment=environment)
    cells["02_dead"] += "os.kill(os.getpid(), 9)"
    cells["03_session"] = (
        "import pathlib, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"pathlib.Path({str(paths['03_session'])!r}).write_text(str(child.pid))")
    lessons = [write_notebook(tmp_path / f"{n}.ipynb", cell) for n, cell in cells.items()]
    records = run_batch(lessons, out=tmp_path / "out", report=quiet)
    assert [record["status"] for record in records] == ["ok", "dead kernel", "ok"]
    assert all(is_gone(int(path.read_text())) for path in paths.values())


def test_a_killed_worker_leaves_nothing_either(tmp_path, write_notebook):
    cell = CUT_OFF.format(path=str(tmp_path / "pid"), size=0, environment="None")
    lesson = write_notebook(tmp_path / "a.ipynb",
                            cell + "os.kill(os.getppid(), 9)\ntime.sleep(600)")
    [record] = run_batch([lesson], out=tmp_path / "out", report=quiet)
    assert record["status"] == "crashed" and is_gone(int((tmp_path / "pid").read_text()))


def test_memory_of_a_child_that_cuts_itself_off_is_counted(tmp_path, write_notebook):
    cell = CUT_OFF.format(path=str(tmp_path / "pid"), size=900_000_000, environment="None")
    lesson = write_notebook(tmp_path / "a.ipynb", cell + "time.sleep(60)")
    [record] = run_batch([lesson], out=tmp_path / "out", memory=800_000_000, report=quiet)
    assert record["status"] == "memory" and is_gone(int((tmp_path / "pid").read_text()))


def test_memory_that_processes_share_is_counted_once(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "a.ipynb", """
import os, time
held = bytearray(300_000_000)
held[::4096] = bytes([1]) * len(held[::4096])
children = []
for _ in range(4):
    if not (child := os.fork()):
        sum(held[::4096])
        time.sleep(6)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
""")
    [record] = run_batch([lesson], out=tmp_path / "out", memory=1_000_000_000, report=quiet)
    assert record["status"] == "ok", record["message"]
    assert 300e6 < record["peak_memory"] < 800e6


@pytest.mark.parametrize(("change", "words"), [
    ({"cells": [{"source": "1", "metadata": {}}]}, "cell 1 is of the kind None"),
    ({"cells": [{"cell_type": "code", "source": None}]}, "cell 1 has no text as its source"),
    ({"cells": [3]}, "not a notebook"),
    ({"cells": None}, "not a notebook"),
    ({"nbformat": None}, "its format is None"),
    ({"metadata": None}, "not a notebook"),
    ({"metadata": {"kernelspec": {"name": "ir", "language": "R"}}}, "is a notebook for R"),
])
def test_a_broken_notebook_is_named(tmp_path, write_notebook, change, words):
    path = write_notebook(tmp_path / "bad.ipynb", "1")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=f"bad.ipynb.*{words}"):
        run_batch([path], out=tmp_path / "out", report=quiet)


def test_a_parameters_cell_may_have_magics_but_no_wrong_syntax(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "a.ipynb", ("%matplotlib inline\nn = 3", ["parameters"]))
    assert nb.parameters(nb.read(lesson)) == {"n": 3}
    write_notebook(lesson, ("seed: int = 3  # annotated", ["parameters"]))
    assert nb.parameters(nb.read(lesson)) == {"seed": 3}
    write_notebook(lesson, ("n = = 3", ["parameters"]))
    with pytest.raises(SettingError, match="parameters cell of a.ipynb is not Python.*line 1"):
        run_batch([lesson], out=tmp_path / "out", report=quiet)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("n", "three", "n is a whole number .here 3., and 'three' is not"),
    ("n", 3.5, "n is a whole number"), ("n", True, "n is a whole number"),
    ("rate", "fast", "rate is a number"), ("deep", 1, "deep is True or False"),
    ("model", 7, "model is text .* write it in quotes"), ("sizes", 3, "sizes is a list"),
])
def test_a_parameter_of_another_type_is_refused(tmp_path, write_notebook, name, value, words):
    lesson = write_notebook(tmp_path / "a.ipynb", (
        "n = 3\nrate = 0.5\ndeep = False\nmodel = 'tiny'\nsizes = [1]\nnothing = None",
        ["parameters"]))
    with pytest.raises(SettingError, match=f"a.ipynb: the parameter {words}"):
        run_batch([lesson], parameters={name: value}, out=tmp_path / "out", report=quiet)


@pytest.mark.parametrize("limits", [{"timeout": float("nan")}, {"memory": 0}, {"memory": -1},
                                    {"cell_timeout": float("inf")}])
def test_limits_that_are_none_are_refused(tmp_path, write_notebook, limits):
    lesson = write_notebook(tmp_path / "a.ipynb", "1")
    with pytest.raises(SettingError, match=f"{next(iter(limits))}=.*greater than 0"):
        run_batch([lesson], out=tmp_path / "out", report=quiet, **limits)
