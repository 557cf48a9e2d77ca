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
          "run = ft.fit(base, data, epochs=8, learning_rate=5e-3, quiet=True)\n"
          "tuned = run.model\n"
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
    "seed = next(i for i in range(99) if ft.fault.mystery(i).reveal() == 'seed ignored')\n"
    "game = ft.which_fault(base, {name: data[name] for name in data}, seed=seed)\ngame",
    "steps = {'month 1': {'films': after}, 'month 2': {'films': before, 'plots': after}}\n"
    "ft.forgetting_map(steps)",
    "curves = ft.diagnose({'first': run, 'again': run})\ncurves",
]
LAST = len(VIEWS) + 1  # the cell that says what was chosen
PANEL = seat.PANEL


@pytest.fixture
def views(jupyterlab, write_notebook, learner, request):
    """A notebook with views, run up to its end; all, or those of the parameter, with a last cell.

    Yields the learner's seat.
    """
    cells = getattr(request, "param", [SET_UP, *VIEWS, "sorted(tokens.settings.items())"])
    path = write_notebook(jupyterlab[0] / "notebooks" / "97_views.ipynb", *cells)
    learner.open(f"notebooks/{path.name}")
    learner.choose("Run", "Run All Cells")
    learner.page.wait_for_function(
        "number => jupyterapp.shell.currentWidget.content.model.cells.get(number).executionCount",
        arg=len(cells) - 1, timeout=120000)
    return learner


def output(learner, number):
    """The part of the page where a cell's view is."""
    learner.select(number)
    found = learner.page.locator(f"{PANEL} .jp-Cell.jp-mod-active .jp-Cell-outputArea")
    found.locator(".widget-vbox, .lm-Widget.widget-vbox").first.wait_for()
    return found


def until(found, text):
    """Wait until a text stands in a view."""
    found.get_by_text(text).first.wait_for(timeout=20000)


def whole(learner, found):
    """That a view can be read and moved by everybody, in letters twice as large, too."""
    assert seat.serious(learner) == [] and seat.within(found) == []


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
    whole(views, found)
    assert "('at', 3)" in "".join(views.run(LAST)["outputs"][0]["data"]["text/plain"])

    found = output(views, 2)
    text = found.get_by_label("text", exact=True)
    text.fill("the plot was terrible")
    text.press("Tab")
    found.get_by_role("button", name="Ask the models").click()
    until(found, "to: the plot was terrible")
    assert re.search(r"tuned\s+bad", found.inner_text())
    views.shot("view_side_by_side")
    whole(views, found)
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
    whole(views, found)

    found = output(views, 4)
    number = found.get_by_label("number of examples")
    number.fill("2")
    number.press("Tab")
    found.get_by_role("button", name="Try this prompt").click()
    until(found, "A: bad")
    assert len(found.locator("table").first.locator("tr").all()) == 3  # head, and two prompts
    views.shot("view_prompt")
    whole(views, found)

    found = output(views, 5)
    picture = found.locator("img[alt^='eval loss by learning rate']")
    picture.wait_for()
    found.get_by_role("button", name="seconds").click()
    found.locator("img[alt^='seconds by learning rate']").wait_for()
    views.shot("view_runs")
    whole(views, found)

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
    whole(views, found)

    found = output(views, 7)
    until(found, "good has")
    found.get_by_role("button", name="bad", exact=True).click()
    until(found, "bad has")
    views.shot("view_occlusion")
    whole(views, found)

    found = output(views, 8)
    until(found, "most attended to from token 0")
    found.get_by_label("number of the token").fill("2")
    found.get_by_label("number of the token").press("Enter")
    until(found, "most attended to from token 2")
    found.get_by_role("button", name="1", exact=True).click()
    views.shot("view_attention")
    whole(views, found)

    found = output(views, 9)
    found.get_by_role("button", name="rows in a new order").click()
    until(found, "1 check asked")
    assert re.search(r"rows in a new order\s+ok", found.inner_text())
    found.get_by_role("button", name="the seed is used").click()
    until(found, "2 checks asked")
    assert re.search(r"the seed is used\s+FAILS", found.inner_text())
    found.get_by_role("button", name="head frozen").click()
    until(found, "With 'head frozen' the check")
    found.get_by_role("button", name="seed ignored").click()
    until(found, "It is 'seed ignored'")
    views.shot("view_game")
    whole(views, found)

    found = output(views, 10)
    found.locator("img[alt^='accuracy. films: month 1']").wait_for()
    found.get_by_role("button", name="forgotten since its best").click()
    found.locator("img[alt^='accuracy, forgotten since its best. films: month 1 0, ']").wait_for()
    until(found, "Forgotten most: films")
    views.shot("view_forgetting")
    whole(views, found)

    found = output(views, 11)
    found.get_by_role("button", name="again", exact=True).click()
    found.locator("img[alt^='again: ']").wait_for()
    found.get_by_label("up to epoch").fill("2")
    found.get_by_label("up to epoch").press("Enter")
    found.locator("img[alt*='at 2']").wait_for()
    views.shot("view_diagnosis")
    whole(views, found)


