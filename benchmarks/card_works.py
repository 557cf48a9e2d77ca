"""The works of the card's benchmark, and what each needs, written once so that all read the same.

Every training has three epochs of the same tokens: the first is the warm-up (compilation, kernels
chosen, memory claimed), the other two are the steady state, in which all contenders see exactly the
same tokens. Tiny ones are of small random networks and few texts, to try everything without a card.
"""

import json

DECODER, ENCODER = "smollm2-135m-instruct", "minilm-l6"
EPOCHS = 3
PAIRS = {"data": "phenotype-definitions", "model": DECODER, "kind": "causal", "train": 1088,
         "test": 200, "batch": 64}
# Passages of encyclopedia articles, 150 tokens and more: 220 on average, 512 at most.
PASSAGES = {"data": "boolq", "kind": "causal", "train": 192, "test": 32, "batch": 32, "least": 150}
QWEN = {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True}
SMALLER = PASSAGES | {"model": "qwen3-0.6b",
                      "shape": QWEN | {"hidden_size": 1024, "intermediate_size": 3072}}
LARGER = PASSAGES | {"model": "qwen3-1.7b",
                     "shape": QWEN | {"hidden_size": 2048, "intermediate_size": 6144}}
LORA = {"rank": 16, "alpha": 32, "rate": 2e-4}
# In the order of their importance. base: the number format that frozen weights are held in; what
# is trained is held in float32 by everybody, and multiplied in bf16 but by Trainer as it comes.
WORKS = {
    "full-135m": PAIRS | {"method": "full", "rate": 1e-4},
    "lora-0.6b": SMALLER | {"method": "lora", "base": "bf16"} | LORA,
    "score": {"data": "boolq", "model": DECODER, "kind": "score", "shots": 8, "questions": 400,
              "answers": [" yes", " no"]},
    "full-0.6b": SMALLER | {"method": "full", "rate": 1e-4},
    "qlora-1.7b": LARGER | {"method": "lora", "base": "nf4"} | LORA,
    "classify": {"data": "rotten-tomatoes", "model": ENCODER, "kind": "classes", "train": 1984,
                 "test": 400, "batch": 64, "method": "full", "rate": 1e-4},
    "generate": {"data": "phenotype-definitions", "model": DECODER, "kind": "generate",
                 "questions": 200, "new": 48, "batch": 100},
    "lora-135m": PAIRS | {"method": "lora", "base": "bf16"} | LORA,
    # The same steps without the weights, for where there is little time to bring them.
    "random-135m": PAIRS | {"method": "full", "rate": 1e-4, "random": True},
    "lora-1.7b": LARGER | {"method": "lora", "base": "bf16"} | LORA,
    "full-1.7b": LARGER | {"method": "full", "rate": 1e-4},
}
TITLES = {
    "full-135m": "SmolLM2-135M, all weights, question and definition pairs",
    "random-135m": "SmolLM2-135M's shape, random weights, all trained, definition pairs",
    "lora-135m": "SmolLM2-135M, LoRA of rank 16 on all linear layers, the same pairs",
    "lora-0.6b": "Qwen3 shape of 0.6B, LoRA of rank 16 on all linear layers, passages",
    "full-0.6b": "Qwen3 shape of 0.6B, all weights, passages",
    "qlora-1.7b": "Qwen3 shape of 1.7B, QLoRA (nf4) of rank 16, passages",
    "lora-1.7b": "Qwen3 shape of 1.7B, LoRA of rank 16 on all linear layers, passages",
    "full-1.7b": "Qwen3 shape of 1.7B, all weights, passages",
    "classify": "MiniLM, all weights, reviews",
    "score": "SmolLM2-135M, 400 yes-no questions after 8 examples",
    "generate": "SmolLM2-135M, 200 answers of up to 48 tokens",
}
TINY = {"train": 12, "test": 6, "batch": 4, "questions": 6, "shots": 2, "new": 6, "least": 0}
TINY_SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8,
              "num_attention_heads": 4, "num_key_value_heads": 2}
_FOLDERS = {}  # of the catalog's models


