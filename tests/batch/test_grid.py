"""A grid must run every combination once, and its table must say no more than the seeds do."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ftkit as ft
from ftkit import cli
from ftkit.batch import grid, ray_executor, report, supervise
from ftkit.batch.run import auto_workers, exit_code, lessons_of, run_batch
from ftkit.errors import DataError, FtkitError, SettingError

PAGE = Path(__file__).parents[2] / "docs" / "batch.md"
PARAMETERS = ('method = "full"\nrank = 4\nseed = 0', ["parameters"])


def quiet(text):
    pass


def command(*words, folder=None):
    return subprocess.run([sys.executable, "-m", "ftkit.cli", *map(str, words)], cwd=folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def documented(tmp_path_factory, write_notebook):
    """The page's notebook, after its first command."""
    page = PAGE.read_text(encoding="utf-8")
    cells = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    commands = [shlex.split(c)[1:] for c in re.findall(r"^ftkit batch .*", page, re.MULTILINE)]
    assert len(commands) == 3 and "ray" in commands[2]  # tests/faults/test_ray.py runs such a one
    folder = tmp_path_factory.mktemp("page")
    write_notebook(folder / "digits.ipynb", (cells[0], ["parameters"]), cells[1])
    ran = command(*commands[0], folder=folder)
    return folder, commands, ran, cells


def test_the_first_command_of_the_page_ends_in_one_table_and_one_figure(documented):
    import pandas as pd
    from PIL import Image

    folder, _, ran, _ = documented
    assert ran.returncode == 0, ran.stdout
    out = folder / "artifacts" / "digits"
    results = json.loads((out / "results.json").read_text())
    assert [(r["point"]["C"], r["point"]["seed"]) for r in results["lessons"]] == [
        (c, s) for c in (0.1, 1.0) for s in range(3)]
    low, high = results["grid"]
    values = [r["claims"][0]["after"] or r["claims"][0]["difference"]
              for r in results["lessons"][3:]]
    mean = sum(v["value"] for v in values) / 3
    assert high["value"]["value"] == pytest.approx(mean)
    assert high["value"]["low"] < mean < high["value"]["high"]
    assert high["standing"] == "best" and low["runs"] == 3 and low["failed"] == 0
    frame = pd.read_parquet(out / "results.parquet")
    assert list(frame["C"]) == [0.1, 1.0] and frame["value"][1] == pytest.approx(mean)
    assert [len(v) for v in frame["values"]] == [3, 3] and frame["peak_memory"].min() > 20e6
    assert f"| digits | 1.0 | digits are told apart | accuracy | {mean:.3f} [" in (
        out / "results.md").read_text()
    assert "95% over seeds" in ran.stdout
    with Image.open(out / "results.png") as image:
        assert image.size[0] > 500
    assert len(list(out.glob("digits--C=*--seed=?.ipynb"))) == 6


def test_the_words_of_the_page_mean_the_same_in_python_and_nothing_runs_twice(documented, capsys,
                                                                              monkeypatch):
    folder, commands, _, cells = documented
    monkeypatch.chdir(folder)
    before = json.loads((folder / "artifacts/digits/results.json").read_text())
    said = {"ft": ft}
    exec(cells[2], said)
    assert all(record["resumed"] for record in said["results"]["lessons"])
    assert said["results"]["grid"] == before["grid"]
    assert capsys.readouterr().out.count("not run again") == 6


@pytest.mark.slow
def test_the_other_command_of_the_page(documented):
    folder, commands, _, _ = documented
    ran = command(*commands[1], folder=folder)
    assert ran.returncode == 0, ran.stdout
    rows = json.loads((folder / "artifacts/sizes/results.json").read_text())["grid"]
    assert [row["point"] for row in rows] == [
        {"examples": n} for n in (50, 200)]
    assert all(row["value"]["low"] is None for row in rows), "one seed has no interval"
    assert {row["standing"] for row in rows} == {"best", "cannot be told from best"}


