"""The peers' way through each work, each with its best documented settings for this machine."""

import functools
import tempfile
import time

import torch
import transformers
from common import load, network, padded, result, tokenizer, train_by_hand
from worker import timed


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def _settings(work, seed, scratch, **more):
    """Arguments that make the runs the same work; all else is the Trainer's default."""
    return {
        "output_dir": scratch, "num_train_epochs": work["epochs"], "learning_rate": work["rate"],
        "per_device_train_batch_size": work["batch"], "seed": seed, "use_cpu": True,
        "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 10_000,
        "remove_unused_columns": False, "label_names": ["labels"],
    } | more


# Plain attention is faster on a CPU with short texts; transformers documents it as "eager".
PLAIN = {"attn_implementation": "eager"}


def _train(folder, seed, prepared=lambda net, work: net, options=None, **more):
    work = load(folder)
    transformers.set_seed(seed)
    net = prepared(network(work, **options or {}), work)
    with tempfile.TemporaryDirectory() as scratch:
        with timed() as found:  # from the loaded network on, as the kit's
            trainer = transformers.Trainer(
                net, transformers.TrainingArguments(**_settings(work, seed, scratch, **more)),
                train_dataset=Rows(work["train"]),
                data_collator=lambda rows: padded(rows, work["pad"]),
            )
            trainer.train()
    return _after(trainer, work, found)


def _after(trainer, work, found):
    """The result of a training, judged in float32 like everybody's.

    What accelerate wraps a network with in bf16 would compute the held-out loss in bf16 as well.
    """
    net = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return result(work, found, net, precision="bf16" if trainer.args.bf16 else "float32")


@functools.cache
def _fast_bf16():
    """Whether this processor multiplies bf16 faster, tried once: having units for it is not enough.

    Without the trial peers would train in bf16 where that is slower, and be weaker than they are.
    """
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    if not any(getattr(torch.cpu, name, lambda: False)() for name in checks):
        return False
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(1024, 1024, dtype=dtype)  # draws nothing: the seeds stay as they are
        for _ in range(4):
            start = time.perf_counter()
            square @ square
            best[dtype] = min(best.get(dtype, float("inf")), time.perf_counter() - start)
    return best[torch.bfloat16] < best[torch.float32]


def _freeze(net, work):
    """All but the head and the top blocks, as the kit's Freeze leaves them.

    What is frozen has no dropout, as in the kit: a fixed function of the text. Otherwise it would
    not be the same work (with dropout the head alone overfits less on these few reviews).
    """
    net.requires_grad_(False)
    body, blocks = net.base_model, len(net.base_model.encoder.layer)
    for part in (body.embeddings, *body.encoder.layer[: blocks - work["depth"]]):
        for module in part.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
    parts = [net.classifier, *([body.pooler] if getattr(body, "pooler", None) else [])]
    depth = work["depth"]
    for part in [*parts, *(body.encoder.layer[-depth:] if depth else [])]:
        part.requires_grad_(True)
    return net


def trainer(folder, seed):
    return _train(folder, seed)


def trainer_grouped(folder, seed):
    """Batches of similar length, plain attention, and bf16 where the processor is faster in it."""
    return _train(folder, seed, options=PLAIN, train_sampling_strategy="group_by_length",
                  bf16=_fast_bf16())


def trainer_frozen(folder, seed):
    return _train(folder, seed, _freeze)


def trainer_frozen_grouped(folder, seed):
    return _train(folder, seed, _freeze, PLAIN, train_sampling_strategy="group_by_length",
                  bf16=_fast_bf16())


def loop(folder, seed):
    """A loop by hand with what is well known: plain attention, fused AdamW, padding by batch."""
    work = load(folder)
    torch.manual_seed(seed)
    net = network(work, **PLAIN)
    with timed() as found:
        loader = torch.utils.data.DataLoader(
            Rows(work["train"]), batch_size=work["batch"], shuffle=True,
            collate_fn=lambda rows: padded(rows, work["pad"]))
        train_by_hand(net, work, lambda: loader)
    return result(work, found, net, precision="float32")


