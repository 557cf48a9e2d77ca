"""The plugin must find what no longer reproduces, and be silent about another last digit."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ftkit.batch.notebook import CLAIM
from ftkit.batch.report import differences

ROOT = Path(__file__).parents[1]
# Each run measures something else, by a little.
MEASURE = f"""
import random
from IPython.display import display
value = 0.72 + random.SystemRandom().uniform(-.01, .01)
part = {{"value": value, "low": value - .05, "high": value + .05}}
display({{"{CLAIM}": {{"claim": "it works", "metric": "accuracy", "before": None, "after": part,
    "difference": part, "bound": {{"at_least": 0.5}}, "relative": False, "held": True,
    "judged": True}}, "text/plain": "a claim"}}, raw=True)
"""


def part(value, wide=0.05):
    return {"value": value, "low": value - wide, "high": value + wide}


def claim(value=0.7, wide=0.05, text="it works", **changes):
    return {"claim": text, "metric": "accuracy", "before": None, "after": part(value, wide),
            "difference": part(value, wide), "bound": {"at_least": 0.5}, "relative": False,
            "held": True, "judged": True, **changes}


def store(path, *claims):
    """Put claims into a notebook's outputs, as after a run."""
    notebook = json.loads(path.read_text())
    for cell, shown in zip(notebook["cells"], claims, strict=False):
        cell.update(execution_count=1, outputs=[
            {"output_type": "display_data", "metadata": {}, "data": {CLAIM: shown}}])
    path.write_text(json.dumps(notebook))


def test_a_notebook_fails_for_another_result_and_not_for_another_digit(tmp_path, write_notebook):
    for name, cell, stored in [("01_same", MEASURE, [claim(0.72)]),
                               ("02_other", MEASURE, [claim(0.9)]),
                               ("03_error", "1 / 0", [claim()]), ("04_none", "print(1)", [])]:
        store(write_notebook(tmp_path / f"{name}.ipynb", cell), *stored)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:ftkit", "-p", "ftkit.pytest_plugin", "-rA",
         "-p", "no:cacheprovider", "--claims", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    said = ran.stdout
    assert ran.returncode == 1 and "1 passed, 1 skipped" in said and "2 failed" in said, said
    assert "PASSED 01_same.ipynb::claims" in said
    assert "'it works': after was 0.900 [0.850, 0.950] and is now 0.7" in said
    assert "error: cell 1: ZeroDivisionError" in said and "no claim is stored" in said


def test_without_the_option_notebooks_are_left_alone(tmp_path, write_notebook):
    write_notebook(tmp_path / "01_a.ipynb", "1 / 0")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:ftkit", "-p", "ftkit.pytest_plugin",
         "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 5 and "no tests ran" in ran.stdout


@pytest.mark.parametrize(("stored", "rerun", "words"), [
    ([claim()], [claim(0.79)], []),
    ([claim()], [claim(0.81)], ["after was", "difference was"]),
    ([claim(0.7, 0)], [claim(0.9, 0)], []),  # seconds, say: there is no interval to leave
    ([claim()], [claim(0.69, held=False)], ["held and holds no more"]),
    ([claim(expect="open")], [claim(0.69, held=False)], []),
    ([claim(held=False)], [claim(0.69, held=False)], []),
    ([claim()], [], ["the rerun does not show it"]),
    ([], [claim()], ["not stored"]),
    ([claim(before=part(0.2))], [claim()], ["before was 0.200 [0.150, 0.250] and is now –"]),
    ([claim()], [claim(float("nan"))], ["after was", "difference was"]),
    ([claim(float("nan"))], [claim(float("nan"))], []),
])
def test_what_counts_as_another_result(stored, rerun, words):
    found = differences(stored, rerun)
    assert len(found) == len(words), found
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_the_package_publishes_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"ftkit": "ftkit.pytest_plugin"}
