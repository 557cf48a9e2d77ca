"""A decoder as one GGUF file, by llama.cpp's own converter, and read back by transformers.

The converter is kept by llama.cpp and is on no index by itself; the source archive of
llama-cpp-python has it. Of all archives that the kit fetches it is the only one of which code is
run, in a process of its own, and that of the version whose checksum stands here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from ftkit.assets import catalog, fetch
from ftkit.errors import FetchError, SettingError
from ftkit.models.model import Model
from ftkit.models.precision import FORMATS, own

FILE = "model.gguf"
ARCHIVE = catalog.pin(catalog.Archive(
    "llama-cpp-python", "0.3.36",
    "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e", 76_589_250,
    "MIT (llama.cpp: MIT)", tag="sdist",
))
_TYPES = {"float32": "f32", "fp16": "f16", "bf16": "bf16"}  # what the converter calls them
_ROOT = "llama_cpp_python-0.3.36/vendor/llama.cpp/"
_PARTS = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/", "LICENSE")


def write(model: Model, target: Path) -> None:
    """Write weights, tokenizer and template into one file.

    Raises SettingError for what is no decoder, and for one that the converter does not know.
    """
    if not model.spec.next_token:
        raise SettingError(f'format="gguf" is for a decoder that writes, and {model.name} was '
                           f'loaded for {model.task!r}; choose "onnx" or "safetensors".')
    script = converter() / "convert_hf_to_gguf.py"
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        model.save(Path(scratch) / "model")
        done = subprocess.run(
            [sys.executable, str(script), str(Path(scratch) / "model"), "--outfile",
             str(target / FILE), "--outtype", _TYPES[own(model.net)], "--model-name", model.name],
            capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SettingError(f"llama.cpp's converter does not take {model.name} "
                           f"({type(model.net).__name__}): {said}. Export it as safetensors, or "
                           "choose a model of a kind and with a tokenizer that llama.cpp knows.")


def read(model: Model, target: Path) -> tuple[torch.nn.Module, object]:
    """What transformers reads of the file: a network and a tokenizer."""
    import transformers

    net = transformers.AutoModelForCausalLM.from_pretrained(
        target, gguf_file=FILE, dtype=FORMATS[own(model.net)], trust_remote_code=False,
        quantization_config=transformers.GgufConfig(dequantize=True))
    tokenizer = transformers.AutoTokenizer.from_pretrained(target, gguf_file=FILE)
    return net.to(model.device), tokenizer


def converter() -> Path:
    """The folder with the converter, taken out of its archive on first use."""
    archive = catalog.ARCHIVES[ARCHIVE]
    key = f"converters/llama.cpp-{archive.sha256[:12]}"
    if fetch.offline() and not (fetch.is_built(key) or fetch.is_cached(ARCHIVE)):
        raise FetchError("llama.cpp's converter is not in the cache, and FTKIT_OFFLINE forbids to "
                         f"download {archive.filename} ({archive.size / 1e6:.0f} MB). Unset it "
                         'once, or choose format="safetensors".')

    def build(folder):
        with fetch.open_archive(ARCHIVE) as opened:
            for name in opened.namelist():
                part = name.removeprefix(_ROOT)
                if part != name and part.startswith(_PARTS) and ".." not in Path(part).parts:
                    (folder / part).parent.mkdir(parents=True, exist_ok=True)
                    (folder / part).write_bytes(opened.read(name))

    return fetch.cached_folder(key, build)