def _sft(folder, seed, peft_config=None, options=None, **more):
    import trl
    from datasets import Dataset

    work = load(folder)
    transformers.set_seed(seed)
    net = network(work, **options or {})
    with tempfile.TemporaryDirectory() as scratch:
        settings = _settings(work, seed, scratch, **more)
        del settings["remove_unused_columns"], settings["label_names"]
        data, words = Dataset.from_list(work["train"]), tokenizer(work)
        with timed() as found:
            trainer = trl.SFTTrainer(net, trl.SFTConfig(**settings), train_dataset=data,
                                     processing_class=words, peft_config=peft_config)
            trainer.train()
    return _after(trainer, work, found)


def sft(folder, seed):
    """As it comes (it recomputes activations), but in float32 where bf16 would be slower."""
    return _sft(folder, seed, bf16=_fast_bf16())


def _sft_best():
    return {"options": PLAIN, "gradient_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
            "bf16": _fast_bf16()}


def sft_best(folder, seed):
    """No activation checkpointing, similar lengths, plain attention, bf16 only where it pays."""
    return _sft(folder, seed, **_sft_best())


def sft_lora(folder, seed):
    import peft

    work = load(folder)
    config = peft.LoraConfig(r=work["rank"], lora_alpha=work["alpha"], lora_dropout=0.0,
                             target_modules=work["targets"], task_type="CAUSAL_LM")
    return _sft(folder, seed, config, **_sft_best())


def lm_eval(folder, seed):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    work = load(folder)
    model = HFLM(pretrained=network(work), tokenizer=tokenizer(work), batch_size=16, device="cpu")
    asked = [(prompt, answer) for prompt in work["prompts"] for answer in work["answers"]]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(asked)]
    with timed() as found:
        values = [value for value, _ in model.loglikelihood(requests, disable_tqdm=True)]
    scores = torch.tensor(values).view(len(work["prompts"]), -1)
    return _judged(work, found, scores.argmax(1).tolist(), scores=scores[:20].tolist())


@torch.inference_mode()
def generate(folder, seed):
    """Plain generation of one word, in batches of similar length, and a look at what it says."""
    work = load(folder)
    net, words = network(work).eval(), tokenizer(work)
    words.padding_side = "left"
    with timed() as found:
        order = sorted(range(len(work["prompts"])), key=lambda i: len(work["prompts"][i]))
        said = [None] * len(order)
        for start in range(0, len(order), 16):
            part = order[start : start + 16]
            batch = words([work["prompts"][i] for i in part], return_tensors="pt", padding=True)
            new = net.generate(**batch, max_new_tokens=2, do_sample=False,
                               pad_token_id=words.pad_token_id)[:, batch["input_ids"].shape[1] :]
            for i, text in zip(part, words.batch_decode(new), strict=True):
                said[i] = next((j for j, answer in enumerate(work["answers"])
                                if text.startswith(answer)), -1)
    return _judged(work, found, said)


def _judged(work, found, said, **more):
    right = sum(a == b for a, b in zip(said, work["right"], strict=True)) / len(said)
    return {"seconds": found.seconds, "peak_memory": found.peak_memory, "loss": None,
            "accuracy": right, "precision": "float32", **more}


def sweep(folder, seed):
    """Optuna over the same trials; each trains and evaluates with the Trainer."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    work = load(folder)

    def objective(trial):
        transformers.set_seed(seed)
        depth = trial.suggest_int("depth", 0, 1)
        rate = trial.suggest_float("rate", 1e-4, 1e-2, log=True)
        net = _freeze(network(work, **PLAIN), {"depth": depth})
        with tempfile.TemporaryDirectory() as scratch:
            settings = _settings(work | {"rate": rate}, seed, scratch, bf16=_fast_bf16(),
                                 train_sampling_strategy="group_by_length")
            trainer = transformers.Trainer(
                net, transformers.TrainingArguments(**settings, per_device_eval_batch_size=32),
                train_dataset=Rows(work["train"]), eval_dataset=Rows(work["test"]),
                data_collator=lambda rows: padded(rows, work["pad"]))
            trainer.train()
            return trainer.evaluate()["eval_loss"]

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for trial in work["trials"]:
        study.enqueue_trial(trial)
    with timed() as found:
        study.optimize(objective, n_trials=len(work["trials"]))
    return {"seconds": found.seconds, "peak_memory": found.peak_memory, "loss": study.best_value,
            "precision": "bf16" if _fast_bf16() else "float32"}
