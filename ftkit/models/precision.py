"""The one rule of precision: in which numbers a training, an evaluation and an answer compute.

Weights are float32 unless they were loaded otherwise. `fit` computes in 16 bits where that is
faster: on a card by what its units multiply, on a processor only where it was measured for a block
of the model's sizes, at this length and number of threads; the result is kept in the cache.
Evaluation, scoring and generation compute in the weights' own numbers, on every machine alike.
"""

import json
import os
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256

import torch
import torch.nn.functional as F
from filelock import FileLock

from ftkit.assets import atomic, fetch, versions
from ftkit.errors import SettingError
from ftkit.models import structure
from ftkit.models.hardware import SHORT, Choice, Computed, shape_of, this_machine

FORMATS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
VARIABLE = "FTKIT_DTYPE"
VERSIONS = ("torch", "transformers", "ftkit")  # with another of them it is measured again
GAIN = 1.1  # times as fast; less is no more than two measurements of one thing may differ by
# Operations of a training: below, measuring would take a good part of it. Counted, not timed, so
# that one training gets the same numbers every time and everywhere.
LONG = 2e12
WORK = 4e10  # operations that are measured at a time, half a second or less
SECONDS = 1.0  # after which no new round is measured


def named(dtype, source="dtype"):
    """The name of a number format, or None. Raises SettingError for one that is not in FORMATS."""
    if dtype is not None and dtype not in FORMATS:
        known = ", ".join(FORMATS)
        raise SettingError(f"{source}={dtype!r} does not exist; choose one of {known}.")
    return dtype


def own(net):
    """The format that most weights of a network are held in: a name of FORMATS, "nf4" or other."""
    if getattr(net, "is_loaded_in_4bit", False):
        return "nf4"
    sizes = {}
    for weights in net.parameters():
        if weights.is_floating_point():
            sizes[weights.dtype] = sizes.get(weights.dtype, 0) + weights.numel()
    return _name(max(sizes, key=sizes.get)) if sizes else "float32"


def _name(dtype):
    return next((n for n, known in FORMATS.items() if known is dtype), str(dtype)[len("torch.") :])


@contextmanager
def computing(model, dtype=None):
    """While open, a model computes in the weights' own numbers, or in those of `dtype`.

    Also inside of an autocast of the caller's. Yields the Computed that results state.
    Raises SettingError for an unknown dtype, or one that weights of 16 bits cannot give.
    """
    held, device = own(model.net), model.device
    wanted = named(dtype) or held
    if wanted != held and held != "float32":
        raise SettingError(f"dtype={dtype!r}: the weights of {model.name} are {held}, and "
                           "computing otherwise would not bring back what they lost. Load it with "
                           f"dtype={dtype!r}, or leave it out.")
    machine = this_machine()
    name = machine.name if device.type == machine.device else device.type
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    kind = FORMATS[wanted] if wanted != held else None
    with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
        yield Computed(wanted, name, threads)


def choose_dtype(machine):
    """The format that a machine's units multiply fastest: a Choice of a name in FORMATS."""
    if machine.device == "cuda":
        if machine.capability >= (8, 0):
            return Choice("bf16", f"bf16: {machine.name} multiplies it in tensor cores")
        if machine.capability >= (7, 0):
            return Choice("fp16", f"fp16 with loss scaling: {machine.name} has no bf16 units")
        return Choice("float32", f"float32: {machine.name} has no fast 16-bit units")
    if machine.device == "mps":
        return Choice("float32", "float32: mixed precision gains little on Apple's GPU")
    if machine.fast_bf16:
        return Choice("bf16", "bf16 where a training measures it faster: the processor has units")
    return Choice("float32", "float32: this processor reports no instructions for bf16 products")


