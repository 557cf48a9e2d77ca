"""A user who freezes the lower blocks gets the same result as without the cache, only sooner."""

import copy

import datasets
import numpy as np
import pytest
import tokenizers
import torch
import transformers

import ftkit as ft
from ftkit.models import structure
from ftkit.speed import feature_cache

WORDS = [f"w{i}" for i in range(60)]
KINDS = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "smollm3": (transformers.SmolLM3Config, transformers.SmolLM3ForCausalLM),
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
    "gemma": (transformers.GemmaConfig, transformers.GemmaForCausalLM),
}


@pytest.fixture(autouse=True)
def _nothing_kept():
    feature_cache.clear()
    yield
    feature_cache.clear()


def tiny(kind="llama", seed=0, **settings):
    """A decoder of four small blocks with random weights, as ft.load_model would give it."""
    special = ["<pad>", "<end>"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS)}
    split = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<pad>"))
    split.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=split, pad_token="<pad>", eos_token="<end>"
    )
    config, network = KINDS[kind]
    shape = {
        "vocab_size": len(vocabulary), "hidden_size": 24, "intermediate_size": 32,
        "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 12, "max_position_embeddings": 64, "tie_word_embeddings": True,
        "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
    }
    if kind == "gpt2":
        shape = {"vocab_size": len(vocabulary), "n_embd": 24, "n_layer": 4, "n_head": 2,
                 "eos_token_id": 1, "bos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(seed)
    net = network(config(**shape, **settings)).eval()
    return ft.Model(net, tokenizer, "causal-lm", f"tiny-{kind}")


def texts(n=40, seed=0):
    """Texts of 2 to 12 words."""
    random = np.random.default_rng(seed)
    rows = [" ".join(random.choice(WORDS, random.integers(2, 13))) for _ in range(n)]
    return datasets.Dataset.from_dict({"text": rows})


def frozen(model, top=2):
    return ft.Freeze(unfreeze_last=top).apply(model)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "smollm3"])
def test_evaluating_with_the_cache_gives_the_same_losses(kind):
    model, held = frozen(tiny(kind)), texts()
    plain = ft.evaluate(model, held, disable="feature_cache").per_example("loss")
    assert feature_cache.cached_bytes() == 0
    first = ft.evaluate(model, held, batch_size=7).per_example("loss")
    kept = feature_cache.cached_bytes()
    again = ft.evaluate(model, held, batch_size=5).per_example("loss")
    np.testing.assert_allclose(first, plain, rtol=1e-4)
    np.testing.assert_allclose(again, plain, rtol=1e-4)
    assert feature_cache.cached_bytes() == kept > 0


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("top", [1, 3])
def test_training_with_the_cache_gives_the_same_weights(top):
    data = datasets.DatasetDict(train=texts(), validation=texts(seed=1))
    options = {
        "method": ft.Freeze(unfreeze_last=top),
        "epochs": 2,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "quiet": True,
    }
    runs = [ft.fit(tiny(), data, disable=off, **options) for off in ((), "feature_cache")]
    with_cache, disable = (run.model.net.state_dict() for run in runs)
    for name, tensor in disable.items():
        torch.testing.assert_close(with_cache[name], tensor, rtol=1e-3, atol=1e-4)
    moved = (disable["model.layers.3.mlp.up_proj.weight"]
             - tiny().net.state_dict()["model.layers.3.mlp.up_proj.weight"])
    assert moved.abs().max() > 0.01


@pytest.mark.usefixtures("float32")
def test_frozen_blocks_run_once_for_each_text():
    model, held, calls = frozen(tiny()), texts(), []
    model.net.model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    ft.evaluate(model, held)
    seen = len(calls)
    ft.evaluate(model, held)
    run = ft.fit(model, held, method=ft.Freeze(unfreeze_last=2), epochs=2, quiet=True)
    ft.evaluate(run.model, held)
    assert len(calls) == seen > 0


