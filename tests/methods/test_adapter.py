"""Without these, an adapter could change its base, be lost in a copy or answer another task."""

import copy

import pytest
import tiny
import torch
import transformers
from datasets import Dataset
from lessons import from_lesson

import ftkit as ft
from ftkit.errors import DataError, FetchError, SettingError
from ftkit.models.bottleneck import Bottleneck
from ftkit.speed import feature_cache

PLACEMENTS = ("houlsby", "pfeiffer")
MODELS = {
    "encoder": tiny.encoder,
    "decoder": tiny.decoder,
    "gpt2": lambda: tiny.decoder("gpt2"),
    "seq2seq": tiny.seq2seq,
    "masked-lm": lambda: tiny.encoder("masked-lm"),
    "choice": lambda: tiny.encoder("choice"),
}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
both = pytest.mark.parametrize("placement", PLACEMENTS)


def texts(n=8):
    return Dataset.from_dict({"text": ["the film was good", "a dull plot and a cat"] * (n // 2)})


def data_for(model):
    if model.task == "seq2seq-lm":
        return Dataset.from_dict({"source": ["the cat", "a dog"] * 4, "target": ["dog", "cat"] * 4})
    if model.task == "choice":
        return Dataset.from_dict(
            {"question": ["cat"] * 8, "choices": [["good", "bad"]] * 8, "answer": [0] * 8}
        )
    if model.labels:  # what a head over a frozen random network can learn at once
        return tiny.reviews(16)["train"].map(lambda row: {"label": 1})
    return texts()


def measure(model):
    return ft.evaluate(model, data_for(model))["loss"].value


def loud(model):
    """Give the trained weights of a model large random values, so that they matter."""
    for weight in model.net.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.5)
    return model


def saved_base(folder, make=tiny.encoder, **options):
    """A tiny model that was saved and loaded, as an adapter's base must be."""
    return ft.load_model(make().save(folder / "base"), **options)


@each_model
@both
def test_it_begins_as_the_base_and_trains_nothing_of_it(make, placement):
    base = make()
    model = ft.Adapter(bottleneck_size=4, placement=placement, init_std=1e-4).apply(base.copy())
    assert measure(model) == pytest.approx(measure(base), abs=1e-4)
    before = base.hash("base")
    run = ft.fit(
        base,
        data_for(base),
        epochs=6,
        learning_rate=1e-2,
        method=ft.Adapter(bottleneck_size=4, placement=placement, init_std=0.1),
        batch_size=4,
        quiet=True,
    )
    assert run.model.hash("base") == before == base.hash("base")
    assert measure(run.model) < measure(base)
    assert 0 < run.trainable["trained"] < 0.25 * run.trainable["total"]
    assert run.model.hash() != model.hash()


def test_houlsby_has_one_for_each_sub_layer_and_pfeiffer_one_for_each_block():
    def count(make, placement):
        net = ft.Adapter(placement=placement).apply(make()).net
        return sum(isinstance(module, Bottleneck) for module in net.modules())

    assert [count(tiny.encoder, p) for p in PLACEMENTS] == [6, 3]
    assert [count(tiny.decoder, p) for p in PLACEMENTS] == [6, 3]
    # two blocks on each side; a decoder block of T5 has a cross-attention as well
    assert [count(tiny.seq2seq, p) for p in PLACEMENTS] == [2 * 2 + 2 * 3, 4]


@both
def test_the_lessons_own_code_computes_the_same(placement):
    base = tiny.encoder()
    torch.manual_seed(3)
    mine = base.copy()
    from_lesson("08", "Bottleneck", "insert")[1](mine.net, 4, placement, init_std=0.3)
    torch.manual_seed(3)
    kit = ft.Adapter(bottleneck_size=4, placement=placement, init_std=0.3).apply(base.copy())
    assert mine.hash() == kit.hash()
    trained = [{n for n, p in m.net.named_parameters() if p.requires_grad} for m in (mine, kit)]
    assert trained[0] == trained[1] and "classifier.weight" in trained[0]
    ids = torch.randint(5, 40, (3, 7))
    torch.testing.assert_close(mine.net(ids).logits, kit.net(ids).logits, rtol=0, atol=0)
    assert (kit.net(ids).logits - base.net(ids).logits).abs().max() > 1e-4
    (mine.net(ids).logits.sum() + kit.net(ids).logits.sum()).backward()
    for one, two in zip(mine.net.parameters(), kit.net.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None)


@each_model
@both
def test_it_is_stored_alone_and_comes_back_on_its_base(make, placement, tmp_path):
    base = saved_base(tmp_path, make)
    tuned = loud(ft.Adapter(bottleneck_size=2, placement=placement).apply(base.copy()))
    folder = tuned.save(tmp_path / "adapter")
    assert {f.name for f in folder.iterdir()} == {"adapter.safetensors", "ftkit.json"}
    again = ft.load_model(folder)
    assert again.hash() == tuned.hash()
    assert (again.task, again.labels, again.name) == (tuned.task, tuned.labels, tuned.name)
    assert measure(again) == pytest.approx(measure(tuned), rel=1e-5)
    stored, whole = (sum(f.stat().st_size for f in path.glob("*.safetensors"))
                     for path in (folder, tmp_path / "base"))
    assert stored < 0.35 * whole
    second = again.save(tmp_path / "second")
    assert ft.load_model(second).hash() == tuned.hash()


def test_adapters_are_swapped_on_one_base(tmp_path):
    folder = tiny.encoder("encoder").save(tmp_path / "base")  # without any head
    base = ft.load_model(folder, "classification", labels=["bad", "good"])
    three = ["bad", "good", "so so"]
    models = {
        "films": base,
        "plots": ft.load_model(folder, "classification", labels=three, seed=5),
        "score": ft.load_model(folder, "regression", seed=6),
    }
    tuned = {}
    for name, placement in zip(models, ("houlsby", "pfeiffer", "houlsby"), strict=True):
        method = ft.Adapter(bottleneck_size=3, placement=placement, name=name)
        tuned[name] = loud(method.apply(models[name].copy()))
        tuned[name].save(tmp_path / name)
    served = ft.load_model(tmp_path / "films")
    weights = {n: p.data_ptr() for n, p in served.net.bert.named_parameters()
               if "bottleneck" not in n}
    assert (
        ft.load_adapter(ft.load_adapter(served, tmp_path / "plots"), tmp_path / "score") is served
    )
    ids = torch.randint(5, 40, (3, 7))
    for name in ("plots", "score", "films", "score", "plots", "films"):
        ft.set_adapter(served, name)
        torch.testing.assert_close(served.net(ids).logits, tuned[name].net(ids).logits)
        assert (served.task, served.labels) == (tuned[name].task, tuned[name].labels)
        data = tiny.reviews(8)["test"]
        for metric, found in ft.evaluate(tuned[name], data).metrics.items():
            again = ft.evaluate(served, data)[metric].value
            # The f1 of a class that no row is of is NaN.
            assert again == pytest.approx(found.value, nan_ok=True)
    assert served.hash("base") == base.hash("base")
    assert weights == {n: p.data_ptr() for n, p in served.net.bert.named_parameters()
                       if "bottleneck" not in n}, "a base weight moved"
    ft.set_adapter(served, "base")
    assert served.hash() == base.hash(), "without an adapter the base is as it was loaded"


def test_an_adapter_can_be_attached_under_another_name(tmp_path):
    base = saved_base(tmp_path)
    loud(ft.Adapter(bottleneck_size=2).apply(base.copy())).save(tmp_path / "one")
    ft.load_adapter(base, tmp_path / "one", name="first")
    loud(ft.Adapter(bottleneck_size=4).apply(base.copy())).save(tmp_path / "two")
    ft.load_adapter(base, tmp_path / "two", name="second")
    hashes = {name: ft.set_adapter(base, name).hash() for name in ("first", "second", "base")}
    assert len(set(hashes.values())) == 3
    assert ft.set_adapter(base, "first").hash() == hashes["first"]
    with pytest.raises(SettingError, match="'first' already"):
        ft.load_adapter(base, tmp_path / "one", name="first")


def test_a_copy_has_adapters_of_its_own(tmp_path):
    base = saved_base(tmp_path)
    ft.Adapter(bottleneck_size=2, name="one").apply(base)
    ft.Adapter(bottleneck_size=2, name="two").apply(base)
    other = base.copy()
    with torch.no_grad():
        for weight in other.net.adapter_registry.parts["one"].values():
            for parameter in weight.parameters():
                parameter.add_(1.0)
    before = ft.set_adapter(base, "one").hash()
    assert ft.set_adapter(other, "one").hash() != before
    ids = torch.randint(5, 40, (3, 7))
    assert not torch.equal(base.net(ids).logits, other.net(ids).logits)
    twice = copy.deepcopy(other.net)
    torch.testing.assert_close(twice(ids).logits, other.net(ids).logits)


def test_training_goes_on_with_a_loaded_adapter(tmp_path):
    base = saved_base(tmp_path)
    data = data_for(base)
    method = ft.Adapter(bottleneck_size=4, name="films", init_std=0.1)
    settings = dict(method=method, epochs=4, learning_rate=1e-2, batch_size=4, quiet=True)
    first = ft.fit(base, data, **settings)
    loaded = ft.load_model(first.model.save(tmp_path / "films"))
    assert not any(p.requires_grad for p in loaded.net.parameters())
    second = ft.fit(loaded, data, **settings)
    assert second.trainable["trained"] == first.trainable["trained"]
    assert measure(second.model) < measure(first.model) < measure(base)
    with pytest.raises(SettingError, match="already.*size=4.*name="):
        ft.Adapter(bottleneck_size=8, name="films").apply(loaded)


def test_training_one_leaves_the_others_alone(tmp_path):
    model = ft.Adapter(bottleneck_size=2, name="one").apply(tiny.encoder())
    kept = {k: p.detach().clone() for k, p in _parameters(model, "one").items()}
    run = ft.fit(
        model,
        tiny.reviews(16),
        method=ft.Adapter(bottleneck_size=2, name="two"),
        epochs=1,
        learning_rate=1e-2,
        quiet=True,
    )
    torch.testing.assert_close(_parameters(run.model, "one"), kept, rtol=0, atol=0)
    assert ft.set_adapter(run.model, "one").hash() == model.hash()


def _parameters(model, name):
    return {
        f"{path}.{k}": p.detach()
        for path, module in model.net.adapter_registry.parts[name].items()
        for k, p in module.named_parameters()
    }


@pytest.mark.usefixtures("float32")
def test_it_resumes_and_stops_early(tmp_path):
    data = tiny.reviews(16)
    settings = dict(method=ft.Adapter(bottleneck_size=4), epochs=4, batch_size=8, quiet=True)
    whole = ft.fit(tiny.encoder(), data, **settings)

    class Stop(transformers.TrainerCallback):
        def on_epoch_end(self, args, state, control, **_):
            control.should_training_stop = state.epoch >= 2

    folder = tmp_path / "c"
    ft.fit(tiny.encoder(), data, checkpoint_dir=folder, callbacks=[Stop()], **settings)
    resumed = ft.fit(tiny.encoder(), data, checkpoint_dir=folder, resume=True, **settings)
    torch.testing.assert_close(resumed.model.net.state_dict(), whole.model.net.state_dict())
    data["validation"] = data["validation"].map(lambda row: {"label": 1 - row["label"]})
    stopped = ft.fit(tiny.encoder(), data, patience=1,
                     **settings | {"epochs": 9, "learning_rate": 1e-2})
    held = stopped.history["eval_loss"].dropna()
    assert len(held) < 9
    assert ft.evaluate(stopped.model, data["validation"])["loss"].value == pytest.approx(held.min())


@both
def test_text_is_generated_through_the_adapter(placement, tmp_path):
    for make, prompt in ((tiny.decoder, "the film"), (tiny.seq2seq, "the cat was")):
        base = make()
        model = loud(ft.Adapter(bottleneck_size=4, placement=placement).apply(base.copy()))
        written = ft.generate(model, prompt, max_new_tokens=6)
        assert measure(model) != pytest.approx(measure(base), rel=1e-3)
        assert written != ft.generate(base, prompt, max_new_tokens=6) or base.task == "seq2seq-lm"
        assert ft.generate(ft.set_adapter(model, "base"), prompt, max_new_tokens=6) == ft.generate(
            base, prompt, max_new_tokens=6
        )


@both
def test_the_backbone_cache_does_not_step_over_adapters(placement, tmp_path):
    feature_cache.clear()
    base = saved_base(tmp_path, tiny.decoder)
    folder = loud(ft.Adapter(bottleneck_size=4, placement=placement).apply(base.copy())).save(
        tmp_path / "a"
    )
    model = ft.load_model(folder)  # nothing of it is trainable
    choice = feature_cache.frozen_depth(model.net)
    assert choice.value == 0 and "adapters" in choice.why
    plain = ft.evaluate(model, texts(), disable="feature_cache")["loss"].value
    assert ft.evaluate(model, texts())["loss"].value == pytest.approx(plain)
    ft.set_adapter(model, "base")
    model.net.requires_grad_(False)
    assert feature_cache.frozen_depth(model.net).value == 3
    cached = [ft.evaluate(model, texts())["loss"].value for _ in range(2)]
    assert cached == pytest.approx([measure(base)] * 2, rel=1e-5)
    ft.set_adapter(model, "adapter")
    assert ft.evaluate(model, texts())["loss"].value == pytest.approx(plain)
    feature_cache.clear()


def test_an_adapter_refuses_another_base(tmp_path):
    base = saved_base(tmp_path)
    folder = ft.Adapter(bottleneck_size=2).apply(base.copy()).save(tmp_path / "adapter")
    other = ft.load_model(tmp_path / "base", pretrained=False, seed=9)
    with pytest.raises(DataError, match="weights of.*are others"):
        ft.load_adapter(other, folder)
    assert not hasattr(other.net, "adapter_registry"), "a refused adapter left something behind"
    tagger = ft.load_model(tmp_path / "base", "tagging", labels=["O", "B"])
    with pytest.raises(SettingError, match="'classification'.*'tagging'"):
        ft.load_adapter(tagger, folder)
    with pytest.raises(FetchError, match="no bottleneck adapter"):
        ft.load_adapter(base, tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(FetchError, match="ft.load_adapter"):
        ft.load_model(folder)
    ft.load_adapter(ft.load_model(tmp_path / "moved"), folder)


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path):
    with pytest.raises(SettingError, match="no folder or name"):
        ft.Adapter().apply(tiny.encoder()).save(tmp_path / "a")
    base = saved_base(tmp_path)
    tuned = ft.fit(base, tiny.reviews(8), epochs=1, quiet=True).model
    with pytest.raises(SettingError, match="no folder or name"):
        ft.Adapter().apply(tuned).save(tmp_path / "a")
    model = ft.Adapter().apply(base.copy())
    changed = ft.fit(model, tiny.reviews(8), method=ft.Full(), epochs=1, quiet=True).model
    with pytest.raises(SettingError, match="base.*was changed"):
        changed.save(tmp_path / "a")
    with pytest.raises(SettingError, match="set one with ft.set_adapter: adapter"):
        ft.set_adapter(model, "base").save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_bad_settings_are_explained():
    for method, message in (
        (ft.Adapter(bottleneck_size=0), "size=0.*8 to 64"),
        (ft.Adapter(bottleneck_size=2.5), "size=2.5"),
        (ft.Adapter(placement="parallel"), "'parallel'.*houlsby, pfeiffer"),
        (ft.Adapter(name="base"), "name='base'"),
    ):
        with pytest.raises(SettingError, match=message):
            method.apply(tiny.encoder())
    with pytest.raises(SettingError, match="peft"):
        ft.Adapter().apply(ft.LoRA(rank=2).apply(tiny.encoder()))
    with pytest.raises(SettingError, match="'nothing'.*load_adapter"):
        ft.set_adapter(tiny.encoder(), "nothing")
    with pytest.raises(SettingError, match="'two'; it has base, one"):
        ft.set_adapter(ft.Adapter(name="one").apply(tiny.encoder()), "two")
    with pytest.raises(SettingError, match="hash\\(part='head'\\)"):
        tiny.encoder().hash("head")


def test_an_unknown_network_is_told_of_the_placement_that_needs_no_names():
    words = tiny.tokenizer()
    config = transformers.MptConfig(d_model=32, n_heads=2, n_layers=2, vocab_size=len(words))
    model = ft.Model(transformers.MptForCausalLM(config).eval(), words, "causal-lm", "tiny-mpt")
    with pytest.raises(SettingError, match="mpt.*pfeiffer"):
        ft.Adapter().apply(model)
    ft.Adapter(placement="pfeiffer").apply(model)


def test_half_precision_bases_keep_their_dtype():
    model = tiny.encoder()
    model.net.to(torch.bfloat16)
    model = ft.Adapter(bottleneck_size=2).apply(model)
    ids = torch.randint(5, 40, (2, 5))
    assert model.net(ids).logits.dtype == torch.bfloat16
    kinds = {p.dtype for n, p in model.net.named_parameters() if "bottleneck" in n}
    assert kinds == {torch.float32}


def test_a_damaged_adapter_is_not_attached(tmp_path):
    base, folder = tiny.encoder().save(tmp_path / "base"), tmp_path / "adapter"
    ft.Adapter(bottleneck_size=4).apply(ft.load_model(base)).save(folder)
    [weights] = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-9])
    for load in (ft.load_model, lambda folder: ft.load_adapter(ft.load_model(base), folder)):
        with pytest.raises(FetchError, match=f"{weights.name} has .* was saved with .*damaged"):
            load(folder)
