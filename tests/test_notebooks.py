"""The lessons keep their shape, and the outputs a reader sees belong to the code beside them."""

import ast
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from ftkit.batch import notebook as nb

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb"))
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def test_there_are_lessons():
    assert len(LESSONS) >= 5


def test_a_checkout_stays_small():
    """Outputs are committed again with each run, and git keeps every one of them."""
    size = sum(path.stat().st_size for path in (ROOT / "notebooks").rglob("*.ipynb")
               if ".ipynb_checkpoints" not in path.parts)
    assert size < 8_000_000


@each_lesson
def test_committed_outputs_are_of_this_source_on_the_cpu_profile(path):
    notebook = nb.read(path)
    made = notebook["metadata"].get("ftkit")
    again = f"run `ftkit batch {path.relative_to(ROOT)} --profile cpu --commit-to notebooks`"
    assert made, f"no outputs are committed: {again}"
    assert made["source_hash"] == nb.source_hash(notebook), f"the code has changed: {again}"
    assert made["profile"] == "cpu"
    assert nb.failure(notebook) is None
    claims = nb.claims(notebook)
    assert claims and all(c["judged"] for c in claims)
    assert all(c["held"] or c.get("expect") == "open" for c in claims)


@each_lesson
def test_nothing_of_the_machine_is_committed(path):
    notebook = nb.read(path)
    assert nb.scrub(notebook) == notebook, "timings, widgets or progress bars are in the outputs"
    assert nb.machine_paths(notebook, [ROOT]) == []
    assert nb.INJECTED not in [tag for cell in notebook["cells"] for tag in nb.tags(cell)]


@each_lesson
def test_the_lesson_has_its_parts(path):
    notebook = nb.read(path)
    cells = notebook["cells"]
    assert cells[0]["cell_type"] == "markdown" and nb.source(cells[0]).startswith("# ")
    defaults = nb.parameters(notebook, path.name)  # raises unless every value is a literal
    assert defaults["profile"] == "cpu" and defaults["seed"] == 0
    code = [nb.source(cell) for _, cell in nb.code_cells(notebook)]
    assert "parameters" in nb.tags(nb.code_cells(notebook)[0][1]), "the parameters come first"
    assert "conclude(" in code[-1], "the last code cell calls ft.conclude()"
    checks = sum(calls(text, "check") for text in code)
    assert checks >= 3, f"three exercises with a self-check are wanted, found {checks}"
    prose = "\n".join(nb.source(c) for c in cells if c["cell_type"] == "markdown").lower()
    for part in ("predict", "before", "exercise"):
        assert part in prose, f"the part {part!r} is missing"
    assert path.name in [solution.name for solution in SOLUTIONS]


@each_lesson
def test_cells_are_short(path):
    lengths = [len([line for line in nb.source(cell).splitlines() if line.strip()])
               for _, cell in nb.code_cells(nb.read(path))]
    assert statistics.median(lengths) <= 10
    assert max(lengths) <= 40, "a cell should fit on a screen"


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_insist_on_their_answers(path):
    code = "\n".join(nb.source(cell) for _, cell in nb.code_cells(nb.read(path)))
    tree = ast.parse(code)
    asserted = [line for line in ast.walk(tree) if isinstance(line, ast.Assert)
                and "check(" in ast.unparse(line)]
    assert len(asserted) >= 3, "each exercise is answered under `assert ft.check(...)`"


def calls(code, name):
    """How often code calls a function or method of that name."""
    return sum(isinstance(node, ast.Call) and getattr(node.func, "attr", None) == name
               or isinstance(node, ast.Call) and getattr(node.func, "id", None) == name
               for node in ast.walk(ast.parse(code)))


# Brings up the loopback device of a new network namespace (kernels talk over it), then runs the
# rest of the command line. 0x8914: SIOCSIFFLAGS; 0x41: IFF_UP | IFF_RUNNING.
LOOPBACK = """
import fcntl, os, socket, struct, sys
request = struct.pack("16sh14x", b"lo", 0x41)
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, request)
try:
    socket.create_connection(("1.1.1.1", 53), timeout=3)
except OSError:
    os.execv(sys.argv[1], sys.argv[1:])
sys.exit("the namespace has a network")
"""


def without_network(*command):
    """The command line that runs a Python command in a network namespace of its own."""
    unshare = shutil.which("unshare")
    if not unshare:
        pytest.skip("network namespaces need Linux and util-linux's unshare")
    start = [unshare, "-n"] if os.geteuid() == 0 else [unshare, "-rn"]
    start += [sys.executable, "-c", LOOPBACK, sys.executable]
    tried = subprocess.run([*start, "-c", "pass"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"network namespaces are not permitted here: {tried.stderr.strip()[-200:]}")
    return [*start, *command]


@pytest.mark.skipif(not LESSONS, reason="there is no lesson")
def test_a_lesson_runs_without_any_network(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "FTKIT_OFFLINE"}
    command = without_network("-m", "ftkit.cli", "batch", str(LESSONS[0]), "--profile", "smoke",
                              "--out", str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / LESSONS[0].name).exists()


@pytest.mark.parametrize("path", LESSONS + SOLUTIONS, ids=lambda path: path.parent.stem + path.stem)
def test_every_figure_is_shown(path):
    """A plot_ function returns its figure; a notebook shows what a cell's last line returns."""
    for number, cell in nb.code_cells(nb.read(path)):
        text = nb.source(cell)
        if "plot_" not in text:
            continue
        body = ast.parse(text).body
        drawn = [node for node in ast.walk(ast.Module(body, []))
                 if isinstance(node, ast.Expr) and ".plot_" in ast.unparse(node).split("(")[0]]
        lost = [ast.unparse(node)[:60] for node in drawn if node is not body[-1]]
        assert not lost, f"cell {number}: make {lost} its last line, or print after it elsewhere"
        assert not (drawn and text.rstrip().endswith(";")), f"cell {number}: ';' hides the figure"
