"""Annotations that contradict the code would mislead every reader and every editor."""

import subprocess
import sys
from pathlib import Path

import pytest

import ftkit

ROOT = Path(__file__).parents[1]


def test_the_type_checker_finds_nothing():
    ran = subprocess.run([sys.executable, "-m", "mypy", "ftkit"], cwd=ROOT, capture_output=True,
                         text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("fault", ["word: int = 'a'", "def f() -> str:\n    return 1"])
def test_it_would_find_a_contradiction(fault, tmp_path):
    (tmp_path / "wrong.py").write_text(fault + "\n")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"),
         str(tmp_path / "wrong.py")], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1 and "error" in ran.stdout


def test_annotations_reach_those_who_install_the_package():
    assert (Path(ftkit.__file__).parent / "py.typed").exists()
