"""Without these, kept tensors could be wrong, half-written, or fill a reader's disk."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit import batching, cache, kept
from ftkit.errors import SettingError


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    cache.forget()
    yield
    cache.forget()


def files():
    return sorted(path for path in kept.root().rglob("*") if path.is_file())


def test_a_later_store_gives_back_what_was_written():
    store = kept.Store("test", "abc")
    rows = {f"{i:02x}": torch.randn(i + 1, 4) for i in range(5)}
    for key, tensor in rows.items():
        store.put(key, tensor)
    assert torch.equal(store.get("03"), rows["03"]) and store.get("zz") is None
    assert not files() and len(store) == 5
    store.write()
    assert len(files()) == 1 and files()[0].suffix == ".safetensors"
    for again in (store, kept.Store("test", "abc")):
        assert len(again) == 5
        for key, tensor in rows.items():
            assert torch.equal(again.get(key), tensor)
    assert len(kept.Store("test", "other")) == 0


def test_a_store_writes_by_itself_before_it_holds_too_much(monkeypatch):
    monkeypatch.setattr(kept, "PART", 100)
    store = kept.Store("test", "abc")
    for i in range(6):
        store.put(str(i), torch.zeros(10))
    assert len(files()) == 2 and not store.new and len(kept.Store("test", "abc")) == 6


def test_what_was_not_used_for_longest_goes_first(monkeypatch):
    monkeypatch.setenv("FTKIT_KEPT_GB", "0.00001")  # 10 kB
    for number, name in enumerate(("old", "used", "new")):
        store = kept.Store("test", name)
        store.put("key", torch.zeros(1000))
        if name == "new":
            break
        store.write()
        os.utime(files()[-1], (number, number))
        if name == "used":
            kept.Store("test", "old")  # reading counts as use
            os.utime(next((kept.root() / "test" / "used").iterdir()), (9, 9))
    store.write()
    assert {path.parent.name for path in files()} == {"old", "new"}


@pytest.mark.parametrize("hold", [True, False])
def test_no_file_is_kept_where_that_is_wished_or_cannot_be(hold, monkeypatch, tmp_path):
    """What was computed stays in memory, or is forgotten, as the store was told."""

    def kept_by(store):
        store.put("key", torch.zeros(3))
        store.write()
        return store.get("key") is not None

    monkeypatch.setenv("FTKIT_KEPT_GB", "0")
    assert kept_by(kept.Store("test", "abc", hold=hold)) == hold and not files()
    monkeypatch.setenv("FTKIT_KEPT_GB", "0.000000004")  # 4 bytes
    assert kept_by(kept.Store("test", "abc", hold=hold)) == hold and not files()
    monkeypatch.setenv("FTKIT_KEPT_GB", "plenty")
    with pytest.raises(SettingError, match="'plenty' is no number"):
        kept.Store("test", "abc")
    monkeypatch.delenv("FTKIT_KEPT_GB")
    (tmp_path / "home").write_text("a file where the folder should be")
    store = kept.Store("test", "abc", hold=hold)
    with pytest.warns(UserWarning, match="cannot be written"):
        assert kept_by(store) == hold
    assert kept_by(store) == hold


def test_a_damaged_file_is_as_good_as_none():
    store = kept.Store("test", "abc")
    store.put("key", torch.zeros(300))
    store.write()
    whole = files()[0].read_bytes()
    files()[0].write_bytes(whole[:50])
    assert len(kept.Store("test", "abc")) == 0


def texts(n=30):
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(tiny.WORDS, rng.integers(2, 12))) for _ in range(n)]
    return Dataset.from_dict({"text": rows})


def frozen():
    return ft.Freeze(top=1).apply(tiny.decoder())


@pytest.mark.usefixtures("float32")
def test_frozen_blocks_do_not_run_again_in_a_later_process(monkeypatch, capsys):
    monkeypatch.setattr(cache, "LONG", 0.0)
    model, held = frozen(), texts()
    plain = ft.evaluate(model, held, without="trunk_cache").per_example("loss")
    first = ft.evaluate(model, held).per_example("loss")
    assert files()
    cache.forget()  # as a new process begins

    def never(*args, **kwargs):
        raise AssertionError("the frozen block ran again")

    monkeypatch.setattr(cache._Reader, "_run_trunk", never)
    again = ft.evaluate(model, held).per_example("loss")
    np.testing.assert_allclose(again, plain, rtol=1e-4)
    np.testing.assert_array_equal(again, first)
    ft.fit(model, held, method=ft.Freeze(top=1), epochs=2)
    assert "files of earlier runs hold 30" in capsys.readouterr().out


def test_what_the_same_process_kept_is_not_called_earlier(monkeypatch, capsys):
    monkeypatch.setattr(cache, "LONG", 0.0)
    for _ in range(2):
        ft.fit(tiny.decoder(), texts(), method=ft.Freeze(top=1), epochs=1)
    assert files() and "earlier runs" not in capsys.readouterr().out


def test_a_store_that_others_own_is_read(monkeypatch):
    store = kept.Store("test", "abc")
    store.put("key", torch.ones(3))
    store.write()

    def denied(path):
        raise PermissionError(f"{path} belongs to somebody else")

    monkeypatch.setattr(kept.os, "utime", denied)
    assert torch.equal(kept.Store("test", "abc").get("key"), torch.ones(3))


def test_short_work_leaves_no_files():
    ft.evaluate(frozen(), texts())
    assert not files()


def test_other_weights_and_other_numbers_have_other_files(monkeypatch):
    monkeypatch.setattr(cache, "LONG", 0.0)
    held = texts()
    ft.evaluate(frozen(), held)
    one = len(list((kept.root() / "trunk").iterdir()))
    other = frozen()
    with torch.no_grad():
        other.net.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    want = ft.evaluate(other, held, without="trunk_cache").per_example("loss")
    np.testing.assert_allclose(ft.evaluate(other, held).per_example("loss"), want, rtol=1e-4)
    assert len(list((kept.root() / "trunk").iterdir())) == one + 1


def test_two_processes_may_write_at_once():
    code = (
        "import torch; from ftkit.kept import Store\n"
        "store = Store('test', 'abc')\n"
        "for i in range(50): store.put(f'{i:02x}', torch.full((9,), float(i)))\n"
        "store.write()"
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    store = kept.Store("test", "abc")
    assert len(store) == 50 and store.get("31")[0] == 49
    assert not [path for path in files() if path.suffix != ".safetensors"]


def test_a_large_data_set_is_tokenized_once(monkeypatch):
    model, data = tiny.encoder(), tiny.reviews(12)["train"]
    monkeypatch.setattr(batching, "MANY", 5)
    monkeypatch.setattr(kept, "LONG", 0.0)
    first = batching.encode(data, model)
    assert len(files()) == 1
    calls = []
    slow = batching._ENCODERS["classification"]
    monkeypatch.setitem(batching._ENCODERS, "classification",
                        lambda *a: calls.append(a) or slow(*a))
    again = batching.encode(data, model)
    assert not calls and again.rows == first.rows and (again.lengths == first.lengths).all()
    batching.encode(data, model, max_length=4)
    batching.encode(data.select(range(6, 12)), model)
    assert len(calls) == 2, "another length, or other texts, are another thing"
