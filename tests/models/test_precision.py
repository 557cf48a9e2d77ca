"""Without these, results could depend on the machine's units, or a training leave its traces."""

import copy
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import transformers
from datasets import Dataset

import ftkit as ft
from ftkit.assets.versions import versions
from ftkit.course import claims
from ftkit.errors import SettingError
from ftkit.models import hardware, precision, structure
from ftkit.models.precision import Block
from ftkit.tasks.batching import encode

FAST = hardware.Machine("cpu", "a CPU", 16 << 30, 2, fast_bf16=True)
PLAIN = hardware.Machine("cpu", "a CPU", 16 << 30, 2)
A100 = hardware.Machine("cuda", "A100", 80 << 30, 16, (8, 0))
T4 = hardware.Machine("cuda", "Tesla T4", 16 << 30, 4, (7, 5))
SIZES = dict(tokens=100_000_000, batch=16, length=40)  # of a long training
EPS = torch.finfo(torch.float32).eps

REVIEWS = {"text": ["the film was good", "a dull plot"] * 4, "label": [1, 0] * 4}
TASKS = {
    "classification": (tiny.encoder, REVIEWS),
    "regression": (lambda: tiny.encoder("regression"), {**REVIEWS, "label": [1.0, 0.0] * 4}),
    "tagging": (lambda: tiny.encoder("tagging", ("O", "B-X")),
                {"tokens": [["cat", "was"]] * 8, "tags": [["B-X", "O"]] * 8}),
    "choice": (lambda: tiny.encoder("choice"),
               {"question": ["dog", "cat"] * 4, "choices": [["good", "bad"]] * 8,
                "answer": [0, 1] * 4}),
    "masked-lm": (lambda: tiny.encoder("masked-lm"), {"text": ["the film was so good"] * 8}),
    "causal-lm": (tiny.decoder, {"prompt": ["the film was"] * 8, "response": [" good"] * 8}),
    "gemma2": (lambda: tiny.decoder("gemma2"), {"text": ["the film was not good"] * 8}),
    "seq2seq-lm": (tiny.seq2seq, {"source": ["the cat"] * 8, "target": ["the dog"] * 8}),
}


def methods(task, base, data):
    """Each method that serves a task, by name."""
    made = {"full": ft.Full(), "freeze": ft.Freeze(unfreeze_last=1), "lora": ft.LoRA(rank=2),
            "adapter": ft.Adapter(bottleneck_size=4)}
    if task in ("classification", "regression"):
        made |= {"mixup": ft.Mixup(), "prefix": ft.PrefixTuning(tokens=3)}
    if task in ("causal-lm", "gemma2"):
        made["prefix"] = ft.PrefixTuning(tokens=3)
    if task in ("classification", "regression", "causal-lm", "gemma2", "seq2seq-lm"):
        made["prompt"] = ft.PromptTuning(tokens=3)
    if task in ("classification", "tagging", "causal-lm", "gemma2", "seq2seq-lm"):
        made["distill"] = ft.Distill(base.copy())
    if task == "classification":
        made |= {"reinforce": ft.Reinforce(torch.eq),
                 "multi_task": ft.MultiTask({"films": ["bad", "good"]})}
        made["ewc"] = ft.EWC([ft.fisher(base, data, n=4)])
    return made


CASES = [(task, name) for task, (make, columns) in TASKS.items()
         for name in methods(task, make(), Dataset.from_dict(columns))]


def outputs(model):
    """The network's own numbers for a few texts, as its forward gives them."""
    ids = model.tokenizer(["the film was good", "dull plot and a cat"], return_tensors="pt",
                          padding=True)
    given = {k: ids[k] for k in ("input_ids", "attention_mask")}
    if model.task == "seq2seq-lm":
        given["labels"] = ids["input_ids"]
    with torch.no_grad():
        out = model.net(**given)
    return out.logits if "logits" in out else out[0]


def wrappers(net):
    """What stands on modules themselves in place of what their class defines."""
    return {(name, key) for name, module in net.named_modules()
            for key, value in vars(module).items() if callable(value)}


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    precision._kept.cache_clear()
    yield tmp_path / "home"
    precision._kept.cache_clear()


