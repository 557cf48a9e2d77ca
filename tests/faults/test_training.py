"""A training that is cut inside a notebook goes on, and ends in the same weights."""

from pathlib import Path

import pytest
from faulty import nothing_is_left, records, run

TESTS = Path(__file__).parents[1]
TRAIN = """
import os, pathlib, signal, sys
sys.path.insert(0, {tests!r})
import tiny, transformers
import ftkit as ft

class Cut(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        witness = pathlib.Path({witness!r})
        if state.global_step == cut_at and not witness.exists():
            witness.write_text(str(len(list(pathlib.Path(args.output_dir).glob("checkpoint-*")))))
            os.kill(os.getpid(), signal.SIGKILL)

run = ft.fit(tiny.encoder(), tiny.reviews(24), epochs=5, learning_rate=3e-3, batch_size=8,
             callbacks=[Cut()], checkpoint_dir=os.environ.get("FTKIT_CHECKPOINTS"),
             resume="FTKIT_CHECKPOINTS" in os.environ)
weights = sum(float(p.double().abs().sum()) for p in run.model.net.parameters())
ft.claim("weights", weights, metric="sum", at_least=0)
ft.claim("loss", float(run.history["loss"].dropna().sum()), metric="loss", at_least=0)
"""


@pytest.mark.slow
def test_a_run_that_was_cut_in_training_ends_as_one_that_was_not(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "01_a.ipynb", ("cut_at = 11", ["parameters"]),
                            TRAIN.format(tests=str(TESTS), witness=str(tmp_path / "witness")))
    found = {}
    for name, value in (("cut", 11), ("whole", 0)):
        out = tmp_path / name / "out"
        code, printed = run(lesson, "-p", "cut_at", value, "--retries", 1, "--out", out)
        assert code == 0, printed
        found[name] = records(out)["01_a"]
        nothing_is_left(out)
    assert (found["cut"]["attempts"], found["whole"]["attempts"]) == (2, 1)
    assert int((tmp_path / "witness").read_text()) >= 1, "there were checkpoints to go on from"
    printed = (tmp_path / "cut" / "out" / "01_a.ipynb").read_text()
    assert "checkpoint-" in printed, "it says from where it goes on"
    assert found["cut"]["claims"] == found["whole"]["claims"]


@pytest.mark.slow
def test_a_training_that_diverges_ends_the_run_with_the_remedy_and_keeps_the_others(
        tmp_path, write_notebook):
    train = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import tiny
import ftkit as ft

run = ft.fit(tiny.encoder(), tiny.reviews(16), epochs=2, batch_size=8, learning_rate=rate, warmup=0)
ft.claim("loss", float(run.history["loss"].dropna().sum()), metric="loss", at_least=0)
"""
    lesson = write_notebook(tmp_path / "01_a.ipynb", ("rate = 1e-3", ["parameters"]), train)
    out = tmp_path / "out"
    code, printed = run(lesson, "--grid", "rate=1e38,1e-3", "--out", out)
    found = records(out)
    assert code == 1 and found["01_a--rate=0.001"]["status"] == "ok", printed
    wrong = found["01_a--rate=1e+38"]
    assert wrong["status"] == "error" and wrong["claims"] == []
    assert "Diverged" in wrong["message"] and "rate is too high" in wrong["message"]
    nothing_is_left(out)
    code, printed = run(lesson, "--grid", "rate=1e-2,1e-3", "--out", out)
    assert code == 0 and printed.count("not run again") == 1, printed
