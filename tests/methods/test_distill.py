"""A user who distils gets a student that learned what the teacher said, on any kind of model."""

import datasets
import pytest
import tiny
import torch
from lessons import from_lesson

import ftkit as ft
from ftkit.methods import distill, teacher
from ftkit.tasks import batching


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path))


def taught():
    run = ft.fit(tiny.encoder(), tiny.reviews(), epochs=6, learning_rate=3e-3, batch_size=8,
                 quiet=True)
    assert ft.evaluate(run.model, tiny.reviews()["test"])["accuracy"].value > 0.9
    return run.model


def test_the_lessons_own_loss_is_the_packages():
    by_hand = from_lesson("13", "kd_loss")
    student, large = torch.randn(2, 6, 5)
    for temperature in (0.5, 1.0, 4.0):
        torch.testing.assert_close(by_hand(student, large, temperature),
                                   distill.kd_loss(student, large, temperature))
    assert by_hand(large, large, 2.0).abs() < 1e-6


def test_hidden_states_are_compared_by_their_direction_over_the_real_tokens():
    own, theirs = torch.randn(2, 3, 7, 4)
    lengths = (7, 3, 5)
    mask = torch.tensor([[1] * n + [0] * (7 - n) for n in lengths])
    vectors = [teacher.vectors_of((None, h), mask) for h in (own, theirs)]
    cosines = [torch.cosine_similarity(one[:n].mean(0), two[:n].mean(0), dim=0)
               for one, two, n in zip(own, theirs, lengths, strict=True)]
    by_hand = 2 - 2 * torch.stack(cosines).mean()  # the squared distance of vectors of length 1
    torch.testing.assert_close(distill.hidden_state_loss(*vectors), by_hand)


@pytest.mark.usefixtures("each_precision")
def test_a_student_learns_from_texts_without_labels():
    large, texts = taught(), tiny.reviews()["train"].remove_columns("label")
    method = ft.Distill(large, alpha=1.0)
    labelled = method.prepare(texts)
    said = ft.evaluate(large, labelled)
    assert said["accuracy"].value == 1  # the labels are the teacher's own answers
    student = ft.drop_layers(tiny.encoder(), (0, 2))
    run = ft.fit(student, labelled, method=method, epochs=12, learning_rate=1e-3, batch_size=4,
                 quiet=True)
    assert ft.evaluate(run.model, tiny.reviews()["test"])["accuracy"].value > 0.9
    assert len(run.model.net.bert.encoder.layer) == 2 and "alpha=1.0" in run.settings["method"]


def count_readings(monkeypatch):
    read = []
    ask = teacher.Teacher._ask
    monkeypatch.setattr(teacher.Teacher, "_ask", lambda self, inputs: (
        read.append(len(inputs["input_ids"])), ask(self, inputs))[1])
    return read


