"""A user who asks for mean pooling gets the mean, and the same answers after saving and loading."""

import pytest
import tiny
import torch
import transformers

import ftkit as ft
from ftkit.models import pooling
from ftkit.models.model import Model
from ftkit.models.specs import SPECS


def pooled(tmp_path, make=tiny.encoder):
    folder = make().save(tmp_path / "plain")
    return ft.load_model(folder, pooling="mean")


def ids_and_mask():
    ids = torch.randint(5, 40, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    return ids, mask


def test_the_head_reads_the_mean_over_real_tokens(tmp_path):
    model = pooled(tmp_path)
    ids, mask = ids_and_mask()
    plain = tiny.encoder()
    with torch.no_grad():
        logits = model.net(input_ids=ids, attention_mask=mask).logits
        hidden = plain.net.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = torch.stack([hidden[0].mean(0), hidden[1, :4].mean(0)])
        torch.testing.assert_close(logits, plain.net.classifier(mean))
        alone = model.net(input_ids=ids[1:, :4]).logits  # without a mask all tokens are real
    torch.testing.assert_close(alone[0], logits[1])


def test_padding_changes_nothing_for_a_decoder(tmp_path):
    base = tiny.decoder()
    folder = base.save(tmp_path / "base")
    model = ft.load_model(folder, "classification", labels=["a", "b"], pooling="mean")
    ids, mask = ids_and_mask()
    ids[mask == 0] = model.net.config.pad_token_id
    with torch.no_grad():
        both = model.net(input_ids=ids, attention_mask=mask).logits
        hidden = base.net.model(input_ids=ids[:1]).last_hidden_state
        alone = model.net(input_ids=ids[1:, :4], attention_mask=mask[1:, :4]).logits
    torch.testing.assert_close(both[0], model.net.score(hidden.mean(1))[0])
    torch.testing.assert_close(both[1], alone[0])


@pytest.mark.parametrize("kind", ["Roberta", "DistilBert", "Electra"])
def test_heads_that_look_at_the_first_token_find_the_mean_there(kind):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50, hidden_size=32, dim=32, embedding_size=32, hidden_dim=64,
        intermediate_size=64, num_hidden_layers=2, n_layers=2, num_attention_heads=2, n_heads=2)
    pooling.set_pooling(config, "mean", SPECS["classification"])
    torch.manual_seed(0)
    net = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    net = pooling.with_pooling(net).eval()
    ids = torch.randint(5, 40, (1, 6), generator=torch.Generator().manual_seed(0))
    found = net.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert torch.equal(found[:, 0], found[:, 5])  # the mean, wherever a head looks
    moved = torch.autograd.grad(net(input_ids=ids).logits[0, 0], net.get_input_embeddings().weight)
    assert moved[0][ids[0, -1]].abs().sum() > 0


def test_a_saved_model_answers_as_before_and_has_no_pooler(tmp_path):
    model = pooled(tmp_path)
    assert not any("pooler" in name for name, _ in model.net.named_parameters())
    again = ft.load_model(model.save(tmp_path / "pooled"))
    assert again.hash() == model.hash()
    ids, mask = ids_and_mask()
    with torch.no_grad():
        one, two, copy = (m.net(input_ids=ids, attention_mask=mask).logits
                          for m in (model, again, model.copy()))
    assert torch.equal(one, two) and torch.equal(one, copy)
    body = ft.load_model(tmp_path / "pooled", "encoder")  # its body alone is a plain encoder
    found = body.net(input_ids=ids, attention_mask=mask).last_hidden_state
    assert not torch.allclose(found[:, 0], found[:, 1])


@pytest.mark.parametrize("make, method", [
    (tiny.encoder, ft.LoRA(rank=2)), (tiny.encoder, ft.Adapter(bottleneck_size=2)),
    (tiny.encoder, ft.PromptTuning(tokens=3)), (tiny.encoder, ft.PrefixTuning(tokens=3)),
    (tiny.decoder, ft.LoRA(rank=2)), (tiny.decoder, ft.PrefixTuning(tokens=3))])
def test_an_adapter_comes_back_on_a_base_that_is_read_by_its_mean(tmp_path, method, make):
    folder = make().save(tmp_path / "plain")
    base = ft.load_model(folder, "classification", labels=["bad", "good"], pooling="mean")
    tuned = ft.fit(base, tiny.reviews(8), method=method, epochs=1, quiet=True).model
    again = ft.load_model(tuned.save(tmp_path / "adapter"))
    ids, mask = ids_and_mask()
    with torch.no_grad():
        found, loaded = (m.net(input_ids=ids, attention_mask=mask).logits for m in (tuned, again))
        alone = tuned.net(input_ids=ids[1:, :4], attention_mask=mask[1:, :4]).logits
    torch.testing.assert_close(found, loaded)
    torch.testing.assert_close(found[1], alone[0])  # a learned prompt is no padding, nor a token


@pytest.mark.usefixtures("float32")
def test_training_with_frozen_blocks_equals_training_without_the_cache(tmp_path):
    base, reviews = pooled(tmp_path), tiny.reviews(8)
    losses = [ft.fit(base, reviews, method=ft.Freeze(unfreeze_last=1), epochs=2, quiet=True,
                     learning_rate=1e-2, disable=off).history["loss"].dropna().to_numpy()
              for off in ((), ("feature_cache",))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert len(losses[0]) and losses[0][-1] != losses[0][0]


def test_fewer_blocks_of_a_pooled_model_are_read_by_their_mean(tmp_path):
    small = ft.drop_layers(pooled(tmp_path), (0, 2))
    assert pooling.pooling_of(small.net) == "mean"
    ids, mask = ids_and_mask()
    again = ft.load_model(small.save(tmp_path / "small"))
    with torch.no_grad():
        torch.testing.assert_close(*(m.net(input_ids=ids, attention_mask=mask).logits
                                     for m in (small, again)))


@pytest.mark.parametrize("given, said", [
    (dict(pooling="max"), "'max' does not exist; choose 'mean'"),
    (dict(pooling="mean", task="encoder"), "for a head that gives a whole text one answer"),
])
def test_a_pooling_that_cannot_be_is_explained(tmp_path, given, said):
    folder = tiny.encoder().save(tmp_path / "plain")
    with pytest.raises(ft.SettingError, match=said):
        ft.load_model(folder, **given)
    assert isinstance(ft.load_model(folder), Model)
