"""Files, folders and clocks that are not as they should be: each gets its sentence, once."""

import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import tiny
from faulty import PARAMETERS, WORK, may_mount, nothing_is_left, records, run, start, wait_for

import ftkit as ft
from ftkit.batch import notebook as nb
from ftkit.errors import SettingError

LOUD = "for i in range(300): print('x' * 10_000)"  # 3 MB of output


def on_a_disk(out, options, mended):
    """Return the words that make a command see a disk of its own at `out`, and then a mended one.

    The command is given twice, before and after the disk has the options that mend it.
    """
    out.mkdir()
    return ["unshare", "-rm", "sh", "-ec",
            f'mount -t tmpfs -o {options} none "{out}"; "$@" || echo "code $?"; find "{out}"; '
            f'mount -o remount,{mended} "{out}"; echo MENDED; "$@" && echo "code 0"; '
            f'find "{out}"', "sh"]


def test_a_full_disk_is_named_and_the_next_run_goes_on(tmp_path, write_notebook):
    loud = write_notebook(tmp_path / "01_loud.ipynb", PARAMETERS, LOUD)
    good = write_notebook(tmp_path / "02_good.ipynb", PARAMETERS, WORK)
    out = tmp_path / "out"
    if may_mount():
        code, printed = run(loud, good, "--out", out, prefix=on_a_disk(out, "size=2m", "size=64m"))
        printed, _, second = printed.partition("MENDED")
        assert "code 3" in printed and "No space left on device" in printed
    else:  # a limit for the size of a file is a disk's end for the one that is too large
        code, printed = run(loud, good, "--out", out, prefix=["prlimit", "--fsize=2000000"])
        assert code == 3 and "File too large" in printed
        code, second = run(loud, good, "--out", out)
    assert "01_loud: DISK" in printed and "02_good: ok" in printed
    assert "01_loud.ipynb\n" not in printed and ".ftkit-run-" not in printed + second
    assert "01_loud: ok" in second and second.count("not run again") == 1 and code == 0


def test_an_output_folder_that_cannot_be_written_is_named_before_anything_runs(
        tmp_path, write_notebook):
    good = write_notebook(tmp_path / "good.ipynb", PARAMETERS, WORK)
    out = tmp_path / "out"
    if may_mount():
        _, printed = run(good, "--out", out, prefix=on_a_disk(out, "size=2m,ro", "size=2m,rw"))
        printed, _, second = printed.partition("MENDED")
        assert "code 2" in printed and "good: ok" in second and "code 0" in second
    else:
        code, printed = run(good, "--out", "/proc/out")
        assert code == 2
    assert "cannot be used" in printed and "Choose another --out" in printed
    assert "started" not in printed


def test_an_output_folder_that_becomes_read_only_is_named_with_what_to_do(
        tmp_path, write_notebook):
    """The disk of the folder is switched while the cell runs, the first time that it runs."""
    out = tmp_path / "out"
    if not may_mount():
        assert nb.remedy(PermissionError(errno.EACCES, "")) == "Make the folder writable"
        return
    # Open files of the batch itself keep the disk from being switched as a whole.
    words = ("--bind", str(out)), ("-o", "remount,bind,ro")
    switch = (f"import subprocess\nfrom pathlib import Path\nonce = Path({str(out) + '.once'!r})\n"
              f"for one in () if once.exists() else {words!r}:\n"
              f"    subprocess.run(['mount', *one, {str(out)!r}], check=True)\nonce.touch()")
    lesson = write_notebook(tmp_path / "a.ipynb", PARAMETERS, WORK, switch)
    _, printed = run(lesson, "--out", out, prefix=on_a_disk(out, "size=4m", "size=4m,rw"))
    first, _, second = printed.partition("MENDED")
    assert "a: DISK" in first and "code 3" in first
    assert "Make the folder writable, or choose another" in first
    assert "a: ok" in second and "code 0" in second


def test_a_cell_that_deletes_the_output_folder_ends_no_batch(tmp_path, write_notebook):
    out = tmp_path / "out"
    bad = write_notebook(tmp_path / "01_bad.ipynb", PARAMETERS, WORK,
                         f"import shutil\nshutil.rmtree({str(out)!r})")
    good = write_notebook(tmp_path / "02_good.ipynb", PARAMETERS, WORK)
    code, printed = run(bad, good, "--out", out)
    assert "Traceback" not in printed and "02_good: ok" in printed
    assert "01_bad: " in printed and "01_bad: ok" not in printed and code != 0
    logs = re.findall(r"^log: (.+)$", printed, re.MULTILINE)
    assert all(Path(log).exists() for log in logs)
    assert set(records(out)) <= {"01_bad", "02_good"} and (out / "02_good.ipynb").exists()
    nothing_is_left(out)


