"""Without these, somebody with the wheel alone would have no lessons, or lose what they wrote."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from ftkit import cli
from ftkit.batch import start
from ftkit.batch.start import NOTE

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {f"notebooks/{path.relative_to(ROOT / 'notebooks').as_posix()}"
             for pattern in ("*.ipynb", "solutions/*.ipynb")
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
    assert got == NOTEBOOKS
    for name in got:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    assert (folder / "data" / "capitals.md").is_file()
    assert "cd 'my lessons'" in done.stdout and "ftkit fetch --all" in done.stdout


def test_the_doctor_runs_without_a_checkout(stranger):
    done = stranger("ftkit", "doctor")
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_what_was_changed_is_kept_and_the_rest_is_brought_up_to_date(tmp_path, capsys):
    folder = tmp_path / "lessons"
    first = start.start(folder)
    assert set(first.written) >= NOTEBOOKS and not first.kept
    mine, old, gone = (folder / "notebooks" / f"{name}.ipynb"
                       for name in ("01_supervised", "02_few_shot", "03_transfer"))
    mine.write_text("my own work")
    gone.unlink()
    # As if an older version had written it.
    old.write_text("as it was")
    note = json.loads((folder / NOTE).read_text())
    note["notebooks/02_few_shot.ipynb"] = start._digest(old)
    (folder / NOTE).write_text(json.dumps(note))
    again = start.start(folder)
    assert again.kept == ["notebooks/01_supervised.ipynb"]
    assert again.written == ["notebooks/02_few_shot.ipynb", "notebooks/03_transfer.ipynb"]
    assert mine.read_text() == "my own work"
    assert cli.main(["start", str(folder)]) == 0
    assert "left as they are: notebooks/01_supervised.ipynb" in capsys.readouterr().out


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
