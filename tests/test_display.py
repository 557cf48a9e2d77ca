"""Without these, a figure says nothing to somebody who cannot see it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import select_figure_formats
from matplotlib import pyplot as plt

import ftkit as ft
from ftkit import display
from ftkit.evaluation.resampling import Estimate
from ftkit.training.fit import Run


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_bars_are_told_with_their_names():
    figure = ft.plot_bars({"before": 0.5, "after all": 0.75}, "Two models", "accuracy (share)",
                          baseline=0.25)
    assert display.in_words(figure) == (
        "Two models. vertical axis: accuracy (share). before 0.5, after all 0.75. level at 0.25.")


def test_a_curve_is_told_by_its_ends_and_extremes():
    ups = [Estimate(value, value - 0.1, value + 0.1) for value in (0.2, 0.9, 0.4)]
    figure = ft.plot_curve({"tuned": ([1, 10, 1000], ups), "flat": ([1, 1000], [0.3, 0.3])},
                           "Labels", "labels (number)", "share", logx=True, baseline=("guess", 0.1))
    told = display.in_words(figure)
    assert "horizontal axis: labels (number); vertical axis: share" in told
    assert "tuned: from 0.2 at 1, to 0.4 at 1000, highest 0.9 at 10." in told
    assert "flat: level at 0.3" in told and "guess: level at 0.1" in told


def test_a_single_point_and_small_numbers_are_told_as_numbers():
    axes = plt.subplots()[1]
    axes.plot([18], [1.97], label="from random words")
    axes.plot([1, 2, 3], [1e-5, 3e-5, 2e-5], label="rate")
    told = display.in_words(axes.figure)
    assert "from random words: 1.97 at 18." in told
    assert "rate: from 1e-05 at 1, to 2e-05 at 3, highest 3e-05 at 2." in told


def test_cells_points_panels_and_drawings_are_told():
    figure, (left, middle, right) = plt.subplots(1, 3)
    figure.suptitle("Three parts")
    left.imshow(np.array([[1, 2], [3, 4]]))
    left.set_xticks([0, 1], ["cats", "dogs"])
    figure.colorbar(left.images[0], ax=left, label="count")
    middle.scatter([1, 2, 3], [3, 2, 1], label="films")
    right.text(0, 0, "a box")
    right.bar(0, 1)  # whose height says nothing, since no axis says what it would be
    right.axis("off")
    told = display.in_words(figure)
    assert told.startswith("Three parts. 0: cats 1, dogs 2. 1: cats 3, dogs 4.")
    assert "films: 3 points." in told and told.endswith(" a box.") and "count" not in told


@pytest.mark.filterwarnings("error")
def test_a_cell_without_a_number_is_not_told():
    axes = plt.subplots()[1]
    axes.imshow(np.array([[0.5, np.nan], [np.nan, np.nan]]))
    assert display.in_words(axes.figure) == "0: 0 0.5."


def test_points_beside_names_are_told_by_name():
    axes = plt.subplots()[1]
    axes.errorbar([0.5, 0.6], [0, 1], xerr=[0.1, 0.1], fmt="o")
    axes.set_yticks([0, 1], ["nothing", "dropout"])
    assert "nothing 0.5, dropout 0.6" in display.in_words(axes.figure)


@pytest.fixture
def kernel(monkeypatch):
    """A notebook's kernel as far as figures are concerned; returns what shows a thing."""

    class Shell:
        kernel = True
        display_formatter = DisplayFormatter()

    monkeypatch.setattr("IPython.get_ipython", Shell)
    monkeypatch.delenv("FTKIT_PLAIN", raising=False)
    for name in display.FRONT_ENDS:
        monkeypatch.delenv(name, raising=False)
    select_figure_formats(_WithFormatter, {"png"})
    Shell.display_formatter = _WithFormatter.display_formatter
    display.describe_figures()
    return Shell.display_formatter.format


class _WithFormatter:
    display_formatter = DisplayFormatter()


def test_a_shown_figure_carries_its_words(kernel, monkeypatch):
    """Also one that a lesson draws itself, and a figure is not kept twice in a batch."""
    axes = plt.subplots()[1]
    axes.set_title("Loss & <more>")
    data, metadata = kernel(axes.figure)
    assert metadata["image/png"]["alt"] == data["text/plain"] == "Loss & <more>."
    assert "image/png" in data and "text/html" not in data
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
    assert "<img alt='Loss &amp; &lt;more&gt;.' style='max-width:100%' src='data:image/png" in (
        kernel(axes.figure)[0]["text/html"])


def test_a_script_is_left_alone():
    code = "import sys, IPython, ftkit; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_lines_are_told_apart_without_colour_and_seen_on_white():
    """Each by its marker and line; none is fainter than 3 to 1, as WCAG 2.2 asks (1.4.11)."""
    from matplotlib.colors import to_rgb

    assert len(set(display.MARKERS)) >= len(display.COLORS) == len(set(display.LINES))
    for shade in display.COLORS:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
                 for c in to_rgb(shade)]
        light = float(np.dot((0.2126, 0.7152, 0.0722), parts))
        assert 1.05 / (light + 0.05) >= 3


def test_blanks_of_a_cell_are_kept_where_they_count():
    html = display.Table([{"token": " popcorn", "word": "popcorn"}])._repr_html_()
    assert html.count("white-space:pre-wrap") == 1 and ">popcorn<" in html


def test_what_the_kit_makes_is_a_table_in_a_notebook():
    """Of a training, a model, data and a comparison: with their facts, and their text as text."""
    data = ft.load_data("capitals", n_train=8)
    assert "capitals" in data._repr_html_() and "train 8" in data._repr_html_()
    one, two = (ft.from_predictions(answers, [0, 1, 1, 0], labels=["<b>", "c"])
                for answers in ([0, 1, 0, 1], [0, 1, 1, 1]))
    found = ft.compare(two, one, "accuracy")
    assert "1 gained, 0 lost" in found._repr_html_() and "McNemar p = 1" in repr(found)
    assert max(map(len, repr(found).splitlines())) < 130  # JupyterLab breaks within words
    model = tiny.encoder(labels=("<b>", "c"))
    assert "41,218" in model._repr_html_() and "<b>" not in model._repr_html_()
    run = Run(model, [], 3.0, 2_000_000_000, {"trained": 1, "total": 4, "share": 0.25, "bytes": 8},
              {"eval_loss": 0.5}, {"method": "Full()"})
    assert repr(run) == ("trained 1 of 4 parameters (25.00%, 0.0 MB to store) in 3 s, peak memory "
                         "2.0 GB, validation loss 0.500")
    assert "Full()" in run._repr_html_() and "record (ft.runs)" not in run._repr_html_()
    run.folder = Path("/home/me/.cache/ftkit/runs/20261128-1200-ab")
    shown = run._repr_html_()  # a notebook that is shared shows no path of this machine
    assert "20261128-1200-ab" in shown and "/home/me" not in shown
