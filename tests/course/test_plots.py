"""Without these, a figure could lack its units, or a table run a review's text as HTML."""

import numpy as np
import pytest
import tiny
from datasets import Dataset

import ftkit as ft
from ftkit.course.plots import Tokens
from ftkit.display import Table, cell
from ftkit.errors import DataError, SettingError


def labelled(figure):
    axes = figure.axes[0]
    return axes.get_title() and axes.get_ylabel()


def test_every_figure_has_a_title_and_units():
    e = ft.Estimate(0.7, 0.6, 0.8)
    rng = np.random.default_rng(0)
    p = rng.random(80)
    ev = ft.from_predictions(
        (p > 0.5).astype(int),
        (rng.random(80) < p).astype(int),
        labels=["a", "b"],
        probabilities=np.stack([1 - p, p], 1),
    )
    run = ft.fit(tiny.encoder(), tiny.reviews(8), epochs=2, patience=2, quiet=True)
    figures = [
        ft.plot_bars({"a": e, "b": e}, "Accuracy", "share right", baseline=0.5),
        ft.plot_curve(
            {"a": ([0, 10, 100], [e, e, 0.5])}, "Accuracy", "examples", "share", logx=True
        ),
        ft.plot_confusion(ev),
        ft.plot_calibration({"model": ev}),
        run.show(),
    ]
    assert all(labelled(f) for f in figures)
    assert figures[1].axes[0].get_xlabel() == "examples"


def test_what_has_no_value_or_no_interval_ends_no_figure(tmp_path):
    nan = float("nan")
    nothing, alone, e = ft.Estimate(nan, nan, nan), ft.Estimate(0.7, nan, nan), ft.Estimate(2, 1, 3)
    ft.plot_bars({"a": nothing, "b": alone, "c": e}, "t", "y").savefig(tmp_path / "a.png")
    lines = {"a": ([1, 2, 3], [nothing, alone, e])}
    ft.plot_curve(lines, "t", "x", "y").savefig(tmp_path / "b.png")


def test_a_curve_without_intervals_shows_no_error_bars():
    """Its legend would promise intervals that are not there."""
    e = ft.Estimate(0.7, 0.6, 0.8)
    figure = ft.plot_curve({"plain": ([1, 2], [0.5, 0.6]), "with": ([1, 2], [e, e])}, "t", "x", "y")
    plain, intervals = figure.axes[0].containers
    assert not plain.has_yerr and intervals.has_yerr


def test_figures_are_told_apart_without_colour():
    e = ft.Estimate(0.7, 0.6, 0.8)
    axes = ft.plot_curve({k: ([1, 2], [e, e]) for k in "abc"}, "t", "x", "y").axes[0]
    styles = {
        (line.get_marker(), line.get_linestyle()) for line, *_ in (c.lines for c in axes.containers)
    }
    assert len(styles) == 3


def test_tables_show_text_as_text():
    table = Table([{"text": "<b>bold</b>", "value": 0.12345}])
    assert "<b>bold" not in table._repr_html_()
    assert "0.123" in repr(table)


def test_a_value_stays_beside_its_interval_and_a_text_keeps_room_for_words():
    """Where letters are twice as large, a column would be one word, or one number, wide."""
    def style(text):
        return cell("td", text).split("'")[1]

    for value in ("-0.021 [-0.026, -0.015]", "0.836 (0.823 to 0.849)", "+9.7 [+7.7, +11.6]",
                  "at least -0.03", "0.87, 0.90, 0.91"):
        assert "white-space:nowrap" in style(value), value
    assert "min-width" in style("where can you buy a clock, clothing and wrenches")
    assert style("24 a month") == style("0.5") == "text-align:left"
    assert "white-space:pre-wrap" in style(" Lisbon")


