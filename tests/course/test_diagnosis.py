"""Without these, a training that overfits could be called a good one."""

import numpy as np
import pandas as pd
import pytest
import tiny
from lessons import from_lesson

import ftkit as ft
from ftkit.course import diagnosis

NONE = np.nan


def curves(training, validation):
    """A history as `fit` writes it: a row for the training loss and one for validation."""
    rows = []
    for epoch, (one, two) in enumerate(zip(training, validation, strict=True), start=1):
        rows += [{"epoch": epoch, "loss": one, "eval_loss": NONE},
                 {"epoch": epoch, "loss": NONE, "eval_loss": two}]
    return pd.DataFrame(rows)


CASES = [("overfits", [0.7, 0.3, 0.0], [0.7, 0.6, 0.9]),
         ("underfits", [0.7, 0.69, 0.68], [0.7] * 3),
         ("fits", [0.7, 0.5, 0.3], [0.7, 0.6, 0.61])]


@pytest.mark.parametrize(("wanted", "training", "validation"), CASES, ids=[c[0] for c in CASES])
def test_the_lessons_verdict_is_the_packages(wanted, training, validation):
    history = curves(training, validation)
    assert ft.verdict(history) == from_lesson("15", "what_they_say")(history) == wanted


@pytest.fixture(scope="module")
def run():
    return ft.fit(tiny.encoder(), tiny.reviews(16), epochs=3, learning_rate=5e-3, quiet=True)


def test_headless_there_is_a_panel_for_each_run(run, monkeypatch):
    monkeypatch.setattr(diagnosis, "in_notebook", lambda: False)
    figure = ft.diagnose({"one": run, "two": run})
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.partition(":")[0] for title in titles] == ["one", "two"]
    assert len(ft.diagnose(run).axes) == 1


def test_who_watches_chooses_run_and_epoch(run, monkeypatch):
    monkeypatch.setattr(diagnosis, "in_notebook", lambda: True)
    view = ft.diagnose({"one": run, "two": run})
    assert [row["run"] for row in view.data] == ["one", "two"]
    whole = view.data[1]
    (row,) = view.choose(run="two", epochs=2).data
    losses = run.history.dropna(subset=["eval_loss"]).set_index("epoch")["eval_loss"]
    assert row["validation loss"] == losses[2] != whole["validation loss"] == losses[3]
    assert "two: " in repr(view) and "one: " not in repr(view) and "at 2" in repr(view)


def test_a_run_without_validation_is_named():
    run = ft.fit(tiny.encoder(), tiny.reviews(8)["train"], epochs=1, quiet=True)
    with pytest.raises(ft.SettingError, match="'this run' has no validation"):
        ft.diagnose(run)
