"""Without these, imports could run in circles, and the pages about the code describe another."""

import ast
import functools
import inspect
import re
import subprocess
import sys
from pathlib import Path

import api_page
import architecture
import pytest

import ftkit as ft
from ftkit.batch import notebook as nb

ROOT = Path(__file__).parents[1]
FILES = architecture.files()
PUBLIC = api_page.public_names()
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: architecture.module_of(file))

# Public functions that no lesson, command or document calls. None may join them.
WITHOUT_CALLER = {"plan", "read_conll", "read_pairs", "plot_history"}


@functools.cache
def upward():
    """What breaks the order of the rooms, found once for all files."""
    return architecture.upward()


@each_file
def test_imports_go_down_the_list_of_rooms(file):
    wrong = [said for said in upward() if said.startswith(f"{file.relative_to(ROOT)}:")]
    assert not wrong, wrong


def test_no_module_needs_itself_to_be_imported():
    assert architecture.circle() == []


@each_file
def test_a_file_can_be_read(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{lines} lines; at most 400 are wanted"


def test_every_room_is_in_the_list():
    rooms = {architecture.room_of(architecture.module_of(file)) for file in FILES} - {"ftkit"}
    assert rooms <= set(architecture.ROOMS), "give it a place in tools/architecture.py"


def test_import_loads_the_standard_library_alone():
    """The heavy libraries come with the first name that needs them."""
    code = ("import sys; before = set(sys.modules); import ftkit; "
            "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - set(sys.stdlib_module_names) == {"ftkit"}


@pytest.fixture
def package(tmp_path):
    """Writes a small package named ftkit from {file: text} and returns its folder."""

    def write(**files):
        folder = tmp_path / "ftkit"
        for name, text in {"__init__": "", **files}.items():
            path = folder.joinpath(*name.split("__", 1)) if name != "__init__" else folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".py").write_text(text)
        return folder

    return write


@pytest.mark.parametrize("text", [
    "from ftkit.training import fit",
    "import ftkit.training.fit",
    "from ftkit import training",
    "from ..training.fit import fit",
    "def late():\n    from ftkit.training.fit import fit",
    "from ftkit import fit",
])
def test_an_import_that_goes_up_is_found(package, text):
    folder = package(models__structure=text, models____init__="", training__fit="",
                     training____init__="")
    assert [said for said in architecture.upward(folder) if "structure.py" in said]
    folder.joinpath("models", "structure.py").write_text("from ftkit.errors import FtkitError")
    assert architecture.upward(folder) == []


def test_a_folder_that_is_no_room_is_found(package):
    folder = package(errors="", attic__old="", data__load="from ftkit.attic import old")
    assert "'attic', which is no room" in architecture.upward(folder)[0]


def test_a_circle_is_found_and_one_that_waits_for_a_call_is_none(package):
    folder = package(models__one="from ftkit.models import two", models____init__="",
                     models__two="from ftkit.models.one import thing")
    assert set(architecture.circle(folder)) == {"ftkit.models.one", "ftkit.models.two"}
    later = folder / "models" / "two.py"
    later.write_text("def late():\n    from ftkit.models.one import thing")
    assert architecture.circle(folder) == []
    later.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
                     "    from ftkit.models.one import thing")
    assert architecture.circle(folder) == []


def test_a_circle_through_the_front_of_a_package_is_found(package):
    folder = package(models____init__="from ftkit.tasks import choice", tasks____init__="",
                     tasks__choice="from ftkit.models import structure", models__structure="")
    assert "ftkit.models" in architecture.circle(folder)


def test_the_page_of_the_architecture_is_current():
    text = architecture.PAGE.read_text(encoding="utf-8")
    assert text == architecture.rewritten(text), "run `python tools/architecture.py`"


def test_the_picture_of_the_architecture_is_current():
    from PIL import Image

    with Image.open(architecture.PICTURE) as image:
        drawn = image.text["ftkit"]
    assert drawn == architecture.fingerprint(), "run `python tools/architecture.py`"


def test_the_walk_links_each_file_once_and_in_a_room():
    text = architecture.PAGE.read_text(encoding="utf-8")
    walk = text.partition("\n## From fit to the Evaluation")[2].partition("\n## ")[0]
    linked = re.findall(r"\]\(\.\./(ftkit/[^)#]+)\)", walk)
    assert len(linked) >= 15 and len(linked) == len(set(linked))
    assert all((ROOT / path).is_file() for path in linked)


def test_the_page_of_public_names_is_current():
    text = api_page.PAGE.read_text(encoding="utf-8")
    assert text == api_page.page(), "run `python tools/api_page.py`"


def test_a_link_to_a_public_name_meets_one_heading():
    heads = re.findall(r"^#+ (.+)$", api_page.page(), re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", head.lower()) for head in heads]
    assert len(anchors) == len(set(anchors))


@pytest.mark.parametrize("one", PUBLIC, ids=lambda one: one.name)
def test_the_page_shows_a_name_as_python_sees_it(one):
    """What is read from the source is what inspect finds in the object."""
    thing = getattr(ft, one.name)
    thing = inspect.unwrap(thing)
    called, parameters = api_page.signature(one.node)
    if inspect.isfunction(thing):
        assert [p for p in parameters if p] == list(inspect.signature(thing).parameters)
    assert ast.get_docstring(one.node) == inspect.getdoc(thing), "it has no docstring of its own"


@functools.cache
def told():
    """All code and prose that shows how the kit is used: lessons, documents, the command."""
    cells = [nb.source(cell) for path in sorted((ROOT / "notebooks").rglob("[0-9][0-9]_*.ipynb"))
             for cell in nb.read(path)["cells"]]
    pages = [path.read_text(encoding="utf-8") for folder in (".", "docs", "data")
             for path in sorted((ROOT / folder).glob("*.md")) if path != api_page.PAGE]
    return "\n".join([*cells, *pages])


def is_called(one):
    """Whether a lesson or document says ft.NAME, or the command line calls it."""
    if re.search(rf"\bft\.{one.name}\b", told()):
        return True
    commands = [ROOT / "ftkit" / name for name in ("cli.py", "doctor.py")]
    return any(re.search(rf"\b{one.name}\(", path.read_text(encoding="utf-8"))
               for path in commands if path != one.file)


@pytest.mark.parametrize("one", [one for one in PUBLIC if isinstance(one.node, ast.FunctionDef)],
                         ids=lambda one: one.name)
def test_a_public_function_is_called_by_someone(one):
    if one.name in WITHOUT_CALLER:
        assert not is_called(one), "it has a caller now: take it off WITHOUT_CALLER"
    else:
        assert is_called(one), "no lesson, command or document calls it"
