"""Without these, somebody who watches a training would not learn how it goes, or how it ended."""

import base64
import re
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import IPython
import pytest
import tiny
import transformers

import ftkit as ft
from ftkit import display
from ftkit.errors import Diverged
from ftkit.training import progress

SETTINGS = {"batch_size": 8, "learning_rate": 1e-2}


@pytest.fixture
def watched(monkeypatch):
    """As in a notebook that somebody has open: every state of the page, [(text, HTML)]."""
    states = []
    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "EVERY", 0)

    def draw(page):
        page.handle = page.handle or SimpleNamespace()
        states.append((repr(page), page._repr_html_()))

    monkeypatch.setattr(progress.Page, "draw", draw)
    return states


def picture(page):
    """The curve of a page, as a tree of SVG."""
    coded = re.search(r"base64,([^']+)'", page)
    return ElementTree.fromstring(base64.b64decode(coded[1]))


def worse_later(patience):
    """A training whose validation labels are wrong, so that more of it is worse."""
    data = tiny.reviews(32)
    data["validation"] = data["validation"].map(lambda row: {"label": 1 - row["label"]})
    return ft.fit(tiny.encoder(), data, epochs=8, patience=patience, **SETTINGS)


def test_the_page_goes_along_and_ends_in_words(watched, capsys):
    run = worse_later(patience=2)
    assert capsys.readouterr().out == ""
    begun = [html for _, html in watched if "tokens/s" in html]
    assert begun and all("<progress aria-label='" in html for html in begun)
    assert all("weights so far" in html for html in begun)
    assert re.search(r"Update \d+ of \d+, epoch \d\.\d of 8, [\d,]+ tokens/s, "
                     r"\d+\.\d GB of memory, about \d+ s left",
                     begun[-1])
    text, html = watched[-1]
    best = run.metrics["best_epoch"]
    assert f"the weights of epoch {best:g} are kept" in text.splitlines()[-1]
    assert text.splitlines()[-1].startswith("Stopped early after epoch") and "<progress" not in html
    assert text.count("   validation loss ") == len(run.history["eval_loss"].dropna())
    assert html.count("(lowest)") == 1 and "<details>" in html
    assert "img alt='Curve of the training: training loss from" in html
    assert len(picture(html).findall("{*}rect")) == len(run.history["eval_loss"].dropna())


def test_the_curve_grows_into_its_frame(watched):
    ft.fit(tiny.encoder(), tiny.reviews(16), epochs=4, **SETTINGS)
    ends = [picture(html).findall("{*}text")[3].text for _, html in watched if "<img" in html]
    assert set(ends) == {"4"}
    drawn = [len(picture(html).findall("{*}circle")) for _, html in watched if "<img" in html]
    assert drawn == sorted(drawn) and drawn[-1] > drawn[0]


def test_an_interrupt_and_an_error_end_the_page_too(watched):
    class Interrupt(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                raise KeyboardInterrupt

    ft.fit(tiny.encoder(), tiny.reviews(16), epochs=4, callbacks=[Interrupt()], **SETTINGS)
    assert "Interrupted after update 3 of" in watched[-1][0].splitlines()[-1]
    with pytest.raises(Diverged):
        ft.fit(tiny.encoder(), tiny.reviews(16), **{**SETTINGS, "learning_rate": 1e30})
    text, html = watched[-1]
    assert "Stopped by Diverged at update" in text and "<progress" not in html


def test_quiet_trainings_of_a_cell_share_a_line(watched, monkeypatch):
    shell = SimpleNamespace(execution_count=7)
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(progress.Brief, "last", None)
    for _ in range(2):
        ft.fit(tiny.encoder(), tiny.reviews(16), epochs=1, quiet=True, **SETTINGS)
    assert watched[-1][0] == "2 trainings done in this cell."
    assert any(text.startswith("Training 2 of this cell: Update") for text, _ in watched)
    shell.execution_count = 8
    ft.fit(tiny.encoder(), tiny.reviews(16), epochs=1, quiet=True, **SETTINGS)
    assert watched[-1][0] == "1 training done in this cell."


def test_elsewhere_there_are_single_lines(capsys):
    run = worse_later(patience=2)
    lines = capsys.readouterr().out.splitlines()
    losses = [line for line in lines if re.fullmatch(
        r"epoch +[\d.]+   training loss (-|[\d.]+)   validation loss [\d.]+", line)]
    assert len(losses) == len(run.history["eval_loss"].dropna())
    assert lines[-1].startswith("stopped early after epoch") and "are kept" in lines[-1]
    ft.fit(tiny.encoder(), tiny.reviews(16), epochs=1, quiet=True, patience=1, **SETTINGS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kernel, environment, wanted", [
    (True, {"JPY_SESSION_NAME": "a.ipynb"}, True),
    (True, {"JPY_SESSION_NAME": "a.ipynb", "FTKIT_PLAIN": "0"}, True),
    (True, {"JPY_SESSION_NAME": "a.ipynb", "FTKIT_PLAIN": "1"}, False),
    (True, {}, False),  # papermill and nbval start kernels without a word
    (False, {"JPY_SESSION_NAME": "a.ipynb"}, False),
])
def test_a_page_is_for_notebooks_that_somebody_has_open(kernel, environment, wanted, monkeypatch):
    shell = SimpleNamespace(kernel=object()) if kernel else None
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    for name in (*display.FRONT_ENDS, "FTKIT_PLAIN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert display.in_notebook() is wanted


def test_what_is_no_number_is_not_drawn():
    assert progress.drawing({"training": [(1, 0.5)], "validation": []}) == ""
    page = progress.Page()
    page.losses = [(1, 0.5), (2, float("nan")), (3, 0.4)]
    assert len(picture(page._curve()).findall("{*}circle")) == 2


def test_the_smoke_profile_says_that_no_number_means_anything(capsys):
    ft.profile("cpu")
    assert capsys.readouterr().out == ""
    ft.profile("smoke")
    assert "mean nothing" in capsys.readouterr().out
    ft.profile("cpu")
