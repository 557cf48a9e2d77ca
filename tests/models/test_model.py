"""Without these, a saved model could come back changed, or a wrong name end in a traceback."""

import json
import os
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import ftkit as ft
from ftkit.errors import DataError, FetchError, SettingError
from ftkit.models import hardware, specs
from ftkit.models import load as models


@pytest.mark.parametrize(
    "make",
    [
        tiny.decoder,
        tiny.encoder,
        tiny.seq2seq,
        lambda: tiny.encoder("tagging", ("O", "B-PER")),
        lambda: tiny.encoder("regression"),
        lambda: tiny.encoder("choice"),
    ],
)
def test_a_saved_model_comes_back_the_same(make, tmp_path, capfd):
    model = make()
    folder = model.save(tmp_path / "model")
    assert "shards" not in capfd.readouterr().err, "a bar of the library's stays in the notebook"
    again = ft.load_model(folder)
    assert again.hash() == model.hash()
    assert (again.task, again.labels, again.name) == (model.task, model.labels, model.name)
    assert not list(tmp_path.glob(".*")), "a half-written folder was left behind"
    assert not list(folder.rglob("*.bin")), "weights must be safetensors"


def test_a_low_rank_model_comes_back_on_its_base(tmp_path):
    base_folder = tiny.decoder().save(tmp_path / "base")
    tuned = ft.LoRA(rank=2).apply(ft.load_model(base_folder))
    for name, weight in tuned.net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    folder = tuned.save(tmp_path / "adapter")
    assert ft.load_model(folder).hash() == tuned.hash()
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    assert size < 0.5 * sum(f.stat().st_size for f in base_folder.glob("*.safetensors"))


def test_saving_does_not_overwrite_somebody_elses_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FetchError, match="no saved ftkit model"):
        tiny.encoder().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("listed", [True, False])
def test_saving_over_a_model_keeps_what_others_put_beside_it(tmp_path, listed):
    folder = tiny.decoder("gpt2").save(tmp_path / "model")
    card = folder / specs.CARD
    if not listed:  # saved by a version that did not list its files
        said = json.loads(card.read_text())
        del said["files"]
        card.write_text(json.dumps(said))
    (folder / "README.md").write_text("# My card")
    (folder / "checkpoint-2" / "deep").mkdir(parents=True)
    (folder / "checkpoint-2" / "deep" / "model.safetensors").write_bytes(b"mine")
    (folder / "link").symlink_to("nowhere")
    base = tiny.decoder().save(tmp_path / "base")
    ft.LoRA(rank=2).apply(ft.load_model(base)).save(folder)  # it writes a README.md of its own
    kept = content(folder)
    assert kept["README.md"] == b"# My card"
    assert kept["checkpoint-2/deep/model.safetensors"] == b"mine"
    assert (folder / "link").is_symlink()
    assert "model.safetensors" not in kept and "config.json" not in kept, "of the model before"
    model = tiny.encoder()
    model.save(folder)
    kept = content(folder)
    assert kept["README.md"] == b"# My card" and "adapter_config.json" not in kept
    assert ft.load_model(folder).hash() == model.hash()
    assert not list(tmp_path.glob(".*"))


def test_a_readme_that_the_library_wrote_goes_with_its_model(tmp_path):
    base = tiny.decoder().save(tmp_path / "base")
    ft.LoRA(rank=2).apply(ft.load_model(base)).save(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").exists()
    tiny.encoder().save(tmp_path / "model")
    assert not (tmp_path / "model" / "README.md").exists()


def test_a_save_that_fails_leaves_the_model_that_was_there(tmp_path, monkeypatch):
    folder = tiny.encoder().save(tmp_path / "model")
    before = content(folder)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    other = tiny.decoder()
    monkeypatch.setattr(other.tokenizer, "save_pretrained", full)
    with pytest.raises(FetchError, match="No space left.*unchanged.*Free some space"):
        other.save(folder)
    assert content(folder) == before and not list(tmp_path.glob(".*"))


def test_a_saved_folder_is_open_to_whom_the_umask_lets_in(tmp_path):
    umask = os.umask(0o027)
    try:
        folder = tiny.encoder().save(tmp_path / "model")
    finally:
        os.umask(umask)
    modes = {oct(p.stat().st_mode & 0o777) for p in folder.rglob("*") if p.is_file()}
    assert oct(folder.stat().st_mode & 0o777) == "0o750" and modes == {"0o640"}


def test_a_save_through_a_link_fills_the_folder_it_names(tmp_path):
    tiny.encoder().save(tmp_path / "model")
    (tmp_path / "latest").symlink_to("model")
    model = tiny.decoder()
    assert model.save(tmp_path / "latest") == tmp_path / "latest"
    assert (tmp_path / "latest").is_symlink()
    assert ft.load_model(tmp_path / "model").hash() == model.hash()


def test_a_saved_model_that_was_cut_short_is_named(tmp_path):
    folder = tiny.encoder().save(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FetchError, match=r"model.safetensors has 1,000 bytes .*damaged"):
        ft.load_model(folder)
    (folder / specs.CARD).write_text("")
    with pytest.raises(FetchError, match="ftkit.json is not JSON.*damaged"):
        ft.load_model(folder)


def later(path):
    """As of a program that writes a file a while after the model was saved."""
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 10**9))


