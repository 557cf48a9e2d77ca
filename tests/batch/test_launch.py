"""One training on several processes must be that of one, and a launch must not lie or linger."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import nothing_is_left, processes_of, wait_for

from ftkit.batch import notebook as nb
from ftkit.batch.launch import Launch
from ftkit.batch.run import run_batch
from ftkit.cli import main
from ftkit.errors import SettingError

TESTS = Path(__file__).parents[1]
RANK = "import os\nrank = os.environ.get('RANK', 'alone')\n"
# Of each training example, the process that it was collated in; the words tell them apart.
TRAIN = f"""{RANK}import sys
sys.path.insert(0, {str(TESTS)!r})
import works
import ftkit as ft
from datasets import Dataset
from ftkit.tasks.batching import Collator

class Noting(Collator):
    def __call__(self, rows):
        with open(f"{{folder}}/seen {{rank}}", "a") as file:
            file.writelines(f"{{tuple(row['input_ids'])}}\\n" for row in rows)
        return super().__call__(rows)

data = Dataset.from_dict({{"text": [works.words(1 + i) for i in range(16)]}})
base = works.base("causal-lm")
run = ft.fit(base, data, method=ft.Full(), epochs=3, batch_size=4, learning_rate=0.01,
             logging_steps=1, dtype="float32", data_collator=Noting(base, 0))
"""
SHOW = """
import json
run.model.save(f"{folder}/saved {rank}")
print(json.dumps(run.history["loss"].dropna().tolist()))
print("rank", rank)
ft.claim("the loss falls", run.history["loss"].iloc[0] - run.history["loss"].iloc[-1],
         metric="loss", at_least=0.0)
