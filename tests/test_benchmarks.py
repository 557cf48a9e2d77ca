"""Without these, the table of speeds could say something else than what was measured."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chats
import pytest
import tiny
from datasets import Dataset

import ftkit as ft

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    """The program, without running it."""
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("bench", FOLDER / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


def results(seconds, losses, precision="float32", machine="2 threads of a processor"):
    return [{"seconds": s, "peak_memory": 2e9, "loss": loss, "precision": precision,
             "machine": machine} for s, loss in zip(seconds, losses, strict=True)]


ABOUT = {"machine": "2 threads of a processor", "date": "2026-01-01", "rounds": 3,
         "versions": {"lit": {}, "peers": {"torch": "2.13.0"}}}


def test_ratios_are_of_medians_and_a_goal_needs_the_fastest_peer(bench):
    found = {"kit.lora": results([2, 1, 9], [3.0, 3.1, 3.2]),
             "peers.sft_lora": results([6, 5, 4], [3.0, 3.1, 3.2]),
             "lit.litgpt_lora": results([3, 3, 2], [4.0, 4.1, 4.0])}
    judged = bench.judge("lora", found)
    rows = judged["contenders"]
    assert [rows[name]["ratio"] for name in found] == [1, 2.5, 1.5]
    assert [rows[name]["agrees"] for name in found] == [None, True, False]
    (goal,) = judged["goals"]
    assert goal["reached"] == 1.5 and goal["met"]
    found["lit.litgpt_lora"] = [{"error": "it broke"}] * 3
    judged = bench.judge("lora", found)
    assert judged["goals"][0]["reached"] == 2.5
    assert "median" not in judged["contenders"]["lit.litgpt_lora"]
    assert "| litgpt LoRA | failed |" in "\n".join(bench._rows([judged]))


def test_rows_of_different_machines_share_no_ratio(bench):
    other = "8 threads of another"
    found = {"kit.lora": results([2, 2, 2], [3.0, 3.1, 3.2], "bf16"),
             "peers.sft_lora": results([8, 8, 8], [3.0, 3.1, 3.2]),
             "lit.litgpt_lora": results([3, 3, 3], [3.0, 3.1, 3.2], machine=other)}
    judged = bench.judge("lora", found)
    rows = judged["contenders"]
    assert "ratio" not in rows["lit.litgpt_lora"] and judged["goals"][0]["reached"] == 4
    lines = bench._rows([judged])
    assert lines[2].endswith("2 threads of a processor |") and "| bf16 |" in lines[2]
    assert lines[4].endswith(f"{other} |") and "| 3.0 (3.0, 3.0) |  |" in lines[4]


def test_works_of_different_machines_share_no_header(bench):
    found = {"kit.lora": results([2, 2, 2], [3.0, 3.1, 3.2])}
    works = {"lora": ABOUT | bench.judge("lora", found),
             "full": ABOUT | {"machine": "8 threads of another"} | bench.judge(
                 "full", {"kit.full": results([2], [3.0], machine="8 threads of another")})}
    for table in bench.tables({"works": works}).values():
        heads = [line for line in table.splitlines() if "medians of 3 rounds" in line]
        assert [head.partition(",")[0] for head in heads] == [
            "2 threads of a processor", "8 threads of another"]
        first, second = table.split(heads[1])
        assert works["full"]["title"] in second and works["full"]["title"] not in first


def test_a_loss_that_a_constant_answer_reaches_is_said(bench):
    found = {"kit.frozen": results([1, 1, 1], [0.6, 0.61, 0.62]),
             "peers.trainer_frozen": results([1, 1, 1], [0.7, 1.29, 1.3])}
    judged = bench.judge("head", found, constant=0.69)
    text = "\n".join(bench._rows([judged]))
    assert "(a constant answer: 0.690)" in text and "1.290 (has learned" in text
    assert text.count("learned nothing") == 1


def test_the_constant_answer_is_the_best_that_there_is(bench):
    from common import constant_loss

    classes = [{"labels": 0}] * 3 + [{"labels": 1}]
    assert constant_loss(classes) == pytest.approx(-(3 * math.log(3 / 4) + math.log(1 / 4)) / 4)
    tokens = [{"labels": [9, -100, 5, 5, 7]}, {"labels": [5, 7]}]  # the first of a text is given
    assert constant_loss(tokens) == pytest.approx(math.log(2))


def test_one_contender_at_a_time_is_in_memory(bench, monkeypatch, tmp_path):
    """Each runs in a process of its own that has ended before the next begins."""
    (tmp_path / "work.json").write_text('{"constant": 3.5}')
    running, most, ran = set(), [0], []

    def run(args, **options):
        if "prepare.py" in args[1]:
            return None
        running.add(args[3])
        most.append(len(running))
        ran.append((args[2], args[3], args[5]))
        found = json.dumps(results([1], [3.0])[0]) if args[3] != "sft_lora" else None
        running.remove(args[3])
        return SimpleNamespace(stdout=f"RESULT {found}\n" if found else "", returncode=137)

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench.subprocess, "Popen", None)
    found, constant = bench.run_work("lora", 2, 1, tmp_path)
    assert constant == 3.5 and max(most) == 1 and len(ran) == 6
    assert ran[0][:2] == ("kit", "lora") and ran[3][:2] == ("peers", "sft_lora"), "in turn"
    assert {seed for *_, seed in ran} == {"0", "1"}
    assert "code 137" in found["peers.sft_lora"][0]["error"]


def test_a_few_rows_are_the_same_work(bench):
    from prepare import a_little_of

    work = {"batch": 4, "epochs": 9, "rate": 1, "train": list(range(99)), "test": list(range(99)),
            "texts": {"train": list("a" * 99), "test": list("b" * 99)}, "trials": [1, 2]}
    little = a_little_of(work)
    assert (len(little["train"]), len(little["test"]), little["epochs"]) == (8, 8, 1)
    assert len(little["texts"]["train"]) == 8 and little["trials"] == [1] and little["rate"] == 1
    assert len(work["train"]) == 99 and work["epochs"] == 9
    assert len(a_little_of({"prompts": [1, 2, 3], "right": [1, 0, 1]})["prompts"]) == 2


def test_a_worker_answers_with_its_machine_or_its_failure(bench, tmp_path):
    (tmp_path / "contender.py").write_text(
        "def works(folder, seed):\n"
        "    return {'seconds': seed, 'folder': folder, 'precision': 'float32'}\n"
        "def fails(folder, seed):\n    1 / 0\n")

    def ask(function):
        done = subprocess.run(
            [sys.executable, str(FOLDER / "worker.py"), "contender", function, "here", "7"],
            env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.removeprefix("RESULT "))

    answer = ask("works")
    assert answer["seconds"] == 7 and answer["folder"] == "here"
    assert answer["machine"].startswith("1 thread of ")
    assert ask("fails") == {"error": "ZeroDivisionError: division by zero"}


def test_every_work_has_texts_and_contenders(bench):
    assert set(bench.TABLE) == set(bench.WORKS)
    for title, names, goals in bench.TABLE.values():
        assert title and next(iter(names)).startswith("kit.")
        assert all(name in names or name == "fastest" for name in goals)
        for name in names:
            module, _, function = name.partition(".")
            text = (FOLDER / f"{module}.py").read_text()
            assert f"def {function.split(':')[0]}(folder, seed" in text


def test_the_documents_show_what_was_measured(bench):
    measured = json.loads((FOLDER / "results.json").read_text())
    for name, table in bench.tables(measured).items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text == bench.rewritten(text, table), f"{name}: run `make bench`"


def test_an_unknown_work_is_refused(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "fullest"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "'fullest' is no work; choose of full, lora" in capsys.readouterr().err


def test_growth_is_told_and_drawn_beside_the_ideal(bench, tmp_path):
    found = {"lengths": {str(n): 10 + n / 100 for n in bench.growth.LENGTHS},
             "amounts": {str(n): n / 40 for n in bench.growth.REVIEWS},
             "shared": {"1": 6.0, "2": 4.0}, "machine": "2 threads of m", "date": "2026-01-01"}
    said = bench.growth.sentences(found)
    assert "8 times the reviews take 8.00 times" in said and "1.50 times as fast" in said
    bench.growth.plot(found, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 5_000
    assert said in bench.tables({"works": {}, "growth": found})["docs/speed.md"]


def program(name):
    """A benchmark that is one file, without running it."""
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def course():
    return program("course")


def test_the_batchs_wall_time_is_a_ratio_to_the_loop_of_papermill(course):
    found = {"rounds": [{course.BATCH: 30.0, course.LOOP: 90.0},
                        {course.BATCH: 50, course.LOOP: 110}],
             "lessons": ["01_a", "02_b"], "of": 22, "date": "2026-01-01", "load": 0.1,
             "threads": "all", "papermill": "2.7.0",
             "machine": {"cores": 2, "system": "Linux x86_64"}}
    text = course.table(found)
    assert f"| {course.BATCH} | 40 | 0.40 |" in text and f"| {course.LOOP} | 100 | 1.00 |" in text
    assert "2 of 22 lessons (01, 02), medians of 2 rounds" in text and "is met" in text
    found["rounds"] = [{course.BATCH: 51.0, course.LOOP: 100.0}]
    assert "is not met" in course.table(found)


def test_what_fails_in_one_of_the_two_ends_the_comparison(course, tmp_path, write_notebook):
    """A loop that stops half-way would be quick."""
    lesson = write_notebook(tmp_path / "01_a.ipynb", ('profile = "cpu"', ["parameters"]), "1 / 0")
    for arm in (course.LOOP, course.BATCH):
        with pytest.raises(SystemExit, match="did not run all(.|\n)*ZeroDivisionError"):
            course.seconds(arm, [lesson])


def test_the_page_shows_what_was_measured_last(course):
    measured = json.loads((FOLDER / "course.json").read_text())
    assert course.table(measured) in (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def serving():
    return program("serving")


def test_waits_for_a_served_model_stand_beside_plain_generation(serving, monkeypatch, capsys):
    """The three ways on a small model: all answer, and the table counts what is the same."""
    monkeypatch.setattr(ft, "load_model", lambda name: chats.chat_model())
    rows = Dataset.from_dict({"question": [f"what is {word}" for word in tiny.WORDS[:3]]})
    monkeypatch.setattr(ft, "load_data", lambda name, **more: {"test": rows})
    monkeypatch.setattr("sys.argv", ["serving.py", "--users", "1", "3", "--rounds", "2",
                                     "--tokens", "3"])
    serving.main()
    said = capsys.readouterr().out
    assert f"| 3 | {serving.SERVED} |" in said and f"| 1 | {serving.BATCHED} |" in said
    assert "Of 3 answers 100% are the same served and by `generate`" in said


def test_the_waits_are_medians_over_rounds(serving):
    def row(median):
        return {"median": median, "longest": 2 * median, "requests a second": 1 / median,
                "answers": ["a"]}

    rounds = [{f"1 {name}": row(value) for name in (serving.SERVED, serving.ALONE, serving.BATCHED)}
              for value in (1.0, 4.0, 2.0)]
    rounds[0][f"1 {serving.BATCHED}"]["answers"] = ["b"]
    text = serving.table({"rounds": rounds, "users": [1], "tokens": 8, "model": "m",
                          "date": "2026-01-01", "machine": {"cores": 2, "system": "Linux"}})
    assert f"| 1 | {serving.SERVED} | 2.00 | 4.00 | 0.50 |" in text
    assert "100% are the same served" in text and "0% the same in one batch" in text


def test_the_page_shows_the_waits_that_were_measured_last(serving):
    measured = json.loads((FOLDER / "serving.json").read_text())
    assert serving.table(measured) in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