FORM = [
    f"import sys\nsys.path.insert(0, {str(seat.ROOT / 'tests')!r})\nimport tiny\n"
    "import ftkit as ft\ntiny.encoder('encoder').save('own encoder')\n"
    "rows = [f'{place} {i}: {text};{label}' for i in range(40) for place, text, label in (\n"
    "    ('cellar', f'the pump {i * 7} is broken since storm {i}', 'repair'),\n"
    "    ('attic', f'please send {i * 3} lamps to flat {i}', 'order'))]\n"
    "open('mine.csv', 'w').write('\\n'.join(['message;queue', *rows]))",
    "own = ft.your_own(profile='smoke', prompted=None)\nown",
   
]


@pytest.mark.parametrize("views", [FORM[:2]], indirect=True)
def test_who_writes_no_code_fills_in_a_form(views):
    found = output(views, 1)
    views.shot("form_begin")
    whole(views, found)
    found.get_by_role("button", name="Next: Read it").click()
    until(found, "there is no file")
    for name, value in {"file": "mine.csv", "column of the texts": "message",
                        "column of the labels": "queue", "model": "own encoder",
                        "worth it from": "0.05", "your guess": "0.8"}.items():
        found.get_by_label(name, exact=True).fill(value)
        found.get_by_label(name, exact=True).press("Tab")
    found.get_by_role("button", name="freeze").click()
    found.get_by_role("button", name="Next: Read it").click()
    until(found, "1 of 9 steps taken")
    until(found, "80 rows read as classification")
    found.get_by_role("button", name="All that is left").click()
    found.get_by_text("9 of 9 steps taken").wait_for(timeout=150000)
    until(found, "Freeze(unfreeze_last=2")
    found.locator("img[alt^='Curve of the training']").first.wait_for()
    found.get_by_role("button", name="both right").click()
    until(found, "Shown: both right")
    views.shot("form_end")
    whole(views, found)
    found.get_by_role("button", name="Save as a notebook").click()
    until(found, "your_own_mine.ipynb is written")
    views.save()
    views.shut_down()
    views.open("notebooks/97_views.ipynb")  # on the next day
    until(output(views, 1), "9 of 9 steps taken")
    assert "Error displaying widget" not in views.page.inner_text("body")


@pytest.mark.parametrize("views", [[SET_UP, VIEWS[0], VIEWS[2], VIEWS[6]]], indirect=True)
def test_views_can_be_read_in_the_dark(views):
    views.page.evaluate("""() => jupyterapp.commands.execute(
        'apputils:change-theme', {theme: 'JupyterLab Dark'})""")
    views.page.locator("body[data-jp-theme-light='false']").wait_for(state="attached")
    for number in (1, 2, 3):
        output(views, number)
        views.shot(f"dark_{number}")
        assert seat.serious(views) == []


@pytest.mark.parametrize("views", [[SET_UP, VIEWS[2]]], indirect=True)
def test_a_view_is_moved_by_the_keyboard_alone_and_is_there_on_the_next_day(views):
    found = output(views, 1)
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
    views.select(1)
    views.save()
    views.shut_down()
    views.open("notebooks/97_views.ipynb")  # on the next day
    until(output(views, 1), "Shown: gained, number 1")
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
