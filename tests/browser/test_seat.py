"""Without these, a learner might lose work, or meet on the screen what no headless run shows."""

import re

import pytest
import seat

from ftkit.batch import notebook as nb

pytestmark = pytest.mark.browser
VIEW, STATE = nb.WIDGETS
LESSONS = {"01": 240, "02": 180, "21": 180}  # seconds that Run All may take on profile smoke
PROBE = [
    f"import sys, time\nsys.path.insert(0, {str(seat.ROOT / 'tests')!r})\n"
    "import tiny, transformers\nimport ftkit as ft",
    "class Slow(transformers.TrainerCallback):\n"
    "    def on_step_end(self, *args, **more):\n        time.sleep(0.1)",
    "run = ft.fit(tiny.encoder(), tiny.reviews(64), epochs=40, batch_size=8, "
    "callbacks=[Slow()])\nrun",
    "for seed in range(3):\n    ft.fit(tiny.encoder(), tiny.reviews(16), epochs=2, quiet=True)",
]


@pytest.fixture
def probe(jupyterlab, write_notebook):
    """A notebook that trains a small network slowly."""
    return write_notebook(jupyterlab[0] / "notebooks" / "98_probe.ipynb", *PROBE)


def shown(cell):
    """The texts of a cell's outputs, whatever their kind."""
    return "\n".join("".join(o.get("text", o.get("data", {}).get("text/plain", "")))
                     for o in cell["outputs"])


def solution(lesson, name):
    """The cell of a lesson's solutions that answers an exercise of a name such as "1"."""
    (path,) = (seat.ROOT / "notebooks" / "solutions").glob(f"{lesson}_*.ipynb")
    (found,) = [cell for _, cell in nb.code_cells(nb.read(path))
                if "ft.check(" in nb.source(cell) and f'name="{name}"' in nb.source(cell)]
    source = re.sub(r"(?m)^assert ", "", nb.source(found))
    return source.removesuffix("\nanswer_1")  # so that the verdict is what the cell shows


def test_the_index_leads_to_a_lesson_that_says_whose_outputs_it_shows(learner):
    learner.open()
    learner.until("Fine-tuning, lesson by lesson")
    learner.shot("index")
    learner.page.get_by_role("link", name="2 · Few-shot prompting").click()
    learner.until("The outputs below are not yours yet.")
    learner.until_idle()
    assert seat.serious(learner, f"{seat.PANEL} .jp-OutputArea") == []
    assert not any(cell.get("execution_count") for cell in learner.cells())
    assert "official Jupyter news" not in learner.page.inner_text("body")


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_from_top_to_bottom_and_its_exercises_are_answered(lesson, learner):
    (path,) = (learner.folder / "notebooks").glob(f"{lesson}_*.ipynb")
    seat.on_smoke(path)
    learner.open(f"notebooks/{path.name}")
    learner.run_all(LESSONS[lesson])
    learner.save()
    saved = nb.read(path)
    assert nb.failure(saved) is None
    kept = saved["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    assert {output["data"][VIEW]["model_id"] for _, cell in nb.code_cells(saved)
            for output in cell["outputs"] if VIEW in output.get("data", {})} <= set(kept)
    text = "\n".join(shown(cell) for _, cell in nb.code_cells(saved))
    assert "Profile smoke:" in text and "not yours yet" not in text
    cells = learner.cells()
    number = next(i for i, cell in enumerate(cells) if 'name="1"' in nb.source(cell))
    source = nb.source(cells[number])
    assert "not answered yet" in shown(cells[number])
    begin = next(line for line in source.splitlines() if line.startswith("answer_1 = None"))
    wrong = learner.run(number, source.replace(begin, "answer_1 = 0.123"))
    assert "1: not yet. " in shown(wrong)
    learner.until("✗ 1: not yet.")
    learner.until("A hint")
    assert seat.serious(learner) == []
    right = learner.run(number, solution(lesson, "1"))
    assert re.search(r"1: right\.\n\n\S.{60,}$", shown(right))  # and why
    learner.until("✓ 1: right.")
    assert seat.serious(learner) == []
    learner.save()
    learner.shot(f"exercise_{lesson}")
    learner.open("notebooks/index.ipynb")
    told = shown(learner.run(1))
    assert any("✓ all cells run, 1 of 3 exercises right" in line for line in told.splitlines()
               if line.startswith(f"{int(lesson)} · "))


