"""Without this, the same lesson under torchrun could train another model than on one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from works import WORKS, apart, train, weights

from ftkit.training import checkpoints

# 13 and 5 rows: what fills the last batches of two processes must not count.
SETTINGS = dict(n=13, held=5, per_device_eval_batch_size=2)
SCRIPT = """
import json, os, sys
sys.path.insert(0, {tests!r})
import works
from safetensors.torch import save_file
found, losses = {{}}, {{}}
for work in works.WORKS:
    run = works.train(work, quiet=False, **{settings})
    found[work], losses[work] = works.weights(run), run.metrics["eval_loss"]
place = {out!r} + os.environ["RANK"]
save_file(found, place)
open(place + ".json", "w").write(json.dumps(losses))
"""


RESUMED = """
import os, signal, sys
sys.path[:0] = [{tests!r}, os.path.join({tests!r}, "training")]
import test_resume, tiny, torch, transformers
from safetensors.torch import save_file
import ftkit as ft

settings = dict(epochs=3, learning_rate=3e-3, batch_size=8, patience=3, quiet=True,
                dtype="float32", save_strategy="steps", save_steps=2)
base = tiny.encoder()
for module in base.net.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.1

def train(name, **more):
    run = ft.fit(base, test_resume.wrong(20), checkpoint_dir=name, **settings, **more)
    save_file(test_resume.weights(run), name + os.environ["RANK"])

if sys.argv[1] == "killed":
    train("whole")
    library, calls = transformers.Trainer._save_rng_state, []

    def killed(self, folder):
        calls.append(1)
        if len(calls) == 2 and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return library(self, folder)

    transformers.Trainer._save_rng_state = killed
    train("cut")
train("cut", resume=True)
"""


def by_two(folder, script, *arguments):
    """Run a script in two processes."""
    (folder / "train.py").write_text(script)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "train.py", *arguments], timeout=400, cwd=folder, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "FTKIT_RUNS": str(folder / "runs")})


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Every work, trained by two processes: weights and losses of both, and what was printed."""
    folder = tmp_path_factory.mktemp("two")
    done = by_two(folder, SCRIPT.format(
        tests=str(Path(__file__).parents[1]), out=str(folder / "rank"), settings=SETTINGS))
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [folder / f"rank{i}" for i in (0, 1)]
    losses = [json.loads(Path(f"{rank}.json").read_text()) for rank in ranks]
    return [load_file(rank) for rank in ranks], losses, done.stdout


@pytest.mark.parametrize("work", WORKS)
def test_two_processes_train_the_model_that_one_trains(work, together):
    (first, second), (loss, other), _ = together
    assert torch.equal(first[work], second[work]), "the processes ended with different weights"
    assert loss[work] == other[work]
    alone = train(work, **SETTINGS)
    start = weights(train(work, learning_rate=0.0))
    assert apart(weights(alone), first[work], start) < 1e-5
    assert loss[work] == pytest.approx(alone.metrics["eval_loss"], rel=1e-5)


def test_one_process_speaks_for_both(together):
    printed = together[2]
    assert printed.count("parameters are trained") == len(WORKS) == printed.count("validation loss")
    assert not torch.distributed.is_initialized()


def test_two_processes_that_were_killed_in_an_epoch_end_as_if_they_had_run_through(tmp_path):
    """The last whole checkpoint is one within an epoch; both died while they wrote the next."""
    script = RESUMED.format(tests=str(Path(__file__).parents[1]))
    killed = by_two(tmp_path, script, "killed")
    assert killed.returncode != 0 and "SIGKILL" in killed.stderr
    assert not (tmp_path / "cut0").exists() and not (tmp_path / "cut1").exists()
    assert (tmp_path / "cut" / "checkpoint-4").is_dir()
    last = checkpoints.last_whole(tmp_path / "cut", 2)
    assert last.name == "checkpoint-2"
    assert 0 < json.loads((last / checkpoints.STATE).read_text())["epoch"] < 1
    resumed = by_two(tmp_path, script, "resumed")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    whole = load_file(tmp_path / "whole0")
    for name in ("whole1", "cut0", "cut1"):
        found = load_file(tmp_path / name)
        assert all(torch.equal(found[key], tensor) for key, tensor in whole.items()), name


def test_each_process_has_a_card_of_its_own(monkeypatch):
    from types import SimpleNamespace

    from ftkit.models import hardware

    chosen = [0]
    cards = [SimpleNamespace(name=f"card {i}", total_memory=1, major=8, minor=0) for i in (0, 1)]
    for name, value in {"is_available": lambda: True, "device_count": lambda: 2,
                        "set_device": lambda i: chosen.append(i),
                        "current_device": lambda: chosen[-1],
                        "get_device_properties": lambda i: cards[i]}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert hardware.this_machine.__wrapped__().name == "card 0" and chosen == [0]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert hardware.this_machine.__wrapped__().name == "card 1" and chosen == [0, 1]
