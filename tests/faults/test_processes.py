"""Whatever is killed, and when: what was finished stays, and a second start does the rest."""

import os
import random
import signal
import sys
import time

import pytest
from faulty import (
    PARAMETERS,
    WORK,
    cut_off,
    lives,
    nothing_is_left,
    processes_of,
    records,
    run,
    start,
    wait_for,
)

from ftkit.batch.run import run_batch


@pytest.fixture
def places(tmp_path):
    """The lessons' folder, the output folder and the temporary folder of a batch."""
    found = tmp_path / "lessons", tmp_path / "out", tmp_path / "tmp"
    found[2].mkdir()
    return found


@pytest.mark.parametrize(("number", "code", "more"), [
    (signal.SIGKILL, -9, "fresh"), (signal.SIGTERM, 143, "fork"),
    pytest.param(signal.SIGKILL, -9, "fork", marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, 143, "fresh", marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, 130, "fresh", marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, 130, "fork", marks=pytest.mark.slow)])
def test_a_grid_that_is_stopped_in_its_midst_is_completed_by_a_second_start(
        places, write_notebook, number, code, more):
    lessons, out, temporary = places
    lesson = write_notebook(lessons / "01_a.ipynb", PARAMETERS, cut_off(lessons / "child"), WORK)
    words = [lesson, "--grid", "seconds=0.1,2", "--out", out, "--start", more]
    batch = start(*words, TMPDIR=str(temporary))
    wait_for(lambda: "01_a--seconds=0.1" in records(out) and processes_of(out))
    kept = (out / "01_a--seconds=0.1.ipynb").read_bytes()
    family = processes_of(out)
    batch.send_signal(number)
    printed = batch.communicate(timeout=60)[0]
    assert batch.returncode == code, printed
    assert number == signal.SIGKILL or "what was finished is kept" in printed
    wait_for(lambda: not any(lives(process.pid) for process in family), 10)
    assert not (out / "results.json").exists() and not list(temporary.iterdir())
    if number != signal.SIGKILL:  # else the next start removes the scratch folder
        nothing_is_left(out, temporary)
    code, printed = run(*words, TMPDIR=str(temporary))
    assert code == 0 and printed.count("not run again") == 1, printed
    assert (out / "01_a--seconds=0.1.ipynb").read_bytes() == kept
    assert {record["status"] for record in records(out).values()} == {"ok"}
    nothing_is_left(out, temporary)
    assert not lives(int((lessons / "child").read_text()))


# A cell that holds more than it may, page by page.
TOO_MUCH = """
import time
held = bytearray(900_000_000)
for page in range(0, len(held), 4096):
    held[page] = 1
time.sleep(600)
"""


@pytest.fixture(scope="module", params=[
    "fresh", pytest.param("fork", marks=pytest.mark.slow)])
def one_of_each(request, tmp_path_factory, write_notebook):
    """A batch over lessons of which each has a fault of its own, beside a good one."""
    folder = tmp_path_factory.mktemp("faults")
    lessons, out, temporary = folder / "lessons", folder / "out", folder / "tmp"
    temporary.mkdir()
    cells = {
        # Python's own lock is held, and no signal arrives: only the end of the process helps.
        "01_hang": "import ctypes, signal\n"
                   "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
                   "ctypes.PyDLL(None).sleep(600)",
        "02_package": "import packagethatisnot",
        "03_worker": cut_off(folder / "of worker") + "os.kill(os.getppid(), 9)\ntime.sleep(600)",
        "04_good": WORK,
        "05_kernel": cut_off(folder / "of kernel") + "os.kill(os.getpid(), 9)",
        "06_error": cut_off(folder / "of error") + "raise ValueError('wrong on purpose: ä €')",
        "07_memory": cut_off(folder / "of memory") + TOO_MUCH,
        "08_child": cut_off(folder / "of child"),  # it outlives its cell, and nothing else is wrong
    }
    for name, cell in cells.items():
        write_notebook(lessons / f"{name}.ipynb", PARAMETERS, cell)
    words = ("--workers", 2, "--start", request.param, "--out", out)
    ended = run(lessons, *words, "--cell-timeout", 8, "--memory", "800M", TMPDIR=str(temporary))
    return ended, records(out), lessons, words, temporary


@pytest.mark.parametrize(("name", "status", "words"), [
    ("01_hang", "cell timeout", "cell 2 of 2 ran longer than 8 s"),
    ("02_package", "error", "cell 2: ModuleNotFoundError: No module named 'packagethatisnot'"),
    ("03_worker", "crashed", "code -9 and no word in cell 2 of 2"),
    ("04_good", "ok", ""),
    ("05_kernel", "dead kernel", "the Python process died in cell 2 of 2"),
    ("06_error", "error", "cell 2: ValueError: wrong on purpose: ä €"),
    ("07_memory", "memory", "the limit is 0.80 GB. Choose a smaller profile"),
    ("08_child", "ok", "")])
def test_each_fault_has_its_status_and_stops_no_other(one_of_each, name, status, words):
    (code, printed), found, *_ = one_of_each
    assert found[name]["status"] == status and words in found[name]["message"], printed
    assert code == 3, printed  # the worker's end is nobody's error


def test_of_no_fault_anything_is_left(one_of_each):
    *_, lessons, words, temporary = one_of_each
    children = sorted(lessons.parent.glob("of *"))
    assert len(children) == 5
    left = [path.name for path in children if lives(int(path.read_text()))]
    assert not left, "a child with an emptied environment has outlived its run"
    nothing_is_left(words[-1], temporary)