@pytest.mark.parametrize("gigabytes", ["4", "0"])  # in files, or in memory alone
def test_the_teacher_reads_each_text_once_and_later_runs_find_its_answers(gigabytes, monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE_GB", gigabytes)
    read, large = count_readings(monkeypatch), taught()
    data = tiny.reviews(12)["train"]
    different = len(set(data["text"]))
    method = ft.Distill(large, hidden=1.0)
    method.prepare(data, batch_size=1)
    assert sum(read) == different
    for again in (method, ft.Distill(large, temperature=5.0)):
        before = sum(read)
        ft.fit(ft.drop_layers(tiny.encoder(), (0,)), data, method=again, epochs=2, quiet=True)
        known = again is method or gigabytes != "0"
        assert sum(read) - before == (0 if known else different)
    read[:] = [different]
    other = ft.Distill(tiny.encoder(), hidden=1.0)  # another teacher says other things
    other.prepare(data, batch_size=1)
    assert sum(read) == 2 * different


PAIRS = datasets.Dataset.from_dict({"source": ["the cat", "a dog"] * 4,
                                    "target": ["dog", "cat"] * 4})
TEXTS = datasets.Dataset.from_dict({"text": ["the cat and the dog", "a warm film"] * 4})
TAGGED = datasets.Dataset.from_dict({"tokens": [["the", "cat"]] * 8, "tags": [["O", "B-X"]] * 8})


@pytest.mark.parametrize(("make", "data"), [
    (tiny.decoder, TEXTS), (tiny.decoder, PAIRS), (lambda: tiny.decoder("gemma2"), TEXTS),
    (lambda: tiny.decoder("gpt2"), TEXTS), (tiny.seq2seq, PAIRS),
    (lambda: tiny.encoder("tagging", ("O", "B-X")), TAGGED),
], ids=["decoder", "decoder-pairs", "gemma2", "gpt2", "seq2seq", "tagging"])
def test_a_student_comes_to_say_what_its_teacher_says_word_by_word(make, data):
    large = make()
    with torch.no_grad():
        for p in large.net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    student = ft.drop_layers(make(), (0, 1))
    first = ft.Distill(large, alpha=1.0, temperature=1.0, top_k=1000)
    before = ft.fit(student, data, method=first, epochs=1, learning_rate=1e-9, quiet=True)
    after = ft.fit(student, data, method=first, epochs=20, learning_rate=3e-3, quiet=True)
    losses = [run.history["loss"].dropna().iloc[-1] for run in (before, after)]
    assert losses[1] < 0.7 * losses[0]


def test_a_teacher_speaks_with_its_learned_prompt():
    large = ft.PromptTuning(tokens=3).apply(tiny.decoder())
    batch = batching.Collator(large)(list(batching.encode(TEXTS, large)))
    with torch.no_grad():
        logits = large.net(input_ids=batch["input_ids"],
                           attention_mask=batch["attention_mask"]).logits[:, 3:-1]
    wanted = logits[batch["labels"][:, 1:] != -100].topk(5)
    found = teacher.Teacher(large, 5).about(batch)
    torch.testing.assert_close(torch.cat([values for values, _, _ in found]), wanted.values,
                               rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("disable", [(), ("logits_to_keep",)])
def test_the_loss_of_a_decoder_is_the_divergence_at_labelled_positions(disable):
    large, student = tiny.decoder(), tiny.decoder()
    with torch.no_grad():
        for p in large.net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = (ids > 0).long()
    labels = torch.tensor([[-100, -100, 7, 8], [-100, 10, -100, -100]])
    with torch.no_grad():
        one, two = (m.net(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
                    for m in (large, student))
    kl = (one.exp() * (one - two)).sum(-1)
    wanted = torch.stack([kl[0, 1], kl[0, 2], kl[1, 0]]).mean()

    class Seen(ft.Distill):
        def loss(self, net, inputs, outputs, loss):
            seen.append(super().loss(net, inputs, outputs, loss).detach())
            return loss

    seen, rows = [], datasets.Dataset.from_dict({"text": ["x", "y"]})
    from ftkit.training import fit

    encoded = batching.Encoded([
        {"input_ids": i[m.bool()].tolist(), "labels": y[m.bool()].tolist()}
        for i, m, y in zip(ids, mask, labels, strict=True)], [4, 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "encode", lambda *_, **__: encoded)
        ft.fit(student, rows, method=Seen(large, temperature=1.0, alpha=1.0, top_k=1000), epochs=1,
               disable=disable, quiet=True)
    torch.testing.assert_close(seen[0], wanted, atol=1e-5, rtol=1e-4)


def test_hidden_states_come_closer_when_they_are_matched():
    large, data = taught(), tiny.reviews()["train"]
    batch = tiny.tokenizer()(data["text"][:8], return_tensors="pt", padding=True)

    def away(weight):
        method = ft.Distill(large, hidden=weight)
        run = ft.fit(ft.drop_layers(tiny.encoder(), (0, 2)), data, method=method, epochs=15,
                     batch_size=4, learning_rate=1e-3, quiet=True)
        with torch.no_grad():
            one, two = (teacher.vectors_of(
                m.net(**batch, output_hidden_states=True).hidden_states,
                batch["attention_mask"])[:, -1:] for m in (run.model, large))
        return distill.hidden_state_loss(one, two)

    assert away(10.0) < away(0.0) / 2


@pytest.mark.parametrize("make", [tiny.encoder, tiny.decoder, lambda: tiny.decoder("gpt2"),
                                  lambda: tiny.decoder("gemma2"), tiny.seq2seq],
                         ids=["bert", "llama", "gpt2", "gemma2", "t5"])
def test_a_smaller_copy_can_be_saved_and_gives_the_same_answers(make, tmp_path):
    model = make()
    small = ft.drop_layers(model, (0, 1))
    total = [sum(p.numel() for p in m.net.parameters()) for m in (small, model)]
    assert total[0] < total[1] or model.task == "seq2seq-lm"  # the tiny T5 has two blocks
    again = ft.load_model(small.save(tmp_path / "small"))
    assert again.hash() == small.hash()
    if model.task == "causal-lm":
        texts = ft.generate(again, ["the cat", "a"], max_new_tokens=4)
        assert texts == ft.generate(small, ["the cat", "a"], max_new_tokens=4)


def test_what_cannot_be_meant_is_named():
    large = taught()
    for settings in ({"temperature": 0}, {"alpha": 1.5}, {"hidden": -1}):
        with pytest.raises(ft.SettingError, match="temperature above 0"):
            ft.Distill(large, **settings)
    with pytest.raises(ft.SettingError, match="labels"):
        ft.Distill(large).apply(tiny.encoder(labels=("a", "b", "c")))
    with pytest.raises(ft.SettingError, match="task"):
        ft.Distill(large).apply(tiny.decoder())
    with pytest.raises(ft.SettingError, match="masked-lm"):
        ft.Distill(tiny.encoder("masked-lm")).apply(tiny.encoder("masked-lm"))
    with pytest.raises(ft.SettingError, match="teacher="):
        ft.fit(tiny.encoder(), tiny.reviews()["train"], method=ft.Distill(), quiet=True)
    with pytest.raises(ft.SettingError, match="0 to 2"):
        ft.drop_layers(tiny.encoder(), (0, 3))


def test_hidden_states_are_those_of_every_block_also_where_lower_ones_are_frozen():
    data, large = tiny.reviews(16)["train"], taught()
    found = []
    for disable in ((), "feature_cache"):
        method = ft.Distill(large, hidden=1.0, trainable=ft.Freeze(unfreeze_last=1))
        run = ft.fit(tiny.encoder(), data, method=method, epochs=2, batch_size=8, quiet=True,
                     learning_rate=1e-3, dtype="float32", disable=disable)
        found.append(run.history["loss"].to_numpy())
        assert not run.model.net.config.output_hidden_states  # a plain library model
    assert found[0] == pytest.approx(found[1], rel=1e-5)
