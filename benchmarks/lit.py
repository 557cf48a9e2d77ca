"""litgpt's own training loops, in an environment of their own."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import lightning
import torch
from common import load, padded, result
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from safetensors.torch import load_file
from worker import timed

NAME = "SmolLM2-135M-Instruct"


def _loader(work, rows, shuffle):
    def collate(part):
        batch = padded(part, work["pad"])
        counts = batch["attention_mask"].sum(1, keepdim=True)
        return {"input_ids": batch["input_ids"], "labels": batch["labels"],
                "token_counts": {"raw": counts, "raw_plus_prompt_template": counts}}

    return torch.utils.data.DataLoader(rows, batch_size=work["batch"], shuffle=shuffle,
                                       collate_fn=collate)


def _load(model, work, config):
    weights = {}
    copy_weights_hf_llama(config, {}, weights, load_file(f"{work['model']}/model.safetensors"))
    missing = model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    assert not missing.unexpected_keys, missing
    model.lm_head.weight = model.transformer.wte.weight  # tied, as in the model's own code


def _begin(folder, seed):
    work = load(folder)
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric.seed_everything(seed, verbose=False)
    return work, fabric


def _settings(work, scratch):
    # It ends by the number of steps: at the end of an epoch it would write an example text.
    steps = -(-len(work["train"]) // work["batch"]) * work["epochs"]
    train = TrainArgs(save_interval=None, log_interval=1, global_batch_size=work["batch"],
                      micro_batch_size=work["batch"], lr_warmup_steps=None,
                      epochs=work["epochs"] + 1, max_steps=steps)
    return {"devices": 1, "checkpoint_dir": Path(work["model"]), "out_dir": Path(scratch),
            "train": train, "eval": EvalArgs(interval=100_000, max_iters=1),
            "data": SimpleNamespace()}


def _optimizer(fabric, model, work, steps):
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=work["rate"], weight_decay=0, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    return fabric.setup_optimizers(optimizer), schedule


def litgpt_full(folder, seed):
    from litgpt.finetune.full import fit
    from litgpt.model import GPT

    work, fabric = _begin(folder, seed)
    config = Config.from_name(NAME)
    model = GPT(config)
    _load(model, work, config)
    model = fabric.setup(model)
    train = fabric.setup_dataloaders(_loader(work, work["train"], True))
    held = fabric.setup_dataloaders(_loader(work, work["test"], False))
    optimizer, schedule = _optimizer(fabric, model, work, len(train) * work["epochs"])
    state = {"model": model, "optimizer": optimizer, "scheduler": schedule,
             "iter_num": 0, "step_count": 0}
    with tempfile.TemporaryDirectory() as scratch, timed() as found:
        fit(fabric, state, train, held, resume=False, **_settings(work, scratch))
    return _judged(work, found, model)


def litgpt_lora(folder, seed):
    from litgpt.finetune.lora import fit
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable

    work, fabric = _begin(folder, seed)
    config = Config.from_name(NAME, lora_r=work["rank"], lora_alpha=work["alpha"],
                              lora_dropout=0.0, lora_query=True, lora_key=False, lora_value=True)
    model = GPT(config)
    _load(model, work, config)
    mark_only_lora_as_trainable(model)
    model = fabric.setup_module(model)
    train = fabric.setup_dataloaders(_loader(work, work["train"], True))
    held = fabric.setup_dataloaders(_loader(work, work["test"], False))
    optimizer, schedule = _optimizer(fabric, model, work, len(train) * work["epochs"])
    with tempfile.TemporaryDirectory() as scratch, timed() as found:
        fit(fabric=fabric, model=model, optimizer=optimizer, scheduler=schedule,
            train_dataloader=train, val_dataloader=held, **_settings(work, scratch))
    return _judged(work, found, model)


def _judged(work, found, model):
    model.eval()
    model.max_seq_length = max(len(row["input_ids"]) for row in work["test"])
    with torch.no_grad():
        return result(work, found, precision="float32",
                      logits_of=lambda batch: model(batch["input_ids"]))