@pytest.fixture
def unforced(monkeypatch):
    monkeypatch.delenv("FTKIT_DTYPE", raising=False)


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
@pytest.mark.parametrize(("task", "name"), CASES)
def test_a_trained_model_is_plain_and_the_same_when_copied_merged_and_loaded(
    task, name, dtype, tmp_path
):
    make, columns = TASKS[task]
    data = Dataset.from_dict(columns)
    folder = make().save(tmp_path / "base")
    made = make()
    base = ft.load_model(folder, made.task, labels=made.labels)
    method = methods(task, base, data)[name]
    run = ft.fit(base, {"train": data, "validation": data}, method=method, epochs=1,
                 learning_rate=1e-3, batch_size=4, dtype=dtype, quiet=True)
    assert run.plan.dtype == dtype
    fresh = method.apply(base.copy())
    assert wrappers(run.model.net) == wrappers(fresh.net)
    assert run.model.net.config.use_cache == base.net.config.use_cache
    found = outputs(run.model)
    assert found.dtype == torch.float32
    largest = found.abs().max().item()

    def same(model):
        # Equal weights and equal code: what is left is the order of sums, some dozens of roundings.
        torch.testing.assert_close(outputs(model), found, rtol=0, atol=max(1, largest) * 50 * EPS)

    same(run.model.copy())
    same(copy.deepcopy(run.model))
    same(ft.load_model(run.model.save(tmp_path / "tuned")))
    if name == "lora":
        # W + BA is rounded once for each of its products: a few roundings more in every layer.
        torch.testing.assert_close(outputs(ft.merge(run.model)), found, rtol=0,
                                   atol=max(1, largest) * 1e-5)
    if name in ("full", "freeze"):
        again = ft.fit(run.model, data, epochs=1, batch_size=4, dtype=dtype, quiet=True)
        assert again.history["loss"].notna().all()


def test_training_in_bf16_computes_in_bf16(monkeypatch):
    """Or every test above would hold without it."""
    seen, original = [], torch.nn.Linear.forward

    def forward(self, x):
        out = original(self, x)
        if torch.is_grad_enabled():
            seen.append(out.dtype)
        return out

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    for dtype, kind in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        seen.clear()
        ft.fit(tiny.encoder(), tiny.reviews(8)["train"], epochs=1, dtype=dtype, quiet=True)
        assert set(seen) == {kind}


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_is_in_the_weights_own_numbers_unless_asked(task):
    make, columns = TASKS[task]
    model, data = make(), Dataset.from_dict(columns)
    found = ft.evaluate(model, data)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a caller's own changes nothing
        trainable = ft.evaluate(model, data)
    half = ft.evaluate(model, data, dtype="bf16")
    name = "loss" if task != "regression" and task != "tagging" else None
    if name:
        assert trainable[name].value == found[name].value
        assert half[name].value != found[name].value
        assert half[name].value == pytest.approx(found[name].value, rel=0.05)
    assert (found.computed.dtype, half.computed.dtype) == ("float32", "bf16")
    assert found.computed.threads == torch.get_num_threads()
    assert hardware.this_machine().name in found.computed.device or torch.cuda.is_available()
    assert str(found.computed) in repr(found) and "float32 on" in found._repr_html_()


def test_predictions_are_in_the_weights_own_numbers_unless_asked():
    model, text = tiny.encoder(), "the film was good"
    found = ft.predict(model, text)["probability"]
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a caller's own changes nothing
        assert ft.predict(model, text)["probability"] == found
    half = ft.predict(model, text, dtype="bf16")["probability"]
    assert half != found and half == pytest.approx(found, rel=0.05)


