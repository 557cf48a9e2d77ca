"""The views with controls and the reader's own template, as somebody sees and moves them."""

import re
from pathlib import Path

import pytest
import seat

from ftkit.batch import notebook as nb
from ftkit.course.quiz import quiz

pytestmark = pytest.mark.browser
SET_UP = (f"import sys\nsys.path.insert(0, {str(seat.ROOT / 'tests')!r})\n"
          "import tiny\nimport ftkit as ft\n"
          "decoder, base, data = tiny.decoder(), tiny.encoder(), tiny.reviews()\n"
          "tuned = ft.fit(base, data, epochs=8, learning_rate=5e-3, quiet=True).model\n"
          "before, after = (ft.evaluate(m, data['test']) for m in (base, tuned))\n"
          "for rate in (1e-3, 1e-4):\n"
          "    ft.fit(base, data, epochs=1, learning_rate=rate, quiet=True)")
VIEWS = [
    "record = {'instruction': 'the film was', 'output': 'good'}\ntokens = ft.inspect_tokens("
    "decoder, record)\ntokens",
    "sides = ft.side_by_side({'base': base, 'tuned': tuned}, 'the film was great')\nsides",
    "flips = ft.browse_flips(data['test'], before, after)\nflips",
    "prompt = ft.build_prompt(decoder, [('the film', 'good'), ('the plot', 'bad')],\n"
    "                         [('the cat', 'good'), ('the dog', 'bad')], number=1)\nprompt",
    "recorded = ft.explore_runs(ft.runs()[-2:])\nrecorded",
    "asked = ft.quiz('01')\nasked",
    "words = ft.inspect_occlusion(tuned, 'the film was great and the plot was bad')\nwords",
    "reads = ft.inspect_attention(tuned, 'the film was great')\nreads",
]
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"


@pytest.fixture
def views(jupyterlab, write_notebook, learner):
    """A notebook with the views, run up to its end. Yields the learner's seat."""
    path = write_notebook(jupyterlab[0] / "notebooks" / "97_views.ipynb", SET_UP, *VIEWS,
                          "sorted(tokens.settings.items())")
    learner.open(f"notebooks/{path.name}")
    learner.choose("Run", "Run All Cells")
    learner.page.wait_for_function(
        "() => jupyterapp.shell.currentWidget.content.model.cells.get(9).executionCount",
        timeout=120000)
    return learner


def output(learner, number):
    """The part of the page where a cell's view is."""
    learner.select(number)
    found = learner.page.locator(f"{PANEL} .jp-Cell.jp-mod-active .jp-OutputArea")
    found.locator(".widget-vbox, .lm-Widget.widget-vbox").first.wait_for()
    return found


def until(found, text):
    """Wait until a text stands in a view."""
    found.get_by_text(text).first.wait_for(timeout=20000)


