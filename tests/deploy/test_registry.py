"""Without these, nobody could tell which model answers, or get the one before back."""

import os
import subprocess
import sys

import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit.assets import mlflow_store

TEXTS = ["the film was good", "a cat and a dog", "not so very dull", "great music"]
ROWS = Dataset.from_dict({"text": TEXTS * 2})
PROMPTS = TEXTS[:2]


def changed(model, by=0.1):
    """The same model with other weights, as a training would leave it."""
    other = model.copy()
    with torch.no_grad():
        other.net.lm_head.weight += by
    return other


def facts(reference):
    """The lineage of a version."""
    from ftkit.deploy.registry import version

    return version(reference).lineage


@pytest.fixture(scope="module")
def run():
    return ft.fit(tiny.decoder(), ROWS, epochs=1, batch_size=4, quiet=True, dtype="float32")


def test_a_registered_model_is_loaded_by_its_alias_and_is_the_same(store, run):
    made = ft.register(run, "voice-a", data=ROWS, aliases=["champion"], note="first try")
    assert (made.number, made.aliases, made.reference) == (1, ("champion",), "registry:voice-a/1")
    again = ft.load_model("registry:voice-a@champion")
    assert again.hash() == run.model.hash()
    assert ft.parity(run.model, again, PROMPTS).same
    assert ft.load_model("registry:voice-a/1").hash() == again.hash()


def test_a_version_says_where_it_comes_from(store, run):
    base = tiny.decoder()
    claim = type("Claim", (), {"held": True})
    made = ft.register(run, "voice-b", data=ROWS, base=base, claims=[claim], note="by hand")
    said = made.lineage
    assert said["base"] == "tiny-llama" and said["base hash"] == base.hash()
    assert said["weights"] == run.model.hash() and said["rows"] == "8 train"
    assert said["claims"] == "1 of 1 held" and said["note"] == "by hand"
    assert said["code"].startswith(f"ftkit {ft.__version__}") and len(said["data hash"]) == 64
    assert "parent" not in said


def test_a_version_names_its_parent_also_after_a_training(store, run):
    ft.register(run, "voice-c", aliases=["champion"])
    loaded = ft.load_model("registry:voice-c@champion")
    again = ft.fit(loaded, ROWS, epochs=1, batch_size=4, quiet=True, dtype="float32")
    made = ft.register(again, "voice-c")
    assert made.number == 2 and made.lineage["parent"] == "voice-c/1"
    assert made.lineage["base hash"] == run.model.hash()


def test_one_changed_byte_of_the_data_is_another_version_of_it_and_the_row_is_counted(store, run):
    other = Dataset.from_dict({"text": [*TEXTS * 2][:-1] + ["great musik"]})
    ft.register(run, "voice-d", data=ROWS)
    ft.register(run, "voice-d", data=other)
    assert facts("voice-d/1")["data hash"] != facts("voice-d/2")["data hash"]
    rows = {row["what"]: row for row in ft.compare_versions("voice-d/1", "voice-d/2").rows}
    assert rows["data hash"]["same"] == "NO" and rows["weights"]["same"] == "yes"
    assert rows["rows of train"]["voice-d/1"] == "1 rows of its own"
    ft.register(run, "voice-d", data=Dataset.from_dict({"text": TEXTS * 2}))
    assert facts("voice-d/3")["data hash"] == facts("voice-d/1")["data hash"]


def test_rolling_back_gives_the_version_before_and_deletes_none(store, run):
    for by in range(3):
        ft.register(changed(run.model, 0.1 * by), "voice-e", aliases=["champion"])
    with_alias = [row["version"] for row in ft.list_versions("voice-e").rows if row["aliases"]]
    assert with_alias == ["3"]
    ft.promote("voice-e/3", "champion")  # once more: nothing to remember
    assert ft.roll_back("voice-e").number == 2
    assert ft.roll_back("voice-e").number == 1
    assert ft.load_model("registry:voice-e@champion").hash() == run.model.hash()
    with pytest.raises(ft.FetchError, match="stood for no other before"):
        ft.roll_back("voice-e")
    assert [row["version"] for row in ft.list_versions("voice-e").rows] == ["3", "2", "1"]


