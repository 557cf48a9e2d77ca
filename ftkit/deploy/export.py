"""A model as other programs read it: each export is read back by them, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ftkit.deploy import export_gguf, export_onnx
from ftkit.deploy.parity import Parity, parity
from ftkit.errors import FetchError, SettingError
from ftkit.methods.lora import merge
from ftkit.models import adapters
from ftkit.models.load import load_model
from ftkit.models.model import Model, quiet, quiet_peft
from ftkit.models.pooling import pooling_of
from ftkit.models.precision import FORMATS as DTYPES
from ftkit.models.precision import own
from ftkit.models.saving import README, save_folder
from ftkit.models.specs import CARD

# Short texts in which tokenizers differ: numbers, accents, other scripts, lines, spaces, signs.
PROMPTS = ("Where is my order 10234? It was due on 3 May.", "Größe, señor, naïve: où est-il?",
           "東京 and Москва\n\n  two  lines", "f(x) = {'a': [1, 2]} # 50% <b>")


def export(run_or_model: Any, folder: str | Path, *, format: str = "safetensors",
           prompts: Sequence[str] = (), card: str = "") -> Parity:
    """Write a model as other programs read it, let them read it, and compare both by ft.parity.

    run_or_model: of ft.fit, or a Model. format:
    "safetensors": the whole model, LoRA merged into it, for transformers' from_pretrained;
    "adapter": what peft trained, alone, for PeftModel.from_pretrained on the same base;
    "onnx": a model with a head (not one that writes), for onnxruntime; needs the extra `export`;
    "gguf": a decoder, for llama.cpp and what is built on it, by llama.cpp's own converter; needs
    the extra `export`, and fetches a source archive of 77 MB, which holds the converter, once.
    Weights keep their precision: load a model with dtype="fp16" for files of half the size.
    prompts: texts to compare by, as they come in use, besides four that are always taken.
    card: the text of README.md, such as ft.model_card gives.
    Returns the Parity of the model with what was read back. Raises FetchError where the two are not
    the same, or the folder cannot be written: it is then as it was before. Raises SettingError for
    a model that the format has no place for, and where a package is missing.
    """
    model = run_or_model if isinstance(run_or_model, Model) else run_or_model.model
    if format not in _FORMATS:
        raise SettingError(f"format={format!r} does not exist; choose {', '.join(_FORMATS)}.")
    if isinstance(prompts, str) or not all(isinstance(one, str) for one in prompts):
        raise SettingError(f"prompts={prompts!r:.60} is no list of texts; give strings in a list.")
    write, read, packages = _FORMATS[format]
    if missing := [name for name in packages if find_spec(name) is None]:
        raise SettingError(f"format={format!r} needs packages that are not installed "
                           f"({', '.join(missing)}). Install them with: pip install "
                           "'ftkit[export]'")
    plain = _plain(model, format)
    texts, found = [*PROMPTS, *prompts], []

    def build(target):
        write(plain, target)
        (target / README).unlink(missing_ok=True)  # peft's is a form with empty fields
        if card:
            (target / README).write_text(card, encoding="utf-8")
        try:
            with quiet(), quiet_peft():
                again = _named(model, *read(plain, target), format)
        except Exception as error:  # whatever the other program says of the file
            raise FetchError(f"{model.name} as {format} cannot be read back "
                             f"({type(error).__name__}: {error}). Nothing was written to {folder}; "
                             "choose another format.") from error
        compared = parity(model, again, texts)
        if format == "onnx":
            export_onnx.padded(model, again, texts, compared)
        if not compared.same:
            raise FetchError(f"{model.name}, read back as {format}, is not the same model: "
                             f"{'; '.join(compared.findings)}. Nothing was written to {folder}. "
                             "Merging in 16 bits rounds the weights: train or load in float32 and "
                             "export that; if it was float32, choose another format, for this one "
                             "does not keep such a model.")
        found.append(compared)
        return {"task": model.task, "labels": model.labels, "name": model.name, "format": format,
                "seed": model.settings.get("seed"), "pooling": pooling_of(model.net)}

    save_folder(folder, build)
    return found[0]


def _plain(model, format):
    """The model that is written: without peft, but for an adapter alone. Raises SettingError."""
    net, registry = model.net, getattr(model.net, "adapter_registry", None)
    adapted = getattr(net, "peft_config", None)
    if format != "onnx" and registry is not None and registry.active != adapters.BASE:
        raise SettingError(f"{model.name} has a bottleneck adapter, which neither transformers nor "
                           "llama.cpp has a place for. model.save(folder) stores it for "
                           'ft.load_model; an encoder can be exported with format="onnx".')
    if format in ("safetensors", "adapter") and pooling_of(net):
        raise SettingError(f"the head of {model.name} reads the mean over a text "
                           f"(pooling={pooling_of(net)!r}), and that of transformers reads one "
                           'token: it would answer otherwise. Choose format="onnx", whose graph '
                           "holds the mean, or model.save(folder) for ft.load_model.")
    if format == "adapter":
        if not adapted:
            raise SettingError(f"{model.name} carries no adapter of peft that could be exported "
                               "alone; train one with LoRA, PromptTuning or PrefixTuning, or "
                               'choose format="safetensors".')
        if not net.config.name_or_path:
            raise SettingError(f"the base of {model.name} has no folder or name from which an "
                               "adapter could be loaded on it; save it with model.save(folder), "
                               'load it and train on that, or choose format="safetensors".')
        return model
    if adapted and net.active_peft_config.is_prompt_learning:
        raise SettingError(f"the learned prompt of {model.name} cannot be merged into the weights; "
                           'choose format="adapter".')
    plain = merge(model) if adapted else model
    if own(plain.net) not in DTYPES:
        raise SettingError(f"the weights of {model.name} are held as {own(plain.net)}, and an "
                           f"export takes {', '.join(DTYPES)}; load it in one of these.")
    return plain


def _write_folder(model, target):
    model.save(target)
    (target / CARD).unlink()  # it is written anew, for the whole export


def _read_whole(model, target):
    import transformers

    net = getattr(transformers, model.spec.auto).from_pretrained(
        target, dtype=DTYPES[own(model.net)], use_safetensors=True, trust_remote_code=False)
    return net.to(model.device), transformers.AutoTokenizer.from_pretrained(target)


def _read_adapter(model, target):
    import peft
    import transformers

    # With another seed: a weight that neither the base nor the adapter has would differ.
    base = load_model(model.net.config.name_or_path, model.task, labels=model.labels,
                      dtype=own(model.net.get_base_model()),
                      seed=(model.settings.get("seed") or 0) + 1)
    net = peft.PeftModel.from_pretrained(base.net, target)
    return net, transformers.AutoTokenizer.from_pretrained(target)


def _named(model, net, tokenizer, format):
    """What was read back as a Model, with the labels that its own configuration has."""
    labels = [net.config.id2label[i] for i in range(net.config.num_labels)]
    return Model(net.eval(), tokenizer, model.task, f"{model.name} ({format})",
                 labels if model.spec.labelled else None)


# How each is written and read back, and the packages that it needs beside the kit's own.
_FORMATS = {"safetensors": (_write_folder, _read_whole, ()),
            "adapter": (_write_folder, _read_adapter, ()),
            "onnx": (export_onnx.write, export_onnx.read, ("onnx", "onnxruntime", "onnxscript")),
            "gguf": (export_gguf.write, export_gguf.read, ("gguf", "sentencepiece"))}