@pytest.mark.parametrize(("words", "said"), [
    (["--grid", "rnak=4,8"], "no parameter 'rnak'; did you mean 'rank'. Its parameters are"),
    (["-p", "sede", "3"], "did you mean 'seed'"),
    (["--grid", "rank=4,wide"], "rank is a whole number .here 4., and 'wide' is not"),
    (["--grid", "rank"], "NAME=V1,V2"), (["--grid", "rank="], "NAME=V1,V2"),
    (["--grid", "rank=4,4"], "rank=4 twice"),
    (["--grid", "rank=4", "--grid", "rank=8"], "rank twice"),
    (["--grid", "rank=4,8", "-p", "rank", "2"], "one value for all runs and several in the grid"),
    (["--grid", "seed=1,2", "--seeds", "3"], "seed has values in the grid and by seeds"),
    (["--seeds", "0"], "from 1 on"), (["--retries", "-1"], "from 0 on"),
    (["--seeds", "2", "--commit-to", "x"], "--seeds"),
    (["--seed", "7"], "unrecognized arguments: --seed 7"), (["--workers", "many"], 'nor "auto"'),
    (["--workers", "0"], 'nor "auto"'), (["--keep-going", "--fail-fast"], "not allowed with"),
])
def test_a_mistyped_request_runs_nothing_and_names_the_remedy(tmp_path, write_notebook, capsys,
                                                              words, said):
    lesson = write_notebook(tmp_path / "a.ipynb", PARAMETERS, "1")
    try:
        code = cli.main(["batch", str(lesson), *words, "--out", str(tmp_path / "out")])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_words_of_a_grid_become_values():
    assert cli._grid(["rank=4,8", "method=lora,full", "sizes=[1,2],[3]", "on=true,false",
                      "model=a/b", "words='a,b','c'"]) == {
        "rank": [4, 8], "method": ["lora", "full"], "sizes": [[1, 2], [3]], "on": [True, False],
        "model": ["a/b"], "words": ["a,b", "c"]}


def test_points_are_every_combination_with_seeds_innermost():
    assert grid.points() == [{}]
    assert grid.points({"a": [1, 2]}, 2) == [
        {"a": 1, "seed": 0}, {"a": 1, "seed": 1}, {"a": 2, "seed": 0}, {"a": 2, "seed": 1}]
    with pytest.raises(SettingError, match="a list of values"):
        grid.points({"method": "lora"})


def test_names_of_runs_are_names_of_files_and_differ():
    assert grid.run_name("01_a", {}) == "01_a"
    assert grid.run_name("01_a", {"rank": 4, "seed": 0}) == "01_a--rank=4--seed=0"
    names = [grid.run_name("a", {"model": m}) for m in ("x/y", "x y", "../x", "x" * 300)]
    assert len(set(names)) == 4
    assert all("/" not in name and len(name) < 130 for name in names)


def record(value, seed, status="ok", **point):
    claim = {"claim": "good", "metric": "accuracy", "before": None, "relative": False,
             "after": {"value": value, "low": 0, "high": 1}, "held": True, "judged": True,
             "difference": {"value": value, "low": 0, "high": 1}, "bound": {"at_least": 0}}
    return {"name": f"{point}{seed}", "lesson": "a", "point": point | {"seed": seed},
            "parameters": {}, "status": status, "claims": [claim], "seconds": 2.0,
            "peak_memory": 5}


def test_the_interval_over_seeds_is_that_of_students_t():
    from scipy import stats

    values = [0.7, 0.74, 0.81, 0.6]
    found = grid.over_seeds(values)
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert grid.over_seeds([0.7]) == {"value": 0.7, "low": None, "high": None}