@pytest.mark.parametrize(("content", "words"), [
    ('{"cells": [', "not a notebook"), ("", "not a notebook"), ("[]", "not a notebook"),
    ('{"cells": [], "metadata": {}, "nbformat": 3}', "its format is 3"),
    ('{"cells": [{"cell_type": "code"}], "metadata": {}, "nbformat": 4}', "no text as its source"),
    (b"\x80\x81\xff", "not a notebook"),
    ('{"cells": [], "metadata": {"kernelspec": {"name": "ir", "language": "R"}}, "nbformat": 4}',
     "a notebook for R"),
])
def test_of_broken_notebooks_none_starts_the_batch(tmp_path, write_notebook, content, words,
                                                   capsys):
    from ftkit import cli

    good = write_notebook(tmp_path / "01_good.ipynb", PARAMETERS, WORK)
    bad = tmp_path / "02_bad.ipynb"
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.main(["batch", str(good), str(bad), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and "02_bad.ipynb" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_notebook_without_parameters_runs_and_has_no_grid(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "a.ipynb", "print(1)")
    code, printed = run(lesson, "--grid", "rank=1,2", "--out", tmp_path / "out")
    assert code == 2 and "no parameter 'rank'. Its parameters are: none" in printed
    code, printed = run(lesson, "--out", tmp_path / "out")
    assert code == 0 and "a: ok" in printed


def test_of_two_batches_on_one_folder_the_second_is_sent_away(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "a.ipynb", PARAMETERS, WORK)
    out = tmp_path / "out"
    first = start(lesson, "-p", "seconds", "2.0", "--out", out)
    wait_for(lambda: list(out.glob(".ftkit-run-*")))
    code, printed = run(lesson, "-p", "seconds", "2.0", "--out", out)
    assert code == 2 and "another batch is writing" in printed
    assert first.wait(60) == 0 and records(out)["a"]["status"] == "ok"
    nothing_is_left(out)
    code, printed = run(lesson, "-p", "seconds", "2.0", "--out", out)
    assert code == 0 and "not run again" in printed


CLOCK = """
import os, time
real = time.time
def time_of_a_bad_clock(count=[0]):
    count[0] += 1  # a day back and a day forth, over and over
    return real() + (-86_400, 0, 86_400)[count[0] % 3]
time.time = time_of_a_bad_clock
"""


@pytest.mark.slow
def test_a_clock_that_jumps_ends_no_run_early_and_makes_none_endless(tmp_path, write_notebook):
    """In every Python process of the batch; the limits are a minute, the jumps are a day."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    lesson = write_notebook(tmp_path / "01_a.ipynb", PARAMETERS,
                            "import time\nassert time.time.__name__ == 'time_of_a_bad_clock'", WORK)
    hang = write_notebook(tmp_path / "02_hang.ipynb", PARAMETERS, "import time\ntime.sleep(600)")
    out = tmp_path / "out"
    path = os.pathsep.join([str(tmp_path / "clock"), *filter(None, sys.path)])
    code, printed = run(lesson, hang, "--timeout", 40, "--cell-timeout", 10, "--workers", 2,
                        "--out", out, PYTHONPATH=path)
    found = records(out)
    assert (found["01_a"]["status"], found["02_hang"]["status"]) == ("ok", "cell timeout"), printed
    assert 0 < found["01_a"]["seconds"] < 60 and code == 1
    nothing_is_left(out)
    write_notebook(hang, PARAMETERS, WORK)
    code, printed = run(lesson, hang, "--timeout", 40, "--out", out, PYTHONPATH=path)
    assert code == 0 and printed.count("not run again") == 1, printed
    nothing_is_left(out)


def test_in_a_container_with_a_quota_below_its_cores_one_run_is_at_work(tmp_path, write_notebook):
    """Two would share a processor that is counted twice, with twice the threads."""
    lesson = write_notebook(tmp_path / "a.ipynb", PARAMETERS, """
import os, time
from pathlib import Path
began = time.monotonic()
time.sleep(2)
Path(f"{os.environ['TIMES']}/{rank}").write_text(
    f"{began} {time.monotonic()} {os.environ['OMP_NUM_THREADS']}")""")
    (tmp_path / "times").mkdir()
    prefix = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
    if may_mount():  # as a container shows its quota: half a processor less than two
        prefix = ["unshare", "-rm", "sh", "-ec", "mount -t tmpfs none /sys/fs/cgroup; "
                  'echo "150000 100000" > /sys/fs/cgroup/cpu.max; "$@"', "sh"]
    prefix += ["env", "-u", "OMP_NUM_THREADS"]
    code, printed = run(lesson, "--grid", "rank=1,2", "--workers", "auto", "--out",
                        tmp_path / "out", prefix=prefix, TIMES=str(tmp_path / "times"))
    assert code == 0, printed
    times = sorted(tuple(map(float, path.read_text().split()))
                   for path in (tmp_path / "times").iterdir())
    assert times[0][1] < times[1][0], "both were at work at a time"
    assert [threads for *_, threads in times] == [1, 1]
    nothing_is_left(tmp_path / "out")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "whole"
    tiny.encoder().save(folder)
    (folder / "ftkit.json").unlink()  # as another library would have saved it
    return folder


def copy(saved, tmp_path, **config):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    found = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(found))
    return folder


def refused(folder):
    with pytest.raises(SettingError) as error:
        ft.load_model(str(folder), task="classification", labels=["bad", "good"])
    assert error.value.__suppress_context__ or error.value.__context__ is None
    advice = ("trust_remote_code", "weights_only", "allow_")
    assert not any(word in str(error.value) for word in advice)
    return str(error.value)


def test_a_model_that_asks_for_its_own_code_is_refused_without_advice_to_run_it(saved, tmp_path):
    parts = {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M"}
    said = refused(copy(saved, tmp_path, auto_map=parts, model_type="evil"))
    assert "never run" in said and not (tmp_path / "ran").exists()


def test_pickled_weights_are_refused_and_not_opened(saved, tmp_path):
    folder = copy(saved, tmp_path)
    (folder / "model.safetensors").unlink()
    # A pickle that would write a file when it is opened.
    (folder / "pytorch_model.bin").write_bytes(
        b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    said = refused(folder)
    assert "pytorch_model.bin" in said and "safetensors" in said
    assert not (tmp_path / "ran").exists()