"""


def quiet(text):
    pass


def launched(path, out, nproc, **more):
    [record] = run_batch([path], out=out, launch=Launch(nproc), report=quiet, **more)
    return record


def shown(path):
    """What the cells of an executed notebook printed."""
    return "".join("".join(output.get("text", "")) for _, cell in nb.code_cells(nb.read(path))
                   for output in cell["outputs"] if output.get("name") == "stdout")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_notebook):
    """The same notebook by one process and by two: each its record, folder, and what it shows."""
    found = {}
    for nproc in (1, 2):
        folder = tmp_path_factory.mktemp(f"by{nproc}")
        path = write_notebook(folder / "train.ipynb", (f"folder = {str(folder)!r}\nseed = 0",
                                                       ["parameters"]), TRAIN, SHOW)
        record = launched(path, folder / "out", nproc, parameters={"seed": 1})
        assert record["status"] == "ok", record["message"]
        found[nproc] = record, folder, shown(folder / "out" / "train.ipynb")
    return found


def curve(printed):
    return json.loads(next(line for line in printed.splitlines() if line.startswith("[")))


def test_two_processes_have_the_loss_curve_of_one(trained):
    one, two = (curve(trained[n][2]) for n in (1, 2))
    assert len(one) == 12 and one[0] - one[-1] > 0.01, "it learns nothing that could differ"
    assert two == pytest.approx(one, rel=1e-5)


def test_each_example_is_trained_on_once_an_epoch_by_one_of_the_two(trained):
    def seen(folder, rank):
        return (folder / f"seen {rank}").read_text().splitlines()

    alone, (first, second) = seen(trained[1][1], 0), (seen(trained[2][1], n) for n in (0, 1))
    assert len(set(alone)) == 16 and all(alone.count(row) == 3 for row in alone)
    assert len(first) == len(second) == 24
    assert sorted(first + second) == sorted(alone)


def test_rank_0_alone_shows_and_its_claims_come_back(trained):
    record, folder, printed = trained[2]
    assert "rank 0" in printed and "rank 1" not in printed
    assert printed.count("parameters are trained") == 1
    assert "rank 1" not in (folder / "out" / record["log"]).read_text()
    [claim] = record["claims"]
    assert claim["claim"] == "the loss falls" and claim["held"]
    assert record["parameters"]["seed"] == 1
    assert [path.name for path in folder.glob("saved*")] == ["saved 0"]
    assert len(list((folder / "out" / "runs").rglob("run.json"))) == 1
    nothing_is_left(folder / "out")


def test_what_one_process_did_is_not_taken_for_the_work_of_two(trained):
    keys = {trained[n][0]["key"] for n in (1, 2)}
    assert len(keys) == 2
    folder = trained[2][1]
    again = launched(folder / "train.ipynb", folder / "out", 2, parameters={"seed": 1})
    assert again["resumed"]


@pytest.mark.parametrize(("cell", "status", "words"), [
    pytest.param("if rank == '1': raise ValueError('bad luck')",
                 "error", "rank 1: cell 2: ValueError: bad luck", marks=pytest.mark.slow),
    pytest.param("raise ValueError('bad luck')",
                 "error", "cell 2: ValueError: bad luck", marks=pytest.mark.slow),
    ("import torch.distributed as dist\ndist.init_process_group('gloo')\n"
     "if rank == '1': os.kill(os.getpid(), 9)\ndist.barrier()",
     "dead kernel", "rank 1 was killed by SIGKILL"),
    pytest.param("if rank == '0': os._exit(3)\nimport time; time.sleep(99)",
                 "dead kernel", "rank 0 ended with exit code 3", marks=pytest.mark.slow)])
def test_a_rank_that_fails_ends_the_launch_and_is_named(
        tmp_path, write_notebook, cell, status, words):
    path = write_notebook(tmp_path / "a.ipynb", ("seed = 0", ["parameters"]), RANK + cell, "1")
    record = launched(path, tmp_path / "out", 2)
    assert record["status"] == status and words in record["message"], record["message"]
    nothing_is_left(tmp_path / "out")


@pytest.mark.parametrize(("number", "code"), [
    (signal.SIGINT, 130), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)])
def test_a_launch_that_is_stopped_leaves_no_process(tmp_path, write_notebook, number, code):
    path = write_notebook(tmp_path / "a.ipynb",
                          f"{RANK}open('at ' + rank, 'w').close()\nimport time; time.sleep(600)")
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    launch = subprocess.Popen(
        [sys.executable, "-m", "ftkit.cli", "launch", path, "--nproc", "2", "--out", out],
        env=os.environ | {"TMPDIR": str(temporary)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_for(lambda: (tmp_path / "at 0").exists() and (tmp_path / "at 1").exists(), 240)
    assert len(processes_of(out)) >= 4  # the worker, torchrun and two ranks
    launch.send_signal(number)
    said = launch.communicate(timeout=120)[1]
    assert launch.returncode == code and (number == signal.SIGKILL or "stopped" in said)
    wait_for(lambda: not processes_of(out))
    if number == signal.SIGINT:
        nothing_is_left(out, temporary)


@pytest.mark.slow
def test_two_machines_run_the_cells_together_and_a_notebook_that_differs_is_named(
        tmp_path, write_notebook):
    """Each machine is one process here, over the loopback interface."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = write_notebook(
        tmp_path / "a.ipynb", ("seed = 0", ["parameters"]),
        f"{RANK}import torch, torch.distributed as dist\ndist.init_process_group('gloo')\n"
        "total = torch.tensor(float(rank) + seed)\ndist.all_reduce(total)\nprint(total.item())\n"
        "folders = [None, None]\n"
        "dist.all_gather_object(folders, os.environ['FTKIT_CHECKPOINTS'])\n"
        "assert folders[0] == folders[1], folders")
    words = [sys.executable, "-m", "ftkit.cli", "launch", str(path), "--nproc", "1", "--nnodes",
             "2", "--master", f"127.0.0.1:{port}", "--out", str(tmp_path / "out")]

    def start(number, seed):
        return subprocess.Popen([*words, "--node-rank", str(number), "-p", "seed", seed],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def both(first, second):
        started = [start(0, first), start(1, second)]
        said = [process.communicate(timeout=200)[0] for process in started]
        return [process.returncode for process in started], said

    codes, said = both("5", "5")
    assert codes == [0, 0], said
    assert shown(tmp_path / "out" / "a.ipynb") == "11.0\n"
    codes, said = both("6", "7")
    assert codes == [1, 1] and all("installed packages differ" in text for text in said), said
    script = "import os, time\nopen('at ' + rank, 'w').close()\ntime.sleep(600)"
    write_notebook(path, ("seed = 0", ["parameters"]), RANK + script)
    started = [start(number, "8") for number in (0, 1)]
    wait_for(lambda: (tmp_path / "at 0").exists() and (tmp_path / "at 1").exists(), 240)
    started[1].terminate()
    said = [process.communicate(timeout=200)[0] for process in started]
    assert [process.returncode for process in started] == [3, 143], said
    assert "machine 1 was stopped by SIGTERM" in said[0]
    nothing_is_left(tmp_path / "out")


@pytest.mark.parametrize(("words", "said"), [
    (["--nproc", "0"], "nproc=0: a whole number from 1 on"),
    (["--nproc", "2", "--nnodes", "2"], "HOST:PORT of machine 0"),
    (["--nproc", "2", "--nnodes", "2", "--master", "node1"], "HOST:PORT of machine 0"),
    (["--nproc", "2", "--nnodes", "2", "--node-rank", "2", "--master", "a:1"], "number 1"),
    (["--nproc", "1", "-p", "sede", "1"], "did you mean 'seed'"),
    (["--nproc", "1", "--nnodes", "2", "--node-rank", "1", "--master", "a:1", "-p", "sede", "1"],
     "did you mean 'seed'")])
def test_what_makes_no_sense_is_refused_before_anything_runs(
        tmp_path, write_notebook, capsys, words, said):
    path = write_notebook(tmp_path / "a.ipynb", ("seed = 0", ["parameters"]), "1")
    assert main(["launch", str(path), "--out", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_launch_is_a_whole_number_of_processes():
    with pytest.raises(SettingError, match="nproc='2'"):
        Launch("2")
    assert "--standalone" in Launch(2).torchrun() and os.environ.get("RANK") is None