def for_training(net, *, tokens, batch, length, dtype=None, flags=None):
    """The numbers that a training computes in: a Choice of a name in FORMATS.

    net: with the weights that are to be trained. tokens: over all epochs. batch: texts of a step.
    length: tokens of a usual text. dtype: asked for by the caller, else by FTKIT_DTYPE. flags: of
    "bf16" and "fp16", what the caller set of TrainingArguments'; they come before FTKIT_DTYPE.
    Raises SettingError where these are unknown, contradict one another, or cannot be.
    """
    asked = _asked(named(dtype), flags or {})
    machine, held = this_machine(), own(net)
    trained = {p.dtype for p in net.parameters() if p.requires_grad}
    # A head beside a LoRA is held as its base is; it still learns in bf16, and cannot in fp16.
    low = trained & ({torch.float16} | (set() if hasattr(net, "peft_config") else {torch.bfloat16}))
    if low:
        raise SettingError(f"the weights to be trained are {_name(low.pop())}, in which most "
                           'updates would be rounded away; load the model with dtype="float32", or '
                           'a decoder for LoRA in "bf16".')
    if held in ("bf16", "fp16") and machine.device == "cpu":
        if asked and asked.value != held and asked.why != VARIABLE:
            raise SettingError(f"{asked.why} asks for {asked.value}, and the weights are {held}; "
                               f"load the model with dtype={asked.value!r}, or leave it out.")
        if held == "bf16":
            return Choice("bf16", "bf16: the weights are")
        return Choice("float32", "fp16 where the weights are, float32 elsewhere")
    if asked:
        if asked.value == "fp16" and machine.device == "cpu":
            raise SettingError(f"{asked.why} asks for fp16, which needs the loss scaling of a CUDA "
                               "card; on a processor choose bf16 or float32.")
        return Choice(asked.value, f"{asked.value}: {asked.why} asks for it")
    found = choose_dtype(machine)
    if machine.device == "cpu" and found.value != "float32":
        found = _where_faster(net, tokens, batch, length)
    if (flags or {}).get(found.value) is False:
        return Choice("float32", f"float32: {found.value}=False was given")
    return found


def _asked(dtype, flags):
    """What the caller or the environment ask for: a Choice whose reason is who asked, or None."""
    on = [name for name in ("bf16", "fp16") if flags.get(name)]
    if len(on) > 1 or dtype and (on not in ([], [dtype]) or flags.get(dtype) is False):
        given = {"dtype": dtype, **flags}.items()
        said = ", ".join(f"{k}={v!r}" for k, v in given if v is not None)
        raise SettingError(f"{said} contradict one another; give one of them.")
    if dtype:
        return Choice(dtype, f"dtype={dtype!r}")
    if on:
        return Choice(on[0], f"{on[0]}=True")
    outside = named(os.environ.get(VARIABLE) or None, VARIABLE)
    return Choice(outside, VARIABLE) if outside else None


@dataclass(frozen=True)
class Block:
    """The sizes of a transformer block's pass, and what of it is trained: all that is measured.

    trained: "weights", "inputs" (adapters stand between frozen weights) or "nothing".
    """

    hidden: int
    intermediate: int
    heads: int
    gated: bool
    batch: int
    length: int
    trained: str

    @property
    def weights(self):
        return self.hidden * (4 * self.hidden + (3 if self.gated else 2) * self.intermediate)


