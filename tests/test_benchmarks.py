"""Without these, the table of speeds could say something else than what was measured."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

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


def results(seconds, losses):
    return [{"seconds": s, "peak_memory": 2e9, "loss": loss}
            for s, loss in zip(seconds, losses, strict=True)]


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
             "shared": {"1": 6.0, "2": 4.0}}
    said = bench.growth.sentences(found)
    assert "8 times the reviews take 8.00 times" in said and "1.50 times as fast" in said
    bench.growth.plot(found, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 5_000
    results = {"machine": {"name": "m", "cores": 2}, "versions": {"lit": {}, "peers": {}},
               "rounds": 3, "date": "d", "works": {}, "growth": found}
    assert said in bench.tables(results)["docs/speed.md"]
