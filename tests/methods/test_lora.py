"""Without these, LoRA could differ from the paper, or a merged model answer differently."""


import pytest
import tiny
import torch
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft
from ftkit.errors import SettingError
from ftkit.models import model as models

VARIANTS = [ft.LoRA(rank=2), ft.LoRA(rank=2, dora=True), ft.LoRA(rank=4, rslora=True)]
KINDS = {
    "encoder": tiny.encoder,
    "decoder": tiny.decoder,
    "gpt2": lambda: tiny.decoder("gpt2"),
    "tied": lambda: tiny.decoder(tie_word_embeddings=True),
    "t5": tiny.seq2seq,
    "tagger": lambda: tiny.encoder("tagging", ("O", "B-X")),
    "masked": lambda: tiny.encoder("masked-lm"),
    "choice": lambda: tiny.encoder("choice"),
}


def stirred(model, seed=1):
    """The model with differences as if it had been trained."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.net.named_parameters():
            if "lora_magnitude" in name:
                weight.mul_(1 + 0.2 * torch.rand_like(weight))
            elif "lora_" in name or "modules_to_save" in name:
                weight.normal_(std=0.2)
    return model


def outputs(model):
    """The model's numbers for a few texts, shape (texts, ...)."""
    ids = model.tokenizer(["the film was good", "dull plot and a cat"], return_tensors="pt",
                          padding=True)["input_ids"]
    extra = {"labels": ids} if model.task == "seq2seq-lm" else {}
    with torch.no_grad():
        out = model.net(input_ids=ids, **extra)
    return out.logits if "logits" in out else out[0]


def relative(one, two):
    return ((one - two).norm() / two.norm()).item()


