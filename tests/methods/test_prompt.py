"""Without these, a learned prompt could be trained, scored, padded or stored as something else."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft
from ftkit.errors import SettingError
from ftkit.models import learned_prompt, structure
from ftkit.models.learned_prompt import learned_tokens
from ftkit.speed import feature_cache
from ftkit.speed.logits_to_keep import LogitsToKeep

TEXT = "the film was"
PROMPTS = [" so good and the plot", " not", " very great and so very dull"]
ANSWERS = [" good", " not so bad", " zebra"]
METHODS = [ft.PromptTuning, ft.PrefixTuning]
DECODERS = ["llama", "gpt2", "gemma2"]


def far(method, model):
    """The method applied, its numbers moved away from those of any word."""
    torch.manual_seed(5)
    model = method.apply(model)
    with torch.no_grad():
        for p in model.net.parameters():
            if p.requires_grad:
                p += torch.randn_like(p)
    return model


def sentences(n=12):
    rows = [("the film was", " good"), ("a cat and", " dog"), ("so very", " dull plot")]
    columns = {"prompt": [rows[i % 3][0] for i in range(n)],
               "response": [rows[i % 3][1] for i in range(n)]}
    return Dataset.from_dict(columns)


def base_hash(model):
    return ft.Model(model.net.get_base_model(), model.tokenizer, model.task, model.name).hash()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", DECODERS)
def test_a_prompt_that_starts_from_a_text_is_that_text(kind, method):
    base = tiny.decoder(kind)
    learned = method(text=TEXT).apply(base.copy())
    wanted = ft.log_likelihood(base, PROMPTS, ANSWERS, prefix=TEXT)
    np.testing.assert_allclose(ft.log_likelihood(learned, PROMPTS, ANSWERS), wanted, atol=1e-4)
    said = ft.generate(base, PROMPTS, prefix=TEXT, max_new_tokens=6)
    assert ft.generate(learned, PROMPTS, max_new_tokens=6) == said
    assert base_hash(learned) == base.hash()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("shared", ["", "the cat was not so bad and the music was warm. "])
def test_scores_and_texts_in_a_batch_are_those_of_one_by_one(kind, method, shared):
    model = far(method(tokens=5), tiny.decoder(kind))

    def logits(ids):
        return model.net(input_ids=torch.tensor([ids])).logits[0, -len(ids) :]

    def by_hand(prompt, candidate):
        start, rest = (model.tokenizer(t)["input_ids"] for t in (prompt, candidate))
        logs = logits(start + rest).log_softmax(-1)
        return sum(logs[len(start) - 1 + i, t].item() for i, t in enumerate(rest))

    def greedy(prompt, limit=7):
        ids = model.tokenizer(prompt)["input_ids"]
        start = len(ids)
        while len(ids) < start + limit and ids[-1] != model.tokenizer.eos_token_id:
            ids.append(logits(ids)[-1].argmax().item())
        return model.tokenizer.decode(ids[start:], skip_special_tokens=True)

    prompts = [shared + p for p in PROMPTS]
    with torch.no_grad():
        wanted = [[by_hand(p, c) for c in ANSWERS] for p in prompts]
        texts = [greedy(p) for p in prompts]
    np.testing.assert_allclose(
        ft.log_likelihood(model, prompts, ANSWERS), wanted, rtol=1e-4, atol=1e-4
    )
    assert ft.generate(model, prompts, max_new_tokens=7) == texts


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", DECODERS)
def test_the_prompt_run_once_for_a_batch_gives_the_librarys_loss_and_gradient(kind, method):
    model = far(method(tokens=4), tiny.decoder(kind))
    torch.manual_seed(1)
    ids = torch.randint(5, 100, (3, 14))
    labels = torch.where(torch.rand(ids.shape) < 0.5, ids, structure.IGNORED)
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    labels[0, 9:] = labels[:, 0] = structure.IGNORED
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    net = model.net.train()
    found = []
    vectors = method is ft.PromptTuning  # peft puts them before the text, and their logits with it
    for once, ahead in ((None, None), (False, 4 if vectors else 0), (vectors, 0)):
        net.zero_grad()
        given = batch if once is None else LogitsToKeep(dict, net, ahead=ahead)(batch)
        with learned_prompt.prompt_once(net, once):
            loss = net(**given).loss
        loss.backward()
        found.append((loss.detach(), [p.grad for p in net.parameters() if p.requires_grad][0]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-6)
    assert "forward" not in vars(net)


@pytest.mark.parametrize("method", METHODS)
def test_evaluate_measures_what_the_training_minimised(method):
    model = far(method(tokens=4), tiny.decoder())
    data = sentences(6)
    found = ft.evaluate(model, data)["loss"].value
    total = ft.log_likelihood(model, data["prompt"][:], [[r + "</s>"] for r in data["response"]])
    tokens = sum(len(model.tokenizer(r).input_ids) + 1 for r in data["response"])
    assert found == pytest.approx(-total.sum() / tokens, rel=1e-4)
    run = ft.fit(tiny.decoder(), {"train": data, "validation": data}, epochs=1, quiet=True,
                 method=method(tokens=4))
    after = ft.evaluate(run.model, data)["loss"].value
    assert run.metrics["eval_loss"] == pytest.approx(after, rel=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(("method", "name"), [
    (ft.PromptTuning, "prompted_loss"), (ft.PrefixTuning, "prefixed_loss")])
def test_the_lessons_own_definition_computes_what_the_package_does(kind, method, name):
    in_lesson = from_lesson("10", name)
    model = far(method(tokens=4), tiny.decoder(kind))
    ids = torch.randint(5, 100, (3, 9), generator=torch.Generator().manual_seed(2))
    labels = torch.where(ids > 40, ids, structure.IGNORED)
    weight = next(p for p in model.net.parameters() if p.requires_grad)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    with learned_prompt.prompt_once(model.net, method is ft.PromptTuning):
        loss = model.net(**LogitsToKeep(dict, model.net)(batch)).loss
    loss.backward()
    own = weight.detach().clone().requires_grad_()
    config = model.net.active_peft_config
    learned = own
    if method is ft.PrefixTuning:
        heads = config.num_attention_heads
        shape = (4, config.num_layers, 2, heads, config.token_dim // heads)
        learned = list(own.view(shape).permute(1, 2, 3, 0, 4))
    by_hand = in_lesson(model.net.get_base_model(), learned, ids, labels)
    by_hand.backward()
    torch.testing.assert_close(by_hand, loss)
    torch.testing.assert_close(own.grad, weight.grad, rtol=1e-4, atol=1e-6)


def every_kind():
    words, reviews = sentences(), tiny.reviews(24)["train"]
    scores = reviews.map(lambda row: {"label": float(row["label"])})
    pairs = Dataset.from_dict({"source": ["the cat", "a dog", "film"] * 8,
                               "target": ["the dog", "a cat", "plot"] * 8})
    for method in METHODS:
        yield method, tiny.decoder, words
        yield method, lambda: tiny.decoder("gpt2"), words
        yield method, lambda: tiny.decoder("gemma2"), words
        yield method, tiny.encoder, reviews
        yield method, lambda: tiny.encoder("regression"), scores
    yield ft.PromptTuning, tiny.seq2seq, pairs


def saved_base(model, folder):
    """The same model from a folder, as load_model gives it: an adapter has to find its base."""
    return ft.load_model(model.save(folder))


@pytest.mark.usefixtures("each_precision")
@pytest.mark.parametrize(("method", "make", "data"), list(every_kind()))
def test_it_learns_on_every_kind_of_model_and_is_loaded_again(method, make, data, tmp_path):
    base = saved_base(make(), tmp_path / "base")
    before = base.hash()
    run = ft.fit(base, {"train": data, "validation": data}, method=method(tokens=3), epochs=6,
                 learning_rate=0.1, batch_size=4, quiet=True)
    found = run.history["eval_loss"].dropna()
    assert found.iloc[-1] < found.iloc[0]
    assert base.hash() == before
    trained = {n for n, p in run.model.net.named_parameters() if p.requires_grad}
    assert all("prompt_encoder" in n or "modules_to_save" in n for n in trained)
    folder = run.model.save(tmp_path / "learned")
    assert (folder / "adapter_model.safetensors").stat().st_size < 100_000
    again = ft.load_model(folder)
    assert learned_tokens(again.net) == 3
    for name, value in ft.evaluate(run.model, data).metrics.items():
        assert ft.evaluate(again, data)[name].value == pytest.approx(value.value, rel=1e-4), name
    if base.task in ("causal-lm", "seq2seq-lm"):
        prompts = (data["prompt"] if "prompt" in data.column_names else data["source"])[:3]
        said = ft.generate(run.model, prompts, max_new_tokens=4)
        assert ft.generate(again, prompts, max_new_tokens=4) == said
        assert said == [ft.generate(again, p, max_new_tokens=4) for p in prompts]


@pytest.mark.parametrize("method", METHODS)
def test_padding_does_not_change_what_an_encoder_says(method):
    model = far(method(tokens=3), tiny.encoder())
    texts = ["the film was good and the plot not so bad", "dull"]
    data = Dataset.from_dict({"text": texts, "label": [0, 1]})
    together = ft.evaluate(model, data).probabilities
    alone = [ft.evaluate(model, data.select([i])).probabilities[0] for i in range(2)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.usefixtures("each_precision")
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_resumes_to_the_same_end(method, tmp_path):
    base = saved_base(tiny.decoder(), tmp_path / "base")
    settings = dict(method=method(tokens=3), epochs=4, batch_size=4, quiet=True)
    whole = ft.fit(base, sentences(), **settings)

    class Stop(transformers.TrainerCallback):
        def on_epoch_end(self, args, state, control, **_):
            control.should_training_stop = state.epoch >= 2

    ft.fit(base, sentences(), checkpoint_dir=tmp_path / "c", callbacks=[Stop()], **settings)
    resumed = ft.fit(base, sentences(), checkpoint_dir=tmp_path / "c", resume=True, **settings)
    for one, two in zip(resumed.model.net.parameters(), whole.model.net.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("method", METHODS)
def test_early_stopping_goes_back_to_the_best_prompt(method):
    data = {"train": sentences(), "validation": sentences().map(lambda r: {"response": " bad"})}
    run = ft.fit(tiny.decoder(), data, method=method(tokens=3), epochs=20, learning_rate=0.1,
                 batch_size=4, patience=2, quiet=True)
    found = run.history["eval_loss"].dropna()
    assert len(found) < 20
    kept = ft.evaluate(run.model, data["validation"])["loss"].value
    assert kept == pytest.approx(found.min(), rel=1e-3)


def test_a_decoder_with_a_head_takes_a_prefix():
    words = tiny.tokenizer()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**tiny.SIZES, num_key_value_heads=1, pad_token_id=0,
                                      vocab_size=len(words), num_labels=2)
    net = transformers.LlamaForSequenceClassification(config).eval()
    model = ft.Model(net, words, "classification", "tiny-llama", ["bad", "good"])
    data = tiny.reviews(24)["train"]
    run = ft.fit(model, {"train": data, "validation": data}, method=ft.PrefixTuning(tokens=3),
                 epochs=4, learning_rate=0.05, batch_size=4, quiet=True)
    found = run.history["eval_loss"].dropna()
    assert found.iloc[-1] < found.iloc[0]
    with pytest.raises(SettingError, match="use PrefixTuning"):
        ft.PromptTuning().apply(model)


def test_the_same_seed_draws_the_same_start():
    def start(seed):
        model = tiny.decoder()
        torch.manual_seed(seed)
        return ft.PromptTuning(tokens=6).apply(model).hash()

    assert start(1) == start(1) != start(2)


def test_texts_leave_room_for_the_prompt():
    model = ft.PromptTuning(tokens=30).apply(tiny.encoder())  # 128 positions
    data = Dataset.from_dict({"text": ["good " * 300], "label": [1]})
    assert np.isfinite(ft.evaluate(model, data)["loss"].value)


def test_no_backbone_cache_under_a_learned_prompt():
    model = ft.PromptTuning(tokens=3).apply(tiny.decoder())
    assert feature_cache.frozen_depth(model.net).value == 0
    assert "learned prompt" in feature_cache.frozen_depth(model.net).why


@pytest.mark.usefixtures("float32")
def test_activation_checkpointing_drops_no_prompt():
    settings = dict(epochs=1, batch_size=4, quiet=True, seed=1)
    method = ft.PromptTuning(tokens=3)
    plain = ft.fit(tiny.decoder(), sentences(), method=method, **settings)
    spared = ft.fit(tiny.decoder(), sentences(), method=method, activation_checkpointing=True,
                    **settings)
    for one, two in zip(plain.model.net.parameters(), spared.model.net.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    with pytest.raises(SettingError, match="activation_checkpointing=False"):
        ft.fit(tiny.decoder(), sentences(), method=ft.PrefixTuning(tokens=3),
               activation_checkpointing=True, **settings)


def test_nearest_words_of_a_prompt_from_words_are_these_words():
    model = ft.PromptTuning(text=" good cat").apply(tiny.decoder())
    rows = ft.nearest_words(model, n=2)
    assert [row[0][0] for row in rows] == [" good", " cat"]
    assert rows[0][0][1] == pytest.approx(1, abs=1e-5) and rows[0][1][1] < 1
    with pytest.raises(SettingError, match="PromptTuning"):
        ft.nearest_words(ft.PrefixTuning(tokens=2).apply(tiny.decoder()))
    with pytest.raises(SettingError, match="PromptTuning"):
        ft.nearest_words(tiny.decoder())


@pytest.mark.parametrize(("tokens", "wanted"), [
    (None, [" good", " cat"]), (1, [" good"]), (3, [" good", " cat", " good"])])
def test_a_text_is_repeated_or_cut_to_the_number_of_tokens(tokens, wanted):
    model = ft.PromptTuning(tokens=tokens, text=" good cat").apply(tiny.decoder())
    assert [row[0][0] for row in ft.nearest_words(model, n=1)] == wanted


@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_place_is_explained(method):
    with pytest.raises(SettingError, match="choose 1 or more"):
        method(tokens=0).apply(tiny.decoder())
    with pytest.raises(SettingError, match="no tokens"):
        method(text="").apply(tiny.decoder())
    with pytest.raises(SettingError, match="loaded for 'choice'"):
        method().apply(tiny.encoder("choice"))
    with pytest.raises(SettingError, match="loaded for 'tagging'"):
        method().apply(tiny.encoder("tagging"))
    with pytest.raises(SettingError, match="adapter already"):
        method().apply(method().apply(tiny.decoder()))
    with pytest.raises(SettingError, match="use PromptTuning"):
        ft.PrefixTuning().apply(tiny.seq2seq())


def test_an_encoder_decoder_for_labels_is_told_to_write_them():
    model = tiny.seq2seq()
    model.task = "classification"
    with pytest.raises(SettingError, match="let it write the label"):
        ft.PromptTuning().apply(model)


def test_the_stored_prompt_is_the_prompt_alone():
    model = ft.PromptTuning(tokens=3).apply(tiny.decoder())
    with tempfile.TemporaryDirectory() as folder:
        saved = model.save(Path(folder) / "prompt")
        assert (saved / "adapter_model.safetensors").stat().st_size < 3 * 32 * 4 + 500