def test_bars_are_labelled_with_equally_many_digits():
    figure = ft.plot_bars({"a": 0.91, "b": 0.9, "c": 0.2}, "Accuracy", "share right")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.91", "0.90", "0.20"]
    small = ft.plot_bars({"a": 1e-6, "b": 0.5}, "Loss", "nats")
    assert [text.get_text() for text in small.axes[0].texts] == ["1e-06", "0.5"]


def test_every_line_of_a_training_is_in_the_legend():
    run = ft.fit(tiny.encoder(), tiny.reviews(32), epochs=4, batch_size=4, quiet=True)
    axes = run.show().axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(axes.lines) == len(names) >= 2, names


def test_labelled_tokens_are_marked(capsys):
    ft.show_tokens(tiny.decoder(), {"prompt": "the film was", "response": " good"})
    shown = repr(Tokens(["the", " film", " good"], [False, False, True]))
    assert shown == "the film[ good]"


def test_flips_are_shown_both_ways():
    data = tiny.reviews(20)["test"]
    one = ft.from_predictions([0] * 20, data["label"], labels=["bad", "good"], dataset=data)
    two = ft.from_predictions([1] * 20, data["label"], labels=["bad", "good"], dataset=data)
    for which in ("flips", "gained", "lost", "any"):
        ft.show_examples(data, one, two, n=4, which=which)
    with pytest.raises(SettingError, match="'both'"):
        ft.show_examples(data, one, two, which="both")
    with pytest.raises(SettingError, match="no probabilities"):
        ft.plot_calibration(one)


ASKED = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is\n good?"}]
ROWS = {
    "messages": {"messages": [*ASKED, {"role": "assistant", "content": "the film"}]},
    "turns as prompt": {"prompt": ASKED, "completion": [{"role": "assistant", "content": "x"}]},
    "prompt": {"prompt": "What is good?", "completion": " the film"},
    "preferences": {"prompt": "What is good?", "chosen": "a film", "rejected": "a dull plot"},
    "conversations": {"chosen": [*ASKED, {"role": "assistant", "content": "a film"}],
                      "rejected": [*ASKED, {"role": "assistant", "content": "a dull plot"}]},
    "instruction": {"instruction": "What is good?", "input": "", "output": "x"},
    "with input": {"instruction": "Which is it?", "input": "What is good?", "output": "x"},
    "words": {"tokens": ["What", "is", "good?"], "tags": ["O", "O", "O"]},
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_every_form_are_shown_as_people_read_them(kind, capsys):
    data = Dataset.from_list([ROWS[kind]] * 2)
    one, two = ft.from_texts(["no", "no"], ["yes", "no"]), ft.from_texts(["yes"] * 2, ["yes", "no"])
    ft.show_examples(data, one, two, metric="exact_match")
    shown = capsys.readouterr().out
    assert "What is good?" in shown and "gained" in shown and "{" not in shown
    assert "assistant" not in shown or kind == "conversations", "the answer is what was asked for"
    if "rejected" in ROWS[kind]:
        assert "a film" in shown and "a dull plot" in shown


def test_of_a_long_conversation_the_last_question_is_shown(capsys):
    turns = [{"role": "user", "content": "word " * 99}, *ASKED]
    ev = ft.from_texts(["a"], ["a"])
    ft.show_examples(Dataset.from_list([{"messages": turns}]), ev, ev, which="any",
                     metric="exact_match")
    shown = capsys.readouterr().out
    assert "user: What is good?" in shown and "…" in shown and shown.count("word") < 40


def test_scores_of_preferences_are_shown_as_numbers(capsys):
    data = Dataset.from_list([ROWS["preferences"]] * 2)
    one, two = ft.from_scores("accuracy", [0.0, 1.0]), ft.from_scores("accuracy", [1.0, 0.0])
    ft.show_examples(data, one, two)
    shown = capsys.readouterr().out
    assert "gained" in shown and "lost" in shown and "right answer" not in shown
    with pytest.raises(DataError, match="columns other.*Rename"):
        ft.show_examples(Dataset.from_list([{"other": 1}] * 2), one, two)