@pytest.mark.usefixtures("float32")
def test_a_decoder_with_a_head_for_classes_uses_it_too():
    words, base = tiny().tokenizer, tiny().net
    config = copy.deepcopy(base.config)
    config.id2label = {0: "no", 1: "yes"}
    torch.manual_seed(0)
    net = transformers.LlamaForSequenceClassification(config).eval()
    model = frozen(ft.Model(net, words, "classification", "tiny", ["no", "yes"]))
    held, calls = texts().add_column("label", [i % 2 for i in range(len(texts()))]), []
    plain = ft.evaluate(model, held, disable="feature_cache").probabilities
    model.net.model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    first = ft.evaluate(model, held).probabilities
    seen = len(calls)
    ft.fit(model, held, method=ft.Freeze(unfreeze_last=2), epochs=2, quiet=True)
    again = ft.evaluate(model, held, batch_size=5).probabilities
    assert len(calls) == seen > 0
    np.testing.assert_allclose(first, plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-6)


def test_the_network_is_left_as_it_was():
    model, held = frozen(tiny()), texts()
    ids = torch.arange(2, 12)[None]
    before = model.net(ids).logits
    ft.evaluate(model, held)
    assert model.net(ids).past_key_values is not None
    torch.testing.assert_close(model.net(ids).logits, before)
    assert not any("forward" in vars(module) for module in model.net.modules())


def test_changed_weights_below_do_not_meet_old_activations():
    model, held = frozen(tiny()), texts()
    ft.evaluate(model, held)
    with torch.no_grad():
        model.net.model.layers[1].mlp.up_proj.weight.add_(1.0)
    fresh = ft.evaluate(model, held).per_example("loss")
    plain = ft.evaluate(model, held, disable="feature_cache").per_example("loss")
    np.testing.assert_allclose(fresh, plain, rtol=1e-4)


def tiny_encoder(dropout=0.1, seed=0):
    """A BERT-type classifier of four small blocks, with dropout."""
    words = tiny().tokenizer
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=24, intermediate_size=32, num_hidden_layers=4,
        num_attention_heads=2, max_position_embeddings=64, pad_token_id=0,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, classifier_dropout=0.0,
        id2label={0: "no", 1: "yes"},
    )
    torch.manual_seed(seed)
    net = transformers.BertForSequenceClassification(config).eval()
    return ft.Model(net, words, "classification", "tiny-bert", ["no", "yes"])


def pairs(n=30, seed=0):
    """Pairs of short texts with a label."""
    first, second = texts(n, seed)["text"], texts(n, seed + 100)["text"]
    return datasets.Dataset.from_dict(
        {"text": first[:], "text_pair": second[:], "label": [i % 2 for i in range(n)]}
    )


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("top", [0, 1, 3])
def test_an_encoder_gives_the_same_with_the_cache(top):
    data = datasets.DatasetDict(train=pairs(), validation=pairs(seed=1))
    method = ft.Freeze(unfreeze_last=top)
    options = {"method": method, "epochs": 3, "learning_rate": 1e-2, "batch_size": 8, "quiet": True}
    # Dropout stays on in the trained blocks; without it the two runs draw the same numbers.
    model = tiny_encoder(dropout=0.0 if top else 0.1)
    runs = [ft.fit(model, data, disable=off, **options) for off in ((), "feature_cache")]
    assert feature_cache.cached_bytes() > 0
    with_cache, disable = (run.model.net.state_dict() for run in runs)
    for name, tensor in disable.items():
        torch.testing.assert_close(with_cache[name], tensor, rtol=1e-3, atol=1e-4)
    found = [ft.evaluate(runs[0].model, pairs(seed=2), disable=off).probabilities
             for off in ((), "feature_cache")]
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_the_second_text_of_a_pair_is_told_from_the_first():
    model = frozen(tiny_encoder(dropout=0.0), top=1)
    ids = torch.tensor([[2, 3, 4, 5]])
    types = [torch.zeros(1, 4, dtype=torch.long), torch.tensor([[0, 0, 1, 1]])]
    want = [model.net(ids, token_type_ids=t).logits for t in types]
    with feature_cache.frozen_features(model.net):
        for wanted, kind in zip(want, types, strict=True):
            torch.testing.assert_close(model.net(ids, token_type_ids=kind).logits, wanted)
    assert not torch.equal(*want) and feature_cache.cached_bytes()


