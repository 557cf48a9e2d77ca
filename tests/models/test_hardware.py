"""Without these, a user with a GPU could get a wrong dtype or run out of memory."""

import gc
import time

import pytest
import tiny
import torch

from ftkit.errors import SettingError
from ftkit.models import hardware as hw
from ftkit.models import peak, precision
from ftkit.training import measure

GIB = 1024**3
T4 = hw.Machine("cuda", "Tesla T4", 16 * GIB, 4, (7, 5))
LAPTOP = hw.Machine("cuda", "RTX 3070 Laptop", 8 * GIB, 8, (8, 6))
A100 = hw.Machine("cuda", "A100", 80 * GIB, 16, (8, 0))
H100 = hw.Machine("cuda", "H100", 80 * GIB, 16, (9, 0))
OLD = hw.Machine("cuda", "GTX 1080", 8 * GIB, 4, (6, 1))
APPLE = hw.Machine("mps", "Apple GPU", 16 * GIB, 8)
PLAIN = hw.Machine("cpu", "a CPU", 16 * GIB, 2)
AMX = hw.Machine("cpu", "a CPU", 16 * GIB, 2, fast_bf16=True)
BF16 = hw.Choice("bf16", "asked for")
SMALL = hw.ModelShape(135_000_000, 30, 576, 1536, 9, 49_152, gated=True)
LARGE = hw.ModelShape(7_000_000_000, 32, 4096, 11_008, 32, 32_000, gated=True)


@pytest.mark.parametrize(
    ("machine", "dtype"),
    [
        (T4, "fp16"),
        (LAPTOP, "bf16"),
        (A100, "bf16"),
        (H100, "bf16"),
        (OLD, "float32"),
        (APPLE, "float32"),
        (PLAIN, "float32"),
        (AMX, "bf16"),
    ],
)
def test_dtype_is_what_the_machine_multiplies_fast(machine, dtype):
    choice = precision.choose_dtype(machine)
    assert choice.value == dtype
    assert choice.why


@pytest.mark.parametrize(
    ("machine", "length", "kernel"),
    [
        (PLAIN, 64, "eager"),
        (PLAIN, 1024, "sdpa"),
        (AMX, 64, "eager"),
        (T4, 64, "sdpa"),
        (H100, 2048, "sdpa"),
        (APPLE, 64, "sdpa"),
    ],
)
def test_attention_kernel_by_length_and_machine(machine, length, kernel):
    assert hw.choose_attention(machine, length).value == kernel


@pytest.mark.parametrize(
    ("machine", "shape", "expected"),
    [
        (T4, SMALL, None),
        (LAPTOP, LARGE, "nf4"),
        (T4, LARGE, "nf4"),
        (A100, LARGE, None),
        (PLAIN, LARGE, None),
        (APPLE, LARGE, None),
    ],
)
def test_four_bits_only_where_cuda_and_needed(machine, shape, expected):
    assert hw.choose_quantization(machine, shape).value == expected


@pytest.mark.parametrize("machine", [T4, LAPTOP, A100, H100, APPLE, PLAIN, AMX])
def test_a_plan_fits_the_machine_and_keeps_the_batch(machine):
    plan = hw.plan(machine, SMALL, dtype=precision.choose_dtype(machine), length=512, batch_size=32)
    assert plan.estimate <= machine.memory * hw.USABLE
    assert plan.batch_size * plan.accumulation >= 32
    assert len(plan.why) >= 4


def test_a_large_machine_needs_neither_small_batches_nor_recomputation():
    plan = hw.plan(H100, SMALL, dtype=BF16, length=256, batch_size=32)
    assert (plan.batch_size, plan.accumulation, plan.checkpointing) == (32, 1, False)


