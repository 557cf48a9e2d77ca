"""Without these, a model that lost what it could do before would take the place of a better one."""

import numpy as np
import pytest
import tiny
import torch
from chats import SIMPLE
from datasets import Dataset

import ftkit as ft
from ftkit import cli
from ftkit.deploy import suite

ROWS = Dataset.from_dict({"text": [f"the film was {word}" for word in tiny.WORDS] * 4})
GENERAL = Dataset.from_dict({"text": [f"a {word} and a cat" for word in tiny.WORDS] * 4})


def part(bound=0.05, rows=GENERAL, name="general text"):
    return ft.SuitePart(name, "loss", bound, lambda model: ft.evaluate(model, rows))


def fixed(losses, name="fixed", bound=0.1, metric="score"):
    """A part whose values are given: the candidate's for changed weights, zeros for the base's."""
    first = tiny.decoder().hash()
    return ft.SuitePart(name, metric, bound, lambda model: ft.from_scores(
        metric, np.zeros(len(losses)) if model.hash() == first else losses))


@pytest.fixture(scope="module")
def base():
    return tiny.decoder()


@pytest.fixture(scope="module")
def tuned(base):
    """Knows the film rows; the same training makes it worse at nothing that resembles them."""
    return ft.fit(base, ROWS, epochs=3, batch_size=8, learning_rate=3e-3, quiet=True,
                  dtype="float32").model


def won(new, old):
    return ft.compare(ft.evaluate(new, ROWS), ft.evaluate(old, ROWS), "loss")


def test_a_candidate_that_wins_and_loses_nothing_is_shipped(base, tuned):
    found = ft.ship(tuned, base, [won(tuned, base)], [part()])
    assert found.ship and found.reasons == []
    assert [row["verdict"] for row in found.rows] == ["won", "no worse"]
    assert repr(found).startswith("ship\n") and "task: loss" in found._repr_html_()


def test_a_candidate_that_forgot_something_is_not_shipped(base, tuned):
    other = Dataset.from_dict({"text": ["terrible music bad dull plot dog"] * 20})
    spoilt = ft.fit(base, ROWS, epochs=10, batch_size=8, learning_rate=2e-2, quiet=True,
                    dtype="float32").model
    parts = [part(rows=ROWS, name="films"), part(rows=other, name="others")]
    found = ft.ship(spoilt, base, [won(spoilt, base)], parts)
    assert not found.ship and found.reasons == ["others got worse"]
    assert [row["verdict"] for row in found.rows] == ["won", "no worse", "got worse"]


def test_a_candidate_that_does_not_win_is_not_shipped(base, tuned):
    found = ft.ship(base, tuned, [won(base, tuned)], [part(bound=100.0)])
    assert not found.ship and found.reasons == ["task: loss is not won"]


@pytest.mark.parametrize("values, verdict", [
    (np.full(50, -0.02), "no worse"),      # a little worse, within the bound
    (np.full(50, -0.5), "got worse"),
    (np.r_[np.full(25, -0.6), np.full(25, 0.5)], "cannot be told"),
    (np.full(50, np.nan), "got worse"),
    (np.array([0.0]), "cannot be told"),   # of one example nothing can
])
def test_a_part_is_judged_by_its_whole_interval(base, tuned, values, verdict):
    found = ft.ship(tuned, base, [won(tuned, base)], [fixed(values)])
    assert found.rows[1]["verdict"] == verdict and found.ship == (verdict == "no worse")


def test_worse_is_higher_for_a_loss_and_lower_for_a_score(base, tuned):
    win = [won(tuned, base)]
    up = np.full(50, 0.5)
    assert ft.ship(tuned, base, win, [fixed(up, metric="score")]).ship
    assert not ft.ship(tuned, base, win, [fixed(up, metric="loss")]).ship


def test_claims_of_a_lesson_are_taken_by_whether_they_held(base, tuned, capsys):
    from ftkit.course import claims

    new, old = ft.evaluate(tuned, ROWS), ft.evaluate(base, ROWS)
    held = ft.claim("less loss", new, old, metric="loss", at_most=0)
    missed = ft.claim("much less", new, old, metric="loss", at_most=-100)
    claims._claims.clear()
    assert ft.ship(tuned, base, [held], [part()]).ship
    found = ft.ship(tuned, base, [held, missed], [part()])
    assert found.reasons == ["task: much less is not won"]


def test_a_model_is_measured_once_for_the_same_weights(base, tuned):
    asked = []
    one = ft.SuitePart("counted", "loss", 1.0, lambda model: (
        asked.append(model.hash()), ft.evaluate(model, GENERAL))[1])
    for _ in range(2):
        ft.ship(tuned, base, [won(tuned, base)], [one])
    assert len(asked) == 2


@pytest.mark.parametrize("claims, parts, said", [
    ([], [part()], "task_claims is empty"),
    (["better"], [part()], "neither a claim"),
    ("won", [], "at least one is needed"),
    ("won", [part(), part()], "a name of its own"),
])
def test_a_gate_that_could_not_close_is_refused(base, tuned, claims, parts, said):
    with pytest.raises(ft.SettingError, match=said):
        ft.ship(tuned, base, [won(tuned, base)] if claims == "won" else claims, parts)


def test_a_model_cannot_take_its_own_place(base):
    with pytest.raises(ft.SettingError, match="the same weights"):
        ft.ship(base, base.copy(), [won(base, base)], [part()])