def test_frozen_blocks_run_without_dropout_until_they_are_trained_again():
    run = ft.fit(tiny_encoder(), pairs(), method=ft.Freeze(unfreeze_last=1), epochs=1, quiet=True)
    bert = run.model.net.bert
    assert bert.embeddings.dropout.p == 0 and bert.encoder.layer[2].output.dropout.p == 0
    assert bert.encoder.layer[3].output.dropout.p == 0.1
    again = ft.fit(run.model, pairs(), epochs=1, quiet=True)
    assert again.model.net.bert.embeddings.dropout.p == 0.1
    assert feature_cache.frozen_depth(run.model.net, training=True).value == 3


def test_it_is_off_when_anything_below_is_trained():
    assert feature_cache.frozen_depth(tiny().net).value == 0
    model = frozen(tiny())
    assert feature_cache.frozen_depth(model.net).value == 2
    model.net.model.embed_tokens.weight.requires_grad_(True)
    assert feature_cache.frozen_depth(model.net).value == 0
    model = frozen(tiny())
    model.net.model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
    assert feature_cache.frozen_depth(model.net).value == 0
    assert feature_cache.frozen_depth(ft.LoRA(rank=2).apply(tiny()).net).value == 0


def test_it_is_off_in_training_when_the_backbone_has_dropout():
    model = frozen(tiny(attention_dropout=0.1))
    assert feature_cache.frozen_depth(model.net, training=True).value == 2
    structure.with_dropout(model.net)
    choice = feature_cache.frozen_depth(model.net, training=True)
    assert choice.value == 0 and "attention_dropout" in choice.why
    assert feature_cache.frozen_depth(model.net).value == 2


@pytest.mark.parametrize("kind", ["gpt2", "gemma"])
def test_it_is_off_where_the_first_block_gets_more_than_the_embedding(kind):
    model, held = frozen(tiny(kind)), texts()
    assert feature_cache.frozen_depth(model.net).value == 0
    ft.evaluate(model, held)
    assert feature_cache.cached_bytes() == 0


def test_lora_above_a_frozen_backbone_can_use_it():
    pytest.importorskip("peft")
    targets = tuple(f"layers.3.mlp.{name}" for name in ("up_proj", "down_proj"))
    model, held = ft.LoRA(rank=2, target_modules=targets).apply(tiny()), texts()
    assert feature_cache.frozen_depth(model.net).value == 3
    plain = ft.evaluate(model, held, disable="feature_cache").per_example("loss")
    np.testing.assert_allclose(ft.evaluate(model, held).per_example("loss"), plain, rtol=1e-4)


def test_calls_that_are_no_plain_reading_run_all_blocks():
    net = frozen(tiny()).net
    ids = torch.tensor([[2, 3, 4, 5], [6, 7, 8, 9]])
    left = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    want = net(ids, attention_mask=left, use_cache=False).logits
    written = net.generate(ids, max_new_tokens=4, do_sample=False)
    with feature_cache.frozen_features(net) as choice:
        assert choice.value == 2
        got = net(ids, attention_mask=left, use_cache=False).logits
        torch.testing.assert_close(net.generate(ids, max_new_tokens=4, do_sample=False), written)
        assert net(ids).past_key_values is not None
    torch.testing.assert_close(got, want)
    assert feature_cache.cached_bytes() == 0


def test_memory_has_a_limit_and_older_backbones_give_way(monkeypatch):
    held = texts()
    monkeypatch.setattr(feature_cache, "LIMIT", 4000)
    model = frozen(tiny())
    small = ft.evaluate(model, held).per_example("loss")
    assert 0 < feature_cache.cached_bytes() <= 4000
    plain = ft.evaluate(model, held, disable="feature_cache").per_example("loss")
    np.testing.assert_allclose(small, plain, rtol=1e-4)
    monkeypatch.setattr(feature_cache, "LIMIT", feature_cache.cached_bytes())
    other = frozen(tiny(seed=1))
    ft.evaluate(other, held)
    assert 0 < feature_cache.cached_bytes() <= feature_cache.LIMIT


def test_fit_says_what_was_chosen(capsys):
    ft.fit(tiny(), texts(8), method=ft.Freeze(unfreeze_last=1), epochs=1)
    assert "backbone cache: 3 of 4 blocks are frozen" in capsys.readouterr().out
    ft.fit(tiny(), texts(8), method=ft.Full(), epochs=1)
    assert "backbone cache" not in capsys.readouterr().out