def test_a_training_is_watched_stopped_saved_and_found_again(learner, probe):
    learner.open(f"notebooks/{probe.name}")
    learner.choose("Run", "Run All Cells")
    learner.until("validation loss", 120)
    learner.until("tokens/s")
    learner.page.locator("img[alt^='Curve of the training']").first.wait_for()
    learner.shot("training")
    learner.select(2)
    assert seat.serious(learner) == []
    learner.page.locator("[data-command='notebook:interrupt-kernel'], "
                         "jp-button[title*='Interrupt']").first.click()
    learner.until("Interrupted after update")
    learner.until("3 trainings done in this cell.")
    learner.until_idle()
    assert "the Run holds the weights so far" in shown(learner.cells()[2])
    assert "trained 41,218 of 41,218 parameters" in shown(learner.cells()[2])
    learner.save()
    learner.open(f"notebooks/{probe.name}")
    body = learner.page.inner_text("body")
    assert "Interrupted after update" in body and "Error displaying widget" not in body
    learner.select(2)
    area = learner.page.locator(f"{seat.PANEL} .jp-Cell.jp-mod-active .jp-Cell-outputArea")
    assert seat.serious(learner) == [] and seat.within(area) == []
    picture = learner.page.locator("img[alt^='Curve of the training']").first
    assert picture.evaluate("image => image.naturalWidth") > 0


def test_verdicts_can_be_read_by_everybody(learner, probe):
    learner.open(f"notebooks/{probe.name}")
    learner.run(0)
    for number, answer, said in ((2, "0.5", "✗ 1: not yet."), (3, "1.0", "✓ 1: right.")):
        learner.run(number, f"ft.check({answer}, 1.0, name='1', hints={{0.5: 'That is half.'}})")
        learner.until(said)
        assert seat.serious(learner) == []


def test_a_figure_is_told_to_who_cannot_see_it(learner, probe):
    """Also one that a lesson draws itself, and on the next day, when no kernel runs."""
    learner.open(f"notebooks/{probe.name}")
    learner.run(0)
    learner.run(2, "from matplotlib import pyplot as plt\nplt.plot([1, 2], [3, 4])\n"
                   "plt.title('Drawn here')\nplt.show()")
    learner.run(3, "ft.plot_bars({'base': 0.5, 'tuned': 0.75}, 'By the kit', 'accuracy')")
    learner.save()
    learner.shut_down()
    learner.open(f"notebooks/{probe.name}")
    for words in ("Drawn here. from 3 at 1, to 4 at 2.",
                  "By the kit. vertical axis: accuracy. base 0.5, tuned 0.75."):
        picture = learner.page.locator(f"img[alt='{words}']").first
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.naturalWidth") > 300
    silent = ".jp-OutputArea img:not([alt])"
    assert learner.page.locator(silent).count() == 0


def test_after_a_restart_the_error_says_how_to_go_on(learner, probe):
    learner.open(f"notebooks/{probe.name}")
    learner.run(0)
    learner.choose("Kernel", "Restart Kernel…")
    learner.page.locator(".jp-Dialog-button.jp-mod-accept").click()
    learner.until_idle()
    failed = learner.run(3)
    assert failed["outputs"][0]["ename"] == "NameError"
    assert "Run All Above Selected Cell" in shown(failed)
    learner.shot("restart")
    learner.run(2, "pass")  # so that it does not take long
    learner.select(3)
    learner.choose("Run", "Run All Above Selected Cell")
    learner.until_idle()
    assert "3 trainings done in this cell." in shown(learner.run(3))


def test_a_lesson_that_is_closed_gives_its_memory_back(learner, probe):
    learner.open(f"notebooks/{probe.name}")
    learner.save()

    assert probe.name in learner.kernels()
    learner.choose("File", "Close Tab")
    learner.page.locator(".jp-NotebookPanel").wait_for(state="detached")
    for _ in range(50):
        if probe.name not in learner.kernels():
            break
        learner.page.wait_for_timeout(200)
    assert probe.name not in learner.kernels()
