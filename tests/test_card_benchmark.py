"""Without these, a few rented minutes on a card could be lost to a slip, or be told wrongly."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    """tools/gpu.py, with the benchmark's folder on the path as it puts it there."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "tools" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def card(gpu):
    import card

    return card


@pytest.fixture(scope="module")
def tables(gpu):
    import card_tables

    return card_tables


def fit(contender, seconds, *, work="full-135m", call="1", seed=0, loss=3.0, memory=4e9, **more):
    return {"card": "H", "work": work, "contender": contender, "seed": seed, "call": call,
            "seconds": seconds + 30, "steady_seconds": seconds, "steady_tokens": 1000,
            "steady_operations": 1e12, "peak_memory": memory, "loss": loss,
            "precision": "bf16", **more}


def results(*runs):
    found = {"memory": 80e9, "driver": "580.1", "matrix_peak": 1e12, "versions": {"torch": "2.11"}}
    return {"cards": {"H": found}, "bench": list(runs)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_one_sentence_says_so(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "tools" / "gpu.py", "--out", tmp_path / "out"],
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("make gpu needs a CUDA card") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr and not list(tmp_path.rglob("results.json"))


def test_ratios_and_goals_are_of_the_steady_state(tables):
    found = results(fit("kit", 1.0), fit("kit", 9.0, seed=1), fit("kit", 2.0, seed=2),
                    fit("trainer", 12.0, memory=9e9), fit("loop", 2.5, loss=3.2, memory=3e9),
                    fit("trainer_best", 6.0, memory=9e9))
    (made,) = tables.rows(found).values()
    assert made["kit"]["steady"] == 2.0 and made["kit"]["first"] == 31.0
    assert made["kit"]["rate"] == 500 and made["kit"]["share"] == 0.5
    assert made["trainer"]["ratio"] == 6.0 and not made["trainer"]["differs"]
    assert made["loop"]["ratio"] == 1.25 and made["loop"]["differs"]
    judged = {goal["words"]: goal for goal in tables.goals(tables.rows(found))}
    assert judged["times Trainer as it comes, at least"]["met"]
    assert not judged["times the fastest peer, at least"]["met"]
    assert judged["share of the bf16 matrix peak, at least"]["met"]
    memory = judged["memory in shares of the fastest peer's, at most"]
    assert memory["reached"] == pytest.approx(4 / 3) and not memory["met"]
    few = results(fit("kit", 1.0), fit("trainer_best", 6.0))
    goals = tables.goals(tables.rows(few))
    (alone,) = [goal for goal in goals if "fastest peer, of" in goal["words"]]
    assert "of Trainer, by length alone" in alone["words"] and not alone["met"]
    text = tables.bench(found)
    assert "3.200 (differs)" in text and "**6.00**" in text and "| 1.25 |" in text


def test_a_row_comes_from_the_newest_call_and_says_when_the_kits_is_another(tables):
    found = results(fit("kit", 4.0, call="1"), fit("trainer", 8.0, call="1"),
                    fit("kit", 1.0, call="2"))
    (made,) = tables.rows(found).values()
    assert made["kit"]["steady"] == 1.0 and made["trainer"]["ratio"] == 8.0
    assert made["trainer"]["apart"] and "8.00 (another call)" in tables.bench(found)
    broken = {"card": "H", "work": "full-135m", "contender": "sft", "seed": 0, "call": "2",
              "error": "it broke"}
    (made,) = tables.rows(results(fit("kit", 1.0), broken)).values()
    assert made["sft"] == {"failed": "it broke"}


def test_what_another_call_measured_stays(card, tmp_path):
    machine = {"name": "H", "matrix_peak": 1e12, "memory": 8e10, "driver": None, "versions": {}}
    (tmp_path / "results.json").write_text(json.dumps({"tests": [1], "bench": []}))
    for call, seconds in (("1", [1.0]), ("2", [2.0]), ("2", [2.0, 3.0])):
        card.add(tmp_path, machine, "abc", [fit("kit", s, call=call) for s in seconds])
    found = json.loads((tmp_path / "results.json").read_text())
    assert [run["steady_seconds"] for run in found["bench"]] == [1.0, 2.0, 3.0]
    assert found["tests"] == [1] and {run["card"] for run in found["bench"]} == {"H"}


def test_files_of_several_calls_become_one(card):
    one = results(fit("kit", 1.0)) | {"lessons": {"a": {"H": 1}, "b": {"H": 1}}, "tests": [1]}
    two = results(fit("kit", 2.0, call="2")) | {"lessons": {"b": {"H": 2}, "c": {"I": 3}}}
    two["cards"] = {"I": two["cards"]["H"]}
    found = card.merged(card.merged({}, one), two)
    assert [run["steady_seconds"] for run in found["bench"]] == [1.0, 2.0]
    assert found["lessons"] == {"a": {"H": 1}, "b": {"H": 2}, "c": {"I": 3}}
    assert list(found["cards"]) == ["H", "I"] and found["tests"] == [1]
    assert card.merged(found, two) == found


def test_every_work_is_done_once_before_any_is_done_again(card):
    from card_works import TITLES, WORKS

    assert set(WORKS) == set(TITLES) == set(card.CONTENDERS)
    runs = card.schedule(list(WORKS), 3)
    assert len(set(runs)) == len(runs)
    assert [run[1] for run in runs[:4]] == ["kit", "trainer_best", "loop", "trainer"]
    again = next(i for i, run in enumerate(runs) if run[2] == 1)
    assert all(run[2] == 0 for run in runs[:again]) and again * 3 == len(runs)
    assert all(names[0] == "kit" for names in card.CONTENDERS.values())
    assert {run[1] for run in card.schedule(["score"], 1, ["kit", "generate"])} == {
        "kit", "generate"}


def test_operations_are_those_of_the_texts_alone(gpu):
    import card_common

    work = {"kind": "causal", "method": "full", "body": 10, "head": 7, "blocks": 2, "width": 4,
            "train": [{"input_ids": [1, 2, 3], "labels": [-100, -100, 3]},
                      {"input_ids": [1, 2], "labels": [1, 2]}]}
    attention = 6 * 2 * 4 * (9 + 4)
    assert card_common.operations(work) == 6 * (10 * 5 + 7 * 2) + attention
    assert card_common.operations(work | {"method": "lora"}) == 4 * (10 * 5 + 7 * 2) + attention


def test_texts_that_do_not_fit_are_halved_and_accumulated(gpu):
    import card_peers

    tried = []

    def train(micro):
        tried.append(micro)
        if micro > 8:
            raise torch.cuda.OutOfMemoryError("full")
        return {}

    assert card_peers.fitting({"batch": 32}, train) == {"micro": 8} and tried == [32, 16, 8]
    settings = card_peers._settings({"batch": 32, "epochs": 1, "rate": 1}, 0, "x", 8)
    assert settings["gradient_accumulation_steps"] == 4


def test_the_loops_order_has_every_text_once_in_batches_of_one_length(gpu):
    import random

    import card_loop

    lengths = [random.Random(1).randrange(1, 100) for _ in range(70)]
    batches = card_loop.order(lengths, 8, random.Random(0))
    assert sorted(i for batch in batches for i in batch) == list(range(70))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert max(spread) < 40 and [len(b) for b in batches].count(8) == 8


def test_lessons_come_in_the_order_of_their_value(gpu):
    names = [path.stem for path in gpu.ordered()]
    assert names[:4] == ["01_supervised", "05_instruction", "09_lora", "14_reinforcement"]
    assert sorted(names) == sorted(p.stem for p in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert [path.stem[:2] for path in gpu.ordered([7, 1])] == ["07", "01"]
    with pytest.raises(SystemExit, match="no lesson 77"):
        gpu.ordered([77])
    assert gpu.side_by_side({"memory": 0}) == 1


def test_a_test_report_is_read_with_what_failed(gpu, tmp_path):
    (tmp_path / "t.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.test_a" name="one" time="2"/>'
        '<testcase classname="tests.test_a" name="two"><failure message="wrong by 3"/></testcase>'
        '<testcase classname="tests.test_b" name="three"><skipped message="no card"/></testcase>'
        "</testsuite></testsuites>")
    found = gpu.read_tests(tmp_path / "t.xml")
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 1, 1)
    assert found["failures"] == [{"test": "test_a::two", "said": "wrong by 3"}]
    assert found["slowest"][0] == ["one", 2.0]


def test_the_documents_show_what_was_measured_on_a_card(tables):
    file = BENCH / "card.json"
    measured = json.loads(file.read_text()) if file.exists() else {}
    for name, table in tables.documents(measured).items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text.count(tables.START) == 1, name
        assert text == tables.rewritten(text, table), f"{name}: run `python tools/gpu.py tables`"


def test_lessons_and_tests_are_told_with_their_card(tables):
    claim = {"claim": "better", "judged": True, "held": True}
    found = results(fit("kit", 1.0)) | {
        "tests": [{"card": "H", "call": "now", "passed": 9, "failed": 1, "skipped": 0,
                   "seconds": 33}],
        "lessons": {"01_supervised": {"H": {"status": "ok", "seconds": 61.2, "peak_memory": 2e9,
                                            "claims": [claim, claim | {"held": False}]}}}}
    full = tables.documents(found)["docs/results.md"]
    assert "9 passed, 1 failed, 0 skipped" in full
    assert "| 01_supervised | H | ok | 1 of 2 | 61 | 2.0 GB |" in full
    assert tables.documents({}) == dict.fromkeys(("README.md", "docs/results.md"), tables.NOTHING)


@pytest.fixture
def trial(gpu, tmp_path, monkeypatch):
    """A call of the whole program on the CPU, in tiny sizes: its exit code, output and results."""

    def call(*arguments):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        done = subprocess.run([sys.executable, ROOT / "tools" / "gpu.py", *map(str, arguments),
                               "--tiny", "--out", tmp_path], capture_output=True, text=True)
        file = tmp_path / "results.json"
        return done, json.loads(file.read_text()) if file.exists() else {}

    return call


@pytest.mark.timeout(1800)  # five processes, each of which loads everything
def test_a_trial_of_the_benchmark_ends_with_losses_that_agree(trial):
    names = ["kit", "loop", "trainer"]
    done, found = trial("bench", "--rounds", 1, "--works", "full-135m", "generate",
                        "--contenders", *names, "generate")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {(run["work"], run["contender"]): run for run in found["bench"]}
    fits = [rows["full-135m", name] for name in names]
    assert all(run["updates"] == 9 and run["steady_seconds"] < run["seconds"] for run in fits)
    kit = fits[0]["loss"]
    assert all(run["loss"] == pytest.approx(kit, rel=0.01) for run in fits)
    assert rows["full-135m", "trainer"]["precision"] == "float32"
    assert rows["generate", "generate"]["same"] == 1.0  # greedy, float32: the same texts
    assert "texts" not in rows["generate", "kit"]
    assert found["steps"][0]["exit"] == 0 and found["steps"][0]["undone"] == []


def test_what_does_not_fit_into_the_time_is_named(trial):
    done, found = trial("bench", "--minutes", 0.3, "--rounds", 1, "--works", "lora-0.6b")
    assert "no time was left" in done.stdout or "not prepared" in done.stdout
    undone = found["steps"][0]["undone"]
    assert undone and "lora-0.6b" in " ".join(undone)


def test_a_look_at_where_the_time_goes_is_no_measurement(trial):
    done, found = trial("bench", "--profile", "--works", "classify", "score",
                        "--contenders", "kit")
    assert done.returncode == 0 and "ms an update under the profiler" in done.stdout
    (seen,) = found["profiles"]
    assert "bench" not in found and seen["work"] == "classify"
    assert seen["profile"]["updates"] == 6 and len(seen["profile"]["longest"]) == 12


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_gpu_needs_no_set_up_with_a_python_of_its_own():
    for given, set_up in (([f"PY={sys.executable}", "MINUTES=8"], False), ([], True)):
        told = subprocess.run(["make", "-n", "gpu", *given], cwd=ROOT, capture_output=True,
                              text=True, check=True).stdout
        assert "tools/gpu.py all" in told and ("ftkit fetch" in told) == set_up
    assert "--out artifacts/gpu" in told
