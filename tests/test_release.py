"""Without these, a release could name two versions, or a hook run a file that is not there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import ftkit

ROOT = Path(__file__).parents[1]


def text(name):
    """A file of the repository's top."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load(text("CITATION.cff"))
    latest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", text("CHANGELOG.md"), re.MULTILINE)
    project = tomllib.loads(text("pyproject.toml"))["project"]
    versions = {"ftkit": ftkit.__version__, "pyproject.toml": project["version"],
                "CITATION.cff": str(citation["version"]), "CHANGELOG.md": latest[1]}
    assert len(set(versions.values())) == 1, versions
    assert citation["license"] == project["license"]["text"]


def test_the_changelog_has_the_kinds_of_change_that_its_form_knows():
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text("CHANGELOG.md"), re.MULTILINE)) <= known


def test_hooks_run_what_is_there():
    hooks = [hook for repo in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
             for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff", "notebooks"}
    for hook in hooks:
        program, script = hook["entry"].split()[:2]
        assert program == ".venv/bin/python", "the packages of make setup"
        assert script == "-m" or (ROOT / script).is_file()


NAMED = re.findall(r"`((?:ftkit|tests|tools)/[\w/]+\.\w+)`", text("CONTRIBUTING.md"))


@pytest.mark.parametrize("name", sorted({name for name in NAMED if "NAME" not in name}))
def test_a_file_that_contributors_are_sent_to_is_there(name):
    assert (ROOT / name).is_file()
