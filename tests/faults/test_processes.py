"""Whatever is killed, and when: what was finished stays, and a second start does the rest."""

import signal

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


@pytest.fixture
def places(tmp_path):
    """The lessons' folder, the output folder and the temporary folder of a batch."""
    found = tmp_path / "lessons", tmp_path / "out", tmp_path / "tmp"
    found[2].mkdir()
    return found


@pytest.mark.parametrize(("number", "code"), [
    (signal.SIGKILL, -9), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)])
def test_a_grid_that_is_stopped_in_its_midst_is_completed_by_a_second_start(
        places, write_notebook, number, code):
    lessons, out, temporary = places
    lesson = write_notebook(lessons / "01_a.ipynb", PARAMETERS, cut_off(lessons / "child"), WORK)
    words = [lesson, "--grid", "seconds=0.1,2", "--out", out]
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


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory, write_notebook):
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
        "03_worker": cut_off(folder / "alone") + "os.kill(os.getppid(), 9)\ntime.sleep(600)",
        "04_good": WORK,
    }
    for name, cell in cells.items():
        write_notebook(lessons / f"{name}.ipynb", PARAMETERS, cell)
    ended = run(lessons, "--workers", 2, "--cell-timeout", 8, "--out", out,
                TMPDIR=str(temporary))
    return ended, records(out), lessons, out, temporary, int((folder / "alone").read_text())


@pytest.mark.parametrize(("name", "status", "words"), [
    ("01_hang", "cell timeout", "cell 2 of 2 ran longer than 8 s"),
    ("02_package", "error", "cell 2: ModuleNotFoundError: No module named 'packagethatisnot'"),
    ("03_worker", "crashed", "code -9 and no word in cell 2 of 2"),
    ("04_good", "ok", "")])
def test_each_fault_has_its_status_and_stops_no_other(one_of_each, name, status, words):
    (code, printed), found, *_ = one_of_each
    assert found[name]["status"] == status and words in found[name]["message"]
    assert code == 3, printed  # the worker's end is nobody's error


def test_of_no_fault_anything_is_left(one_of_each):
    _, _, _, out, temporary, alone = one_of_each
    assert not lives(alone), "a child with an emptied environment has outlived its worker"
    nothing_is_left(out, temporary)


def test_after_the_faults_are_mended_a_second_start_does_the_rest(one_of_each, write_notebook):
    _, _, lessons, out, temporary, _ = one_of_each
    for name in ("01_hang", "02_package", "03_worker"):
        write_notebook(lessons / f"{name}.ipynb", PARAMETERS, WORK)
    code, printed = run(lessons, "--workers", 2, "--out", out, TMPDIR=str(temporary))
    assert code == 0 and printed.count("not run again") == 1, printed
    assert not list(out.glob("*.failed.ipynb"))
    nothing_is_left(out, temporary)
