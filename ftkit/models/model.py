"""A model: a network, its tokenizer and the task it is for; how it is compared, copied, saved."""

import copy
import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
import xxhash

from ftkit.display import Facts
from ftkit.errors import SettingError
from ftkit.models import adapters, structure
from ftkit.models.hardware import weights_in
from ftkit.models.pooling import pooling_of
from ftkit.models.saving import save_folder
from ftkit.models.specs import SPECS

UNSAVED = adapters.UNSAVED


@dataclass
class Model(Facts):
    """A network, its tokenizer and what it is for.

    net: a transformers model, or a peft model around one. task: one of models.TASKS.
    labels: names of the classes in the order of the outputs, for classification and tagging.
    """

    net: torch.nn.Module
    tokenizer: object
    task: str
    name: str
    labels: list | None = None
    settings: dict = field(default_factory=dict)

    @property
    def spec(self):
        """The TaskSpec: what the task asks of a network."""
        return SPECS[self.task]

    @property
    def device(self):
        return next(self.net.parameters()).device

    def hash(self, part="all"):
        """SHA-256 over the weights, as hex: two models are the same when their hashes are.

        part: "all", or "base" for the pretrained body alone, without adapters or a head of its own:
        the same before and after a method that leaves the base as it is.
        """
        if part not in ("all", "base"):
            raise SettingError(f"hash(part={part!r}) does not exist; choose all or base.")
        weights = self.net.state_dict() if part == "all" else adapters.body_of(self)

        return _digest(weights, hashlib.sha256)

    def fingerprint(self):
        """XXH3 over the weights, 32 hex digits: in a tenth of hash()'s time, for records.

        Equal for the same weights. It tells models apart by accident, not against forgery.
        """
        return _digest(self.net.state_dict(), xxhash.xxh3_128)

    def copy(self):
        """A second model with weights of its own; the tokenizer is shared."""
        return Model(copy.deepcopy(self.net), self.tokenizer, self.task, self.name, self.labels,
                     dict(self.settings))

    def save(self, folder):
        """Write weights (safetensors), tokenizer and task to `folder`, for load_model(folder).

        A model that was saved there before is replaced in one step; files of others in the folder
        stay, such as a README.md.
        A peft model is stored as its adapter alone, with the name of its base; so is the active
        one of several bottleneck adapters, with its head. Returns the path.
        Raises SettingError for an adapter whose base exists in memory only, FetchError where the
        folder holds something else or cannot be written.
        """
        configs = getattr(self.net, "peft_config", None) or {}
        for config in configs.values():
            if config.base_model_name_or_path == UNSAVED:
                raise SettingError(f"this adapter of {self.name} was trained on a base that was "
                                   "tuned or merged and never saved, so it could not be loaded "
                                   "again. Save ft.merge(model), which has both in one; or save "
                                   "the base, load it, and train the adapter on that.")
            config.base_model_name_or_path = self.net.config.name_or_path

        def build(target):
            card = {"task": self.task, "labels": self.labels, "name": self.name}
            if hasattr(self.net, "adapter_registry"):
                card |= adapters.write(self, target)
            else:
                # peft would ask the hub whether the vocabulary has grown, and here it has not.
                options = {"save_embedding_layers": False} if configs else {}
                with quiet():
                    self.net.save_pretrained(target, **options)
                self.tokenizer.save_pretrained(target)
            card["seed"] = self.settings.get("seed")  # of what the base's archive does not have
            card["pooling"] = pooling_of(self.net)
            return card

        return save_folder(folder, build)

    def facts(self):
        """What the model is, as {what: value}: the lines of its table."""
        weight = next(self.net.parameters())
        return {
            "name": self.name, "task": self.task, "labels": ", ".join(map(str, self.labels or ())),
            "architecture": type(self.net).__name__,
            "parameters": f"{weights_in(self.net.parameters()):,}",
            "weights": f"{str(weight.dtype).removeprefix('torch.')} on {weight.device}"}

    def __repr__(self):
        total = weights_in(self.net.parameters())
        return f"Model({self.name!r}, task={self.task!r}, {total / 1e6:.1f}M parameters)"


@contextmanager
def quiet_peft():
    """Without peft's warnings of what is meant: an older name, a T5 whose head is apart."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        warnings.filterwarnings("ignore", message=".*embeddings are no longer tied")
        yield


class quiet:
    """No progress bars or report of new heads while loading: a new head is what was asked for."""

    def __enter__(self):
        logging = transformers.utils.logging
        self.level = logging.get_verbosity()
        self.bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_):
        transformers.utils.logging.set_verbosity(self.level)
        if self.bars:
            transformers.utils.logging.enable_progress_bar()


def check_model(model):
    """Raise SettingError, with what to do, for what is no Model."""
    if isinstance(model, Model):
        return
    hint = "ft.load_model gives one"
    if isinstance(model, str | Path):
        hint = f"ft.load_model({str(model)!r}) gives one"
    elif isinstance(getattr(model, "model", None), Model):
        hint = "give run.model"
    elif isinstance(model, torch.nn.Module):
        hint = "save it with its tokenizer (save_pretrained), and ft.load_model(folder) gives one"
    raise SettingError(f"a Model was expected, got {type(model).__name__}; {hint}.")


def trainable_summary(model):
    """What is trained: counts "trained" and "total", "share" (0 to 1) and "bytes" to store.

    "blocks": in how many transformer blocks something is trained, as structure.blocks counts them.
    """
    trained = [p for p in model.net.parameters() if p.requires_grad]
    count, total = weights_in(trained), weights_in(model.net.parameters())
    blocks = structure.blocks(model.net) if structure.stacks(model.net) else []
    return {"trained": count, "total": total, "share": count / total,
            "bytes": sum(p.numel() * p.element_size() for p in trained),
            "blocks": sum(any(p.requires_grad for p in block.parameters()) for block in blocks)}


def _digest(weights, algorithm):
    """The hash of named tensors, in hex, by hashlib's sha256 or one with the same interface."""

    def of(item):
        name, tensor = item
        found = algorithm(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        found.update(flat.data if flat.size else b"")
        return found.digest()

    with ThreadPoolExecutor() as pool:  # hashing large buffers lets other threads run
        return algorithm(b"".join(pool.map(of, sorted(weights.items())))).hexdigest()
