"""Without these, kept tensors could be wrong, half-written, or fill a reader's disk."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import xxhash
from datasets import ClassLabel, Dataset

import ftkit as ft
from ftkit.assets import atomic, disk_cache
from ftkit.errors import SettingError
from ftkit.speed import feature_cache
from ftkit.tasks import batching
from ftkit.tasks.classification import Classification


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    feature_cache.clear()
    yield
    feature_cache.clear()


def files():
    return sorted(path for path in disk_cache.root().rglob("*") if path.is_file())


def test_a_later_store_gives_back_what_was_written():
    store = disk_cache.Store("test", "abc")
    rows = {f"{i:02x}": torch.randn(i + 1, 4) for i in range(5)}
    for key, tensor in rows.items():
        store.put(key, tensor)
    assert torch.equal(store.get("03"), rows["03"]) and store.get("zz") is None
    assert not files() and len(store) == 5
    store.write()
    assert len(files()) == 1 and files()[0].suffix == ".safetensors"
    for again in (store, disk_cache.Store("test", "abc")):
        assert len(again) == 5
        for key, tensor in rows.items():
            assert torch.equal(again.get(key), tensor)
    assert len(disk_cache.Store("test", "other")) == 0


def test_a_store_writes_by_itself_before_it_holds_too_much(monkeypatch):
    monkeypatch.setattr(disk_cache, "PART", 100)
    store = disk_cache.Store("test", "abc")
    for i in range(6):
        store.put(str(i), torch.zeros(10))
    assert len(files()) == 2 and not store.new and len(disk_cache.Store("test", "abc")) == 6


def test_what_was_not_used_for_longest_goes_first(monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE_GB", "0.00001")  # 10 kB
    for number, name in enumerate(("old", "used", "new")):
        store = disk_cache.Store("test", name)
        store.put("key", torch.zeros(1000))
        if name == "new":
            break
        store.write()
        os.utime(files()[-1], (number, number))
        if name == "used":
            disk_cache.Store("test", "old")  # reading counts as use
            os.utime(next((disk_cache.root() / "test").glob("used-*/*")), (9, 9))
    store.write()
    assert {path.parent.name.partition("-")[0] for path in files()} == {"old", "new"}


@pytest.mark.parametrize("hold", [True, False])
def test_no_file_is_kept_where_that_is_wished_or_cannot_be(hold, monkeypatch, tmp_path):
    """What was computed stays in memory, or is forgotten, as the store was told."""

    def kept_by(store):
        store.put("key", torch.zeros(3))
        store.write()
        return store.get("key") is not None

    monkeypatch.setenv("FTKIT_CACHE_GB", "0")
    assert kept_by(disk_cache.Store("test", "abc", hold=hold)) == hold and not files()
    monkeypatch.setenv("FTKIT_CACHE_GB", "0.000000004")  # 4 bytes
    assert kept_by(disk_cache.Store("test", "abc", hold=hold)) == hold and not files()
    for wrong in ("plenty", "inf"):
        monkeypatch.setenv("FTKIT_CACHE_GB", wrong)
        with pytest.raises(SettingError, match=f"'{wrong}' is no number"):
            disk_cache.Store("test", "abc")
    monkeypatch.delenv("FTKIT_CACHE_GB")
    (tmp_path / "home").write_text("a file where the folder should be")
    store = disk_cache.Store("test", "abc", hold=hold)
    with pytest.warns(UserWarning, match="cannot be written"):
        assert kept_by(store) == hold
    assert kept_by(store) == hold


def spoilt(how, content):
    """The content of a file, cut, or with one bit turned over in its head or in a tensor."""
    if how == "cut":
        return content[:50]
    changed = bytearray(content)
    changed[{"length": 0, "head": 12, "name": content.index(b"key"), "shape":
             content.rindex(b"300"), "checksum": content.index(b'checksums') + 20,
             "tensor": len(content) - 50}[how]] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("how", ["cut", "length", "head", "name", "shape", "checksum", "tensor"])
def test_a_damaged_file_is_named_and_as_good_as_none(how):
    store = disk_cache.Store("test", "abc")
    store.put("key", torch.ones(300))
    store.put("other", torch.tensor([], dtype=torch.bfloat16))
    store.write()
    [path] = files()
    assert disk_cache.Store("test", "abc").get("other").shape == (0,)
    path.write_bytes(spoilt(how, path.read_bytes()))
    with pytest.warns(UserWarning, match=f"{path.name} was damaged .* computed again"):
        again = disk_cache.Store("test", "abc")
        assert again.get("key") is None
    assert len(again) == 0 and not files()
    again.put("key", torch.ones(300))
    again.write()
    assert torch.equal(disk_cache.Store("test", "abc").get("key"), torch.ones(300))


def test_each_tensor_is_compared_once_with_its_checksum(monkeypatch):
    store = disk_cache.Store("test", "abc")
    store.put("key", torch.ones(300))
    store.write()
    compared, compute = [], disk_cache._checksum
    monkeypatch.setattr(
        disk_cache, "_checksum", lambda tensor: compared.append(1) or compute(tensor)
    )
    later = disk_cache.Store("test", "abc")
    assert later.get("key") is not None and later.get("key") is not None and len(compared) == 1


def test_other_code_and_other_packages_have_other_files(monkeypatch):
    """What a mended fault has computed wrongly must not live on in files."""
    store = disk_cache.Store("test", "abc")
    store.put("key", torch.ones(3))
    store.write()
    assert disk_cache.Store("test", "abc").get("key") is not None
    versions = disk_cache.versions()
    for name, value in [("_CODE", "edited"), ("versions", lambda: versions | {"torch": "9.9"}),
                        ("versions", lambda: versions | {"tokenizers": "9.9"})]:
        with monkeypatch.context() as patch:
            patch.setattr(disk_cache, name, value)
            disk_cache.environment.cache_clear()
            assert disk_cache.Store("test", "abc").get("key") is None, name
        disk_cache.environment.cache_clear()
    package = Path(disk_cache.__file__).parents[1]
    sources = [path.read_bytes() for path in sorted(package.rglob("*.py"))]
    assert len(sources) > 50
    assert disk_cache._CODE == xxhash.xxh3_128_hexdigest(b"".join(sources))


def texts(n=30):
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(tiny.WORDS, rng.integers(2, 12))) for _ in range(n)]
    return Dataset.from_dict({"text": rows})


def frozen():
    return ft.Freeze(unfreeze_last=1).apply(tiny.decoder())


@pytest.mark.usefixtures("float32")
def test_frozen_blocks_do_not_run_again_in_a_later_process(monkeypatch, capsys):
    monkeypatch.setattr(feature_cache, "LONG", 0.0)
    model, held = frozen(), texts()
    plain = ft.evaluate(model, held, disable="feature_cache").per_example("loss")
    first = ft.evaluate(model, held).per_example("loss")
    assert files()
    feature_cache.clear()  # as a new process begins

    def never(*args, **kwargs):
        raise AssertionError("the frozen block ran again")

    monkeypatch.setattr(feature_cache._Reader, "_run_frozen", never)
    again = ft.evaluate(model, held).per_example("loss")
    np.testing.assert_allclose(again, plain, rtol=1e-4)
    np.testing.assert_array_equal(again, first)
    ft.fit(model, held, method=ft.Freeze(unfreeze_last=1), epochs=2)
    assert "files of earlier runs hold 30" in capsys.readouterr().out


def test_what_the_same_process_kept_is_not_called_earlier(monkeypatch, capsys):
    monkeypatch.setattr(feature_cache, "LONG", 0.0)
    for _ in range(2):
        ft.fit(tiny.decoder(), texts(), method=ft.Freeze(unfreeze_last=1), epochs=1)
    assert files() and "earlier runs" not in capsys.readouterr().out


def test_a_store_that_others_own_is_read(monkeypatch):
    store = disk_cache.Store("test", "abc")
    store.put("key", torch.ones(3))
    store.write()

    def denied(path):
        raise PermissionError(f"{path} belongs to somebody else")

    monkeypatch.setattr(disk_cache.os, "utime", denied)
    assert torch.equal(disk_cache.Store("test", "abc").get("key"), torch.ones(3))


def test_short_work_leaves_no_files():
    ft.evaluate(frozen(), texts())
    assert not files()


def test_other_weights_and_other_numbers_have_other_files(monkeypatch):
    monkeypatch.setattr(feature_cache, "LONG", 0.0)
    held = texts()
    ft.evaluate(frozen(), held)
    one = len(list((disk_cache.root() / "backbone").iterdir()))
    other = frozen()
    with torch.no_grad():
        other.net.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    want = ft.evaluate(other, held, disable="feature_cache").per_example("loss")
    np.testing.assert_allclose(ft.evaluate(other, held).per_example("loss"), want, rtol=1e-4)
    assert len(list((disk_cache.root() / "backbone").iterdir())) == one + 1


def test_two_processes_may_write_at_once():
    code = (
        "import torch; from ftkit.assets.disk_cache import Store\n"
        "store = Store('test', 'abc')\n"
        "for i in range(50): store.put(f'{i:02x}', torch.full((9,), float(i)))\n"
        "store.write()"
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    store = disk_cache.Store("test", "abc")
    assert len(store) == 50 and store.get("31")[0] == 49
    assert not [path for path in files() if path.suffix != ".safetensors"]


def test_a_large_data_set_is_tokenized_once(monkeypatch):
    model, data = tiny.encoder(), tiny.reviews(12)["train"]
    monkeypatch.setattr(batching, "MANY", 5)
    monkeypatch.setattr(disk_cache, "LONG", 0.0)
    first = batching.encode(data, model)
    assert len(files()) == 1
    calls = []
    slow = Classification.encode
    monkeypatch.setattr(Classification, "encode", lambda *a: calls.append(a) or slow(*a))
    again = batching.encode(data, model)
    assert not calls and again.rows == first.rows and (again.lengths == first.lengths).all()
    batching.encode(data, model, max_length=4)
    batching.encode(data.select(range(6, 12)), model)
    assert len(calls) == 2, "another length, or other texts, are another thing"


def encoder_rows(change):
    """The rows of long texts as a changed model encodes them."""
    model = tiny.decoder()
    data = Dataset.from_dict({"text": ["the film was good and warm " * 9, "a cat"] * 4})
    model, data, options = change(model, data) or (model, data, {})
    return batching.encode(data, model, **{"max_length": 12, **options}).rows


def setting(name, value):
    """A change of one attribute of the tokenizer."""

    def change(model, data):
        setattr(model.tokenizer, name, value)

    return change


def _with_bos(model, data):
    from tokenizers.processors import TemplateProcessing

    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)])


def _lower(model, data):
    from tokenizers.normalizers import Replace

    model.tokenizer.backend_tokenizer.normalizer = Replace("film", "dog")


def _pairs(model, data):
    return model, Dataset.from_dict({"prompt": data["text"][:], "response": [" dog"] * 8}), {}


def _pairs_all(model, data):
    return *_pairs(model, data)[:2], {"loss_on": "all"}


def _pairs_eos(model, data):
    model.tokenizer.eos_token = "film"
    return _pairs(model, data)


def _chat(template):
    def change(model, data):
        model.tokenizer.chat_template = template
        return _pairs(model, data)

    return change


INGREDIENTS = {
    "truncation_side": setting("truncation_side", "left"), "bos": setting("bos_token", "film"),
    "eos": setting("eos_token", "film"), "pad": setting("pad_token", "film"),
    "padding_side": setting("padding_side", "left"), "limit": setting("model_max_length", 5),
    "split_special_tokens": setting("split_special_tokens", True),
    "post-processor": _with_bos, "normalizer": _lower, "pairs": _pairs, "loss_on": _pairs_all,
    "eos of pairs": _pairs_eos, "chat": _chat("{{ messages }}"), "other chat": _chat("x"),
    "text": lambda m, d: (m, d.select(range(1, 8)), {}),
    "order": lambda m, d: (m, d.select([*range(1, 8), 0]), {}),
    "max_length": lambda m, d: (m, d, {"max_length": 11}),
    "task": lambda m, d: (tiny.encoder("masked-lm"), d, {}),
}


def test_kept_tokens_depend_on_everything_that_makes_them(monkeypatch):
    """Each ingredient is changed by itself: no change may be answered with the rows of another."""
    monkeypatch.setattr(batching, "MANY", 5)
    monkeypatch.setattr(disk_cache, "LONG", 0.0)
    encoder_rows(lambda model, data: None)
    known = set(files())
    assert len(known) == 1
    for name, change in INGREDIENTS.items():
        rows = encoder_rows(change)
        assert len(set(files()) - known) == 1, f"{name}: answered from a file of another"
        known = set(files())
        assert encoder_rows(change) == rows and set(files()) == known, f"{name}: computed twice"
        with monkeypatch.context() as patch:
            patch.setenv("FTKIT_CACHE_GB", "0")
            assert encoder_rows(change) == rows, name


def test_kept_tokens_do_not_hide_that_classes_are_called_otherwise(monkeypatch):
    monkeypatch.setattr(batching, "MANY", 5)
    monkeypatch.setattr(disk_cache, "LONG", 0.0)
    model, rows = tiny.encoder(labels=("no", "yes")), {"text": ["a", "b"] * 4, "label": [0, 1] * 4}
    given = Dataset.from_dict(rows).cast_column("label", ClassLabel(names=["no", "yes"]))
    batching.encode(given, model)
    assert len(set(files())) == 1
    with pytest.raises(ft.DataError, match="yes"):
        batching.encode(given.cast_column("label", ClassLabel(names=["yes", "no"])), model)


def test_a_tokenizer_from_another_folder_finds_the_same_rows(monkeypatch, tmp_path):
    """Where it is from, and how it was called before, change no token."""
    one = tiny.tokenizer()
    before = disk_cache.tokenizer_text(one)
    one("the film " * 300, truncation=True, max_length=4, padding="max_length")
    assert disk_cache.tokenizer_text(one) == before
    folders = [tiny.encoder("encoder").save(tmp_path / name) for name in "ab"]
    first, second = (ft.load_model(folder).tokenizer for folder in folders)
    assert disk_cache.tokenizer_text(first) == disk_cache.tokenizer_text(second)


@pytest.mark.parametrize("part", ["num_attention_heads", "layer_norm_eps", "hidden_act",
                                  "max_position_embeddings"])
def test_kept_activations_depend_on_the_configuration(part):
    """Two networks with the same weights and other numbers in their configuration differ."""
    one, other = tiny.encoder(), tiny.encoder()
    value = {"num_attention_heads": 4, "layer_norm_eps": 1e-3, "hidden_act": "relu",
             "max_position_embeddings": 64}[part]
    setattr(other.net.config, part, value)

    def print_of(model):
        base = model.net.base_model
        return feature_cache._fingerprint(base.embeddings, base.encoder.layer[:1], base)

    assert print_of(one) == print_of(tiny.encoder()) != print_of(other)
    named = tiny.encoder(labels=("no", "yes"))
    named.net.config.problem_type = "single_label_classification"  # as training sets it
    assert print_of(named) == print_of(one), "names of classes are read by no block"
    weights = tiny.encoder()
    with torch.no_grad():
        weights.net.base_model.encoder.layer[2].output.dense.weight.add_(1)
    assert print_of(weights) == print_of(one), "a block above the backbone is not part of it"
    with torch.no_grad():
        weights.net.base_model.encoder.layer[0].output.dense.weight[0, 0] += 1
    assert print_of(weights) != print_of(one)


def test_a_net_with_other_heads_does_not_get_the_activations_of_its_twin(monkeypatch):
    monkeypatch.setattr(feature_cache, "LONG", 0.0)
    held = texts()
    held = held.add_column("label", [i % 2 for i in range(len(held))])
    one, other = tiny.encoder(), tiny.encoder()
    other.net.config.num_attention_heads = 4
    twin = type(other.net)(other.net.config).eval()
    twin.load_state_dict(one.net.state_dict())
    other.net = twin
    for model in (one, other):
        ft.Freeze(unfreeze_last=1).apply(model)
    plain = ft.evaluate(other, held, disable="feature_cache").per_example("loss")
    ft.evaluate(one, held)
    np.testing.assert_allclose(ft.evaluate(other, held).per_example("loss"), plain, rtol=1e-4)


def test_a_teacher_of_another_configuration_is_asked_anew():
    from ftkit.methods.teacher import Teacher

    one, other = tiny.encoder(), tiny.encoder()
    other.net.config.layer_norm_eps = 1e-3
    folders = {Teacher(model, 5).store.folder for model in (one, other, tiny.encoder())}
    assert len(folders) == 2


def test_a_teacher_is_asked_anew_about_other_segments():
    """Of pairs, the same tokens may stand in the first text or in the second."""
    from ftkit.methods.teacher import Teacher

    teacher = Teacher(tiny.encoder(), 5)
    ids = torch.tensor([[5, 6, 7, 8]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    one, two = (teacher.about(given | {"token_type_ids": torch.tensor([kinds])})[0][0]
                for kinds in ([0, 0, 0, 0], [0, 0, 1, 1]))
    assert not torch.equal(one, two)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = Teacher(tiny.encoder(), 5)
        again.store.folder = again.store.folder / "new"
        first = given | {"token_type_ids": torch.zeros_like(ids)}
        assert torch.equal(again.about(first)[0][0], one)


def test_what_takes_a_place_is_on_the_disk_before(tmp_path, monkeypatch):
    """A power cut after the exchange would leave a whole name with half the content."""
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("sync"), sync(number))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names))[1])
    with atomic.new_file(tmp_path / "a") as scratch:
        scratch.write_text("whole")
    assert done == ["sync", "replace", "sync"], "the content, the exchange, the folder"
    assert (tmp_path / "a").read_text() == "whole"