def prepare(name, root, tiny=False):
    """Write work.json of one of WORKS into root/name, and its network where that is made."""
    import ftkit as ft
    from ftkit.assets import catalog, fetch

    work = {"epochs": EPOCHS, "tiny": tiny, "base": "float32"} | WORKS[name]
    if tiny:
        work |= {k: v for k, v in TINY.items() if k in work} | {"base": "float32"}
    source = work["model"] if "shape" not in work else DECODER
    if source not in _FOLDERS:
        ft.load_model(source, task="encoder")  # unpacked on its first use
        _FOLDERS[source] = str(fetch.model_folder(catalog.find(source)))
    work["model"] = _FOLDERS[source]
    if "shape" in work or tiny or work.get("random"):
        kind = "-tiny" * tiny or "-random" * ("shape" not in work)
        target = root / (WORKS[name]["model"].replace(".", "-") + kind)
        _make(work["model"], target, work.pop("shape", None), tiny, work["kind"])
        work["model"] = str(target)
    if work["kind"] == "score":
        work |= _questions(work)
    elif work["kind"] == "generate":
        data = ft.load_data(work["data"], n_train=1, n_test=work["questions"], seed=0,
                            form="choice")
        work["prompts"] = [_pair(row)["prompt"] for row in data["test"]]
    else:
        work |= _rows(work)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "work.json").write_text(json.dumps(work))
    return work


def _make(source, target, shape, tiny, kind):
    """A network with random weights, bf16 (float32 if tiny), and the tokenizer of `source`."""
    import torch
    import transformers

    if target.exists():
        return
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    if shape:
        config = transformers.Qwen3Config(**shape | (TINY_SHAPE if tiny else {}))
        if tiny:
            config.vocab_size = len(tokenizer)
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    else:
        config = transformers.AutoConfig.from_pretrained(source)
        for key, value in TINY_SHAPE.items():
            if tiny and hasattr(config, key):
                setattr(config, key, value)
    auto = transformers.AutoModel if kind == "classes" else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        net = auto.from_config(config, dtype=torch.float32 if tiny else torch.bfloat16)
    scratch = target.with_suffix(".part")
    net.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    scratch.replace(target)  # whole, or made anew by the next call


def _pair(row):
    """A term's question and its definition, from a row that asks for the term among others."""
    return {"prompt": f"What is {row['choices'][row['answer']]}?\n", "response": row["question"]}


def _questions(work):
    """Prompts of some solved questions and an open one: yes or no, from what the model knows."""
    import ftkit as ft

    data = ft.load_data(work["data"], n_train=work["shots"], n_test=work["questions"], seed=0)
    names = [" no", " yes"]
    shown = [(row["text"], names[row["label"]].strip()) for row in data["train"]]
    return {"prompts": [ft.few_shot(shown, row["text"]) for row in data["test"]],
            "right": [work["answers"].index(names[row["label"]]) for row in data["test"]]}


def _rows(work):
    """Texts for the kit and the same encoded for everybody; what a step must multiply."""
    import ftkit as ft
    from ftkit.tasks.batching import encode

    # Passages are chosen by their length out of more.
    more = 8 if work.get("least") else 1
    options = {"form": "choice"} if work["data"] == "phenotype-definitions" else {}
    data = ft.load_data(work["data"], n_train=work["train"] * more, n_test=work["test"] * more,
                        seed=0, **options)
    labels = data.labels if work["kind"] == "classes" else None
    task = "classification" if labels else "causal-lm"
    if options:
        data = data.map(_pair, remove_columns=data["train"].column_names)
    elif not labels:
        cut = 120 if work["tiny"] else None
        data = data.map(lambda row: {"text": row["text_pair"][:cut]},
                        remove_columns=data["train"].column_names)
    # Two bytes a weight are enough to count them; the tokenizer is what is needed.
    model = ft.load_model(work["model"], task=task, labels=labels, dtype="bf16")
    found = {"task": task, "labels": labels, "pad": model.tokenizer.pad_token_id}
    texts, counts = {}, _counts(model.net)
    for part in ("train", "test"):
        rows = encode(data[part], model).rows
        chosen = [i for i in range(len(rows)) if len(rows[i]["input_ids"]) >= work.get("least", 0)]
        chosen = chosen[: work[part]]
        if len(chosen) < work[part]:
            raise ValueError(f"{work['data']} has {len(chosen)} long texts, {work[part]} needed")
        texts[part] = [data[part][i] for i in chosen]
        found[part] = [{k: rows[i][k] for k in ("input_ids", "labels")} for i in chosen]
    return found | counts | {"texts": texts}


def _counts(net):
    """Weights in the blocks' matrices and in the head, and the width of attention."""
    import torch

    blocks = next(m for m in net.modules() if isinstance(m, torch.nn.ModuleList))
    config = net.config
    head = net.get_output_embeddings()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {"body": sum(p.numel() for p in blocks.parameters() if p.dim() == 2),
            "head": 0 if head is None else head.weight.numel(), "blocks": len(blocks),
            "width": config.num_attention_heads * width}
