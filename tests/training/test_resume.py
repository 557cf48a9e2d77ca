"""Without these, a training that was killed would begin anew, or end in another model."""

import shutil
import threading

import pytest
import tiny
import torch
import transformers
from datasets import Dataset

import ftkit as ft
from ftkit.training import checkpoints

WORDS = tiny.WORDS * 3
TEXTS = Dataset.from_dict({"text": [" ".join(WORDS[i : i + 6 + i % 9]) for i in range(12)]})


class Killed(BaseException):
    """What ends the process, in the middle of whatever it does."""


def wrong(n=24):
    """What is learned in training is wrong in validation: the best epoch is an early one."""
    data = tiny.reviews(n)
    data["validation"] = data["validation"].map(lambda row: {"label": 1 - row["label"]})
    return data


def weights(run):
    return {n: p.detach().clone() for n, p in run.model.net.named_parameters()}


def same(one, two):
    torch.testing.assert_close(weights(one), weights(two), rtol=0, atol=0)
    assert one.metrics == two.metrics
    assert one.history.equals(two.history)


def kill_in(monkeypatch, name, times):
    """Kill the training when the Trainer's method of this name was called so often."""
    library, calls = getattr(transformers.Trainer, name), []

    def method(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == times:
            raise Killed
        return library(self, *args, **kwargs)

    monkeypatch.setattr(transformers.Trainer, name, method)


MOMENTS = {"in an update": ("training_step", 10), "in evaluation": ("prediction_step", 5),
           "folder made": ("_save", 2), "model written": ("_save_optimizer_and_scheduler", 2),
           "optimizer written": ("_save_rng_state", 2)}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_training_killed_at_any_moment_ends_as_one_that_ran_through(
        moment, tmp_path, monkeypatch):
    settings = dict(epochs=5, learning_rate=3e-3, batch_size=8, patience=3, quiet=True)
    base = tiny.encoder()
    for module in base.net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    whole = ft.fit(base, wrong(), **settings)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_in(patch, *MOMENTS[moment])
        ft.fit(base, wrong(), checkpoint_dir=tmp_path / "c", **settings)
    assert checkpoints.last_whole(tmp_path / "c") is not None
    restore = moment == "in evaluation"  # the library's own way, too
    resumed = ft.fit(base, wrong(), checkpoint_dir=tmp_path / "c", resume=True, **settings,
                     restore_callback_states_from_checkpoint=restore)
    same(resumed, whole)
    assert whole.metrics["best_epoch"] < whole.history["epoch"].max()


def test_a_training_that_patience_ended_is_not_gone_on_with(tmp_path):
    settings = dict(epochs=9, learning_rate=3e-3, batch_size=8, patience=2, quiet=True,
                    checkpoint_dir=tmp_path / "c")
    whole = ft.fit(tiny.encoder(), wrong(), **settings)
    assert whole.history["epoch"].max() < 9
    same(ft.fit(tiny.encoder(), wrong(), resume=True, **settings), whole)


def test_what_is_damaged_is_passed_over(tmp_path):
    folder = tmp_path / "c"
    ft.fit(tiny.encoder(), tiny.reviews(16), epochs=2, batch_size=8, quiet=True, patience=5,
           checkpoint_dir=folder)
    first, last = sorted(folder.iterdir(), key=lambda path: int(path.name.split("-")[1]))
    assert checkpoints.last_whole(folder) == last
    for file in last.iterdir():
        if file.suffix in (".safetensors", ".pt", ".pth") or file.name == "trainer_state.json":
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2])
            assert checkpoints.last_whole(folder) == first, file.name
            file.unlink()
            assert checkpoints.last_whole(folder) == first, file.name
            file.write_bytes(content)
    assert checkpoints.last_whole(folder, processes=2) == last  # begun by one, gone on by two
    (last / "rng_state.pth").rename(last / "rng_state_0.pth")
    assert checkpoints.last_whole(folder, processes=2) == first, "the other process did not write"
    shutil.copy(last / "rng_state_0.pth", last / "rng_state_1.pth")
    assert checkpoints.last_whole(folder, processes=2) == last
    index = last / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert checkpoints.last_whole(folder, processes=2) == first, "a part of the weights is missing"
    index.unlink()
    shutil.rmtree(first)
    (last / "trainer_state.json").unlink()
    assert checkpoints.last_whole(folder) is None
    assert checkpoints.last_whole(tmp_path / "nothing") is None


