"""A user who protects old tasks gets the springs that the lesson explains, on any kind of model."""

import datasets
import pytest
import tiny
import torch
from lessons import from_lesson

import ftkit as ft


def memory_of(model, **settings):
    return ft.fisher(model, tiny.reviews()["train"], n=4, **settings)


def test_the_lessons_own_code_computes_the_same():
    by_hand, penalty = from_lesson("12", "fisher_by_hand", "penalty")
    model, moved = tiny.encoder(), tiny.encoder()
    for net in (model.net, moved.net):
        net.requires_grad_(False)
        for block in net.bert.encoder.layer[1:]:
            block.requires_grad_(True)
        net.classifier.requires_grad_(True)
    texts = tiny.reviews()["train"]
    total = by_hand(model, texts, n=6, seed=3)
    memory = ft.fisher(model, texts, n=6, seed=3, max_length=24)
    assert total.keys() == memory.fisher.keys() and "classifier.weight" in total
    for name, f in total.items():
        torch.testing.assert_close(memory.fisher[name], f)
        torch.testing.assert_close(memory.anchors[name], model.net.state_dict()[name])
    with torch.no_grad():
        for p in moved.net.parameters():
            p.add_(0.01 * torch.randn_like(p))
    losses, start = [], torch.tensor(0.5)
    for loss in (start + 3 / 2 * penalty(moved.net, memory.fisher, memory.anchors),
                 ft.EWC(memory, weight=3.0).loss(moved.net, None, None, start)):
        moved.net.zero_grad()
        loss.backward()
        losses.append((loss, [p.grad.clone() for p in moved.net.parameters() if p.requires_grad]))
    torch.testing.assert_close(losses[0], losses[1])


def test_the_fisher_information_is_a_mean_square_over_answers_of_the_model():
    # A head whose bias alone decides: the derivative of -log p(answer) there is p - answer.
    model = tiny.encoder()
    with torch.no_grad():
        model.net.classifier.weight.zero_()
        model.net.classifier.bias.copy_(torch.tensor([0.0, 2.0]))
    found = ft.fisher(model, tiny.reviews(400)["train"], n=400).fisher["classifier.bias"]
    p = torch.tensor([0.0, 2.0]).softmax(0)
    torch.testing.assert_close(found, p * (1 - p), atol=0.02, rtol=0)


PAIRS = datasets.Dataset.from_dict({"source": ["the cat", "a dog"] * 4,
                                    "target": ["dog", "cat"] * 4})
TEXTS = datasets.Dataset.from_dict({"text": ["the cat and the dog", "a warm film"] * 4})
TAGGED = datasets.Dataset.from_dict({"tokens": [["the", "cat"]] * 8, "tags": [["O", "B-X"]] * 8})
CHOICES = datasets.Dataset.from_dict({"question": ["the cat"] * 8, "answer": [0] * 8,
                                      "choices": [["a dog", "a film"]] * 8})
