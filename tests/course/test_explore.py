"""Without these, what is shown beside a control might not be what the kit computes."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from datasets import Dataset

import ftkit as ft
from ftkit.course import explore, explore_runs
from ftkit.errors import DataError, SettingError

RECORD = {"instruction": "the film was", "output": "good"}


@pytest.fixture(scope="module")
def decoder():
    return tiny.decoder()


@pytest.fixture(scope="module")
def both():
    """A classifier before and after a training, and its test rows."""
    data, base = tiny.reviews(), tiny.encoder()
    tuned = ft.fit(base, data, epochs=8, learning_rate=5e-3, quiet=True).model
    return base, tuned, data["test"]


def test_the_losses_of_the_tokens_are_the_packages_loss(decoder):
    view = ft.inspect_tokens(decoder, RECORD)
    carry = [row for row in view.data if row["carries loss"]]
    whole = ft.evaluate(decoder, Dataset.from_list([RECORD]))["loss"].value
    np.testing.assert_allclose(np.mean([row["loss"] for row in carry]), whole, rtol=1e-4)
    assert "".join(row["token"] for row in carry).startswith("good")
    assert [row["number"] for row in view.data] == list(range(len(view.data)))
    assert view.settings["at"] == carry[0]["number"]
    for row in view.data[1:]:
        best = row["most probable"]
        assert best == sorted(best, key=lambda pair: -pair[1]) and len(best) == explore.BEST
        assert row["probability"] <= best[0][1]
    everything = view.choose(loss_on="all").data
    assert all(row["carries loss"] for row in everything[1:]) and len(everything) > len(carry)
    assert not everything[0]["carries loss"]  # nothing stands before it


def test_what_cannot_be_inspected_is_said(decoder, both):
    view = ft.inspect_tokens(both[0], {"text": "the film was good", "label": 1})
    assert not any(row["carries loss"] or "loss" in row for row in view.data)
    assert "the loss is of the whole record" in repr(view)
    with pytest.raises(DataError, match="has the tokens 0 to"):
        ft.inspect_tokens(decoder, RECORD, at=1000)
    with pytest.raises(SettingError, match="'where' is no setting here; choose at, loss_on"):
        view.choose(where=1)


def test_a_model_beside_itself_says_the_same(decoder):
    other = tiny.decoder(hidden_size=16)
    view = ft.side_by_side({"base": decoder, "itself": decoder, "other": other}, "the film was",
                           temperature=1.0, seed=3)
    base, itself, another = (row["answer"] for row in view.data)
    assert base == itself != another
    assert view.choose(seed=4).data[0]["answer"] != base
    greedy = view.choose(temperature=0.0).data[0]["answer"]
    assert greedy == ft.generate(decoder, "the film was", max_new_tokens=48).strip()


def test_answers_are_shown_while_they_are_written(decoder):
    view = ft.side_by_side({"base": decoder, "again": decoder}, "the film was", temperature=1.0)
    seen = []
    view.watch = seen.append
    view.choose(seed=5)
    parts = [rows[-1]["answer"] for rows in seen if rows[-1]["model"] == "again"]
    assert parts == sorted(parts, key=len) and parts[-1] == view.data[1]["answer"]
    assert all(rows[0]["answer"] == view.data[0]["answer"] for rows in seen if len(rows) == 2)


def test_adapters_of_one_model_answer_beside_each_other():
    model = tiny.encoder()
    for name in ("one", "two"):
        model = ft.fit(model, tiny.reviews(16), epochs=1, quiet=True,
                       method=ft.Adapter(name=name)).model
    ft.set_adapter(model, "one")
    before = ft.predict(model, "the film")["probability"]
    asked = ft.side_by_side({"base": (model, "base"), "one": (model, "one"),
                             "two": (model, "two")}, "the film").data
    assert asked[1]["probability"] == before == ft.predict(model, "the film")["probability"]
    assert len({row["probability"] for row in asked}) == 3


def test_sampling_leaves_the_numbers_of_the_notebook_alone(decoder):
    import torch

    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    ft.side_by_side({"base": decoder}, "the film", temperature=1.0)
    assert torch.equal(torch.rand(3), wanted)


def test_classifiers_beside_each_other_give_labels(both):
    base, tuned, _ = both
    view = ft.side_by_side({"base": base, "tuned": tuned}, "the film was great")
    assert view.data[1]["answer"] == "good" == ft.predict(tuned, "the film was great")["label"]
    assert view.data[1]["probability"] > 0.5
    with pytest.raises(DataError, match="empty"):
        view.choose(text=" ")
    with pytest.raises(SettingError, match="not a dict"):
        ft.side_by_side(base, "the film")


def test_the_flips_are_those_of_the_comparison(both):
    base, tuned, test = both
    before, after = ft.evaluate(base, test), ft.evaluate(tuned, test)
    found = ft.compare(after, before, "accuracy")
    view = ft.browse_flips(test, before, after)
    assert len(found.gained) and [row["row"] for row in view.data] == found.gained.tolist()
    for row in view.data:
        assert row["text"] == test[row["row"]]["text"] and row["after"] == row["right answer"]
        assert row["before"] != row["right answer"]
    kinds = {kind: len(view.choose(which=kind).data) for kind in explore.KINDS}
    assert kinds["lost"] == len(found.lost) and sum(kinds.values()) == len(test)
    assert view.choose(which="gained", number=2).data[2]["text"] in repr(view)
    assert "gained: 0, lost: 0" in repr(ft.browse_flips(test, after, after))
    assert "no example of this kind" in repr(ft.browse_flips(test, after, after))
    with pytest.raises(SettingError, match="choose one of gained, lost"):
        ft.browse_flips(test, before, after, which="won")
    with pytest.raises(SettingError, match="not right or wrong"):
        ft.browse_flips(test, before, after, metric="loss")


def test_a_prompts_score_is_that_of_its_own_prompts(decoder):
    examples = [("the film", "good"), ("the plot", "bad"), ("the cat", "great")]
    questions = [("the music", "good"), ("the dog", "bad")]
    view = ft.build_prompt(decoder, examples, questions, number=2)
    prompts = [ft.few_shot(examples[:2], question) for question, _ in questions]
    scores = ft.log_likelihood(decoder, prompts, [" good", " bad", " great"])
    np.testing.assert_allclose([row["loss"] for row in view.data],
                               [-scores[0, 0], -scores[1, 1]], rtol=1e-5)
    assert [row["answer"] for row in view.data] == [
        ["good", "bad", "great"][i] for i in scores.argmax(1)]
    assert prompts[0] in repr(view)
    for order in range(1, 6):
        view.choose(number=3, order=order)
    assert [row["examples"] for row in view.history] == [2, 3, 3, 3, 3, 3]
    assert len({row["loss"] for row in view.history[1:]}) > 1  # the order moves it
    assert view.choose(number=0, instruction="Say good or bad.").history[-1]["examples"] == 0
    with pytest.raises(SettingError, match="there are 3 examples"):
        view.choose(number=4)
    with pytest.raises(DataError, match="no questions"):
        ft.build_prompt(decoder, examples, [])


def test_the_controls_have_names_and_move_the_data(decoder):
    ipywidgets = pytest.importorskip("ipywidgets", reason="needs the extra lab")
    view = ft.inspect_tokens(decoder, RECORD)
    at, loss_on, _, shown = view.widget(ipywidgets).children
    assert (at.description, at.max) == ("number of the token", len(view.data) - 1)
    assert loss_on.options == ("response", "all")
    before = shown.value
    at.value = 3
    assert view.settings["at"] == 3 and shown.value != before
    assert "aria-live" in shown.value and "most probable in place 3" in shown.value


def test_what_a_control_cannot_do_is_said_where_it_is_seen(decoder):
    ipywidgets = pytest.importorskip("ipywidgets", reason="needs the extra lab")
    text, _, _, button, _, shown = ft.side_by_side({"base": decoder}, "the film").widget(
        ipywidgets).children
    text.value = " "
    button.click()
    assert "role='alert'" in shown.value and "the text is empty" in shown.value
    text.value = "the dog"
    button.click()
    assert "the dog" in shown.value and "alert" not in shown.value


def test_texts_are_shown_as_texts(both):
    base, tuned, _ = both
    view = ft.side_by_side({"<b>base</b>": base}, "<script>alert(1)</script>")
    assert "<script>" not in view.html() and "<b>base" not in view.html()


def test_without_a_screen_a_view_is_text_and_a_table(decoder, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    ft.inspect_tokens(decoder, RECORD)._ipython_display_()
    assert set(shown[0]) == {"text/plain", "text/html"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Four recorded trainings: two rates, each of all weights and of the upper block."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTKIT_RUNS", str(folder))
        made = [ft.fit(tiny.encoder(), tiny.reviews(16), epochs=1, learning_rate=rate, quiet=True,
                       method=method, name=f"rate {rate:g}")
                for method in (ft.Full(), ft.Freeze(unfreeze_last=1)) for rate in (1e-3, 1e-5)]
        return made, ft.runs(folder)


def test_recorded_runs_are_compared_by_what_they_recorded(recorded):
    made, runs = recorded
    view = ft.explore_runs(runs)
    assert [row["settings.learning_rate"] for row in view.data] == [1e-5, 1e-5, 1e-3, 1e-3]
    assert (sorted(row["metrics.eval_loss"] for row in view.data)
            == sorted(run.metrics["eval_loss"] for run in made))
    assert "eval loss by learning rate" in repr(view) and "1e-05" in repr(view)
    frozen = view.controls["only"].options[2]
    assert frozen.startswith("Freeze") and len(view.choose(only=frozen).data) == 2
    shares = [row["trainable.share"] for row in
              view.choose(x="trainable.share", y="seconds", only="all runs").data]
    assert shares == sorted(shares) and len(set(shares)) == 2
    deep = view.choose(x="settings.method")
    assert {row["method"] for row in deep.data} == set(view.controls["only"].options[1:])
    assert "src='data:image/png;base64," in deep.html() and "alt=''" not in deep.html()


def test_runs_come_with_the_kit_by_rate_and_depth():
    view = ft.explore_runs()
    assert len(view.data) == 32 == len({row["run"] for row in view.data})
    deep = view.choose(x="trainable.blocks", y="metrics.eval_accuracy").data
    assert [row["trainable.blocks"] for row in deep] == sorted([0, 1, 3, 6] * 8)
    assert {(row["trainable.blocks"], row["settings.learning_rate"]) for row in deep} == {
        (depth, rate) for depth in (0, 1, 3, 6) for rate in (1e-4, 5e-4, 2e-3, 1e-2)}
    assert "eval accuracy by blocks that are trained" in repr(view)
    assert "learning rate 0.0001" in repr(view) and "seconds" not in view.controls["y"].options
    with pytest.raises(DataError, match=r"0 runs .* ft\.explore_runs\(\)"):
        ft.explore_runs(ft.runs("nowhere"))


def test_the_runs_that_come_with_the_kit_are_those_that_the_command_trains(monkeypatch):
    """One of them again; elsewhere sums may be taken in another order."""
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(root / "benchmarks")
    import stored_runs

    stored = explore_runs.stored_runs()
    (row,) = stored_runs.trained(depths=(0,), rates=(1e-2,), seeds=(1,))
    (kept,) = stored[stored["name"] == row["name"]].to_dict("records")
    assert abs(kept["metrics.eval_loss"] - row["metrics.eval_loss"]) < 0.02
    assert kept.keys() == row.keys() and kept["trainable.trained"] == row["trainable.trained"]


def test_runs_that_cannot_be_compared_are_refused(recorded):
    _, runs = recorded
    with pytest.raises(DataError, match="needs two or more"):
        ft.explore_runs(runs[:1])
    with pytest.raises(SettingError, match="y='metrics.f1': choose one of .*metrics.eval_loss"):
        ft.explore_runs(runs, y="metrics.f1")
    with pytest.raises(SettingError, match="x='settings.seed': choose one of"):
        ft.explore_runs(runs, x="settings.seed")  # the same in all