@pytest.mark.parametrize("method", VARIANTS, ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize("kind", KINDS)
def test_merging_leaves_the_logits_as_they_were(kind, method):
    base = KINDS[kind]()
    tuned = stirred(method.apply(base.copy()))
    before, start = outputs(tuned), tuned.hash()
    merged = ft.merge(tuned)
    assert relative(before, outputs(base)) > 0.01, "the difference did nothing, so nothing is shown"
    assert relative(outputs(merged), before) < 1e-3
    assert tuned.hash() == start, "merging must not change the model it was given"
    assert type(merged.net) is type(base.net)
    assert not [n for n, _ in merged.net.named_parameters() if "lora" in n or "base_layer" in n]
    assert all(p.requires_grad for p in merged.net.parameters())


def test_a_merged_model_is_saved_whole(tmp_path):
    for name in ("encoder", "gpt2", "t5"):
        merged = ft.merge(stirred(ft.LoRA(rank=2).apply(KINDS[name]())))
        again = ft.load_model(merged.save(tmp_path / name))
        torch.testing.assert_close(outputs(again), outputs(merged))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_a_difference_in_a_shared_head_does_not_reach_the_embeddings(tmp_path):
    base = KINDS["tied"]()
    method = ft.LoRA(rank=2, target_modules=("lm_head", "q_proj"))
    tuned = stirred(method.apply(base.copy()))
    merged = ft.merge(tuned)
    assert relative(outputs(merged), outputs(tuned)) < 1e-3
    again = ft.load_model(merged.save(tmp_path / "m"))
    assert relative(outputs(again), outputs(tuned)) < 1e-3


def test_merging_on_16_bits_rounds_and_no_more(tmp_path):
    base = tiny.decoder().save(tmp_path / "base")
    folder = stirred(ft.LoRA(rank=2).apply(ft.load_model(base))).save(tmp_path / "adapter")
    half = ft.load_model(folder, dtype="bf16")
    merged = ft.merge(half)
    assert {p.dtype for p in merged.net.parameters()} == {torch.bfloat16}
    assert relative(outputs(merged).float(), outputs(half).float()) < 0.1


def test_merging_is_refused_where_it_would_lose_or_cannot_be(tmp_path):
    with pytest.raises(SettingError, match="no LoRA weights.*run.model"):
        ft.merge(tiny.encoder())
    for flag, bits in (("is_loaded_in_4bit", 4), ("is_loaded_in_8bit", 8)):
        tuned = ft.LoRA(rank=2).apply(tiny.decoder())
        setattr(tuned.net.get_base_model(), flag, True)
        with pytest.raises(SettingError, match=f"{bits} bits.*bf16"):
            ft.merge(tuned)
    merged = ft.merge(ft.LoRA(rank=2).apply(tiny.decoder()))
    second = ft.LoRA(rank=2).apply(merged)
    with pytest.raises(SettingError, match="never\\s+saved.*merge"):
        second.save(tmp_path / "lost")
    assert not (tmp_path / "lost").exists()


def test_an_adapter_on_a_base_tuned_in_memory_is_not_stored(tmp_path):
    first = ft.fit(tiny.encoder(), tiny.reviews(8), epochs=1, quiet=True)
    second = ft.fit(first.model, tiny.reviews(8), method=ft.LoRA(rank=2), epochs=1, quiet=True)
    with pytest.raises(SettingError, match="never\\s+saved"):
        second.model.save(tmp_path / "lost")
    folder = ft.merge(second.model).save(tmp_path / "whole")
    torch.testing.assert_close(outputs(ft.load_model(folder)), outputs(second.model))


def test_the_lessons_layer_is_pefts():
    low_rank = from_lesson("09", "LowRank")
    model = ft.LoRA(rank=3, alpha=7).apply(tiny.encoder())
    theirs = next(m for m in stirred(model).net.modules() if hasattr(m, "lora_A"))
    plain = torch.nn.Linear(theirs.in_features, theirs.out_features)
    plain.load_state_dict(theirs.base_layer.state_dict())
    ours = low_rank(plain, rank=3, alpha=7)
    assert torch.equal(ours(torch.eye(32)), plain(torch.eye(32))), "it must start at the base"
    ours.A.data.copy_(theirs.lora_A["default"].weight)
    ours.B.data.copy_(theirs.lora_B["default"].weight)
    x = torch.randn(5, theirs.in_features)
    torch.testing.assert_close(ours(x), theirs(x))
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    torch.testing.assert_close(ours.A.grad, theirs.lora_A["default"].weight.grad)
    torch.testing.assert_close(ours.B.grad, theirs.lora_B["default"].weight.grad)
    assert ours.layer.weight.grad is None
    theirs.merge()
    torch.testing.assert_close(ours.merged().weight, theirs.base_layer.weight)


def test_dora_learns_the_length_of_each_row_apart_from_its_direction():
    model = stirred(ft.LoRA(rank=3, alpha=6, dora=True).apply(tiny.encoder()))
    theirs = next(m for m in model.net.modules() if hasattr(m, "lora_A"))
    parts = (theirs.lora_A, theirs.lora_B, theirs.lora_magnitude_vector)
    A, B, m = (part["default"].weight.detach() for part in parts)
    V = theirs.base_layer.weight.detach() + 2.0 * B @ A  # alpha / rank
    weight = m[:, None] * V / V.norm(dim=1, keepdim=True)  # equation 5 of the paper
    x = torch.randn(5, theirs.in_features)
    torch.testing.assert_close(
        torch.nn.functional.linear(x, weight, theirs.base_layer.bias), theirs(x), rtol=1e-4,
        atol=1e-5)


def test_the_lessons_four_bits_are_the_published_ones_and_merging_into_them_loses():
    NF4, rounded = from_lesson("09", "far", "positive", "negative", "NF4", "rounded")[-2:]
    published = [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004,
                 0.0, 0.07958030, 0.16093020, 0.24611230, 0.33791524, 0.44070983, 0.56261700,
                 0.72295684, 1.0]
    torch.testing.assert_close(NF4, torch.tensor(published), atol=1e-5, rtol=0)
    torch.manual_seed(0)
    base = rounded(0.05 * torch.randn(256, 256), NF4)
    torch.testing.assert_close(rounded(base, NF4), base)
    difference = 0.0005 * torch.randn(256, 4) @ torch.randn(4, 256)  # a fiftieth of the base
    kept = rounded(base + difference, NF4) - base
    assert relative(kept, difference) > 1, "the second rounding is larger than what was learned"


def test_rank_stabilized_scaling_grows_with_the_root():
    def scale(method):
        net = method.apply(tiny.encoder()).net
        return next(m for m in net.modules() if hasattr(m, "lora_A")).scaling["default"]

    assert scale(ft.LoRA(rank=16, alpha=8)) == 0.5
    assert scale(ft.LoRA(rank=16, alpha=8, rslora=True)) == 2.0


def test_the_head_of_a_task_is_trained_and_comes_back(tmp_path):
    folder = tiny.encoder("encoder").save(tmp_path / "base")
    base = ft.load_model(folder, "classification", labels=["bad", "good"], seed=5)
    run = ft.fit(base, tiny.reviews(16), method=ft.LoRA(rank=2), epochs=1, quiet=True)
    again = ft.load_model(run.model.save(tmp_path / "adapter"))
    torch.testing.assert_close(outputs(again), outputs(run.model))
    stored = sum(f.stat().st_size for f in (tmp_path / "adapter").glob("*.safetensors"))
    assert stored < 1.3 * run.trainable["bytes"] + 20_000


def test_heads_of_other_names_are_trained_too():
    import transformers

    config = transformers.T5Config(vocab_size=300, d_model=32, d_ff=64, num_layers=2, num_heads=2,
                                   d_kv=16, num_labels=2, pad_token_id=0, eos_token_id=2,
                                   decoder_start_token_id=0)
    net = transformers.T5ForSequenceClassification(config)
    model = models.Model(net, tiny.tokenizer(), "classification", "tiny-t5", ["bad", "good"])
    names = [n for n, p in ft.LoRA(rank=2).apply(model).net.named_parameters() if p.requires_grad]
    assert any("classification_head.modules_to_save" in n for n in names)
    assert all("lora_" in n or "classification_head.modules_to_save" in n for n in names)


@pytest.mark.filterwarnings("error")
def test_an_adapter_names_its_base_as_the_catalog_does(tmp_path):
    import json

    base = ft.load_model("minilm-l6", task="classification", labels=["bad", "good"], seed=3)
    tuned = stirred(ft.LoRA(rank=1, target_modules=("query",)).apply(base.copy()))
    folder = tuned.save(tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "minilm-l6", "a path of this machine helps nobody"
    assert ft.load_model(folder).hash() == tuned.hash()


@pytest.mark.usefixtures("each_precision")
@pytest.mark.parametrize("method", VARIANTS, ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (tiny.decoder(), {"prompt": ["the film was"] * 8, "response": [" good"] * 8}),
        (tiny.decoder("gpt2"), {"text": ["the film was good"] * 8}),
        (tiny.seq2seq(), {"source": ["the cat"] * 8, "target": ["the dog"] * 8}),
        (tiny.encoder("regression"), {"text": ["good", "bad"] * 4, "label": [1.0, 0.0] * 4}),
        (tiny.encoder("tagging", ("O", "B-X")),
         {"tokens": [["cat", "was"]] * 8, "tags": [["B-X", "O"]] * 8}),
    ],
)
def test_every_kind_of_model_learns(model, columns, method):
    data = Dataset.from_dict(columns)
    run = ft.fit(model, {"train": data, "validation": data}, method=method, epochs=6, patience=2,
                 learning_rate=3e-3, batch_size=4, quiet=True)
    found = run.history["eval_loss"].dropna()
    assert found.min() < found.iloc[0]
    ft.evaluate(run.model, data)
    if model.task in ("causal-lm", "seq2seq-lm"):
        texts = ["the film", "a dog"]
        assert ft.generate(run.model, texts, max_new_tokens=4) == ft.generate(
            ft.merge(run.model), texts, max_new_tokens=4)


@pytest.mark.usefixtures("each_precision")
def test_a_stopped_training_resumes_to_the_same_end(tmp_path):
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_epoch_end(self, args, state, control, **_):
            control.should_training_stop = state.epoch >= 2

    settings = dict(method=ft.LoRA(rank=2), epochs=4, batch_size=8, quiet=True)
    data = tiny.reviews(16)
    whole = ft.fit(tiny.encoder(), data, **settings)
    kept = dict(checkpoint_dir=tmp_path / "c", **settings)
    ft.fit(tiny.encoder(), data, callbacks=[Stop()], **kept)
    resumed = ft.fit(tiny.encoder(), data, resume=True, **kept)
    torch.testing.assert_close(outputs(resumed.model), outputs(whole.model))


def test_wrong_settings_are_explained():
    for method, message in [
        (ft.LoRA(rank=0), "rank=0.*1 or more"),
        (ft.LoRA(rank=2.5), "rank=2.5"),
        (ft.LoRA(dropout=1.0), "dropout=1.0.*below 1"),
        (ft.LoRA(target_modules="query"), r"tuple, such as \('query',\)"),
        (ft.LoRA(target_modules=("q_proj",)), "names no layer.*dense.*query"),
    ]:
        with pytest.raises(SettingError, match=message):
            method.apply(tiny.encoder())
    with pytest.raises(SettingError, match="already.*ft.merge"):
        ft.LoRA().apply(ft.LoRA().apply(tiny.encoder()))


def test_memory_that_a_training_adds_does_not_count_what_was_there_before():
    ballast = torch.ones(60_000_000)  # 240 MB
    run = ft.fit(tiny.encoder(), tiny.reviews(8), method=ft.LoRA(rank=2), epochs=1, quiet=True)
    assert run.peak_memory > ballast.nbytes > run.added_memory