def test_evaluation_scores_and_the_library_agree_in_float32():
    model = tiny.decoder("gemma2")
    texts = ["the film was good", "a dull plot and a cat"]
    evaluation = ft.evaluate(model, Dataset.from_dict({"text": texts}), loss_on="all")
    sums, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([encode(Dataset.from_dict({"text": [text]}), model)[0]
                            ["input_ids"]])
        with torch.no_grad():
            logs = model.net(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        sums -= logs.gather(1, ids[0, 1:, None]).sum().item()
        tokens += ids.shape[1] - 1
    # A mean of losses that each are a difference of two logits and a logarithm in float32.
    assert evaluation["loss"].value == pytest.approx(sums / tokens, rel=50 * EPS)


def test_scores_and_texts_take_a_dtype_too():
    model, prompts = tiny.decoder(), ["the film was", "a cat and"]
    plain = ft.log_likelihood(model, prompts, [" good", " bad"])
    half = ft.log_likelihood(model, prompts, [" good", " bad"], dtype="bf16")
    assert not np.array_equal(plain, half)
    np.testing.assert_allclose(plain, half, rtol=0.05)
    np.testing.assert_array_equal(plain, ft.log_likelihood(model, prompts, [" good", " bad"],
                                                  dtype="float32"))
    assert len(ft.generate(model, prompts, max_new_tokens=3, dtype="bf16")) == 2
    for call in (lambda: ft.log_likelihood(model, prompts, [" a"], dtype="half"),
                 lambda: ft.generate(model, prompts, dtype="half"),
                 lambda: ft.evaluate(model, Dataset.from_dict({"text": prompts}), dtype="half")):
        with pytest.raises(SettingError, match="dtype='half'.*float32, bf16, fp16"):
            call()


def test_weights_of_16_bits_are_said_and_not_trained():
    model, data = tiny.encoder(), Dataset.from_dict(REVIEWS)
    model.net.to(torch.bfloat16)
    assert ft.evaluate(model, data).computed.dtype == "bf16"
    with pytest.raises(SettingError, match="weights of tiny-bert are bf16.*Load it"):
        ft.evaluate(model, data, dtype="float32")
    with pytest.raises(SettingError, match="stored in bfloat16.*lost in rounding.*float32"):
        ft.fit(model, data, quiet=True)


def test_a_bf16_base_under_lora_is_trained_in_bf16(tmp_path):
    base = ft.load_model(tiny.decoder().save(tmp_path / "base"), dtype="bf16")
    data = Dataset.from_dict({"text": REVIEWS["text"]})
    run = ft.fit(base, data, method=ft.LoRA(rank=2), epochs=1, quiet=True)
    assert run.plan.dtype == "bf16"
    assert ft.evaluate(run.model, data).computed.dtype == "bf16"
    with pytest.raises(SettingError, match="float32.*the weights are bf16"):
        ft.fit(base, data, method=ft.LoRA(rank=2), dtype="float32", quiet=True)


def for_training(monkeypatch, machine, **changes):
    monkeypatch.setattr(precision, "this_machine", lambda: machine)
    return precision.for_training(tiny.encoder().net, **{**SIZES, **changes})


@pytest.mark.parametrize(
    ("machine", "given", "outside", "dtype"),
    [
        (A100, {}, None, "bf16"),
        (T4, {}, None, "fp16"),
        (PLAIN, {}, None, "float32"),
        (A100, {"dtype": "float32"}, None, "float32"),
        (A100, {}, "float32", "float32"),
        (A100, {"dtype": "fp16"}, "float32", "fp16"),
        (T4, {"flags": {"bf16": True}}, "float32", "bf16"),
        (A100, {"flags": {"fp16": True}}, None, "fp16"),
        (A100, {"flags": {"bf16": False}}, None, "float32"),
        (A100, {"flags": {"fp16": False}}, None, "bf16"),
        (PLAIN, {"dtype": "bf16"}, None, "bf16"),
        (PLAIN, {}, "bf16", "bf16"),
        (PLAIN, {"dtype": "bf16", "flags": {"bf16": True}}, None, "bf16"),
    ],
)
def test_what_is_asked_for_comes_before_what_is_fast(
    machine, given, outside, dtype, monkeypatch, unforced
):
    if outside:
        monkeypatch.setenv("FTKIT_DTYPE", outside)
    choice = for_training(monkeypatch, machine, **given)
    assert choice.value == dtype
    assert dtype in choice.why


@pytest.mark.parametrize(
    ("given", "outside", "message"),
    [
        ({"dtype": "bf61"}, None, "dtype='bf61'.*float32, bf16, fp16"),
        ({}, "half", "FTKIT_DTYPE='half'.*float32, bf16, fp16"),
        ({"dtype": "float32", "flags": {"bf16": True}}, None, "dtype='float32', bf16=True contra"),
        ({"dtype": "bf16", "flags": {"bf16": False}}, None, "dtype='bf16', bf16=False contra"),
        ({"flags": {"bf16": True, "fp16": True}}, None, "bf16=True, fp16=True contradict"),
        ({"dtype": "fp16"}, None, "dtype='fp16' asks for fp16.*CUDA"),
        ({}, "fp16", "FTKIT_DTYPE asks for fp16.*CUDA"),
    ],
)
def test_wrong_wishes_are_named(given, outside, message, monkeypatch, unforced):
    if outside:
        monkeypatch.setenv("FTKIT_DTYPE", outside)
    with pytest.raises(SettingError, match=message):
        for_training(monkeypatch, PLAIN, **given)


def test_flags_of_the_library_pass_through_fit(unforced):
    data = tiny.reviews(8)["train"]
    run = ft.fit(tiny.encoder(), data, epochs=1, bf16=True, quiet=True)
    assert (run.settings["bf16"], run.settings["fp16"], run.plan.dtype) == (True, False, "bf16")
    with pytest.raises(SettingError, match="contradict"):
        ft.fit(tiny.encoder(), data, epochs=1, bf16=True, dtype="float32", quiet=True)


@pytest.mark.parametrize(("times", "dtype"), [(1.8, "bf16"), (1.02, "float32"), (0.4, "float32")])
def test_a_processor_with_units_takes_what_was_measured(times, dtype, monkeypatch, unforced):
    asked = []
    monkeypatch.setattr(precision, "speedup", lambda block: asked.append(block) or times)
    choice = for_training(monkeypatch, FAST)
    assert choice.value == dtype and f"{times:.1f} times" in choice.why
    assert "measured" in choice.why
    assert asked[0].length == 32 and asked[0].trained == "weights"
    assert for_training(monkeypatch, PLAIN).value == "float32" and len(asked) == 1
    short = for_training(monkeypatch, FAST, tokens=1000)
    assert short.value == "float32" and "too short" in short.why and len(asked) == 1


def test_what_is_measured_depends_on_what_is_trained(monkeypatch, unforced):
    asked = []
    monkeypatch.setattr(precision, "speedup", lambda block: asked.append(block.trained) or 2.0)
    monkeypatch.setattr(precision, "this_machine", lambda: FAST)
    for method in (ft.Full(), ft.Freeze(unfreeze_last=1), ft.LoRA(rank=2)):
        precision.for_training(method.apply(tiny.decoder()).net, **SIZES)
    assert asked == ["weights", "weights", "inputs"]
    # With the head alone, no block is passed again: there is nothing to be gained.
    head = ft.Freeze(unfreeze_last=0).apply(tiny.encoder())
    assert precision.for_training(head.net, **SIZES).value == "float32" and len(asked) == 3


BLOCK = Block(32, 64, 2, True, 4, 16, "weights")


def test_a_measurement_is_made_once_and_kept(own_cache, monkeypatch):
    steps = []
    passes = precision._passes

    def counted(block):
        step = passes(block)
        return lambda dtype: steps.append(dtype) or step(dtype)

    monkeypatch.setattr(precision, "_passes", counted)
    state = torch.get_rng_state()
    first = precision.speedup(BLOCK)
    assert torch.equal(torch.get_rng_state(), state), "a training's draws must not depend on it"
    made = len(steps)
    assert steps.count("float32") == steps.count("bf16") >= 2
    (path,) = (own_cache / "precision").glob("*.json")
    kept = json.loads(path.read_text())
    assert kept["times"] == first and kept["threads"] == torch.get_num_threads()
    precision._kept.cache_clear()  # as in another process
    assert precision.speedup(BLOCK) == first and len(steps) == made
    path.write_text('{"times": 7.5}')
    assert precision.speedup(BLOCK) == first, "a process keeps to what it chose"
    precision._kept.cache_clear()
    assert precision.speedup(BLOCK) == 7.5, "what is written holds"
    for broken in ('{"times": ', '{"times": null}', "[]", ""):
        path.write_text(broken)
        precision._kept.cache_clear()
        assert precision.speedup(BLOCK) > 0
        assert json.loads(path.read_text())["length"] == 16, "what is broken is measured again"


@pytest.mark.parametrize("change", [{"length": 64}, {"batch": 2}, {"trained": "inputs"},
                                    {"hidden": 64}, {"gated": False}])
def test_each_size_is_measured_on_its_own(change, own_cache, monkeypatch):
    monkeypatch.setattr(precision, "_passes", lambda block: lambda dtype: None)
    numbers = iter((3.0, 1.0, 8.0, 1.0))
    monkeypatch.setattr(precision, "min", lambda times: next(numbers), raising=False)
    assert precision.speedup(BLOCK) == 3.0
    assert precision.speedup(replace(BLOCK, **change)) == 8.0
    assert len(list((own_cache / "precision").glob("*.json"))) == 2


def test_threads_machines_and_versions_are_measured_on_their_own(own_cache, monkeypatch):
    precision.speedup(BLOCK)
    monkeypatch.setattr(precision, "this_machine", lambda: PLAIN)
    precision.speedup(BLOCK)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    precision.speedup(BLOCK)
    monkeypatch.setitem(versions(), "torch", "0.1")
    precision.speedup(BLOCK)
    assert len(list((own_cache / "precision").glob("*.json"))) == 4


def test_processes_that_begin_together_choose_alike(own_cache, monkeypatch):
    """Or two ranks of one training would compute in different numbers."""
    numbers = iter((1.5, 2.5))

    def slow(block):
        time.sleep(0.3)
        return next(numbers)

    monkeypatch.setattr(precision, "_measured", slow)
    path = own_cache / "precision" / "x.json"
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: precision._kept.__wrapped__(path, BLOCK, ()), range(2)))
    assert found == [1.5, 1.5]