@pytest.mark.parametrize("same_size", [True, False])
def test_weights_that_another_program_wrote_over_are_loaded_and_told(tmp_path, same_size):
    folder = tiny.encoder().save(tmp_path / "model")
    other = tiny.encoder() if same_size else tiny.encoder(labels=("bad", "good", "mixed"))
    with torch.no_grad():
        next(other.net.parameters()).add_(1)
    other.net.save_pretrained(folder)
    later(folder / "model.safetensors")
    with pytest.warns(UserWarning, match="model.safetensors was written by another program"):
        again = ft.load_model(folder, labels=other.labels)
    assert again.hash() == other.hash()
    with warnings.catch_warnings():  # saved again, all agree
        warnings.simplefilter("error")
        assert ft.load_model(again.save(folder)).hash() == other.hash()


def test_a_part_of_other_weights_is_no_model(tmp_path):
    folder = tiny.encoder().save(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    removed = next(name for name in tensors if "layer.1" in name)
    del tensors[removed]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    later(folder / "model.safetensors")
    told = pytest.warns(UserWarning, match="another program")
    with told, pytest.raises(DataError, match="layer.1"):
        ft.load_model(folder)


def test_an_adapter_beside_or_merged_into_a_saved_model_is_told(tmp_path):
    base = tiny.decoder().save(tmp_path / "base")
    adapter = ft.LoRA(rank=2).apply(ft.load_model(base))
    folder = adapter.save(tmp_path / "adapter")
    for name, weight in adapter.net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    adapter.net.save_pretrained(folder)  # trained on by peft
    later(folder / "adapter_model.safetensors")
    with pytest.warns(UserWarning, match="adapter_model.safetensors was written"):
        assert ft.load_model(folder).hash() == adapter.hash()
    merged = adapter.net.merge_and_unload()
    merged.save_pretrained(folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink()
    tiny.tokenizer().save_pretrained(folder)
    with pytest.warns(UserWarning, match=r"adapter_model.safetensors \(removed\)"):
        assert torch.equal(ft.load_model(folder).net.lm_head.weight, merged.lm_head.weight)


def test_a_save_over_what_another_program_put_in_place_of_the_model_is_what_is_loaded(tmp_path):
    folder = tiny.decoder().save(tmp_path / "model")
    base = tiny.decoder().save(tmp_path / "base")
    ft.LoRA(rank=2).apply(ft.load_model(base)).net.save_pretrained(folder)
    model = tiny.decoder("gpt2")
    model.save(folder)
    assert ft.load_model(folder).hash() == model.hash()


def test_a_bit_that_flipped_in_saved_weights_is_found(tmp_path):
    folder = tiny.encoder().save(tmp_path / "model")
    weights = folder / "model.safetensors"
    before, content = weights.stat(), bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(FetchError, match="another content.*on purpose, take its line.*ftkit.json"):
        ft.load_model(folder)
    card = json.loads((folder / specs.CARD).read_text())
    del card["files"]["model.safetensors"]  # what the message advises
    (folder / specs.CARD).write_text(json.dumps(card))
    with pytest.warns(UserWarning, match="model.safetensors was written by another"):
        ft.load_model(folder)


def test_a_copy_of_a_saved_model_is_the_same_model(tmp_path):
    folder = tiny.encoder().save(tmp_path / "model")
    (tmp_path / "copy").mkdir()
    for path in sorted(folder.iterdir(), key=lambda path: path.name != specs.CARD):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())  # the card is the oldest
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ft.load_model(tmp_path / "copy")
    for path in (tmp_path / "copy").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(FetchError, match="model.safetensors is missing.*Save the model again"):
        ft.load_model(tmp_path / "copy")


def test_weights_of_no_dimension_have_a_hash():
    model = tiny.encoder()
    model.net.register_buffer("scale", torch.tensor(1.0))
    first = model.hash()
    model.net.scale.fill_(2)
    assert model.hash() != first


def test_random_weights_come_from_the_seed(tmp_path):
    folder = tiny.encoder().save(tmp_path / "model")
    first, same, other = (ft.load_model(folder, pretrained=False, seed=s) for s in (1, 1, 2))
    assert first.hash() == same.hash() != other.hash()
    assert first.hash() != ft.load_model(folder).hash()


def test_a_new_head_comes_from_the_seed_and_leaves_the_random_state(tmp_path):
    folder = tiny.encoder("encoder").save(tmp_path / "model")
    state = torch.random.get_rng_state()
    heads = [ft.load_model(folder, "classification", labels=["a", "b"], seed=s) for s in (1, 1, 2)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert heads[0].hash() == heads[1].hash() != heads[2].hash()


def test_a_copy_has_weights_of_its_own():
    model = tiny.encoder()
    copy = model.copy()
    with torch.no_grad():
        next(copy.net.parameters()).add_(1)
    assert copy.hash() != model.hash()


def test_wrong_names_are_explained(tmp_path, monkeypatch):
    with pytest.raises(FetchError, match="minilm-l6"):
        ft.load_model("minilm-l7")
    folder = tiny.encoder().save(tmp_path / "model")
    with pytest.raises(SettingError, match="'sentiment'.*classification"):
        ft.load_model(folder, "sentiment")
    (tmp_path / "model" / specs.CARD).unlink()
    with pytest.raises(DataError, match="needs labels"):  # of which its head has none
        ft.load_model(folder, "tagging")
    with pytest.raises(SettingError, match="bert.*seq2seq-lm"):
        ft.load_model(folder, "seq2seq-lm")
    with pytest.raises(SettingError, match="float64"):
        ft.load_model(folder, "encoder", dtype="float64")
    if not torch.cuda.is_available():
        with pytest.raises(SettingError, match="needs CUDA.*LoRA"):
            ft.load_model(folder, "encoder", dtype="nf4")
    monkeypatch.setenv("FTKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="FTKIT_OFFLINE"):
        ft.load_model("someone/some-model")


def test_a_head_of_another_size_is_explained(tmp_path):
    folder = tiny.encoder().save(tmp_path / "two")
    three = ["bad", "good", "so so"]
    with pytest.raises(SettingError, match="head for 2 labels.*asks for 3.*task=.encoder"):
        ft.load_model(folder, labels=three)
    body = ft.load_model(folder, "encoder").save(tmp_path / "body")  # what the message advises
    assert ft.load_model(body, "classification", labels=three).net.num_labels == 3


def test_models_do_not_stand_on_methods():
    """A user who reads about models should not have to read how methods train."""
    modules = ("model", "load", "adapters", "bottleneck", "structure", "specs")
    for name in modules:
        source = (Path(models.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        assert "ftkit.methods" not in source, name


def test_freezing_trains_the_top_and_the_head_only():
    model = ft.Freeze(unfreeze_last=1).apply(tiny.encoder())
    names = [n for n, p in model.net.named_parameters() if p.requires_grad]
    assert names and all(
        n.startswith(("bert.encoder.layer.2", "bert.pooler", "classifier")) for n in names
    )
    head = [
        n
        for n, p in ft.Freeze(unfreeze_last=0).apply(tiny.encoder()).net.named_parameters()
        if p.requires_grad
    ]
    assert not any("layer" in n for n in head)
    decoder = [
        n
        for n, p in ft.Freeze(unfreeze_last=2).apply(tiny.decoder()).net.named_parameters()
        if p.requires_grad
    ]
    assert any("layers.2" in n for n in decoder) and "model.norm.weight" in decoder
    assert not any("embed" in n or "layers.0" in n for n in decoder)
    with pytest.raises(SettingError, match="0 to 3"):
        ft.Freeze(unfreeze_last=9).apply(tiny.encoder())


def test_the_summary_counts_what_is_trained():
    full = ft.trainable_summary(ft.Full().apply(tiny.encoder()))
    top = ft.trainable_summary(ft.Freeze(unfreeze_last=1).apply(tiny.encoder()))
    low = ft.trainable_summary(ft.LoRA(rank=2).apply(tiny.encoder()))
    assert full["share"] == 1 and full["bytes"] == 4 * full["total"]
    assert low["trained"] < top["trained"] < full["trained"]
    assert (full["blocks"], top["blocks"], low["blocks"]) == (3, 1, 3)
    head = ft.trainable_summary(ft.Freeze(unfreeze_last=0).apply(tiny.encoder()))
    assert head["blocks"] == 0 < head["trained"]
    with pytest.raises(SettingError, match="rank=0"):
        ft.LoRA(rank=0).apply(tiny.encoder())


@pytest.mark.parametrize(
    ("capability", "compute"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
)
def test_four_bit_weights_are_computed_with_what_the_card_multiplies(
    monkeypatch, capability, compute
):
    card = hardware.Machine("cuda", "a card", 16 * 1024**3, 4, capability)
    monkeypatch.setattr(models, "this_machine", lambda: card)
    monkeypatch.setattr(models.transformers, "BitsAndBytesConfig", lambda **given: given)
    monkeypatch.setattr(models.torch.cuda, "current_device", lambda: 3)
    options = models._four_bits()
    assert options["quantization_config"]["bnb_4bit_compute_dtype"] is compute
    assert options["quantization_config"]["bnb_4bit_quant_type"] == "nf4"
    assert options["device_map"] == {"": 3}, "each process has a card of its own"


def test_a_catalog_model_loads_in_three_seconds_the_second_time():
    """What is asserted is that nothing is converted again; the time itself is a benchmark's."""
    ft.load_model("smollm2-135m-instruct")
    from ftkit.assets import catalog

    folder = models._catalog_folder(catalog.find("smollm2-135m-instruct"))
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    model = ft.load_model("smollm2-135m-instruct")
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert not list(folder.glob("*.gguf"))
    assert {p.dtype for p in model.net.parameters()} == {torch.float32}
