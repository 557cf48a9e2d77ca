"""What the checks look at: rows, batches and a short training, each made when first needed."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import transformers

from ftkit.data.own import main_texts
from ftkit.data.splits import normalized
from ftkit.models import precision, structure
from ftkit.models.model import Model
from ftkit.training import fit

ROWS, BATCH = 24, 8  # of the short training


class Observed:
    """A model and its data, with what a pipeline makes of them.

    Everything is asked of the kit as fit asks it, so that the checks see what a training sees.
    """

    def __init__(self, model, data, method=None, max_length=None, reward=None, seed=0):
        self.model, self.data, self.method, self.seed = model, data, method, seed
        self.max_length, self.reward = max_length, reward
        self.rows = data["train"].select(range(min(ROWS, len(data["train"]))))
        self.held = data["validation"].select(range(min(ROWS, len(data["validation"]))))

    @cached_property
    def texts(self):
        """The texts of each split, in lower case and without punctuation, as lists."""
        return {name: list(map(normalized, main_texts(_columns(rows))))
                for name, rows in self.data.items()}

    @property
    def classes(self):
        """Whether rows have a class."""
        return self.model.spec.answer == "class"

    @property
    def writes(self):
        """Whether rows are a prompt and an answer that the model writes."""
        names = set(self.rows.column_names)
        return self.model.spec.next_token and ("text" not in names or "messages" in names)

    @cached_property
    def encoded(self):
        """The training rows as fit encodes them."""
        return fit.encode(self.rows, self.model, max_length=self.max_length)

    @cached_property
    def batch(self):
        """All of them as one batch of fit's."""
        collate = fit.Collator(self.model, self.seed)
        return collate([self.encoded[i] for i in range(len(self.encoded))])

    @cached_property
    def training(self):
        """A short training with this seed."""
        return self.train(self.seed)

    def train(self, seed, epochs=2, **given):
        """A Watched training on the first rows, in float32."""
        return watched(self.model, self.rows, self.max_length, method=self.method, seed=seed,
                       epochs=epochs, **given)


@dataclass
class Watched:
    """A training, with what was seen of it.

    orders: of each epoch the numbers of its rows in their order. rates: the learning rate of each
    update, with which it began.
    """

    run: object = None
    orders: dict = field(default_factory=dict)
    rates: list = field(default_factory=list)


class _Watch(transformers.TrainerCallback):
    def __init__(self, into):
        self.into = into

    def on_step_begin(self, args, state, control, optimizer=None, **_):
        self.into.rates.append(max(group["lr"] for group in optimizer.param_groups))


def watched(model, rows, max_length, *, seed, **given):
    """Train and watch: returns a Watched."""
    found, options = Watched(), {"batch_size": BATCH, "warmup": 0.0, "dtype": "float32"}
    collate = fit.Collator(model, seed)

    def watching(batch):
        for row in batch:
            epoch, index = row["place"]
            found.orders.setdefault(epoch, []).append(index)
        return collate(batch)

    found.run = fit.fit(model, rows, max_length=max_length, seed=seed, quiet=True,
                        data_collator=watching, callbacks=[_Watch(found)],
                        disable=("group_by_length",), **options | given)
    return found


def logits_of(model, batch):
    """What a model answers to a batch, in float32, on the CPU. batch: tensors, without labels."""
    with torch.inference_mode(), structure.at_rest(model.net):
        given = {name: value.to(model.device) for name, value in batch.items()}
        return model.net(**given).logits.float().cpu()


def rounding(model):
    """How far apart logits may be that are computed in two ways, for `far`."""
    return 1e-4 if precision.own(model.net) == "float32" else 0.05


def far(one, two):
    """How far two tensors are apart: the norm of their difference over that of the first."""
    return float((one - two).norm() / one.norm().clamp(min=1e-12))


def weights(model):
    """A copy of all trainable weights, by name."""
    return {name: weight.detach().cpu().clone()
            for name, weight in model.net.named_parameters() if weight.requires_grad}


def _columns(rows):
    return {name: rows[name][:] for name in rows.column_names if name not in ("label", "group")}


def plain_model(model: Model) -> bool:
    """Whether a model carries no adapter."""
    return not hasattr(model.net, "peft_config") and not hasattr(model.net, "adapter_registry")