def test_a_cache_that_cannot_be_written_stops_nothing(own_cache):
    own_cache.write_text("a file where the folder should be")
    found = precision.speedup(BLOCK)
    assert found > 0 and precision.speedup(BLOCK) == found


@pytest.mark.parametrize("trained", ["weights", "inputs", "nothing"])
@pytest.mark.parametrize("length", [16, 512])
def test_every_kind_of_pass_runs_in_both_formats(trained, length):
    step = precision._passes(Block(32, 64, 2, True, 1, length, trained))
    step("float32")
    step("bf16")


def test_claims_and_records_say_in_what_they_were_computed():
    data = tiny.reviews(8)
    run = ft.fit(tiny.encoder(), data, epochs=1, dtype="bf16", quiet=True)
    record = json.loads((run.folder / "run.json").read_text())
    assert record["dtype"] == "bf16"
    assert record["hardware"]["threads"] == torch.get_num_threads()
    after, before = (ft.evaluate(m, data["test"]) for m in (run.model, tiny.encoder()))
    made = ft.claim("tuned is better", after, before, metric="accuracy")
    (said,) = made._repr_mimebundle_()[claims.CLAIM_MIME]["computed"]
    assert said["dtype"] == "float32" and said["threads"] == torch.get_num_threads()
    assert said["device"] and str(after.computed) in made._repr_mimebundle_()["text/plain"]
    half = ft.evaluate(run.model, data["test"], dtype="bf16")
    made = ft.claim("and in bf16", half, before, metric="accuracy")
    assert [c["dtype"] for c in made.computed] == ["bf16", "float32"]
    claims._claims.clear()


