"""What all contenders on a card share: loading, the clock, the judge, and what a step must do."""

import gc
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from common import IGNORED, padded

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMATS = {"float32": torch.float32, "bf16": torch.bfloat16}
WARM_UP = 16  # prompts
PROFILED = 10  # updates


def load(folder):
    """What card_works.py wrote for a work."""
    return json.loads((Path(folder) / "work.json").read_text())


def sync():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def network(work, base=None, **options):
    """A fresh copy of the work's network. base: the number format of its weights."""
    base = base or work["base"]
    auto = transformers.AutoModelForCausalLM
    if work["kind"] == "classes":
        auto = transformers.AutoModelForSequenceClassification
        options |= {"num_labels": len(work["labels"])}
    if base == "nf4":
        options |= {"dtype": torch.bfloat16, "device_map": {"": 0},
                    "quantization_config": transformers.BitsAndBytesConfig(
                        load_in_4bit=True, bnb_4bit_quant_type="nf4",
                        bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)}
        return auto.from_pretrained(work["model"], **options)
    return auto.from_pretrained(work["model"], dtype=FORMATS[base], **options).to(DEVICE)


def tokenizer(work):
    """The tokenizer of the work's network; one without a padding token pads with its end."""
    found = transformers.AutoTokenizer.from_pretrained(work["model"])
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


class Clock(transformers.TrainerCallback):
    """Times a training: all of it, and what comes after its first epoch, the steady state.

    The card is waited for at the beginning, at the end of the first epoch, and at the end of all.
    With `profile`, a file, ten updates after the first epoch are looked into, and nothing is timed.
    """

    profile = watch = found = None

    def __init__(self):
        gc.collect()
        self.loaded = 0
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.loaded = torch.cuda.memory_allocated()
        self.warm = self.steps = None
        sync()
        self.start = time.perf_counter()

    def on_epoch_end(self, args=None, state=None, control=None, **_):
        if self.warm is None:
            sync()
            self.warm = time.perf_counter()
            if self.profile:
                kinds = [torch.profiler.ProfilerActivity.CPU]
                if DEVICE == "cuda":
                    kinds.append(torch.profiler.ProfilerActivity.CUDA)
                self.watch, self.watched = torch.profiler.profile(activities=kinds), 0
                self.watch.start()

    def on_step_end(self, args=None, state=None, control=None, **_):
        if self.watch is None:
            return
        self.watched += 1
        if self.watched == PROFILED:
            self._look()

    def _look(self):
        sync()
        seconds, watch = time.perf_counter() - self.warm, self.watch
        self.watch = None
        watch.stop()
        self.found = profiled(watch.key_averages(), seconds, self.watched, self.profile)

    def on_train_end(self, args=None, state=None, control=None, **_):
        if self.watch is not None:
            self._look()
        sync()
        self.end = time.perf_counter()
        if state is not None:
            self.steps = state.global_step

    def stop(self):
        """The training is over, with all that the contender does around it."""
        sync()
        self.finish = time.perf_counter()
        return self


def outcome(work, clock, net, **more):
    """What a training is reported as; `net` is judged, and no longer of use afterwards."""
    if clock.profile:
        return {"profile": clock.found}
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
    tokens = sum(len(row["input_ids"]) for row in work["train"])
    return {"seconds": clock.finish - clock.start, "steady_seconds": clock.end - clock.warm,
            "steady_tokens": tokens * (work["epochs"] - 1), "updates": clock.steps,
            "steady_operations": operations(work) * (work["epochs"] - 1),
            "peak_memory": peak, "loaded": clock.loaded, "loss": judge(work, net), **more}


def profiled(averages, seconds, updates, file):
    """What the profiler saw in some updates: how busy the card was, its longest kernels, launches.

    The table of all is written into `file`. Seen by the profiler, launches take longer than else.
    """
    time_of = ((lambda e: e.self_device_time_total) if DEVICE == "cuda"
               else (lambda e: e.self_cpu_time_total))
    own = [e for e in averages if time_of(e) > 0]
    if DEVICE == "cuda":  # operators and named regions repeat what their kernels took
        own = [e for e in own if e.device_type == torch.autograd.DeviceType.CUDA
               and not getattr(e, "is_user_annotation", False)]
    total = sum(map(time_of, own)) / 1e6
    longest = sorted(own, key=time_of, reverse=True)[:12]
    order = "self_device_time_total" if DEVICE == "cuda" else "self_cpu_time_total"
    Path(file).write_text(averages.table(sort_by=order, row_limit=60, max_name_column_width=90))
    return {"seconds": seconds, "updates": updates, "busy": total / seconds,
            "kernels": sum(e.count for e in own) / updates,
            "longest": [[e.key[:90], time_of(e) / 1e6 / total, e.count / updates]
                        for e in longest]}


