"""Without these, somebody with the wheel alone would have no lessons, or lose what they wrote."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from urllib.parse import unquote

import pytest
from test_docs import LINK, text_of

import ftkit as ft
from ftkit import cli
from ftkit.batch import index, lab, start
from ftkit.batch import notebook as nb
from ftkit.batch.start import NOTE
from ftkit.errors import DataError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {f"notebooks/{path.relative_to(ROOT / 'notebooks').as_posix()}"
             for pattern in ("*.ipynb", "solutions/*.ipynb", "templates/*.ipynb")
             for path in (ROOT / "notebooks").glob(pattern)}


@pytest.fixture(scope="module")
def stranger(wheel, tmp_path_factory):
    """An environment of its own with the wheel in it and no checkout; it sees the other packages.

    Returns a function of (command, arguments, folder): the finished process.
    """
    home = tmp_path_factory.mktemp("stranger")
    venv.create(home / "env", with_pip=False)
    python = home / "env" / "bin" / "python"
    asked = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True)
    # A .pth file adds a folder without the .pth files in it, such as that of an editable ftkit.
    shared = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    Path(told.stdout.strip(), "shared.pth").write_text("\n".join(sorted(shared)))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
         "--no-index", "--disable-pip-version-check", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}

    def run(*command):
        return subprocess.run([python.parent / command[0], *command[1:]], capture_output=True,
                              text=True, cwd=home, env=environment)

    run.home = home
    return run


def test_the_wheel_alone_writes_the_lessons(stranger):
    where = stranger("python", "-c", "import ftkit; print(ftkit.__file__)").stdout
    assert where.startswith(str(stranger.home / "env"))
    done = stranger("ftkit", "start", "my lessons")
    assert done.returncode == 0, done.stderr
    folder = stranger.home / "my lessons"
    got = {path.relative_to(folder).as_posix() for path in folder.rglob("*.ipynb")}
    assert got == NOTEBOOKS | {"notebooks/index.ipynb"}
    for name in NOTEBOOKS:
        assert (folder / name).read_bytes() == start.working_copy(ROOT / name)
    assert (folder / "data" / "capitals.md").is_file()
    assert (folder / "docs" / "explore.md").is_file()
    for page in ("hints.md", "reasons.md", "01_supervised.md"):
        assert (folder / "notebooks" / "questions" / page).is_file()
    assert "ftkit start 'my lessons' --lab" in done.stdout and "ftkit fetch --all" in done.stdout


def test_links_of_lessons_and_pages_lead_somewhere_in_the_new_folder(tmp_path):
    start.start(tmp_path)
    index.write(tmp_path)
    pages = [path for path in tmp_path.rglob("*") if path.suffix in (".ipynb", ".md")]
    found = {(path, unquote(plain or html).partition("#")[0]) for path in pages
             for plain, html in LINK.findall(text_of(path))}
    relative = {(path, target) for path, target in found
                if target and not re.match(r"(https?|mailto|attachment|data):", target)}
    assert len(relative) > 300
    lost = [(str(path), target) for path, target in relative if not (path.parent / target).exists()]
    assert lost == []
    words = (tmp_path / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert "../ftkit/" not in words and "models/load.py" in words


def test_a_page_that_was_not_touched_is_brought_up_to_date(tmp_path, monkeypatch):
    source = {f"docs/{name}.md": tmp_path / f"{name}.md" for name in ("one", "two")}
    for path in source.values():
        path.write_text("See [the other](two.md) and [the code](../ftkit/cli.py).")
    monkeypatch.setattr(start, "lessons", lambda: source)
    folder = tmp_path / "my"
    assert start.start(folder).written == list(source)
    page = folder / "docs" / "one.md"
    assert page.read_text() == "See [the other](two.md) and the code."
    (folder / "docs" / "two.md").write_text("mine")
    for path in source.values():
        path.write_text("New.")
    again = start.start(folder)
    assert (again.written, again.worked_in) == (["docs/one.md"], ["docs/two.md"])
    assert (again.outdated, page.read_text()) == (["docs/two.md"], "New.")
    assert start.outdated(folder) == {"docs/two.md"}


def test_the_doctor_runs_without_a_checkout(stranger):
    done = stranger("ftkit", "doctor")
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) > 5


def edit(path, change):
    """Let a function change the notebook in a file."""
    notebook = json.loads(path.read_text())
    change(notebook)
    path.write_text(json.dumps(notebook))


def run_first(notebook):
    """As if the first code cell had been run."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code[0] |= {"execution_count": 1, "outputs": []}


@pytest.fixture
def course(tmp_path, monkeypatch, write_notebook):
    """A course of three small lessons whose sources a test may change, {name: path}."""
    source = tmp_path / "source"
    made = {f"notebooks/0{n}_{name}.ipynb": source / f"0{n}_{name}.ipynb"
            for n, name in enumerate(("first", "second", "third"))}
    for n, path in enumerate(made.values()):
        heading = f"#md # {n} · Title\n\n| `cpu` | about {n} min on 2 cores | 2 GB | x |"
        write_notebook(path, heading,
                      ("profile = 'cpu'", ["parameters"]),
                      "print(1)", "ft.check(None, 1, name='1')")
        edit(path, lambda notebook: notebook["cells"][2].update(
            execution_count=2, outputs=[{"output_type": "stream", "name": "stdout", "text": "1"}]))
    monkeypatch.setattr(start, "lessons", lambda: dict(made))
    return made


def test_a_copy_says_that_its_outputs_are_not_the_learners(course, tmp_path):
    start.start(tmp_path / "my")
    for name, source in course.items():
        copy, lesson = nb.read(tmp_path / "my" / name), nb.read(source)
        assert nb.whole_hash(copy) == nb.whole_hash(lesson)
        assert not any(cell.get("execution_count") for cell in copy["cells"])
        (told,) = copy["cells"][1]["outputs"]
        assert "not yours yet" in told["data"]["text/plain"]
        assert copy["cells"][2]["outputs"] == lesson["cells"][2]["outputs"]


