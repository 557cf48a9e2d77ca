"""A T5 out of the int8 ONNX graphs of its encoder and decoder, read without a runtime.

Only two things are read of a graph: its weights, and which matrix product uses which, since the
quantizer renamed those. That takes the few fields of ONNX's protobuf that stand below as numbers
(onnx.proto, version 8 of the format); the package onnx would bring 20 MB for it.
"""

import json
from collections.abc import Iterator

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from ftkit.assets.fetch import read_member
from ftkit.errors import DataError

# Numbers of the fields in onnx.proto.
_GRAPH = 7  # of a model
_NODE, _INITIALIZER = 1, 5  # of a graph
_INPUT, _NODE_NAME, _OPERATION = 1, 3, 4  # of a node
_DIMS, _TYPE, _FLOATS, _INTS, _NAME, _RAW = 1, 2, 4, 5, 8, 9  # of a tensor
_DTYPES = {1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1")}
# google/flan-t5-small, https://arxiv.org/abs/2210.11416
_CONFIG = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8,
           "num_decoder_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu",
           "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
           "dropout_rate": 0.1, "tie_word_embeddings": False, "decoder_start_token_id": 0,
           "pad_token_id": 0, "eos_token_id": 1}


def convert_t5(entry, target):
    """Write a catalog T5 that is stored as ONNX graphs into a folder, as transformers saves one.

    The file of weights holds embedding and head each by itself: a T5 that is built from its
    configuration and then filled would have the head tied to the embedding.
    """
    [archive] = entry.archives
    graphs = {name: read_member(archive, f"{entry.member}{name}.onnx")
              for name in ("encoder", "decoder")}
    config = transformers.T5Config(**_CONFIG, architectures=["T5ForConditionalGeneration"])
    save_file(t5_weights(**graphs), target / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(target)
    written = json.loads((target / "config.json").read_text())
    written["tie_word_embeddings"] = False  # transformers 5.23 writes true for any T5
    (target / "config.json").write_text(json.dumps(written, indent=2))
    transformers.GenerationConfig.from_model_config(config).save_pretrained(target)
    tokenizer = json.loads(read_member(archive, f"{entry.member}tokenizer.json"))
    tokenizer |= {"truncation": None, "padding": None}  # it was stored to cut at 48 tokens
    (target / "source.json").write_text(json.dumps(tokenizer))
    transformers.T5TokenizerFast(tokenizer_file=str(target / "source.json")).save_pretrained(target)
    (target / "source.json").unlink()


def t5_weights(encoder, decoder):
    """Return the tensors of a T5 in float32 under transformers' names, from its two graphs."""
    found = {}
    for graph, prefix, place in ((encoder, "enc.", "encoder."), (decoder, "m.", "")):
        for name, value in named_weights(graph):
            name = name.removeprefix(prefix)
            found[name if name.startswith("shared.") else place + name] = value
    embedding = found.pop("encoder.embed_tokens.weight")
    if not np.array_equal(embedding, found["shared.weight"]):
        raise DataError("the encoder's embedding is not the decoder's; a T5 has one for both.")
    return {name: torch.tensor(np.ascontiguousarray(v)) for name, v in sorted(found.items())}


def named_weights(model):
    """Yield (name, array in float32) of each weight of an ONNX model, oriented as PyTorch has it.

    A quantized weight is (number - zero point) times scale. One that a matrix product uses has the
    name of that product, and is transposed.
    """
    [graph] = [value for field, value in _fields(memoryview(model)) if field == _GRAPH]
    tensors, users = {}, {}
    for field, value in _fields(graph):
        if field == _INITIALIZER:
            name, array = _tensor(value)
            tensors[name] = array
        elif field == _NODE:
            inputs, name, operation = _node(value)
            if operation == "MatMulInteger":
                users[inputs[1]] = name
    for name, array in tensors.items():
        if name.endswith("_quantized"):
            stem = name.removesuffix("_quantized")
            zero, scale = tensors[f"{stem}_zero_point"], tensors[f"{stem}_scale"]
            array = (array.astype(np.float32) - zero.astype(np.float32)) * scale
            if name in users:
                node = users[name].removesuffix("/MatMul_quant").strip("/")
                stem, array = f"{node.replace('/', '.')}.weight", array.T
            yield stem, array
        elif name.endswith(".weight"):
            yield name, array


def _node(data):
    inputs, texts = [], {}
    for field, value in _fields(data):
        if field == _INPUT:
            inputs.append(str(value, "utf-8"))
        elif field in (_NODE_NAME, _OPERATION):
            texts[field] = str(value, "utf-8")
    return inputs, texts.get(_NODE_NAME, ""), texts[_OPERATION]


def _tensor(data):
    shape, kind, name, values = [], None, "", b""
    for field, value in _fields(data):
        if field == _DIMS:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif field == _TYPE:
            kind = value
        elif field == _NAME:
            name = str(value, "utf-8")
        elif field in (_FLOATS, _RAW):
            values = value
        elif field == _INTS:  # a negative number is written as one of 64 bits
            numbers = [value] if isinstance(value, int) else _varints(value)
            values = bytes(number & 0xFF for number in numbers)
    if kind not in _DTYPES:  # not a weight: the int64 numbers of a shape, for one
        return name, np.zeros(0)
    return name, np.frombuffer(values, _DTYPES[kind]).reshape(shape)


def _fields(data) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a protobuf message: number, and a whole number or bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
        else:
            length = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                length, place = _varint(data, place)
            if length is None or place + length > len(data):
                raise DataError("this is no ONNX graph, or it was cut.")
            value, place = data[place:place + length], place + length
        yield field, value


def _varints(data):
    numbers, place = [], 0
    while place < len(data):
        number, place = _varint(data, place)
        numbers.append(number)
    return numbers


def _varint(data, place):
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, place