@pytest.mark.parametrize("workers", [0, 1])
def test_masks_are_fresh_in_each_epoch_and_the_same_after_a_resume(workers, tmp_path, monkeypatch):
    seen = []
    library = transformers.Trainer.training_step

    def training_step(self, model, inputs, *args, **kwargs):
        seen.append((inputs["input_ids"].tolist(), inputs["labels"].tolist()))
        return library(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(transformers.Trainer, "training_step", training_step)
    settings = dict(epochs=3, learning_rate=1e-3, batch_size=4, quiet=True, save_strategy="steps",
                    save_steps=2, dataloader_num_workers=workers,
                    dataloader_persistent_workers=bool(workers))
    data = {"train": TEXTS, "validation": TEXTS}
    base = tiny.encoder("masked-lm")
    whole = ft.fit(base, data, checkpoint_dir=tmp_path / "w", **settings)
    uncut, seen[:] = list(seen), []
    epochs = [sorted(map(str, uncut[i : i + 3])) for i in (0, 3, 6)]
    assert len({str(epoch) for epoch in epochs}) == 3
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_in(patch, "training_step", 6)
        ft.fit(base, data, checkpoint_dir=tmp_path / "c", **settings)
    seen.clear()
    resumed = ft.fit(base, data, checkpoint_dir=tmp_path / "c", resume=True, **settings)
    assert seen == uncut[4:]
    same(resumed, whole)


def test_an_interrupt_returns_the_run_with_the_weights_so_far(capsys):
    class Interrupt(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                raise KeyboardInterrupt

    base = tiny.encoder()
    run = ft.fit(base, tiny.reviews(16), epochs=4, batch_size=8, learning_rate=1e-2,
                 neftune_noise_alpha=5.0, quiet=True, callbacks=[Interrupt()])
    assert "interrupted after update 3 of 8" in capsys.readouterr().out
    assert run.settings["interrupted"] == "after update 3 of 8"
    assert run.model.hash() != base.hash() and not run.model.net.training
    assert not run.model.net.get_input_embeddings()._forward_hooks
    assert ft.evaluate(run.model, tiny.reviews(8)["test"])["accuracy"].value >= 0
    again = ft.fit(base, wrong(), epochs=4, batch_size=8, learning_rate=1e-2, patience=3,
                   quiet=True, callbacks=[type("Later", (Interrupt,), {
                       "on_step_end": lambda self, args, state, control, **_:
                       (_ for _ in ()).throw(KeyboardInterrupt) if state.global_step == 8 else None
                   })()])
    assert "best weights so far, of epoch" in capsys.readouterr().out
    kept = ft.evaluate(again.model, wrong()["validation"])["loss"].value
    assert kept == pytest.approx(again.metrics["eval_loss"], rel=1e-2)


def test_trainings_of_two_threads_come_to_what_each_comes_to_alone(capsys):
    library = torch.nn.functional.dropout
    begun, runs, order = threading.Event(), {}, []

    class Note(transformers.TrainerCallback):
        def __init__(self, name):
            self.name = name

        def on_train_begin(self, args, state, control, **_):
            order.append(f"{self.name} begins")
            begun.set()
            if self.name == "first":
                second.start()
                second.join(1)  # time enough to begin, if nothing holds it back

        def on_train_end(self, args, state, control, **_):
            order.append(f"{self.name} ends")

    def train(name, seed):
        runs[name] = ft.fit(tiny.encoder(), tiny.reviews(8)["train"], epochs=2, seed=seed,
                            gradient_accumulation_steps=2, callbacks=[Note(name)])

    first, second = (threading.Thread(target=train, args=(n, s))
                     for n, s in (("first", 0), ("second", 1)))
    first.start()
    assert begun.wait(60)
    first.join(120)
    second.join(120)
    assert order == ["first begins", "first ends", "second begins", "second ends"]
    assert capsys.readouterr().out.count("waits for another training of this process") == 1
    assert torch.nn.functional.dropout is library
    second = threading.Thread()
    train("again", 1)
    assert runs["again"].model.hash() == runs["second"].model.hash() != runs["first"].model.hash()


def test_a_training_may_begin_inside_another():
    inner = []

    class Nested(transformers.TrainerCallback):
        def on_train_end(self, args, state, control, **_):
            inner.append(ft.fit(tiny.encoder(), tiny.reviews(8)["train"], epochs=1, quiet=True))

    outer = ft.fit(tiny.encoder(), tiny.reviews(8)["train"], epochs=1, quiet=True,
                   callbacks=[Nested()])
    assert inner[0].model.hash() == outer.model.hash()