def test_a_figure_of_a_copy_is_told_to_who_cannot_see_it(course, tmp_path):
    name, source = next(iter(course.items()))
    figure = {"output_type": "display_data", "data": {"image/png": "iVBOR\n", "text/plain": "F"},
              "metadata": {"image/png": {"alt": "Loss 'by' epoch."}}}
    edit(source, lambda notebook: notebook["cells"][2].update(outputs=[figure]))
    start.start(tmp_path / "my")
    (shown,) = nb.read(tmp_path / "my" / name)["cells"][2]["outputs"]
    assert shown["data"] == {"text/plain": "F", "text/html": (
        "<img alt='Loss &#x27;by&#x27; epoch.' style='max-width:100%' "
        "src='data:image/png;base64,iVBOR'>")}


def test_what_a_learner_did_is_kept_and_the_rest_is_brought_up_to_date(course, tmp_path, capsys):
    folder, names = tmp_path / "my", list(course)
    assert start.start(folder).written == names
    ran, edited, opened = (folder / name for name in names)
    edit(ran, run_first)
    edit(edited, lambda notebook: notebook["cells"][2].update(source="print(2)"))
    # JupyterLab writes a file that was only opened, too.
    edit(opened, lambda notebook: notebook["metadata"].update(language_info={"name": "python"}))
    before = [path.read_bytes() for path in (ran, edited)]
    assert start.start(folder) == start.Started(folder, same=names[2:], worked_in=names[:2])
    for source in course.values():
        edit(source, lambda notebook: notebook["cells"][2].update(source="print(3)"))
    again = start.start(folder)
    assert (again.written, again.worked_in, again.outdated) == (names[2:], names[:2], names[:2])
    assert [path.read_bytes() for path in (ran, edited)] == before
    assert cli.main(["start", str(folder)]) == 0
    assert f"has a newer version: {names[0]}, {names[1]}" in capsys.readouterr().out
    ran.rename(folder / "notebooks" / "mine.ipynb")
    assert start.start(folder).written == names[:1]


@pytest.mark.parametrize("verdict", ["1: right.", "1: right.\n\nIt is, because.\n"])
def test_the_index_shows_what_is_done(verdict, course, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))  # nobody's answers
    folder, names = tmp_path / "my", list(course)
    start.start(folder)
    page = index.write(folder)
    assert [row["time"] for row in ft.lessons(page.parent).rows] == [
        "about 0 min", "about 1 min", "about 2 min"]
    assert not any(map(index.done, ft.lessons(page.parent).rows))

    def all_run(notebook):
        for cell in notebook["cells"][1:]:
            cell["execution_count"] = 1
        notebook["cells"][3]["outputs"] = [{"output_type": "execute_result", "metadata": {},
                                            "data": {"text/plain": verdict}}]

    edit(folder / names[0], run_first)
    edit(folder / names[1], all_run)
    (folder / names[2]).write_text("no notebook")
    assert list(map(index.done, ft.lessons(page.parent).rows)) == [
        "1 of 3 cells run", "✓ all cells run, 1 of 1 exercises right",
        "cannot be read as a notebook"]
    for where in (folder, page.parent):
        assert cli.main(["progress", str(where)]) == 0
        said = capsys.readouterr().out
        assert "1 of 3 cells run" in said and said.endswith(
            "Lessons run to their end: 1 of 3. Exercises right: 1 of 2. Questions right: 0.\n")
    index.write(folder)
    (shown,) = nb.read(page)["cells"][1]["outputs"]
    assert "[1 · Title](01_second.ipynb)" in shown["data"]["text/markdown"]
    assert "1 of 1 exercises right" in shown["data"]["text/plain"]
    edit(page, lambda notebook: notebook["cells"][0].update(source="my notes"))
    index.write(folder)
    assert nb.source(nb.read(page)["cells"][0]) == "my notes"
    with pytest.raises(DataError, match="ftkit start"):
        ft.lessons(tmp_path)


def test_jupyterlab_listens_here_alone_and_has_the_tokens_it_makes(course, tmp_path):
    pytest.importorskip("jupyterlab", reason="needs the extra lab")
    start.start(tmp_path)
    arguments, environment = lab.command(tmp_path, index.write(tmp_path))
    assert "--ServerApp.ip=127.0.0.1" in arguments and not any("token" in a for a in arguments)
    assert "--LabApp.default_url=/lab/tree/notebooks/index.ipynb" in arguments
    kernel = Path(environment["JUPYTER_PATH"].split(os.pathsep)[0], "kernels", "python3")
    assert json.loads((kernel / "kernel.json").read_text())["argv"][-1] == "ftkit.batch.lab"
    assert Path(environment["PATH"].split(os.pathsep)[0]) == Path(sys.executable).parent


@pytest.mark.parametrize("note", ["", "[1]", "{}"])
def test_a_file_of_somebody_elses_is_never_overwritten(note, tmp_path):
    place = tmp_path / "notebooks" / "01_supervised.ipynb"
    place.parent.mkdir()
    place.write_text("theirs")
    (tmp_path / NOTE).write_text(note)
    assert start.start(tmp_path).kept == ["notebooks/01_supervised.ipynb"]
    assert place.read_text() == "theirs"


def test_a_folder_that_cannot_be_one_is_said(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert cli.main(["start", str(file)]) == 2
    assert "is a file" in capsys.readouterr().err
    assert cli.main(["start", str(file / "below")]) == 2
    error = capsys.readouterr().err
    assert "could not be filled" in error and error.count("\n") == 1