KINDS = {
    "encoder": (tiny.encoder, tiny.reviews(8)["train"]),
    "regression": (lambda: tiny.encoder("regression"),
                   tiny.reviews(8)["train"].cast_column("label", datasets.Value("float32"))),
    "tagging": (lambda: tiny.encoder("tagging", ("O", "B-X")), TAGGED),
    "choice": (lambda: tiny.encoder("choice"), CHOICES),
    "masked-lm": (lambda: tiny.encoder("masked-lm"), TEXTS),
    "decoder": (tiny.decoder, TEXTS),
    "seq2seq": (tiny.seq2seq, PAIRS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_stiff_springs_hold_any_kind_of_model_and_no_springs_do_not(kind):
    make, data = KINDS[kind]
    base = make()
    memory = ft.fisher(base, data, n=8)
    assert sum(f.sum() for f in memory.fisher.values()) > 0

    def distance(weight):
        run = ft.fit(base, data, method=ft.EWC(memory, weight=weight), epochs=3, batch_size=4,
                     learning_rate=1e-3, quiet=True)
        tuned = dict(run.model.net.named_parameters())
        return sum((f * (tuned[name] - memory.anchors[name]).square()).sum().item()
                   for name, f in memory.fisher.items())

    free, held = distance(0.0), distance(1e8)
    assert held < free / 2


def test_several_tasks_add_up_and_only_trained_weights_are_held():
    model = tiny.encoder()
    one, two = memory_of(model), memory_of(model, seed=1)
    moved = tiny.encoder()
    with torch.no_grad():
        for p in moved.net.parameters():
            p.add_(0.1)
    nothing = torch.tensor(0.0)

    def loss(memories, model):
        return ft.EWC(memories, weight=2.0).loss(model.net, None, None, nothing)

    torch.testing.assert_close(loss((one, two), moved), loss(one, moved) + loss((two,), moved))
    assert loss((), moved) == 0
    inside = ft.EWC(one, trainable=ft.Freeze(unfreeze_last=1)).apply(tiny.encoder())
    frozen = {n for n, p in inside.net.named_parameters() if not p.requires_grad}
    assert "bert.encoder.layer.0.output.dense.weight" in frozen
    run = ft.fit(model, tiny.reviews()["train"], quiet=True, epochs=1,
                 method=ft.EWC((one, two), weight=1.0, trainable=ft.Freeze(unfreeze_last=1)))
    before, after = model.net.state_dict(), run.model.net.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in frozen)
    assert "weight=1.0" in run.settings["method"] and len(run.settings["method"]) < 200


def test_a_new_head_is_free_and_the_body_is_held():
    memory = memory_of(tiny.encoder())
    three = tiny.encoder(labels=("a", "b", "c"))
    three.net.bert.load_state_dict(tiny.encoder().net.bert.state_dict())
    method = ft.EWC(memory, weight=1.0)
    method.apply(three)
    assert method.loss(three.net, None, None, torch.tensor(0.0)) == 0
    with torch.no_grad():
        three.net.classifier.weight.add_(1)
    assert method.loss(three.net, None, None, torch.tensor(0.0)) == 0
    with torch.no_grad():
        three.net.bert.pooler.dense.weight.add_(1)
    assert method.loss(three.net, None, None, torch.tensor(0.0)) > 0


def test_a_memory_is_saved_and_loaded(tmp_path):
    memory = memory_of(tiny.encoder())
    again = ft.EWCState.load(memory.save(tmp_path / "month_1.safetensors"))
    assert again.examples == memory.examples == 4
    for kind in ("fisher", "anchors"):
        for name, tensor in getattr(memory, kind).items():
            assert torch.equal(getattr(again, kind)[name], tensor)
    other = tmp_path / "other.safetensors"
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, other)
    with pytest.raises(ft.DataError, match="no state for EWC"):
        ft.EWCState.load(other)


def test_a_memory_is_moved_once_to_where_the_weights_are():
    # The meta device stands for a card; a network may lie on several devices.
    memory, net = memory_of(tiny.encoder()), tiny.encoder().net
    net.bert.encoder.to("meta")
    method, loss = ft.EWC(memory, weight=2.0), torch.zeros((), device="meta")
    assert method.loss(net, None, None, loss).device == loss.device
    placed = {name: p.device for name, p in net.named_parameters()}
    assert len(set(placed.values())) == 2
    for kept in (memory.fisher, memory.anchors):
        assert {name: tensor.device for name, tensor in kept.items()} == placed
    before = {name: (f, memory.anchors[name]) for name, f in memory.fisher.items()}
    method.loss(net, None, None, loss)
    for name, tensors in before.items():
        now = memory.fisher[name], memory.anchors[name]
        assert all(one is two for one, two in zip(now, tensors, strict=True)), "moved again"


def test_settings_that_cannot_be_meant_are_named():
    with pytest.raises(ft.SettingError, match="weight=-1"):
        ft.EWC(weight=-1).apply(tiny.encoder())
    with pytest.raises(ft.SettingError, match="no trained weight of tiny-llama"):
        ft.EWC(memory_of(tiny.encoder())).apply(tiny.decoder())


@pytest.mark.parametrize("weight", [0.0, 1e6])
def test_a_compiled_network_is_held_as_well(weight):
    data, memory = tiny.reviews(16)["train"], memory_of(tiny.encoder())
    settings = dict(method=ft.EWC(memory, weight=weight), epochs=2, batch_size=8, quiet=True,
                    learning_rate=1e-3, dtype="float32")
    plain, compiled = (ft.fit(tiny.encoder(), data, **settings, **more).model.net.state_dict()
                       for more in ({}, dict(torch_compile=True, torch_compile_backend="eager")))
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=1e-5, rtol=1e-4)
