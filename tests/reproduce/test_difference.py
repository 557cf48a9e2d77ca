"""Without these, a report could blame a setting that does nothing, or miss the one that does."""

import json

import pytest
import tiny

import ftkit as ft
from ftkit.errors import DataError, SettingError
from ftkit.models.hardware import this_machine

pytestmark = pytest.mark.usefixtures("float32")
SETTINGS = dict(epochs=1, batch_size=4, learning_rate=1e-3, warmup=0, quiet=True)


@pytest.fixture(scope="module")
def base():
    return tiny.encoder()


@pytest.fixture(scope="module")
def rows():
    return tiny.reviews(16)["train"]


@pytest.fixture(scope="module")
def run_a(base, rows, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # the fixtures of a module come before others
        patch.setenv("FTKIT_RUNS", str(tmp_path_factory.mktemp("a")))
        return ft.fit(base, rows, **SETTINGS | {"dtype": "float32"})


@pytest.mark.parametrize("cause, change", [
    ("seed", {"seed": 1}),
    ("learning_rate", {"learning_rate": 3e-3}),
    ("max_length", {"max_length": 2}),
    ("precision", {"dtype": "bf16"}),
    ("method: layerwise_lr_decay", {"method": ft.Full(layerwise_lr_decay=0.5)}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_planted_difference_is_named_as_the_main_cause(run_a, base, rows, cause, change):
    run_b = ft.fit(base, rows, **SETTINGS | change)
    found = ft.explain_difference(run_a, run_b, model=base, data=rows)
    assert found.main == cause and found.causes == [cause] and set(found.moved) == {cause}
    assert found.gap == found.moved[cause] > found.floor == 0 and found.explained
    assert found.comes_out == {"A": True, "B": True} and "Main cause" in repr(found)
    assert f">{cause}</td>" in found._repr_html_()


def test_an_equal_pair_has_no_cause_and_nothing_is_printed_or_recorded(
        run_a, base, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FTKIT_RUNS", str(tmp_path))
    run_b = ft.fit(base, rows, **SETTINGS)
    monkeypatch.setenv("FTKIT_DTYPE", "bf16")  # of today: the runs are of another day
    found = ft.explain_difference(run_a, run_b.folder, model=base, data=rows)
    assert (found.main, found.causes, found.rows, found.gap) == (None, [], [], 0)
    assert found.explained and found.comes_out == {"A": True, "B": True}
    assert len(list(tmp_path.iterdir())) == 1 and capsys.readouterr().out == ""


def test_the_cause_is_told_apart_from_what_does_nothing(run_a, base, rows):
    """Of three differences one moves the loss; of two more it is said why they are not tried."""
    few = ft.fit(base, tiny.reviews(16), **SETTINGS | {
        "seed": 1, "disable": "logits_to_keep", "patience": 3})
    found = ft.explain_difference(run_a, few, model=base, data=(rows, tiny.reviews(16)))
    assert found.main == "seed" and found.causes == ["seed"] and found.explained
    assert found.moved["disable"] == 0
    assert set(found.not_tried) == {"patience", "rows of validation"}
    assert "evaluations" in found.not_tried["patience"]


def test_changed_rows_are_found_and_named(run_a, base, rows):
    texts = list(rows["text"])
    texts[5] = "the plot was not so great"
    other = rows.remove_columns("text").add_column("text", texts).select_columns(rows.column_names)
    run_b = ft.fit(base, other, **SETTINGS)
    found = ft.explain_difference(run_a, run_b, model=base, data=(rows, other))
    assert found.main == "rows of train" and found.explained
    [row] = found.rows
    assert row["note"] == "1 in A alone (row 5); 1 in B alone (row 5)"
    without = ft.explain_difference(run_a, run_b, model=base, data=rows, updates=1)
    assert not without.explained and "rows" in without.not_tried["rows of train"]


def test_another_tokenizer_over_the_same_weights_is_found(run_a, base, rows):
    other = base.copy()
    other.tokenizer = tiny.tokenizer()
    other.tokenizer.mask_token = "<unk>"  # alike in use: it is told, and moves nothing
    run_b = ft.fit(other, rows, **SETTINGS)
    found = ft.explain_difference(run_a, run_b, model=(base, other), data=rows)
    assert found.moved == {"tokenizer": 0} and found.main is None and found.explained
    without = ft.explain_difference(run_a, run_b, model=base, data=rows)
    assert "another chat template" in without.not_tried["tokenizer"]


@pytest.fixture
def changed(run_a, tmp_path):
    """A function that copies the record of A with other facts. Returns the folder."""

    def write(**facts):
        record = json.loads((run_a.folder / "run.json").read_text())
        for name, value in facts.items():
            if value is None:
                del record[name]
            else:
                record[name] = {**record[name], **value} if isinstance(value, dict) else value
        history = (run_a.folder / "history.jsonl").read_text()
        (tmp_path / "history.jsonl").write_text(history)
        (tmp_path / "run.json").write_text(json.dumps(record))
        return tmp_path

    return write


def test_what_this_machine_cannot_change_is_listed_with_the_reason(run_a, base, rows, changed):
    other = changed(versions={"torch": "1.0"}, hardware={"device": "cuda", "name": "a card"})
    found = ft.explain_difference(run_a, other, model=base, data=rows)
    assert set(found.not_tried) == {"device", "machine", "package torch"} and found.main is None
    assert this_machine().device in found.not_tried["device"]
    assert all(row["note"].startswith("not tried here, because") for row in found.rows)
    assert found.explained, "B's losses came out without them"


def test_a_loss_that_no_recorded_fact_explains_is_said(run_a, base, rows, changed):
    other = changed()
    lines = [json.loads(line) for line in (other / "history.jsonl").read_text().splitlines()]
    lines[1]["loss"] += 0.01
    (other / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = ft.explain_difference(run_a, other, model=base, data=rows)
    assert found.comes_out == {"A": True, "B": False} and not found.explained
    assert "do NOT come out here" in repr(found)


def test_an_older_record_is_compared_as_far_as_it_goes(run_a, changed):
    old = changed(fit=None, base=None, splits=None, weights=None, settings={"seed": 7})
    found = ft.explain_difference(run_a, old)
    assert [row["difference"] for row in found.rows] == ["seed"]
    assert found.main is None and not found.explained
    assert "record of B lacks fit, base, splits, weights" in repr(found)


def test_what_a_record_cannot_hold_stops_the_rerun_with_a_reason(base, rows):
    run = ft.fit(base, rows, callbacks=[], **SETTINGS)
    record = json.loads((run.folder / "run.json").read_text())
    record["fit"]["left_out"] = ["compute_loss_func"]
    (run.folder / "run.json").write_text(json.dumps(record))
    found = ft.explain_difference(run, run, model=base, data=rows)
    assert "A cannot be run again here: fit was given compute_loss_func" in repr(found)


@pytest.mark.parametrize("arguments, error, said", [
    ({"run_b": 3}, SettingError, "neither a Run"),
    ({"run_b": "nowhere"}, DataError, "holds no record"),
    ({"updates": 0}, SettingError, "updates=0"),
    ({"updates": 2.5}, SettingError, "updates=2.5"),
    ({"data": (1, 2, 3)}, SettingError, "data has 3 parts"),
])
def test_bad_requests_are_named(run_a, arguments, error, said):
    with pytest.raises(error, match=said):
        ft.explain_difference(**{"run_a": run_a, "run_b": run_a, **arguments})