@pytest.mark.parametrize("length, at_once", [(32, 16), (48, 16), (128, 8), (256, 4)])
def test_a_processor_trains_long_texts_in_parts_and_short_ones_together(length, at_once):
    float32 = hw.Choice("float32", "asked for")
    plan = hw.plan(PLAIN, SMALL, dtype=float32, length=length, batch_size=16)
    assert (plan.batch_size, plan.accumulation) == (at_once, 16 // at_once)
    assert not plan.checkpointing and hw.plan(
        AMX, SMALL, dtype=BF16, length=length, batch_size=16).batch_size >= at_once


def test_short_memory_brings_recomputation_before_a_batch_of_one():
    plan = hw.plan(LAPTOP, SMALL, dtype=BF16, length=2048, batch_size=16)
    assert plan.checkpointing
    assert plan.batch_size > 1


def test_what_cannot_fit_says_so_and_what_to_do():
    with pytest.raises(SettingError, match="LoRA.*smaller model"):
        hw.plan(LAPTOP, LARGE, dtype=BF16, length=512)


def test_estimate_grows_with_each_of_its_causes():
    base = dict(batch_size=8, length=128)
    least = hw.estimate_memory(SMALL, **base)
    for change in ({"batch_size": 16}, {"length": 256}):
        assert hw.estimate_memory(SMALL, **{**base, **change}) > least
    assert hw.estimate_memory(SMALL, **base, trainable=0.1) < least
    assert hw.estimate_memory(SMALL, **base, checkpointing=True) < least
    stored = [hw.estimate_memory(SMALL, **base, trainable=0.01, weights=weights)
              for weights in ("float32", "bf16", "int8", "nf4")]
    assert stored == sorted(stored, reverse=True) and len(set(stored)) == 4
    assert hw.estimate_memory(SMALL, **base, weights="nf4") == least, "all are trained, in float32"


def test_a_frozen_base_takes_the_bytes_that_it_is_stored_in():
    """Learners buy cards by this number: 7 billion weights of 16 bits are 13 GiB and not 26."""
    sizes = dict(batch_size=1, length=512, dtype="bf16", trainable=0.0)
    activations = hw.estimate_memory(LARGE, **sizes, weights="float32") - 4 * LARGE.parameters
    half = hw.estimate_memory(LARGE, **sizes, weights="bf16")
    assert half == 2 * LARGE.parameters + activations
    for gib, advice in ((16, "nf4"), (24, None)):
        card = hw.Machine("cuda", "card", gib * GIB, capability=(8, 0))
        assert hw.choose_quantization(card, LARGE).value == advice
    assert half < 24 * GIB * hw.USABLE


def test_a_plan_counts_the_weights_as_they_are_stored():
    sizes = dict(dtype=BF16, length=512, batch_size=1, trainable=0.005)
    with pytest.raises(SettingError, match="needs about"):
        hw.plan(T4, LARGE, **sizes, weights="bf16")
    assert hw.plan(T4, LARGE, **sizes, weights="nf4").estimate < 16 * GIB * hw.USABLE


def test_estimate_is_near_the_measured_peak_on_this_cpu():
    """A batch chosen by the estimate must neither run out of memory nor waste half of it."""
    model = tiny.decoder(
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        vocab_size=4000,
    )
    net = model.net.train()
    net.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    ids = torch.randint(5, 4000, (24, 128))
    gc.collect()
    import psutil

    weights = sum(p.numel() for p in net.parameters()) * 4
    before = psutil.Process().memory_info().rss - weights
    with measure.measured() as used:
        for _ in range(3):
            net(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    estimate = hw.estimate_memory(hw.shape_of(net), batch_size=24, length=128, attention="eager")
    assert 0.6 < estimate / (used.peak_memory - before) < 1.7


def test_memory_is_looked_at_where_there_may_be_more_and_seldom_where_looking_is_slow(monkeypatch):
    looks = []

    def slow():
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        looks.append(1)
        return 0

    with measure.measured() as used:
        used.look("forward", 100)
        held = torch.ones(60_000_000)  # 240 MB
        used.look("forward", 50)  # a smaller batch is not looked at
        used.look("backward", 50)
        del held
    assert 230e6 < used.added_memory < 260e6
    monkeypatch.setattr(measure, "unused", slow)
    with measure.measured() as used:
        for _ in range(20):
            used.look("forward", 100)
            time.sleep(0.01)
    assert len(looks) == 3  # before, once in a second, and after


def test_a_profile_gives_its_sizes_and_refuses_other_words():
    assert hw.profile("cpu", cpu=dict(n=3), smoke=dict(n=1)).n == 3
    assert hw.current_profile() == "cpu"
    with pytest.raises(SettingError, match="'tpu'.*smoke, cpu, gpu"):
        hw.profile("tpu")
    with pytest.raises(SettingError, match="gpu=dict"):
        hw.profile("gpu", cpu={})


def test_this_machine_is_described_and_measured():
    machine = hw.this_machine()
    assert machine.device in ("cuda", "mps", "cpu")
    assert machine.memory > GIB / 2
    assert peak.matrix_peak(size=256, repeats=2) > 1e8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_real_gpu_gets_a_plan_it_can_run():
    machine = hw.this_machine()
    plan = hw.plan(machine, SMALL, dtype=precision.choose_dtype(machine), length=256)
    assert plan.dtype in ("bf16", "fp16", "float32")


@pytest.mark.parametrize(("files", "cores"), [
    ({"cpu.max": "150000 100000"}, 1), ({"cpu.max": "400000 100000"}, 4),
    ({"cpu.max": "50000 100000"}, 1), ({"cpu.max": "max 100000"}, None), ({"cpu.max": "max"}, None),
    ({}, None),
    ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ({"own": "0::/job/step", "job/cpu.max": "300000 100000", "job/step/cpu.max": "max 100000"}, 3),
    ({"own": "3:cpu,cpuacct:/job", "cpu,cpuacct/job/cpu.cfs_quota_us": "100000",
      "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 1),
])
def test_a_containers_quota_of_processors_is_seen(tmp_path, files, cores, monkeypatch):
    """A batch that starts more threads than it may run slows every lesson down."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text + "\n")
    assert hw._core_quota(tmp_path, tmp_path / "own") == cores
    monkeypatch.setattr(hw, "_core_quota", lambda: 1)
    assert hw.usable_cores() == 1


def test_a_containers_limit_of_memory_is_seen(tmp_path, monkeypatch):
    for name, text in {"own": "4:memory:/job", "memory/memory.limit_in_bytes": str(2**63 - 4096),
                       "memory/job/memory.limit_in_bytes": "3000000000"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    assert min(hw._memory_limits(tmp_path, tmp_path / "own")) == 3_000_000_000
    monkeypatch.setattr(hw, "_memory_limits", lambda: [3_000_000_000])
    assert hw.usable_memory() == 3_000_000_000
