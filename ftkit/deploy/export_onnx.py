"""A model with a head as an ONNX graph, by PyTorch's exporter, and read back by onnxruntime."""

from __future__ import annotations

import inspect
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ftkit.deploy.parity import Parity, encoded
from ftkit.errors import SettingError
from ftkit.models.model import Model
from ftkit.models.precision import own

FILE = "model.onnx"  # beside config.json and the tokenizer, as optimum's ORTModel looks for it


def write(model: Model, target: Path) -> None:
    """Write the graph, which takes any number of texts of any length, with its tokenizer.

    Raises SettingError for a model that writes or has no head, and for weights of 16 bits.
    """
    if model.spec.writes or not (model.spec.own_head or model.spec.masked):
        raise SettingError('format="onnx" is for a model with a head that answers at once '
                           f"(classification, regression, tagging, masked-lm), and {model.name} "
                           f'was loaded for {model.task!r}; choose "safetensors", or "gguf" for a '
                           "decoder.")
    if own(model.net) != "float32":
        raise SettingError(f"the weights of {model.name} are {own(model.net)}, in which "
                           "onnxruntime does not compute on a processor; load it with "
                           'dtype="float32".')
    net = model.copy().net.cpu().eval()
    net.config.use_cache = False  # else a decoder's keys and values would be outputs, too
    takes = inspect.signature(net.forward).parameters
    given = {name: values for name, values in _tokens(model, ["one", "two and three"]).items()
             if name in takes}
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _quiet():
        program = torch.onnx.export(net, kwargs=given, dynamo=True, output_names=["logits"],
                                    dynamic_shapes=dict.fromkeys(given, sizes), verbose=False)
    for node in program.model.graph:
        node.metadata_props.clear()  # where each came from: paths of this machine
    program.save(str(target / FILE))
    net.config.save_pretrained(target)
    tokenizer: Any = model.tokenizer
    tokenizer.save_pretrained(target)


def read(model: Model, target: Path) -> tuple[torch.nn.Module, object]:
    """What onnxruntime and transformers read: a network that runs the graph, and a tokenizer."""
    import transformers

    return Graph(target), transformers.AutoTokenizer.from_pretrained(target)


class Graph(torch.nn.Module):
    """An ONNX graph in the place of a network: its logits, its weights and its configuration."""

    def __init__(self, folder):
        import onnx
        import onnxruntime
        import transformers

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        path = str(folder / FILE)
        self.session = onnxruntime.InferenceSession(path, options,
                                                    providers=["CPUExecutionProvider"])
        self.config = transformers.AutoConfig.from_pretrained(folder)
        arrays = [onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
        self.weights = torch.nn.ParameterList(
            torch.tensor(array) for array in arrays if array.dtype.kind == "f")

    def get_input_embeddings(self):
        return SimpleNamespace(num_embeddings=self.config.vocab_size)

    def forward(self, input_ids, **more):
        given = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids),
                 "token_type_ids": torch.zeros_like(input_ids)} | more
        feeds = {one.name: given[one.name].cpu().numpy() for one in self.session.get_inputs()}
        return SimpleNamespace(logits=torch.tensor(self.session.run(["logits"], feeds)[0]))


@torch.inference_mode()
def padded(model: Model, again: Model, texts: list[str], found: Parity) -> None:
    """Add to a Parity what it does not see: batches with padding, and pairs of texts."""
    wanted, gaps = {one.name for one in again.net.session.get_inputs()}, []
    longest = max(len(encoded(model, text)) for text in texts)  # so long the model can read
    for pairs in (None, texts[::-1]):
        batch = _tokens(model, texts, pairs, max_length=longest)
        batch = {name: values for name, values in batch.items() if name in wanted}
        real, both = batch["attention_mask"].bool(), []
        for one in (model, again):
            output = one.net(**{k: v.to(one.device) for k, v in batch.items()})
            logits = output.logits.float().cpu()
            both.append(logits[real] if logits.dim() == 3 else logits)
        gaps.append((both[0] - both[1]).abs().max())
    gap = float(torch.stack(gaps).max())  # NaN where one of them is
    said = "yes" if gap <= found.tolerance else "NO"
    found.rows.append({"aspect": "padded batches", "a": "", "b": "", "same": said,
                       "found": f"largest difference of the logits {gap:.2g}"})
    if said == "NO":
        found.findings.append(f"the logits of padded batches differ by {gap:.2g}")


def _tokens(model, texts, pairs=None, **limit):
    return dict(model.tokenizer(texts, pairs, padding=True, truncation=bool(limit),
                                return_tensors="pt", **limit))


@contextmanager
def _quiet():
    """Without the exporter's notes on packages that it could use, and on its own old calls."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
