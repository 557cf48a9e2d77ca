"""Without these, a record could lack what its training is made again from, or hold a secret."""

import json

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit.data import fingerprint
from ftkit.data.fingerprint import row_hashes, split_hash
from ftkit.errors import DataError, SettingError
from ftkit.methods.plain import as_plain, from_plain
from ftkit.training import records


def test_the_rows_of_a_sweep_are_hashed_once(monkeypatch):
    hashed, hash_of = [], fingerprint.row_hash
    monkeypatch.setattr(fingerprint, "row_hash", lambda row: (hashed.append(1), hash_of(row))[1])
    data = tiny.reviews(8)["train"].map(lambda row: {"text": row["text"] + " twice"})
    runs = [ft.fit(tiny.encoder(), data, epochs=1, learning_rate=rate, quiet=True)
            for rate in (1e-3, 1e-4)]
    assert len(hashed) == len(data)
    one, two = (records.read(run.folder)[0]["splits"]["train"]["hash"] for run in runs)
    assert one == two == split_hash(row_hashes(data)["train"])
    changed = data.map(lambda row: {"text": row["text"] + "."})
    third = ft.fit(tiny.encoder(), changed, epochs=1, quiet=True)
    assert records.read(third.folder)[0]["splits"]["train"]["hash"] != one


@pytest.mark.usefixtures("float32")
def test_the_record_holds_what_fit_was_told_and_read():
    base, data = tiny.encoder(), tiny.reviews(16)
    run = ft.fit(base, data, method=ft.Freeze(unfreeze_last=1), epochs=np.int64(1), max_length=9,
                 loss_on="all", disable="eager_attention", patience=2, weight_decay=0.1, seed=3,
                 hub_token="hf_secret", compute_metrics=None, quiet=True)
    record, history = records.read(run.folder)
    told = record["fit"]
    assert told["method"] == {"class": "Freeze", "left_out": {}, "fields": {
        "unfreeze_last": 1, "layerwise_lr_decay": 1.0}}
    assert (told["epochs"], told["max_length"], told["loss_on"], told["patience"], told["seed"],
            told["dtype"], told["batch_size"]) == (1, 9, "all", 2, 3, "float32", 16)
    assert "eager_attention" in told["disable"] and told["arguments"]["weight_decay"] == 0.1
    assert record["splits"]["train"] == {
        "rows": 16, "hash": split_hash(row_hashes(data["train"])["train"])}
    assert set(record["splits"]) == {"train", "validation"}, "no test split was read"
    assert record["base"]["hash"] == base.fingerprint()
    assert record["weights"] == run.model.fingerprint()
    assert record["base"]["task"] == "classification" and record["hardware"]["processes"] == 1
    assert len(history) == len(run.history)
    assert "hf_secret" not in (run.folder / "run.json").read_text()


def test_what_a_record_cannot_hold_is_named():
    told = records.told(ft.Full(), {"callbacks": [object()], "max_steps": 3}, seed=0)
    assert told["left_out"] == ["callbacks"] and told["arguments"] == {"max_steps": 3}


@pytest.mark.parametrize("method", [
    ft.Full(layerwise_lr_decay=0.9), ft.LoRA(rank=4, target_modules=("query", "value"), dora=True),
    ft.Adapter(placement="pfeiffer"), ft.PromptTuning(text="Is it good?"),
    ft.Mixup(trainable=ft.Freeze(unfreeze_last=1)), ft.MultiTask({"one": ["no", "yes"]}),
], ids=lambda method: type(method).__name__)
def test_a_method_comes_back_from_json(method):
    assert from_plain(json.loads(json.dumps(as_plain(method)))) == method


class Own(ft.Full):
    """A class that a record names, and that is none of the kit's."""


@pytest.mark.parametrize("found, said", [
    (as_plain(Own()), "none of the kit's"),
    ({"class": "merge", "fields": {}}, "none of the kit's"),
    ({"class": "os.system", "fields": {}}, "none of the kit's"),
    ({"class": "LoRA", "fields": {"ranks": 2}}, "knows alpha"),
    (as_plain(ft.Reinforce(torch.eq)), "reward"),
    (as_plain(ft.Distill(trainable=ft.Reinforce(torch.eq), teacher=tiny.encoder())), "tiny-bert"),
    (None, "none of the kit's"),
])
def test_no_other_class_is_made_from_a_record(found, said):
    with pytest.raises(SettingError, match=said):
        from_plain(found)


def test_a_folder_without_a_record_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match="holds no record"):
        records.read(tmp_path)


def test_data_knows_how_it_is_loaded_again(tmp_path):
    """Three different words each, so that no two texts count as alike."""
    rows = [{"text": f"{i}a {i}b {i}c", "label": i % 2} for i in range(60)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ft.load_data(tmp_path / "own.jsonl", n_train=5, seed=1, split=(0.6, 0.2, 0.2))
    again = ft.load_data(**json.loads(json.dumps(data.origin)))
    assert again.hash == data.hash and len(again["train"]) == 5
    assert ft.load_data(Dataset.from_list(rows)).origin == {}