def serious(learner):
    """What axe-core finds wrong with the view in front, as far as it is serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright",
                              reason="needs axe-playwright-python")
    told = axe.Axe().run(learner.page, context={
        "include": [[f"{PANEL} .jp-Cell.jp-mod-active .jp-OutputArea"]]}).response
    assert told["passes"], "axe-core looked at nothing"
    return [f"{one['id']}: {one['nodes'][0]['html'][:300]}" for one in told["violations"]
            if one["impact"] in ("serious", "critical")]


def test_each_view_follows_its_controls_and_is_read_out_whole(views):
    found = output(views, 1)
    number = found.get_by_label("number of the token")
    number.fill("3")
    number.press("Enter")
    until(found, "most probable in place 3")
    boxes = found.locator("span[style*='border']").count()
    found.get_by_role("button", name="all").click()
    views.page.wait_for_function(
        "([n, panel]) => document.querySelectorAll(`${panel} .jp-mod-active span[style*=border]`)"
        ".length > n", arg=[boxes, PANEL])
    views.shot("view_tokens")
    assert serious(views) == []
    assert "('at', 3)" in "".join(views.run(9)["outputs"][0]["data"]["text/plain"])

    found = output(views, 2)
    text = found.get_by_label("text", exact=True)
    text.fill("the plot was terrible")
    text.press("Tab")
    found.get_by_role("button", name="Ask the models").click()
    until(found, "to: the plot was terrible")
    assert re.search(r"tuned\s+bad", found.inner_text())
    views.shot("view_side_by_side")
    assert serious(views) == []
    text.fill(" ")
    text.press("Tab")
    found.get_by_role("button", name="Ask the models").click()
    until(found, "the text is empty")

    found = output(views, 3)
    until(found, "Shown: gained, number 0")
    first = found.locator("table").inner_text()
    found.get_by_label("number of the example").fill("1")
    found.get_by_label("number of the example").press("Enter")
    until(found, "Shown: gained, number 1")
    assert found.locator("table").inner_text() != first
    found.get_by_role("button", name="both right").click()
    until(found, "Shown: both right, number 1")
    views.shot("view_flips")
    assert serious(views) == []

    found = output(views, 4)
    number = found.get_by_label("number of examples")
    number.fill("2")
    number.press("Tab")
    found.get_by_role("button", name="Try this prompt").click()
    until(found, "A: bad")
    assert len(found.locator("table").first.locator("tr").all()) == 3  # head, and two prompts
    views.shot("view_prompt")
    assert serious(views) == []

    found = output(views, 5)
    picture = found.locator("img[alt^='eval loss by learning rate']")
    picture.wait_for()
    found.get_by_role("button", name="seconds").click()
    found.locator("img[alt^='seconds by learning rate']").wait_for()
    views.shot("view_runs")
    assert serious(views) == []

    found = output(views, 6)
    first = found.locator(".widget-toggle-buttons").first
    right = quiz("01").questions[0].right
    wrong = next(letter for letter in quiz("01").questions[0].options if letter != right)
    first.get_by_role("button", name=wrong, exact=True).click()
    until(found, f"not {wrong}: it is {right}.")
    until(found, "0 of 1 answers right.")
    first.get_by_role("button", name=right, exact=True).click()
    until(found, "1 of 1 answers right.")
    views.shot("view_quiz")
    assert serious(views) == []

    found = output(views, 7)
    until(found, "good has")
    found.get_by_role("button", name="bad", exact=True).click()
    until(found, "bad has")
    views.shot("view_occlusion")
    assert serious(views) == []

    found = output(views, 8)
    until(found, "most attended to from token 0")
    found.get_by_label("number of the token").fill("2")
    found.get_by_label("number of the token").press("Enter")
    until(found, "most attended to from token 2")
    found.get_by_role("button", name="1", exact=True).click()
    views.shot("view_attention")
    assert serious(views) == []


def test_a_view_is_moved_by_the_keyboard_alone_and_is_there_on_the_next_day(views):
    found = output(views, 3)
    found.get_by_role("button", name="gained").focus()
    views.page.keyboard.press("Tab")
    views.page.keyboard.press("Space")
    until(found, "There is no example of this kind")
    views.page.keyboard.press("Shift+Tab")
    views.page.keyboard.press("Enter")
    until(found, "Shown: gained, number 0")
    for _ in range(4):  # past the other kinds
        views.page.keyboard.press("Tab")
    assert views.page.evaluate("document.activeElement.type") == "number"
    views.page.keyboard.press("ArrowUp")
    views.page.keyboard.press("Enter")
    until(found, "Shown: gained, number 1")
    # Out of the control, which keeps Control and S for itself.
    views.page.evaluate("document.activeElement.blur()")
    views.select(3)
    views.save()
    views.shut_down()
    views.open("notebooks/97_views.ipynb")  # on the next day
    until(output(views, 3), "Shown: gained, number 1")
    assert "Error displaying widget" not in views.page.inner_text("body")


def test_the_template_takes_a_readers_file(jupyterlab, learner):
    """Filled in as its first cell asks, with a file beside it."""
    folder = jupyterlab[0] / "notebooks" / "templates"
    rows = [(f"{place} {i}: {text}", label) for i in range(40) for place, text, label in (
        ("cellar", f"the pump {i * 7} is broken since storm {i}", "repair"),
        ("attic", f"please send {i * 3} lamps to flat {i}", "order"))]
    (folder / "mine.csv").write_text("message;queue\n" + "\n".join(map(";".join, rows)))
    path = folder / "your_own.ipynb"
    model = Path(jupyterlab[0], "model")
    learner.open("notebooks/templates/your_own.ipynb")
    learner.until("The outputs below are not yours yet.")
    cells = learner.cells()
    number = next(i for i, cell in enumerate(cells) if "parameters" in nb.tags(cell))
    source = nb.source(cells[number])
    for old, new in {'FILE = "rotten-tomatoes"': 'FILE = "mine.csv"', 'profile = "cpu"':
                     'profile = "smoke"', 'MODEL = "auto"': f"MODEL = {str(model)!r}",
                     "TEXT = LABEL = GROUP = None": 'TEXT, LABEL, GROUP = "message", "queue", None',
                     'PROMPTED = "smollm2-135m-instruct"': "PROMPTED = None"}.items():
        assert old in source
        source = source.replace(old, new)
    learner.run(number, f"import sys\nsys.path.insert(0, {str(seat.ROOT / 'tests')!r})\n"
                f"import tiny\ntiny.encoder('encoder').save({str(model)!r})\n{source}")
    learner.run_all(120)
    learner.save()
    made = nb.read(path)
    assert nb.failure(made) is None and len(nb.claims(made)) == 1
    number = next(i for i, cell in enumerate(made["cells"]) if "browse_flips" in nb.source(cell))
    found = output(learner, number)
    found.get_by_role("button", name="both right").click()
    until(found, "Shown: both right")
    learner.shot("template")
