"""Folders as other programs leave them: what is missing or damaged is named, never made up for."""

import json
from pathlib import Path

import pytest
import tiny

import ftkit as ft
from ftkit.errors import DataError, FetchError, SettingError


@pytest.fixture
def folder(tmp_path):
    """A classifier with its tokenizer, as save_pretrained writes them."""
    model = tiny.encoder()
    model.net.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def without_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()


def cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def of_unknown_kind(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nosuch"}))


@pytest.mark.parametrize("harm, error, says", [
    (without_tokenizer, FetchError, "no tokenizer that fits: it knows 5 tokens, the network"),
    (lambda folder: (folder / "model.safetensors").unlink(), FetchError, "no file named model"),
    (lambda folder: (folder / "config.json").unlink(), FetchError, "no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), FetchError, "valid JSON"),
    (cut, FetchError, "cannot be read as a model"),
    (of_unknown_kind, SettingError, "of the kind 'nosuch'"),
])
def test_what_is_missing_or_damaged_is_named(folder, harm, error, says):
    ft.load_model(folder, "classification")
    harm(folder)
    with pytest.raises(error, match=says) as raised:
        ft.load_model(folder, "classification")
    assert folder.name in str(raised.value)


@pytest.mark.parametrize("labels", ["ab", 2, ["a"], ["a", "a"], []])
def test_labels_are_two_names_or_more(folder, labels):
    with pytest.raises(DataError, match="two or more different names"):
        ft.load_model(folder, "classification", labels=labels)


@pytest.mark.parametrize("given, hint", [
    ("minilm-l6", r"load_model\('minilm-l6'\)"), (Path("models/mine"), "load_model"),
    (None, "ft.load_model gives one"), (tiny.encoder().net, "save_pretrained")])
def test_what_is_no_model_is_refused_with_what_to_do(given, hint):
    rows = tiny.reviews(4)
    for call in (lambda: ft.fit(given, rows), lambda: ft.evaluate(given, rows["test"]),
                 lambda: ft.predict(given, "a film"), lambda: ft.generate(given, "a film"),
                 lambda: ft.log_likelihood(given, ["a"], ["b"]), lambda: ft.merge(given)):
        with pytest.raises(SettingError, match=f"a Model was expected.*{hint}"):
            call()


def test_a_run_is_no_model_but_has_one():
    rows = tiny.reviews(4)
    run = ft.fit(tiny.encoder(), rows, epochs=1, quiet=True)
    with pytest.raises(SettingError, match="give run.model"):
        ft.evaluate(run, rows["test"])
