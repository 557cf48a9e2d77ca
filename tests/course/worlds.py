"""Small pipelines for faults and their checks: tables to load, and tiny models of both kinds."""

import random

import pandas as pd
import tiny
from tokenizers import processors

CLASSES = ("cold", "mild", "warm")
CLUES = (("ice", "snow", "frost", "sleet"), ("mist", "cloud", "breeze", "drizzle"),
         ("sun", "heat", "glow", "summer"))
FILLER = [a + b for a in ("ba", "co", "di", "fu", "le", "mo") for b in ("na", "ri", "to", "su")]
SIZES = {"train": 72, "validation": 36, "test": 36}


def _texts(split, n):
    """n rows of a text, its class and its group of two; no two rows have the same text."""
    rng = random.Random(split)
    for i in range(n):
        label = (i // 2) % 3
        words = [rng.choice(CLUES[label]), *rng.sample(FILLER, rng.randint(2, 6)), f"{split}{i}"]
        rng.shuffle(words)
        yield " ".join(words), CLASSES[label], f"{split}-{i // 2}"


def tables(task):
    """The splits of a task as pandas tables, for load_data."""
    found = {}
    for split, n in SIZES.items():
        rows = list(_texts(split, n))
        if task == "classification":
            columns = {"text": [r[0] for r in rows], "label": [r[1] for r in rows]}
        else:
            rng = random.Random(f"{split} answers")
            columns = {"prompt": [f"say: {r[0]}\n" for r in rows],
                       "response": [" ".join([r[1], *rng.sample(FILLER, rng.randint(0, 4))])
                                    for r in rows]}
        found[split] = pd.DataFrame({**columns, "group": [r[2] for r in rows]})
    return found


def model(task):
    """A tiny model of the task: with dropout, or a tokenizer that puts BOS before a text."""
    if task == "classification":
        made = tiny.encoder(labels=CLASSES)
        for part in made.net.modules():
            if type(part).__name__ == "Dropout":
                part.p = 0.1
        made.net.config.hidden_dropout_prob = 0.1
        made.net.bert.encoder.layer = made.net.bert.encoder.layer[:1]  # copied often: one is enough
        made.net.config.num_hidden_layers = 1
        return made
    made = tiny.decoder(num_hidden_layers=1)
    made.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)])
    return made