def test_a_loss_that_is_no_number_is_not_shown_as_zero():
    data = tiny.reviews(16)["train"]
    with pytest.raises(ft.Diverged, match="loss became (nan|inf).*learning rate 1e.25"):
        ft.fit(tiny.encoder(), data, epochs=4, learning_rate=1e25, batch_size=4,
               max_grad_norm=1e30, quiet=True)


def test_the_attention_of_a_training_is_not_left_behind(monkeypatch):
    """An evaluation after long texts would differ from that of the same weights, loaded."""
    before, meanwhile = "sdpa", "eager"
    monkeypatch.setattr(hardware, "SHORT", 256)
    seen, model = [], tiny.encoder()
    model.net.set_attn_implementation(before)

    class Look(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            seen.append(model.config._attn_implementation)

    run = ft.fit(model, tiny.reviews(8)["train"], epochs=1, callbacks=[Look()], quiet=True)
    assert set(seen) == {meanwhile}
    assert run.model.net.config._attn_implementation == before


def test_restoring_gives_back_a_forward_that_was_there_before():
    net = tiny.encoder().net
    net.forward = mine = lambda *args, **kwargs: None
    restore = precision.as_it_was(net)
    net._original_forward, net.forward = net.forward, lambda *args, **kwargs: 1
    restore()
    assert net.forward is mine and "_original_forward" not in vars(net)
    assert structure.inner(net) is net