def test_after_the_faults_are_mended_a_second_start_does_the_rest(one_of_each, write_notebook):
    _, found, lessons, words, temporary = one_of_each
    for name, record in found.items():
        if record["status"] != "ok":
            write_notebook(lessons / f"{name}.ipynb", PARAMETERS, WORK)
    code, printed = run(lessons, *words, TMPDIR=str(temporary))
    assert code == 0 and printed.count("not run again") == 2, printed
    assert not list(words[-1].glob("*.failed.ipynb"))
    nothing_is_left(words[-1], temporary)


def preloading(out):
    """Return the process that forks the runs of a batch, None before there is one."""
    found = [process for process in processes_of(out) if process.name() not in (
        "ftkit-worker", "ftkit-kernel") and "preload.main" in " ".join(process.cmdline())]
    return found[0] if found else None


def test_without_the_preloading_process_the_runs_go_on_and_the_rest_are_fresh(places,
                                                                              write_notebook):
    """It is killed while one run is in its midst and others are to come."""
    lessons, out, temporary = places
    lesson = write_notebook(lessons / "01_a.ipynb", PARAMETERS, WORK)
    batch = start(lesson, "--grid", "seconds=0.1,3,0.2", "--start", "fork", "--out", out,
                  TMPDIR=str(temporary))
    wait_for(lambda: list(out.glob(".ftkit-run-01_a--seconds=3*/progress")), 120)
    preloading(out).kill()
    printed = batch.communicate(timeout=300)[0]
    assert batch.returncode == 0, printed
    assert printed.count("ended with code -9") == 1 and "in fresh processes" in printed
    found = records(out)
    assert [found[f"01_a--seconds={s}"]["start"] for s in ("0.1", "3.0", "0.2")] == [
        "fork", "fork", "fresh"]
    assert {record["status"] for record in found.values()} == {"ok"}
    nothing_is_left(out, temporary)


@pytest.mark.slow
def test_a_kernel_that_never_answers_is_named_and_tried_again(places, write_notebook, monkeypatch):
    lessons, out, temporary = places
    hang = f"""
import pathlib, sys, time
if "ipykernel_launcher" in sys.orig_argv and not (begun := pathlib.Path({str(lessons / "begun")!r}
                                                                        )).exists():
    begun.write_text("")
    time.sleep(600)
"""
    lesson = write_notebook(lessons / "01_a.ipynb", PARAMETERS, WORK)
    (lessons / "sitecustomize.py").write_text(hang)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(lessons), *filter(None, sys.path)]))
    monkeypatch.setattr("ftkit.batch.supervise.START_TIMEOUT", 30)
    said = []
    [record] = run_batch([lesson], retries=1, out=out, report=said.append)
    assert (record["status"], record["attempts"]) == ("ok", 2), said
    assert any("NO KERNEL: no Python process answered within 30 s" in line for line in said)
    nothing_is_left(out)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.3, 2, 6])
def test_a_batch_that_is_stopped_while_it_preloads_leaves_nothing(places, write_notebook, moment):
    lessons, out, temporary = places
    lesson = write_notebook(lessons / "01_a.ipynb", PARAMETERS, WORK)
    for number in (signal.SIGKILL, signal.SIGTERM):
        batch = start(lesson, "--start", "fork", "--fresh", "--out", out, TMPDIR=str(temporary))
        wait_for(lambda: processes_of(out))
        time.sleep(moment)
        batch.send_signal(number)
        batch.communicate(timeout=60)
        wait_for(lambda: not processes_of(out), 10)
    nothing_is_left(out, temporary)


@pytest.mark.slow
def test_a_batch_killed_three_times_at_random_repeats_no_finished_run(places, write_notebook):
    """Whenever it happens, and by which signal: each further start does what is not done."""
    lessons, out, temporary = places
    for number in range(1, 7):
        began = lessons / f"began {number}"
        write_notebook(lessons / f"0{number}_a.ipynb", ("seconds = 1", ["parameters"]),
                       f"open({str(began)!r}, 'a').write('x')", WORK.replace("{rank} {seed}", ""))
    words, seed = [lessons, "--workers", 2, "--out", out], time.time_ns()
    chance, finished = random.Random(seed), {}
    print(f"seed {seed}")  # shown when it fails

    def state():
        return {name: ((out / f"{name}.ipynb").read_bytes(),
                       (lessons / f"began {int(name[:2])}").read_text())
                for name, record in records(out).items() if record["status"] == "ok"}

    for _ in range(3):
        batch, before = start(*words, TMPDIR=str(temporary)), len(finished)
        # In the midst of things: some are done by now, and some are not.
        wait_for(lambda: processes_of(out) or batch.poll() is not None)  # noqa: B023
        wait_for(lambda: len(records(out)) > before or batch.poll() is not None)  # noqa: B023
        time.sleep(chance.uniform(0, 3))
        batch.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        batch.communicate(timeout=60)
        wait_for(lambda: not processes_of(out), 10)
        found = state()
        assert finished.items() <= found.items(), "a finished run was repeated or lost"
        finished = found
    assert 3 <= len(finished), "each start had finished something"
    code, printed = run(*words, TMPDIR=str(temporary))
    assert code == 0 and printed.count("not run again") == len(finished), printed
    found = state()
    assert len(found) == 6 and finished.items() <= found.items()
    nothing_is_left(out, temporary)