def _where_faster(net, tokens, batch, length):
    """The Choice for a training on a processor with units for bf16."""
    shape = shape_of(net)
    lists = [module for _, module in structure.stacks(net)]
    if not lists:
        return Choice("float32", "float32: without blocks there is nothing to measure bf16 with")
    trained = [_trained(block) for block in max(lists, key=len)]
    lowest = next((i for i, t in enumerate(trained) if t != "nothing"), len(trained))
    top = trained[-1]
    passes = {"weights": 6, "inputs": 4, "nothing": 2}  # operations for each weight and token
    body = max(1, shape.parameters - shape.vocabulary * shape.hidden) / len(trained)
    work = body * tokens * sum(passes[t] for t in trained[lowest:])
    if work < LONG:
        return Choice("float32", "float32: too short a training to measure whether bf16 is faster")
    width = max(shape.heads, shape.hidden // shape.heads * shape.heads)
    block = Block(width, shape.intermediate, shape.heads, shape.gated, 1, _bucket(length), top)
    most = WORK / passes[top] / block.weights / block.length
    block = Block(**{**asdict(block), "batch": max(1, min(_bucket(batch), int(most)))})
    times = speedup(block)
    if times >= GAIN:
        return Choice("bf16", f"bf16: {times:.1f} times float32 here, measured")
    return Choice("float32", f"float32: bf16 is {times:.1f} times as fast here, measured")


def _trained(block):
    weights = [(p.numel(), p.requires_grad) for p in block.parameters()]
    count = sum(n for n, free in weights if free)
    if count > sum(n for n, _ in weights) / 2:
        return "weights"
    return "inputs" if count else "nothing"


def _bucket(number):
    """The power of two next to a number: trainings of similar sizes share what was found."""
    return 2 ** max(0, round(torch.log2(torch.tensor(float(max(1, number)))).item()))


def speedup(block):
    """How many times as fast as in float32 a block's passes are in bf16 on this machine.

    Measured once for a machine, number of threads, versions and Block; the cache keeps it.
    """
    key = {"machine": this_machine().name, "threads": torch.get_num_threads(),
           "versions": " ".join(f"{name} {versions.versions()[name]}" for name in VERSIONS),
           **asdict(block)}
    digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return _kept(fetch.cache_home() / "precision" / f"{digest}.json", block, tuple(key.items()))


@cache
def _kept(path, block, key):
    """From the file, or measured and written; a process asks once, so that its answer stays."""
    if (found := _read(path)) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Processes that begin together wait for the first, and go by what it found.
        with FileLock(f"{path}.lock"):
            if (found := _read(path)) is None:
                found = _measured(block)
                atomic.write(path, json.dumps({**dict(key), "times": found}, indent=1))
    except OSError:  # a cache that cannot be written: this process remembers, others measure
        found = _measured(block) if found is None else found
    return found


def _measured(block):
    """The ratio of the shortest passes in either format; the first of each only warms up."""
    times = {"float32": [], "bf16": []}
    step, start = _passes(block), time.perf_counter()
    while len(times["bf16"]) < 3 or (
        time.perf_counter() - start < SECONDS and len(times["bf16"]) < 10
    ):
        for dtype in times:  # by turns: what slows the machine meanwhile slows both
            begun = time.perf_counter()
            step(dtype)
            times[dtype].append(time.perf_counter() - begun)
    return round(min(times["float32"][1:]) / min(times["bf16"][1:]), 2)


def _read(path):
    """The number in a file; None where there is no file, or none that was written whole."""
    try:
        found = json.loads(path.read_text())["times"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, float | int) and found > 0 else None


def _passes(block):
    """A function of a dtype that runs a block forward, and backward where something is trained."""
    own_draws = torch.Generator().manual_seed(0)
    free = block.trained == "weights"

    def draw(*shape):
        return torch.empty(shape).normal_(0, 0.02, generator=own_draws).requires_grad_(free)

    square = [draw(block.hidden, block.hidden) for _ in range(4)]
    wide = [draw(block.intermediate, block.hidden) for _ in range(1 + block.gated)]
    back = draw(block.hidden, block.intermediate)
    hidden = draw(block.batch, block.length, block.hidden).detach()
    hidden.requires_grad_(block.trained != "nothing")

    def attend(query, key, value):
        if block.length > SHORT:
            return F.scaled_dot_product_attention(query, key, value)
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ value

    def forward():
        read = F.layer_norm(hidden, hidden.shape[-1:])
        split = (block.batch, block.length, block.heads, -1)
        parts = [F.linear(read, w).view(split).transpose(1, 2) for w in square[:3]]
        seen = attend(*parts).transpose(1, 2).reshape(hidden.shape)
        middle = hidden + F.linear(seen, square[3])
        read = F.layer_norm(middle, hidden.shape[-1:])
        inner = [F.linear(read, w) for w in wide]
        inner = F.silu(inner[0]) * inner[1] if block.gated else F.gelu(inner[0])
        return middle + F.linear(inner, back)

    def step(dtype):
        half = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == "bf16" else nullcontext()
        with torch.set_grad_enabled(block.trained != "nothing"), half:
            out = forward()
        if block.trained != "nothing":
            out.sum().backward()
            for weights in (hidden, *square, *wide, back):
                weights.grad = None

    return step


def as_it_was(net):
    """Remember how a network runs. Returns a function that takes off what was put on it since.

    accelerate wraps the forward of what it trains and leaves the wrapper there, with the replaced
    forward beside it; Trainer switches the key-value cache off in the configuration.
    """
    config, unset = getattr(net, "config", None), object()
    cached = getattr(config, "use_cache", unset)
    before = {module: _functions(module) for module in net.modules()}

    def restore():
        if cached is not unset:
            config.use_cache = cached
        for module, functions in before.items():
            for name in _functions(module).keys() - functions.keys():
                delattr(module, name)
            for name, function in functions.items():
                vars(module)[name] = function

    return restore


def _functions(module):
    """What can be called and stands on a module itself, not on its class: a forward put on it."""
    return {name: value for name, value in vars(module).items() if callable(value)}