@pytest.fixture
def catalog_sets(monkeypatch):
    """The suite's data sets in a few words, so that a tiny model reads them in a moment."""
    sets = {
        "boolq": {"text": ["is the film good", "was the plot dull"] * 6,
                  "text_pair": ["the film was good " * 40, "warm"] * 6, "label": [1, 0] * 6},
        "nq-open": {"question": ["what was good", "who was warm"] * 6,
                    "answers": [["the film"], ["the cat"]] * 6},
        "xsum-text": {"text": ["the plot was dull", "great music"] * 6},
    }
    asked = []

    def load(name, n_test, seed):
        asked.append((name, n_test))
        return {"test": Dataset.from_dict(sets[name])}
    monkeypatch.setattr(suite, "load_data", load)
    return asked


def test_a_training_says_what_it_made_the_model_forget(base, tuned):
    other = Dataset.from_dict({"text": ["terrible music bad dull plot dog"] * 20})
    run = ft.fit(base, ROWS, epochs=10, batch_size=8, learning_rate=2e-2, quiet=True,
                 dtype="float32")
    parts = [part(), part(rows=other, name="others"), part(rows=other.select([0]), name="one row")]
    found = ft.forgotten(run, base, parts)
    assert [row["verdict"] for row in found.rows] == ["no worse", "got worse", "cannot be told"]
    assert found.caption == "forgotten: others; cannot be told: one row"
    before, after = (ft.evaluate(one, other)["loss"].value for one in (base, run.model))
    assert found.rows[1]["before"].startswith(f"{before:.3f}")
    assert found.rows[1]["after"].startswith(f"{after:.3f}")
    assert ft.forgotten(tuned, base, parts[:1]).caption.startswith("forgotten: nothing")
    with pytest.raises(ft.SettingError, match="the same weights"):
        ft.forgotten(base, base, parts)


def test_the_general_suite_measures_four_things(catalog_sets, base):
    model = base.copy()
    model.tokenizer.chat_template = SIMPLE
    try:
        parts = ft.general_suite(12, bounds={"general text": 0.5})
        assert not any(one.applies(model) for one in parts)
        found = {one.name: one.of(model)[one.metric].value for one in parts}
    finally:
        model.tokenizer.chat_template = None
    assert list(found) == ["yes/no questions", "open questions", "general text", "chat format"]
    assert abs(found["general text"] - np.log(400)) < 2 and 0 <= found["chat format"] <= 1
    assert ("nq-open", 12) in catalog_sets and ("nq-open", 3) in catalog_sets
    assert [one.bound for one in parts] == [0.05, 0.1, 0.5, 0.1]


def test_what_has_no_meaning_for_a_model_is_left_out_and_said(catalog_sets, base, tuned):
    found = ft.ship(tuned, base, [won(tuned, base)], ft.general_suite(12))
    assert found.rows[-1]["verdict"] == "left out"
    assert found.rows[-1]["difference"] == "it has no chat template"
    reader, other = tiny.encoder(), tiny.encoder()
    with torch.no_grad():
        other.net.classifier.bias += 1
    rows = tiny.reviews(8)["test"]
    win = ft.compare(ft.evaluate(other, rows), ft.evaluate(reader, rows), "loss")
    with pytest.raises(ft.SettingError, match="SuitePart of your own"):
        ft.ship(other, reader, [win], ft.general_suite(12))


@pytest.mark.parametrize("text, good", [
    ("It was good.", True), ("", False), ("It was.\nuser\nand then", False),
    ("good " * 80, False), ("It was.\nUser satisfaction was high.", True),
])
def test_an_answer_in_form_ends_and_writes_no_other_turn(base, text, good):
    assert suite._is_one_turn(text, base) is good


def test_bounds_of_unknown_parts_are_refused():
    with pytest.raises(ft.SettingError, match="bounds names 'manners'"):
        ft.general_suite(bounds={"manners": 1})
    with pytest.raises(ft.SettingError, match="rows=2"):
        ft.general_suite(2)


def test_the_command_says_by_its_exit_code_whether_to_ship(
    store, base, tuned, monkeypatch, capsys, tmp_path
):
    ft.register(base, "gated", aliases=["champion"])
    ft.register(tuned, "gated", aliases=["candidate"])
    monkeypatch.setattr("ftkit.deploy.suite.general_suite", lambda rows: [part()])
    monkeypatch.setattr(ft, "general_suite", lambda rows: [part()])
    monkeypatch.setattr(ft, "load_data", lambda name: {"test": ROWS})
    line = ["ship", "registry:gated@candidate", "registry:gated@champion", "--data", "films",
            "--metric", "loss", "--promote", "champion"]
    assert cli.main(line) == 0
    said = capsys.readouterr().out
    assert said.startswith("ship\n") and "gated@champion is version 2 now" in said
    back = ["ship", "registry:gated/1", "registry:gated/2", "--data", "films", "--metric", "loss",
            "--promote", "champion"]
    assert cli.main(back) == 1
    assert "do not ship: task: loss is not won" in capsys.readouterr().out
    assert ft.load_model("registry:gated@champion").hash() == tuned.hash()
    assert cli.main(["ship", "a", "b", "--data", "c", "--metric", "d", "--promote", "e"]) == 2
    assert "--promote needs a registered candidate" in capsys.readouterr().err
