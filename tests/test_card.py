"""What only a card can show. Without these, a training there could learn something else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit.models import hardware
from ftkit.speed import batch_size, cuda_graphs, packed_loss, padding_free
from ftkit.tasks.batching import encode

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(hardware.this_machine().device != "cuda", reason="no CUDA card here"),
]
EVERYTHING = ("padding_free", "cuda_graphs", "compile_blocks", "logits_to_keep", "group_by_length")
BF16 = 2**-8  # half the distance of two neighbouring numbers, as a share of them


def on_card(model):
    return ft.Model(model.net.to("cuda"), model.tokenizer, model.task, model.name, model.labels)


def texts(n=48):
    draw = torch.Generator().manual_seed(0)
    words = [tiny.WORDS[i] for i in torch.randint(len(tiny.WORDS), (n * 20,), generator=draw)]
    lengths = torch.randint(2, 20, (n,), generator=draw).tolist()
    return Dataset.from_dict({"text": [" ".join(words[i * 20 : i * 20 + k])
                                       for i, k in enumerate(lengths)]})


def loss(model, data):
    return ft.evaluate(model, data)["loss"].value


def weights_apart(one, two):
    pairs = zip(one.net.parameters(), two.net.parameters(), strict=True)
    return max(((a - b).norm() / (1e-6 + a.norm())).item() for a, b in pairs)


@pytest.mark.parametrize("method", [ft.Full(), ft.LoRA(rank=4)])
def test_without_padding_and_replayed_it_learns_what_the_plain_way_does(method, capsys):
    data, base = texts(), on_card(tiny.decoder())
    settings = dict(method=method, epochs=4, batch_size=8, learning_rate=3e-3)
    fast = ft.fit(base, data, **settings).model
    said = capsys.readouterr().out
    assert "no padding" in said and "CUDA graphs: a step is captured" in said
    assert "kernel by kernel" not in said, said
    plain = ft.fit(base, data, disable=EVERYTHING, quiet=True, **settings).model
    before, learned = loss(base, data), loss(base, data) - loss(plain, data)
    assert learned > 0.1
    # Other batches (no similar lengths) and other roundings; the same examples and updates.
    assert before - loss(fast, data) == pytest.approx(learned, rel=0.1)
    kept = fast.net.get_base_model() if isinstance(method, ft.LoRA) else fast.net
    assert kept.config._attn_implementation != padding_free.NAME


@pytest.mark.parametrize("task", ["classification", "tagging", "masked-lm"])
def test_a_replayed_encoder_learns_the_same_weights(task):
    base = on_card(tiny.encoder(task, ("O", "B-x") if task == "tagging" else ("bad", "good")))
    data = tiny.reviews(32)
    if task == "tagging":
        rows = [{"tokens": t.split(), "tags": ["B-x" if w == "film" else "O" for w in t.split()]}
                for t in data["train"]["text"]]
        data = Dataset.from_list(rows)
    # Plain steps: AdamW makes steps of one size of the gradients of the keys' biases, which are 0
    # but for rounding.
    settings = dict(epochs=3, batch_size=8, learning_rate=0.1, optim="sgd", quiet=True,
                    dtype="float32")
    replayed = ft.fit(base, data, **settings).model
    plain = ft.fit(base, data, disable="cuda_graphs", **settings).model
    assert weights_apart(replayed, plain) < 1e-4


def test_no_step_waits_for_the_card():
    model = on_card(tiny.decoder())
    rows = list(encode(texts(8), model))
    collate = padding_free.PackedCollator(0, unit=64, longest=32)
    net, loss_of = model.net, packed_loss.PackedLoss(model.net, torch.bfloat16)
    net.set_attn_implementation(padding_free.NAME)
    batch = {k: v.cuda() if torch.is_tensor(v) else v for k, v in collate(rows).items()}

    def step(batch, fresh):
        return loss_of.add_gradients(batch, batch["weight"], fresh)

    batch["weight"] = 1 / (batch["shift_labels"] >= 0).sum()
    run = cuda_graphs.StepGraphs(step, net.parameters())
    first = run(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batch, True)  # kernel by kernel, too
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for parameter in net.parameters():
        parameter.grad = None
    again = [run(batch), run(batch)]
    assert run.problem is None and len(run.made) == 1
    assert all(value.item() == pytest.approx(first.item(), rel=1e-4) for value in again)


def test_gradients_of_replays_add_up_over_batches():
    model = on_card(tiny.decoder())
    rows, net = list(encode(texts(16), model)), model.net
    collate = padding_free.PackedCollator(0, unit=512, longest=32)
    parts = [collate(rows[:8]), collate(rows[8:])]
    parts = [{k: v.cuda() if torch.is_tensor(v) else v for k, v in p.items()} for p in parts]
    loss_of = packed_loss.PackedLoss(net, torch.bfloat16)
    net.set_attn_implementation(padding_free.NAME)

    def step(batch, fresh):
        return loss_of.add_gradients(batch, 0.01, fresh)

    def gradients(run):
        for parameter in net.parameters():
            parameter.grad = None
        for part in parts:
            run(part)
        return [p.grad.clone() for p in net.parameters()]

    run = cuda_graphs.StepGraphs(step, net.parameters())
    gradients(run), gradients(run)
    replayed, plain = gradients(run), gradients(lambda part: loss_of(part, 100).backward())
    assert len(run.made) == 2, "the first batch of an update writes gradients, the next ones add"
    for one, two in zip(replayed, plain, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_texts_in_a_row_keep_apart_in_the_cards_kernel():
    model = tiny.decoder()
    rows = list(encode(texts(6), model))
    exact = []
    with torch.no_grad():
        for row in rows:
            exact.append(model.net(torch.tensor([row["input_ids"]])).logits[0])
    net = model.net.to("cuda", torch.bfloat16)
    net.set_attn_implementation(padding_free.NAME)
    other = [{**rows[0], "input_ids": rows[0]["input_ids"][::-1]}, *rows[1:]]
    with torch.no_grad():
        found, changed = (
            net(**packed_loss.read(padding_free.PackedCollator(0)(given), "cuda"),
                use_cache=False).logits[0].cpu()
            for given in (rows, other)
        )
    start = len(rows[0]["input_ids"])
    assert torch.equal(found[start:], changed[start:]), "a neighbour changed, and logits moved"
    assert not torch.equal(found[:start], changed[:start])
    exact = torch.cat(exact)
    # Roundings of 3 blocks with some ten products each, of random signs.
    assert (found.float() - exact).norm() < 30**0.5 * 2 * BF16 * exact.norm()


def test_compiled_blocks_learn_the_same():
    data, base = texts(), on_card(tiny.decoder())
    settings = dict(epochs=2, batch_size=8, learning_rate=3e-3, quiet=True)
    compiled = ft.fit(base, data, compile_blocks=True, **settings).model
    plain = ft.fit(base, data, compile_blocks=False, **settings).model
    assert loss(compiled, data) == pytest.approx(loss(plain, data), abs=0.02)
    assert not any(getattr(m, "_compiled_call_impl", None) for m in compiled.net.modules())


def test_fp16_with_loss_scaling_learns():
    data, base = texts(), on_card(tiny.decoder())
    run = ft.fit(base, data, epochs=6, batch_size=8, learning_rate=3e-3, dtype="fp16", quiet=True)
    assert loss(base, data) - loss(run.model, data) > 0.1
    assert all(p.dtype == torch.float32 for p in run.model.net.parameters())


def test_four_bit_weights_learn_by_lora_and_stay_as_they_are(tmp_path):
    pytest.importorskip("bitsandbytes")
    tiny.decoder(hidden_size=128, intermediate_size=256).save(tmp_path / "base")
    base, data = ft.load_model(tmp_path / "base", dtype="nf4"), texts()
    run = ft.fit(base, data, method=ft.LoRA(rank=4), epochs=6, batch_size=8, learning_rate=1e-2,
                 quiet=True)
    assert loss(base, data) - loss(run.model, data) > 0.1
    kinds = {p.dtype for p in run.model.net.parameters() if not p.requires_grad}
    assert torch.uint8 in kinds, "the base is still held in 4 bits"


def test_a_batch_that_does_not_fit_is_split_and_learns_the_same():
    """Memory is limited to what half of the batch needs, as on a smaller card."""
    words = " ".join(tiny.WORDS * 6)
    data = Dataset.from_dict({"text": [words] * 64})
    base = on_card(tiny.decoder(hidden_size=256, intermediate_size=512))
    settings = dict(epochs=1, batch_size=64, learning_rate=1e-3, dtype="float32", optim="sgd",
                    disable=EVERYTHING)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    whole = ft.fit(base, data, quiet=True, **settings).model
    needed = torch.cuda.max_memory_allocated() - held
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    room = torch.cuda.memory_reserved() + needed * 0.6
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        run = ft.fit(base, data, **settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert run.settings["gradient_accumulation_steps"] > 1
    assert weights_apart(whole, run.model) < 1e-5
    assert batch_size.divisors(12) == [12, 6, 4, 3, 2, 1]


def test_what_is_saved_and_merged_on_a_card_is_the_same_elsewhere(tmp_path):
    base = on_card(tiny.decoder())
    base.save(tmp_path / "base")
    base = ft.load_model(tmp_path / "base")
    tuned = ft.fit(base, texts(), method=ft.LoRA(rank=4), epochs=2, learning_rate=1e-2,
                   quiet=True).model
    tuned.save(tmp_path / "adapter")
    merged = ft.merge(tuned)
    merged.save(tmp_path / "merged")
    ids = torch.tensor([[5, 6, 7, 8]], device="cuda")
    nets = [tuned.net, merged.net, ft.load_model(tmp_path / "adapter").net,
            ft.load_model(tmp_path / "merged").net]
    with torch.no_grad():
        logits = [net(input_ids=ids).logits for net in nets]
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=1e-4, atol=1e-5)


def test_an_evaluation_says_what_it_says_on_a_processor():
    data = texts()
    there, here = on_card(tiny.decoder()), tiny.decoder()
    # float32 on both; a mean over some hundred losses of 400 words each.
    assert loss(there, data) == pytest.approx(loss(here, data), rel=1e-5)
    prompts = ["the film was", "bad plot"]
    one, two = (ft.log_likelihood(m, prompts, [" good", " bad"]) for m in (there, here))
    assert one == pytest.approx(two, abs=1e-4)
    said = [ft.generate(m, prompts, max_new_tokens=6) for m in (there, here)]
    assert said[0] == said[1]


def test_one_process_of_torchrun_trains_on_the_card(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tiny, torch, ftkit as ft
base = tiny.decoder()
base.net.cuda()
data = tiny.reviews(16)
data = data.remove_columns("label")
run = ft.fit(base, data, epochs=2, batch_size=8, learning_rate=1e-3, quiet=True)
device = str(next(run.model.net.parameters()).device)
open({str(tmp_path / "out.json")!r}, "w").write(json.dumps([device, run.metrics["eval_loss"]]))
""")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1",
                           "--master-port", "29641", str(script)], timeout=240, cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    device, value = json.loads((tmp_path / "out.json").read_text())
    assert device.startswith("cuda") and 0 < value < 10
