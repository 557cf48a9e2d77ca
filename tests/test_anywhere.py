"""Without these, the course might not start where somebody has only a browser."""

import ast
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ftkit import cli
from ftkit.assets import catalog
from ftkit.data import recipe

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What containers.dev says of the properties that are used here; a misspelt one is not among them.
TEXT = {"type": "string", "minLength": 1}
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["image", "postCreateCommand"],
    "properties": {
        "name": TEXT,
        "image": {"type": "string", "pattern": r"^[\w.-]+(/[\w.-]+)+:[\w.-]+$"},
        "hostRequirements": {
            "type": "object", "additionalProperties": False,
            "properties": {"cpus": {"type": "integer", "minimum": 1},
                           "memory": {"type": "string", "pattern": r"^\d+([tgmk]b)?$"},
                           "storage": {"type": "string", "pattern": r"^\d+([tgmk]b)?$"}}},
        "postCreateCommand": TEXT,
        "forwardPorts": {"type": "array", "items": {"type": "integer", "maximum": 65535}},
        "portsAttributes": {"type": "object", "additionalProperties": {
            "type": "object", "additionalProperties": False,
            "properties": {"label": TEXT, "onAutoForward": {"enum": [
                "notify", "openBrowser", "openBrowserOnce", "openPreview", "silent", "ignore"]}}}},
        "customizations": {"type": "object"},
    },
}


@pytest.fixture
def container():
    return json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))


def test_the_devcontainer_is_one(container):
    jsonschema.validate(container, SCHEMA)
    with pytest.raises(jsonschema.ValidationError, match="postCreateComand"):
        jsonschema.validate(container | {"postCreateComand": "make"}, SCHEMA)


def test_the_devcontainer_sets_up_what_the_makefile_can(container):
    command = container["postCreateCommand"]
    targets = re.search(r"make ([a-z ]+)", command)[1].split()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert ".venv/bin/ftkit start my-lessons" in command
    assert "my-lessons/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    version = re.search(r"python:\d+-(\d+\.\d+)-", container["image"])[1]
    assert f">={version}" == PROJECT["requires-python"]


def test_binder_finds_a_python_and_the_extras():
    folder = ROOT / ".binder"
    version = re.fullmatch(r"python-(\d+\.\d+)\n", (folder / "runtime.txt").read_text())[1]
    assert f">={version}" == PROJECT["requires-python"]
    lines = (folder / "requirements.txt").read_text().splitlines()
    (ours,) = [line for line in lines if line.startswith("-e ")]
    assert set(re.search(r"\[(.+)\]", ours)[1].split(",")) <= set(PROJECT["optional-dependencies"])
    (pinned,) = [line.split()[1] for line in lines if line.startswith("-c ")]
    assert (folder / pinned).resolve() == ROOT / "constraints.txt"  # as pip reads it: from the file


def test_the_first_cell_for_colab_is_python_and_names_what_there_is():
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    cell = re.search(r"```ipython3\n(%pip .+?)```", page, re.DOTALL)[1]
    tree = ast.parse(TransformerManager().transform_cell(cell))
    assert len(tree.body) == 3  # each line is one command
    extras = re.search(r'"ftkit\[([\w,]+)\] @ git\+(\S+)"', cell)
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"git clone {extras[2]} " in readme  # the same address in both
    known = {entry.name for entry in (*catalog.models(), *recipe.entries())}
    for command in re.findall(r"^!ftkit (.+)$", cell, re.MULTILINE):
        options = cli._parser().parse_args(command.split())
        assert set(getattr(options, "names", [])) <= known


def test_the_readme_names_each_place():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for place in ("Binder", "devcontainer", "Colab", "WSL"):
        assert place in readme


def test_binder_fetches_what_there_is():
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    wanted = re.search(r"^ftkit fetch (.+)$", script.read_text(), re.MULTILINE)[1].split()
    known = {entry.name for entry in (*catalog.models(), *recipe.entries())}
    assert set(wanted) <= known
