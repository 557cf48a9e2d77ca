"""Without these, random numbers could pass for a pretrained model, or an update be lost."""

import json
import warnings

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import ftkit as ft
from ftkit.models import hardware
from ftkit.models.specs import CARD


def change(folder, edit):
    """Rewrite the weights in a folder: `edit` is given the dict of tensors and returns one.

    As if the folder came so from elsewhere: its card has no list of files to compare with.
    """
    file, card = folder / "model.safetensors", folder / CARD
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})
    said = json.loads(card.read_text())
    card.write_text(json.dumps({k: v for k, v in said.items() if k != "files"}))


def without(part):
    return lambda tensors: {name: t for name, t in tensors.items() if part not in name}


@pytest.mark.parametrize(("make", "part"), [
    (tiny.decoder, "layers.1."), (tiny.decoder, "model.norm"), (tiny.decoder, "lm_head"),
    (tiny.encoder, "layer.1.output"), (tiny.encoder, "classifier.bias"),
    (lambda: tiny.encoder("masked-lm"), "cls.predictions.transform"),
    (tiny.seq2seq, "decoder.block.1.layer.0"),
], ids=["a block", "the last norm", "a head", "a part of a block", "half of a new head",
        "half of a head over words", "a block of the decoder"])
def test_weights_that_are_missing_are_named(make, part, tmp_path):
    folder = make().save(tmp_path / "model")
    change(folder, without(part))
    with pytest.raises(ft.DataError, match=f"are not in .*{part}.*random numbers"):
        ft.load_model(folder)


def test_only_the_new_head_of_a_task_may_be_new(tmp_path):
    words = tiny.encoder("masked-lm").save(tmp_path / "words")
    for task, labels in {"classification": ["a", "b"], "tagging": ["O", "B-X"], "regression": None,
                         "choice": None, "encoder": None}.items():
        assert ft.load_model(words, task, labels=labels).task == task  # poolers and heads are new
    assert ft.load_model(tiny.encoder("encoder").save(tmp_path / "body"), "masked-lm")
    change(words, without("layer.2."))
    with pytest.raises(ft.DataError, match="layer.2.*and 12 more"):
        ft.load_model(words, "classification", labels=["a", "b"])


def test_weights_without_a_place_are_said(tmp_path):
    folder = tiny.decoder().save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.warns(UserWarning, match="9 weights in .*layers.2.*fewer layers"):
        ft.load_model(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = tiny.encoder("masked-lm").save(tmp_path / "words")
        ft.load_model(words, "classification", labels=["a", "b"])  # another task's head is no loss


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_weights_of_16_bits_are_not_trained(dtype, tmp_path):
    folder = tiny.encoder().save(tmp_path / "model")
    small = ft.load_model(folder, dtype=dtype)
    with pytest.raises(ft.SettingError, match="is stored in .*float16.*dtype=.float32"):
        ft.fit(small, tiny.reviews(8), quiet=True)
    decoder = ft.load_model(tiny.decoder().save(tmp_path / "decoder"), dtype=dtype)
    tuned = ft.LoRA(rank=2).apply(decoder)
    assert {p.dtype for p in tuned.net.parameters() if p.requires_grad} == {torch.float32}


def test_weights_that_are_packed_are_counted_as_what_they_are():
    """Two weights of 4 bits are in a byte, so a count of the bytes is half of the model."""

    class Params4bit(torch.nn.Parameter):
        pass

    packed = Params4bit(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    assert hardware.weights_in([packed, torch.nn.Parameter(torch.zeros(3))]) == 19


@pytest.mark.parametrize("kind", ["Bert", "Bart"])
def test_a_network_that_predicts_no_next_token_is_no_decoder(kind, tmp_path):
    import transformers

    words = tiny.tokenizer()
    sizes = {"vocab_size": len(words), "pad_token_id": 0}
    config = transformers.BertConfig(**tiny.SIZES, **sizes) if kind == "Bert" else (
        transformers.BartConfig(d_model=16, encoder_layers=1, decoder_layers=1,
                                encoder_attention_heads=2, decoder_attention_heads=2,
                                encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes))
    name = "BertForMaskedLM" if kind == "Bert" else "BartForConditionalGeneration"
    getattr(transformers, name)(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    with pytest.raises(ft.SettingError, match="does not predict a next token"):
        ft.load_model(tmp_path, "causal-lm")
    if kind == "Bert":
        config.is_decoder = True
        transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
        assert ft.load_model(tmp_path, "causal-lm").task == "causal-lm"


def test_a_folder_is_found_as_a_data_file_is(tmp_path, monkeypatch):
    folder = tiny.encoder().save(tmp_path / "minilm-l6")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ft.load_model("~/minilm-l6").hash() == ft.load_model(folder).hash()
    monkeypatch.chdir(tmp_path)
    assert ft.load_model("./minilm-l6").hash() == ft.load_model(folder).hash()
    assert ft.load_model("minilm-l6", "encoder").net.config.num_hidden_layers == 6  # the catalog's
    for source in ("minilm-l6", folder):
        with pytest.raises(ft.SettingError, match="revision='abc'.*leave it out"):
            ft.load_model(source, revision="abc")


def test_a_hub_model_is_looked_for_where_other_libraries_keep_theirs(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}

    def download(repository, **options):
        asked.update(options)
        return str(tiny.encoder().save(tmp_path / "model"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    ft.load_model("someone/some-model")
    assert asked.get("cache_dir") is None, "what is in the hub's own cache would be fetched again"
