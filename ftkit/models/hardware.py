"""What this machine can do, and what ftkit chooses for it: pure functions of a description."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from ftkit import compat, display
from ftkit.errors import SettingError
from ftkit.models.specs import SPECS

GIB = 1024**3
PROFILES = ("smoke", "cpu", "gpu")
SHORT = 256  # tokens; up to here plain attention is no slower than the fused kernel on a CPU
# Bytes of activations and logits on a processor, by the estimate. SmolLM2, 16 texts of up to 512
# tokens, two idle cores: 16 at once took 36.8 s of the processor and 7.2 GB at the peak, 4 at once
# 28.6 s and 4.4 GB, 2 at once 36.1 s and 4.0 GB, with the same loss to six digits; of up to 48
# tokens 4 at once took a quarter more than 16. In bf16 2 took twice the time of 8
# (benchmarks/at_once.py).
AT_ONCE = 3.5 * 2**30
USABLE = 0.85  # share of the memory that a plan may fill; the rest is for the framework itself
# Compiling the repeated block: seconds it takes, and the share of a step that it saves. On a CPU
# measured with SmolLM2 on two cores (67 s, and from nothing to 5%); on an H100 with 30 and 28
# blocks of 0.1 and 0.6 billion parameters (17 and 12 s, and 47 and 58%).
COMPILING = {"cpu": (67, 0.03), "cuda": (20, 0.45)}
# Bytes a weight takes as it is stored; one of 4 or 8 bits has its share of the blocks' scales.
BYTES = {"float32": 4, "bf16": 2, "fp16": 2, "int8": 1.05, "nf4": 0.55}
_current = {"profile": None}


@dataclass(frozen=True)
class Machine:
    """A machine as the choices below see it.

    device: "cuda", "mps" or "cpu". memory: bytes a model may use (of one device, or main memory).
    capability: CUDA compute capability. fast_bf16: a CPU that multiplies bf16 in hardware.
    """

    device: str
    name: str
    memory: int
    cores: int = 1
    capability: tuple[int, int] | None = None
    fast_bf16: bool = False
    devices: int = 1


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a transformer that decide how much memory it needs."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    gated: bool = False  # a gated feed-forward block (Llama type) keeps two inner activations


@dataclass(frozen=True)
class Choice:
    """A decision and the reason for it, in words for the log."""

    value: object
    why: str


@dataclass(frozen=True)
class Computed:
    """How a result came about: the numbers it was computed in, the device, and its threads."""

    dtype: str
    device: str
    threads: int

    def __str__(self):
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.dtype} on {self.device}{threads if self.threads else ''}"


@dataclass(frozen=True)
class Plan:
    """Everything decided before training starts. `why` has one line for each decision."""

    dtype: str
    attention: str
    checkpointing: bool
    quantization: str | None
    batch_size: int
    accumulation: int
    optimizer: str
    estimate: int
    why: list[str] = field(default_factory=list)

    def __str__(self):
        return "\n".join(self.why)


def profile(name, **sizes):
    """Choose the sizes for one of the profiles smoke, cpu and gpu, and remember which it is.

    Returns a namespace of the chosen profile's values. Claims look at the remembered profile:
    on "smoke" they are recorded and not judged, and a notice says that no number means anything.
    Raises SettingError when `name` is not a profile, or the lesson has no sizes for it.
    """
    if name not in PROFILES:
        raise SettingError(f"profile {name!r} does not exist; choose one of {', '.join(PROFILES)}.")
    if sizes and name not in sizes:
        raise SettingError(f"this notebook has no sizes for profile {name!r}, only for "
                           f"{', '.join(sizes)}; add {name}=dict(...) to its ft.profile call.")
    _current["profile"] = name
    if name == "smoke":
        display.display(display.Banner("Profile smoke:", (
            "every cell runs, on a few examples. The numbers, figures and verdicts below mean "
            'nothing; profile = "cpu" in the first cell gives real ones.')))
    return SimpleNamespace(**sizes.get(name, {}))


def current_profile():
    """The profile that the last call of `profile` chose; None outside a lesson."""
    return _current["profile"]


@cache
def this_machine():
    """Describe the machine that this process runs on, from what its hardware reports."""
    import torch

    cores = usable_cores()
    if torch.cuda.is_available():
        if (own := os.environ.get("LOCAL_RANK")) is not None:
            torch.cuda.set_device(int(own))  # "cuda" is each process's own card from here on
        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        return Machine("cuda", card.name, card.total_memory, cores, (card.major, card.minor),
                       devices=torch.cuda.device_count())
    memory = usable_memory()
    if torch.backends.mps.is_available():
        return Machine("mps", "Apple GPU", memory, cores)
    return Machine("cpu", _cpu_name(), memory, cores, fast_bf16=compat.multiplies_bf16())


def usable_cores():
    """Return how many processor cores this process may use, a container's quota included."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(allowed, _core_quota() or allowed))


