"""The peers' ways through each work on a card: each as a person who knows it well would set it."""

import dataclasses
import importlib.util
import tempfile

import torch
import transformers
from card_common import DEVICE, Clock, answered, network, outcome, right, set_products, tokenizer
from card_loop import loop
from common import padded
from peers import Rows

FIELDS = {f.name for f in dataclasses.fields(transformers.TrainingArguments)}
GROUPED = ({"train_sampling_strategy": "group_by_length"} if "train_sampling_strategy" in FIELDS
           else {"group_by_length": True})
# Besides what everybody gets: 16-bit products, no padding that can be avoided, and no looking at
# the loss of each step, for which the card would be waited for.
BEST = GROUPED | {"bf16": True, "optim": "adamw_torch_fused", "logging_nan_inf_filter": False}


def contend(name, work, seed):
    if work["kind"] in ("score", "generate"):
        return {"lm_eval": lm_eval, "generate": generate}[name](work)
    torch.manual_seed(seed)
    return fitting(work, lambda micro: CONTENDERS[name](work, seed, micro))


def fitting(work, train):
    """Train with the largest batch that fits, an update of more accumulated from several.

    What was tried in vain is not in the times.
    """
    micro = work["batch"]
    while True:
        try:
            return train(micro) | {"micro": micro}
        except torch.cuda.OutOfMemoryError:
            if micro == 1:
                raise
        micro //= 2
        clear()


def clear():
    import gc

    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def _settings(work, seed, scratch, micro, **more):
    """Arguments that make the trainings the same work; all else is the Trainer's default."""
    return {
        "output_dir": scratch, "num_train_epochs": work["epochs"], "learning_rate": work["rate"],
        "per_device_train_batch_size": micro, "seed": seed, "use_cpu": DEVICE == "cpu",
        "gradient_accumulation_steps": work["batch"] // micro,
        "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 10_000,
        "remove_unused_columns": False, "label_names": ["labels"],
    } | more


def with_lora(net, work):
    """The network with LoRA around it, where the work asks for that; frozen weights stay so."""
    if work["method"] != "lora":
        return net
    import peft

    return peft.get_peft_model(net, lora(work))


def lora(work):
    import peft

    return peft.LoraConfig(r=work["rank"], lora_alpha=work["alpha"], lora_dropout=0.0,
                           target_modules="all-linear", task_type="CAUSAL_LM")


def _train(work, seed, micro, precision, base=None, **more):
    set_products("highest" if precision == "float32" else "high")
    net = with_lora(network(work, base), work)
    with tempfile.TemporaryDirectory() as scratch:
        clock = Clock()
        transformers.Trainer(
            net, transformers.TrainingArguments(**_settings(work, seed, scratch, micro, **more)),
            train_dataset=Rows(work["train"]), callbacks=[clock],
            data_collator=lambda rows: padded(rows, work["pad"]),
        ).train()
        clock.stop()
    return outcome(work, clock, net, precision=precision)


def trainer(work, seed, micro):
    """As it comes: float32, texts in a random order."""
    return _train(work, seed, micro, "float32", None if work["base"] == "nf4" else "float32")


def trainer_best(work, seed, micro):
    return _train(work, seed, micro, "bf16", **BEST)


def trainer_liger(work, seed, micro):
    _need("liger_kernel")
    return _train(work, seed, micro, "bf16", **BEST, use_liger_kernel=True)


def trainer_compiled(work, seed, micro):
    """The whole network compiled by the Trainer, for the shapes that come."""
    backend = {"torch_compile_backend": "eager"} if work["tiny"] else {}
    return _train(work, seed, micro, "bf16", **BEST, torch_compile=True, **backend)


def _need(package):
    if not importlib.util.find_spec(package):
        raise ImportError(name=package)


def _sft(work, seed, micro, **more):
    import trl
    from datasets import Dataset

    set_products("high")
    # Without a kernel that keeps texts apart, packing would let them see each other.
    flash = bool(importlib.util.find_spec("flash_attn"))
    net = network(work, **({"attn_implementation": "flash_attention_2"} if flash else {}))
    peft_config = lora(work) if work["method"] == "lora" else None
    data, words = Dataset.from_list(work["train"]), tokenizer(work)
    with tempfile.TemporaryDirectory() as scratch:
        settings = _settings(work, seed, scratch, micro, **BEST, padding_free=flash,
                             gradient_checkpointing=False, **more)
        del settings["remove_unused_columns"], settings["label_names"]
        clock = Clock()
        trainer = trl.SFTTrainer(net, trl.SFTConfig(**settings), train_dataset=data,
                                 processing_class=words, peft_config=peft_config,
                                 callbacks=[clock])
        trainer.train()
        clock.stop()
    return outcome(work, clock, trainer.model, precision="bf16")


def sft(work, seed, micro):
    return _sft(work, seed, micro)


def sft_liger(work, seed, micro):
    _need("liger_kernel")
    return _sft(work, seed, micro, use_liger_kernel=True)


def by_hand(work, seed, micro, compiled=True):
    """A loop by hand with everything that is well known, and blocks compiled."""
    set_products("high")
    net = with_lora(network(work), work)
    clock = Clock()
    clock.steps = loop(net, work, seed, micro, clock, compiled)
    return outcome(work, clock.stop(), net, precision="bf16")


def by_hand_plain(work, seed, micro):
    return by_hand(work, seed, micro, compiled=False)


CONTENDERS = {"trainer": trainer, "trainer_best": trainer_best, "trainer_liger": trainer_liger,
              "trainer_compiled": trainer_compiled, "sft": sft, "sft_liger": sft_liger,
              "loop": by_hand, "loop_plain": by_hand_plain}


def lm_eval(work):
    """lm-eval's own reader of Hugging Face models, bf16, batches of 64 by length."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    net = network(work, "bf16" if DEVICE == "cuda" else "float32")
    model = HFLM(pretrained=net, tokenizer=tokenizer(work), batch_size=64, device=DEVICE)

    def answer(prompts):
        asked = [(prompt, each) for prompt in prompts for each in work["answers"]]
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(asked)]
        values = [value for value, _ in model.loglikelihood(requests, disable_tqdm=True)]
        return torch.tensor(values).view(len(prompts), -1).argmax(1).tolist()

    said, found = answered(work, answer)
    return found | right(work, said)


@torch.inference_mode()
def generate(work):
    """The library's own generate, bf16, batches of similar length, padded on the left."""
    net = network(work, "bf16" if DEVICE == "cuda" else "float32").eval()
    words = tokenizer(work)
    words.padding_side = "left"
    scored = work["kind"] == "score"
    size, new = (64, 2) if scored else (work["batch"], work["new"])

    def answer(prompts):
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        texts = [""] * len(order)
        for start in range(0, len(order), size):
            part = order[start : start + size]
            batch = words([prompts[i] for i in part], return_tensors="pt", padding=True).to(DEVICE)
            batch.pop("token_type_ids", None)
            made = net.generate(**batch, max_new_tokens=new, do_sample=False,
                                pad_token_id=words.pad_token_id)[:, batch["input_ids"].shape[1] :]
            said = words.batch_decode(made, skip_special_tokens=True)
            for i, text in zip(part, said, strict=True):
                texts[i] = text
        return texts

    texts, found = answered(work, answer)
    if not scored:
        return found | {"texts": texts}
    said = [next((j for j, a in enumerate(work["answers"]) if text.startswith(a)), -1)
            for text in texts]
    return found | right(work, said)
