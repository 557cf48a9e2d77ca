"""The page's examples run as they stand, on a small model."""

import json
import re
from pathlib import Path

import pytest
import tiny

import ftkit as ft

PAGE = Path(__file__).parents[2] / "docs" / "reproduce.md"


@pytest.mark.usefixtures("float32")
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"{i}a {i}b {i}c {i}d the film was good" * 2, "label": i % 2}
            for i in range(60)]
    Path("own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tiny.encoder().save("base")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    known = {"ft": ft, "model": ft.load_model("base"), "data": ft.load_data(
        "own.jsonl", n_train=24, n_validation=6, n_test=0, split=(0.6, 0.3, 0.1))}
    for block in blocks:
        exec(block, known)
    assert len(blocks) == 3 and known["again"].exit_code == 0
    assert known["found"].main in ("seed", "max_length") and known["found"].explained