def usable_memory():
    """Return the bytes of memory that this process may use, a container's limit included."""
    import psutil

    return min([psutil.virtual_memory().total, *_memory_limits()])


def _groups(controller, root, own):
    """Return the folders with a controller's limits: the process's own groups, and the root.

    Of a container the root is its group; under Slurm or systemd the own ones are further down.
    """
    found = [root, root / controller]  # of version 2, and of version 1
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        kinds, path = line.split(":", 2)[1:]
        if not kinds or controller in kinds.split(","):
            group = (base := root / kinds) / path.strip("/")
            found += [folder for folder in (group, *group.parents) if base in folder.parents]
    return found


def _core_quota(root=Path("/sys/fs/cgroup"), own=Path("/proc/self/cgroup")):
    """Return the whole processors that a container's quota allows, None where there is none."""
    quotas = []
    for folder in _groups("cpu", root, own):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            with suppress(OSError, ValueError):  # not there, or "max" without a limit
                quota, period = " ".join((folder / n).read_text() for n in names).split()
                quotas += [max(1, int(quota) // int(period))] if int(quota) > 0 else []
    return min(quotas, default=None)


def _memory_limits(root=Path("/sys/fs/cgroup"), own=Path("/proc/self/cgroup")):
    limits = []
    for folder in _groups("memory", root, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return limits


def _cpu_name():
    import platform

    with suppress(OSError):
        with open("/proc/cpuinfo") as cpuinfo:
            for line in cpuinfo:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def choose_attention(machine, length):
    """Attention kernel for sequences of about `length` tokens: a Choice of "eager" or "sdpa"."""
    if machine.device == "cpu" and length <= SHORT:
        why = f"plain attention: no slower than SDPA on a CPU up to {SHORT} tokens"
        return Choice("eager", why)
    return Choice("sdpa", "SDPA attention: the fused kernel saves time and memory")


def choose_padding_free(machine, task, dtype):
    """Whether the texts of a batch share one row, without padding: a Choice of True or False."""
    if not SPECS[task].next_token or machine.device != "cuda":
        return Choice(False, "")
    if machine.capability < (8, 0) or dtype == "float32":
        return Choice(False, "batches are padded: texts in one row need 16 bits and a card of "
                             "compute capability 8")
    return Choice(True, "no padding: the texts of a batch share one row, kept apart in attention")


def choose_compile(machine, seconds):
    """Whether to compile the repeated block in a training of so many seconds, a Choice."""
    if machine.device not in COMPILING:
        return Choice(False, f"no torch.compile: nothing is known of it on {machine.device}")
    cost, share = COMPILING[machine.device]
    words = (f"of about {seconds:,.0f} s of training it would save {share * seconds:,.0f} "
             f"and take about {cost}")
    if share * seconds > 2 * cost:  # twice, since both are estimates
        return Choice(True, f"torch.compile of the repeated block: {words}")
    return Choice(False, f"no torch.compile: {words}")


def estimate_memory(shape, *, batch_size, length, dtype="float32", trainable=1.0, attention="sdpa",
                    checkpointing=False, weights="float32", labelled=1.0):
    """Bytes that a training step needs at its peak: weights, gradients, AdamW, activations, logits.

    trainable: the share of the parameters that is trained, in float32. weights: how the others are
    stored, one of BYTES. dtype: what is computed in. labelled: the share of the positions that the
    head scores. A count of the tensors that autograd keeps for each block, checked in the tests
    against the measured peak on a CPU.
    """
    size = BYTES[dtype]
    trained = shape.parameters * trainable
    fixed = (shape.parameters - trained) * BYTES[weights] + trained * (4 + 4 + 8)
    tokens = batch_size * length
    inner = 4 if shape.gated else 2
    block = tokens * (9 * shape.hidden + inner * shape.intermediate) * size
    if attention == "eager":
        block += 3 * batch_size * shape.heads * length * length * size
    # Blocks below the lowest trainable one keep nothing for the backward pass.
    kept = shape.layers * min(1.0, trainable * 1.3) if trainable >= 0.05 else shape.layers
    if checkpointing:
        activations = shape.layers * tokens * shape.hidden * size + block
    else:
        activations = max(1.0, kept) * block
    logits = tokens * labelled * shape.vocabulary * 4 * 2
    return int(fixed + activations + logits)


def choose_quantization(machine, shape):
    """A Choice of "nf4" or None: whether LoRA on 512 tokens needs its frozen weights in 4 bits."""
    if machine.device != "cuda":
        return Choice(None, "weights as they are: 4-bit training needs CUDA")
    needed = estimate_memory(
        shape, batch_size=1, length=512, dtype="bf16", trainable=0.005, weights="bf16"
    )
    told = f"LoRA on 16-bit weights needs {needed / GIB:.1f} GiB of {machine.memory / GIB:.0f} GiB"
    if needed <= machine.memory * USABLE:
        return Choice(None, f"weights as they are: {told}")
    return Choice("nf4", f"4-bit weights: {told}")


def plan(machine, shape, *, dtype, length, batch_size=16, trainable=1.0, weights="float32",
         labelled=1.0):
    """Decide attention, checkpointing, quantization and the batch that fits, with reasons.

    The batch is split (and gradients accumulated in its place) until the estimate fits;
    activation checkpointing is tried before a batch goes below 4. A processor gains nothing from
    more texts at once than keep it busy: there it is split down to AT_ONCE, but in 16 bits,
    where each part casts all weights again. dtype: a Choice.
    weights: how the frozen ones are stored, one of BYTES.
    Returns a Plan. Raises SettingError when not even one example fits.
    """
    attention = choose_attention(machine, length)
    quantization = choose_quantization(machine, shape)
    room = machine.memory * USABLE

    def needs(micro, checkpointing):
        return estimate_memory(shape, batch_size=micro, length=length, dtype=dtype.value,
                               trainable=trainable, attention=attention.value,
                               checkpointing=checkpointing, weights=weights, labelled=labelled)

    # Evenly, so that an update is made of as many examples as were asked for.
    parts = [part for part in range(batch_size, 0, -1) if batch_size % part == 0]
    few = 4  # below, activations are computed again before there are fewer still
    if machine.device == "cpu" and dtype.value == "float32":
        parts = [p for p in parts if needs(p, False) - needs(0, False) <= AT_ONCE] or [1]
        few = parts[0]
    tries = [(micro, False) for micro in parts if micro >= few or micro == batch_size]
    tries += [(micro, True) for micro in parts] + [(micro, False) for micro in parts]
    fits = next((t for t in tries if needs(*t) <= room), None)
    if fits is None:
        least = needs(1, True) / GIB
        raise SettingError(f"one example of {length} tokens needs about {least:.1f} GiB and "
                           f"{machine.name} has {machine.memory / GIB:.1f} GiB; train fewer "
                           "weights (Freeze, LoRA), shorten max_length, or choose a smaller model.")
    micro, checkpointing = fits
    estimate = needs(micro, checkpointing)
    why = [dtype.why, attention.why, quantization.why]
    why.append(f"{micro} of {batch_size} examples at once: about {estimate / GIB:.1f} of "
               f"{machine.memory / GIB:.0f} GiB")
    if checkpointing:
        why.append("activations are computed again in the backward pass, to save memory")
    optimizer = "adamw_torch" if machine.device == "mps" else "adamw_torch_fused"
    return Plan(dtype.value, attention.value, checkpointing, quantization.value, micro,
                -(-batch_size // micro), optimizer, estimate, why)


def shape_of(net):
    """The ModelShape of a transformers model, read from its configuration."""
    config = net.config.get_text_config()

    def first(*names, default=1):
        return next((v for n in names if (v := getattr(config, n, None)) is not None), default)

    hidden = first("hidden_size", "d_model", "n_embd", "dim")
    return ModelShape(
        parameters=weights_in(net.parameters()),
        layers=first("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
        hidden=hidden,
        intermediate=first("intermediate_size", "d_ff", "n_inner", "hidden_dim",
                           default=4 * hidden),
        heads=first("num_attention_heads", "num_heads", "n_head", "n_heads"),
        vocabulary=config.vocab_size,
        gated=str(first("hidden_act", "hidden_activation", default="")) in ("silu", "swiglu"),
    )


def weights_in(parameters):
    """The number of weights in parameters; bitsandbytes packs two of 4 bits into each byte."""
    return sum(p.numel() * (2 * p.element_size() if type(p).__name__ == "Params4bit" else 1)
               for p in parameters)