def test_rows_are_compared_seed_by_seed_and_what_failed_counts_for_nothing():
    """Seeds move both points alike: apart they cannot be told, seed by seed they can."""
    values = {1: (0.5, 0.7, 0.9), 2: (0.51, 0.71, 0.91), 3: (0.515, 0.68, 0.93)}
    records = [record(v, seed, rank=rank) for rank, row in values.items()
               for seed, v in enumerate(row)]
    records += [record(9.0, 3, "error", rank=1), record(0.4, 3, rank=2)]
    one, two, three = grid.table(records)
    assert (one["runs"], one["failed"]) == (4, 1) and one["value"]["value"] == pytest.approx(0.7)
    assert two["value"]["value"] == pytest.approx(0.6325)
    assert three["standing"] == "best" and one["standing"] == "cannot be told from best"
    lower = grid.table([record(v + 0.01 * (rank == 2), s, rank=rank) for rank in (1, 2)
                        for s, v in enumerate(values[1])])
    assert [row["standing"] for row in lower] == ["worse", "best"]


def test_a_claim_of_nan_and_a_point_without_any_run_do_not_end_the_table(tmp_path):
    records = [record("nan", 0, rank=1), record(0.5, 0, rank=2), record(0.5, 0, "error", rank="x")]
    results = report.write_results(records, tmp_path, profile=None, parameters={}, over_grid=True)
    text = (tmp_path / "results.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["grid"] == results["grid"]
    assert [row["value"] and row["value"]["value"] for row in results["grid"]] == [None, 0.5, None]
    assert "| nan |" in (tmp_path / "results.md").read_text()
    assert math.isclose(results["grid"][0]["seconds"], 2)


def test_workers_go_by_cores_and_memory(monkeypatch):
    for cores, memory, workers in ((8, 64e9, 8), (8, 9e9, 2), (1, 64e9, 1), (4, 2e9, 1)):
        monkeypatch.setattr("ftkit.batch.run.usable_cores", lambda n=cores: n)
        monkeypatch.setattr("ftkit.batch.run.usable_memory", lambda n=memory: n)
        assert auto_workers({"cpu", None}) == workers and auto_workers({"gpu"}) == 1


@pytest.mark.parametrize(("statuses", "code"), [
    (["ok", "ok"], 0), (["ok", "error"], 1), (["claim not held"], 1), (["memory"], 1),
    (["ok", "dead kernel"], 3), (["error", "disk"], 3), (["crashed", "not started"], 3)])
def test_exit_codes_tell_a_failed_lesson_from_failed_machinery(statuses, code):
    assert exit_code([{"status": status} for status in statuses]) == code


@pytest.mark.parametrize(("error", "said"), [
    (FtkitError("results.json could not be written: No space left"), "ftkit: results.json could"),
    (ZeroDivisionError("of ftkit's own"), "Traceback"), (DataError("no notebook"), "no notebook")])
def test_a_fault_of_the_machinery_is_not_a_lessons(monkeypatch, capsys, error, said):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("ftkit.batch.front.run_batch", fails)
    assert cli.main(["batch", "a.ipynb"]) == (2 if isinstance(error, DataError) else 3)
    assert said in capsys.readouterr().err


def test_a_retry_helps_where_a_process_died_and_is_not_wasted_on_an_error(tmp_path,
                                                                          write_notebook):
    dies = ("import os, pathlib\nwitness = pathlib.Path({path!r})\n"
            "with witness.open('a') as file:\n    file.write('x')\n"
            "if len(witness.read_text()) < {times}:\n    os.kill(os.getpid(), 9)")
    for name, cell in {"01_once": dies.format(path=str(tmp_path / "one"), times=2),
                       "02_always": dies.format(path=str(tmp_path / "two"), times=9),
                       "03_error": dies.format(path=str(tmp_path / "three"), times=0) +
                       "\n1 / 0"}.items():
        write_notebook(tmp_path / f"{name}.ipynb", cell)
    records = run_batch([tmp_path], out=tmp_path / "out", retries=1, report=quiet)
    assert [(r["status"], r["attempts"]) for r in records] == [
        ("ok", 2), ("dead kernel", 2), ("error", 1)]
    assert [len((tmp_path / n).read_text()) for n in ("one", "two", "three")] == [2, 2, 1]
    assert not (tmp_path / "out" / "01_once.failed.ipynb").exists()


def test_after_the_first_failure_fail_fast_starts_nothing_and_the_rest_can_be_run(tmp_path,
                                                                                  write_notebook):
    lesson = write_notebook(tmp_path / "a.ipynb", PARAMETERS, "assert rank != 2, rank")
    options = {"grid": {"rank": [1, 2, 3]}, "out": tmp_path / "out", "report": quiet}
    records = run_batch([lesson], fail_fast=True, **options)
    assert [r["status"] for r in records] == ["ok", "error", "not started"]
    assert exit_code(records) == 1
    records = run_batch([lesson], **options)
    assert [r["status"] for r in records] == ["ok", "error", "ok"] and records[0]["resumed"]


def test_values_that_json_has_not_are_recorded(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "a.ipynb", ("words = {'a'}\npair = (1, 2)",
                                                   ["parameters"]), "assert pair == (1, 2)")
    [record] = run_batch([lesson], out=tmp_path / "out", report=quiet)
    assert record["status"] == "ok" and record["parameters"] == {"words": "{'a'}", "pair": [1, 2]}


@pytest.mark.parametrize(("columns", "shown"), [(0, "a cell 1 of 2  |  b its start-up"),
                                                (12, "a cell 1 of")])
def test_in_a_terminal_one_line_shows_how_far_the_runs_are(monkeypatch, capsys, columns, shown):
    from ftkit.batch import front

    monkeypatch.setattr(front.sys.stderr, "fileno", lambda: 2, raising=False)
    monkeypatch.setattr(front.os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    live = front._InTerminal()
    live(["a cell 1 of 2", "b its start-up"])
    live.line("a: ok")
    said = capsys.readouterr()
    assert said.err == f"\r\033[K{shown}\r\033[K" and said.out == "a: ok\n"


def test_in_a_notebook_an_output_shows_how_far_the_runs_are(tmp_path, write_notebook):
    inner = write_notebook(tmp_path / "inner.ipynb", PARAMETERS, "import time\ntime.sleep(1)")
    watched = "%env FTKIT_PLAIN=0\n%env JPY_SESSION_NAME=outer.ipynb"
    outer = write_notebook(tmp_path / "outer.ipynb", watched, f"""
import ftkit as ft
results = ft.batch({str(inner)!r}, seeds=1, out={str(tmp_path / "in")!r})
print(ft.batch, results["all_held"])""")
    [done] = run_batch([outer], out=tmp_path / "out", report=quiet)
    outputs = json.loads((tmp_path / "out" / "outer.ipynb").read_text())["cells"][1]["outputs"]
    assert done["status"] == "ok" and "True" in outputs[-1]["text"][-1]
    pages = ["".join(o["data"].get("text/html", "")) for o in outputs if "data" in o]
    assert pages[0] == "<pre></pre>", "what ran is gone when all have ended"
    assert "<table>" in pages[-1] and "no claim" in pages[-1]


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 2), (8, 4)])
def test_a_run_on_a_node_gets_the_share_that_was_declared_for_it(
        monkeypatch, tmp_path, write_notebook, cpus, threads):
    """Its threads and its memory: beside it others may run on the same node."""
    lesson = write_notebook(tmp_path / "01_a.ipynb", ("seed = 0", ["parameters"]),
                            "import os; print('threads', os.environ['MKL_NUM_THREADS'])")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for module in (ray_executor, supervise):
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(ray_executor, "usable_memory", lambda: 8 << 30)
    seen = []
    monkeypatch.setattr(ray_executor, "Running", lambda lesson, limits, workers: (
        seen.append(limits["memory"]), supervise.Running(lesson, limits, workers))[1])
    (one,) = lessons_of([lesson], None, None, None, None, tmp_path / "out", None)
    record, files = ray_executor.run_there(
        one, {"timeout": 60, "cell_timeout": 60, "memory": None, "launch": None, "cpus": cpus})
    assert record["status"] == "ok", record
    assert f"threads {threads}" in files["01_a.ipynb"].decode()
    assert seen == [int(0.9 * min(1, cpus / 4) * (8 << 30))]