def test_the_way_back_survives_a_promotion_that_was_cut_off(store, run):
    ft.register(run, "voice-f", aliases=["champion"])
    ft.register(changed(run.model), "voice-f")
    client = mlflow_store.client()
    with pytest.MonkeyPatch.context() as patch:
        def killed(*given):
            raise KeyboardInterrupt
        patch.setattr(client, "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            ft.promote("voice-f/2")
    assert ft.load_model("registry:voice-f@champion").settings["version"] == "voice-f/1"
    ft.promote("voice-f/2")
    assert ft.roll_back("voice-f").number == 1


def test_a_changed_file_of_a_version_is_not_loaded(store, run):
    made = ft.register(run, "voice-g")
    (made.folder / "chat_template.jinja").write_text("{{ 'something else' }}")
    with pytest.raises(ft.FetchError, match="not what was registered as voice-g/1"):
        ft.load_model("registry:voice-g/1")


def test_a_folder_that_is_gone_is_said_to_be(store, run):
    made = ft.register(run, "voice-h")
    made.folder.rename(made.folder.with_name("elsewhere"))
    with pytest.raises(ft.FetchError, match="are gone"):
        ft.load_model("registry:voice-h/1")


def test_only_safetensors_are_kept(store, run):
    made = ft.register(run, "voice-i")
    weights = {p.suffix for p in made.folder.rglob("*") if p.stat().st_size > 50_000}
    assert ".safetensors" in weights
    names = {p.suffix for p in made.folder.rglob("*") if p.is_file()}
    assert not names & {".bin", ".pt", ".pkl", ".pickle", ".pth"}


def test_an_adapter_finds_the_version_it_was_trained_on(store, run):
    ft.register(run, "voice-j", aliases=["champion"])
    base = ft.load_model("registry:voice-j@champion")
    tuned = ft.fit(base, ROWS, method=ft.LoRA(rank=2), epochs=1, quiet=True, dtype="float32")
    made = ft.register(tuned, "voice-j", aliases=["champion"])
    assert made.lineage["parent"] == "voice-j/1"
    again = ft.load_model("registry:voice-j@champion")
    assert again.hash() == tuned.model.hash() and again.settings["version"] == "voice-j/2"


def test_a_failed_registration_leaves_no_version(store, run, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("ftkit.models.saving.atomic.open_to_readers", full)
    with pytest.raises(ft.FetchError, match="No space left"):
        ft.register(run, "voice-k")
    with pytest.raises(ft.FetchError, match="voice-k there are none"):
        ft.load_model("registry:voice-k/1")


def test_a_store_elsewhere_is_fetched_once_and_checked(store, run, monkeypatch, tmp_path):
    made = ft.register(run, "voice-l")
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path))
    monkeypatch.setattr(mlflow_store, "local", lambda address: None)
    assert ft.load_model("registry:voice-l/1").hash() == run.model.hash()
    made.folder.rename(made.folder.with_name("elsewhere"))
    assert ft.load_model("registry:voice-l/1").hash() == run.model.hash()


@pytest.mark.parametrize("reference, error, said", [
    ("registry:voice-a", ft.SettingError, "names no version"),
    ("registry:voice-a@", ft.SettingError, "names no version"),
    ("registry:../x@y", ft.SettingError, "names no version"),
    ("registry:nobody@champion", ft.FetchError, "of nobody there are none"),
])
def test_a_reference_that_names_nothing_is_refused(store, reference, error, said):
    with pytest.raises(error, match=said):
        ft.load_model(reference)


def test_an_alias_that_does_not_exist_names_those_that_do(store, run):
    ft.register(run, "voice-m", aliases=["champion"])
    with pytest.raises(ft.FetchError, match="versions 1, 'champion' is 1"):
        ft.load_model("registry:voice-m@challenger")


@pytest.mark.parametrize("name", ["", "a/b", "../up", "1st", "with blank", "a@b"])
def test_a_name_that_could_not_be_referred_to_is_refused(store, run, name):
    with pytest.raises(ft.SettingError, match="cannot name a model"):
        ft.register(run, name)


def test_without_mlflow_the_extra_is_named_and_nothing_is_loaded():
    code = ("import sys; sys.modules['mlflow'] = None; sys.modules['mlflow.tracking'] = None\n"
            "import ftkit as ft\ntry:\n    ft.load_model('registry:voice@champion')\n"
            "except ft.SettingError as error:\n    print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=os.environ)
    assert "pip install 'ftkit[track]'" in done.stdout, done.stderr