def answered(work, answer):
    """Let a contender answer all prompts of a work, after some of them as a warm-up.

    answer: a function of a list of prompts. Returns what it returned for all, and the report.
    """
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    marks = []
    for prompts in (work["prompts"][:WARM_UP], work["prompts"]):
        sync()
        marks.append(time.perf_counter())
        found = answer(prompts)
    sync()
    end = time.perf_counter()
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
    return found, {"seconds": end - marks[0], "steady_seconds": end - marks[1],
                   "peak_memory": peak, "loss": None,
                   "precision": "bf16" if DEVICE == "cuda" else "float32"}


def right(work, said):
    """The share of right answers, of their numbers among the work's answers."""
    return {"accuracy": sum(int(a) == b for a, b in zip(said, work["right"], strict=True))
            / len(work["right"])}


def operations(work):
    """Floating-point operations that an epoch of a work needs, without padding or recomputation.

    Two a weight and token forward; as many for the gradients of what goes in, and as many for
    those of weights where these are trained. The head counts at positions with a label. Attention
    is what the blocks' matrices do not show: half the square in a decoder.
    """
    train = work["train"]
    tokens = sum(len(row["input_ids"]) for row in train)
    causal = work["kind"] == "causal"
    labelled = sum(sum(i >= 0 for i in row["labels"][1:]) for row in train) if causal else 0
    passes = 6 if work["method"] == "full" else 4
    square = sum(len(row["input_ids"]) ** 2 for row in train)
    attention = (6 if causal else 12) * work["blocks"] * work["width"] * square
    return passes * (work["body"] * tokens + work["head"] * labelled) + attention


@torch.no_grad()
def judge(work, net):
    """Held-out loss in nats, a labelled token or a text, by the plain library: padded batches of 8.

    Weights and products in float32; 4-bit weights stay what they are, all around them is float32.
    """
    set_products("highest")
    net.eval()
    for weights in net.parameters():
        if weights.is_floating_point():
            weights.data = weights.data.float()
    total = count = 0.0
    for start in range(0, len(work["test"]), 8):
        batch = padded(work["test"][start : start + 8], work["pad"])
        batch = {name: values.to(DEVICE) for name, values in batch.items()}
        labels = batch.pop("labels")
        logits = net(**batch).logits.float()
        if logits.dim() == 3:
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        total += F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED).item()
        count += (labels != IGNORED).sum().item()
    return total / count


def set_products(precision):
    """How float32 matrices are multiplied: "highest", or "high" for TF32.

    By this call alone. TrainingArguments(tf32=True) uses PyTorch's newer one, and torch.compile
    refuses a process in which the two disagree.
    """
    torch.set_float32_matmul_precision(precision)


def matrix_peak():
    """The best measured rate of bf16 matrix products on this device, in operations a second."""
    size, repeats = (8192, 30) if DEVICE == "cuda" else (256, 3)
    a = torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(3):
        a @ a
        sync()
        start = time.perf_counter()
        for _ in range(repeats):
            a @ a
        sync()
        best = min(best, (time.perf_counter() - start) / repeats)
    return 2 * size**3 / best


def card():
    """What a row must name: the card, its memory and driver, and the libraries."""
    from importlib import metadata

    found = {"device": DEVICE, "name": "a CPU", "memory": 0, "driver": None,
             "cuda": torch.version.cuda, "matrix_peak": matrix_peak()}
    if DEVICE == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"name": properties.name, "memory": properties.total_memory, "driver": _driver()}
    names = ("torch", "transformers", "peft", "accelerate", "trl", "liger-kernel", "bitsandbytes",
             "lm-eval", "litgpt", "triton")
    installed = {}
    for package in metadata.distributions():  # the first found is the one that is imported
        installed.setdefault(package.name.lower().replace("_", "-"), package.version)
    return found | {"versions": {n: installed[n] for n in names if n in installed}}


def _driver():
    import subprocess

    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None
