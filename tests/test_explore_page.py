"""Without these, docs/explore.md could show calls that do not run, or not as it says."""

import re
from pathlib import Path

import tiny

import ftkit as ft
from ftkit.course import claims

PAGE = Path(__file__).parents[1] / "docs" / "explore.md"


def block(heading):
    """The code below a heading of the page."""
    part = PAGE.read_text(encoding="utf-8").partition(f"## {heading}")[2]
    return re.search(r"```python\n(.+?)```", part, re.DOTALL)[1]


def test_the_map_of_the_page():
    space = {"ft": ft}
    exec(block("What a training forgets"), space)
    assert space["worst"]["task"] == "law" and space["worst"]["forgotten"] == 0.5


def test_the_game_of_the_page():
    space = {"ft": ft, "encoder": tiny.encoder(labels=("fresh", "rotten"))}
    exec(block("Which fault is it?"), space)
    checked, guessed = space["view"].data
    assert checked["result"] in ("ok", "FAILS") and "It is " in guessed["found"]


def test_the_form_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "_claims", [])
    rows = [f"{i} is {what};{label}" for i in range(60) for what, label in
            (("broken since the storm", "repair"), ("what we want to buy", "order"))]
    Path("tickets.csv").write_text("\n".join(["message;queue", *rows]), encoding="utf-8")
    space = {"ft": ft}
    code = block("A file of yours, without code")
    exec(code.replace("\nown.data[", "\nfound = own.data["), space)
    assert "Freeze" in space["own"].data["card"] and space["found"][0].metric == "accuracy"
