"""The T5 out of ONNX graphs: the same numbers as ONNX's own software gives, also after saving.

What is expected here was computed elsewhere: the weights by onnx 1.23 (numpy_helper), the logits
and the greedy texts by onnxruntime 1.32 on the two graphs with their integer products replaced by
float ones of the same weights. The integer graphs themselves round every activation to 8 bits, so
their logits are near (correlation 0.98 to 0.99) and their texts sometimes others.
"""

import numpy as np
import pytest
import tiny
import torch
import transformers
from datasets import Dataset

import ftkit as ft
from ftkit.errors import DataError
from ftkit.models import onnx
from ftkit.models.model import Model
from ftkit.models.weights import head_apart

WEIGHTS = {  # shape, sum, sum of the absolute values, the second value and the last
    "shared.weight": ((32128, 512), -3162404.637463093, 174190492.16040754, 0.0, 1.265000820159912),
    "lm_head.weight": (
        (32128, 512), 747591.929906562, 16599152.77561307, 0.9037623405456543, -3.6903629302978516),
    "encoder.block.0.layer.0.SelfAttention.q.weight": (
        (384, 512), -33.51806505396962, 10959.742030171677, 0.05978696048259735,
        -0.0784703865647316),
    "decoder.block.7.layer.1.EncDecAttention.v.weight": (
        (384, 512), -133.65552002191544, 228619.94509631395, -0.7996484041213989, 0.0),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
        (32, 6), 395.75088691711426, 658.6511226892471, -11.20427131652832, 1.100419521331787),
    "decoder.final_layer_norm.weight": (
        (512,), 122.56303334748372, 122.57102519506589, 0.19205942749977112, 0.013115912675857544),
}
ANSWERS = {  # the first three logits of the first token, and the greedy text
    "translate English to German: The house is wonderful.":
        ([-45.17263, -0.18359947, -5.8431115], "Das Haus ist wunderbar."),
    "translate English to French: I love programming.":
        ([-38.72617, 3.7356684, -1.0410347], "J'ai programmation et j'ai programmation"),
    "Is the following review positive or negative? This phone is terrible.":
        ([-78.51567, -13.137147, -19.864227], "negative"),
    "summarize: The parser failed on empty input, so a check for empty strings was added and two "
    "tests were written.": ([-49.823742, -4.3574333, -10.807765], "Verify empty strings fix"),
}
PROMPT = next(iter(ANSWERS))


def first_logits(model, text=PROMPT):
    inputs = model.tokenizer(text, return_tensors="pt").to(model.device)
    start = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.no_grad():
        return model.net(**inputs, decoder_input_ids=start).logits[0, -1].cpu()


@pytest.fixture(scope="module")
def flan():
    return ft.load_model("flan-t5-small")


def test_the_weights_are_those_that_onnx_reads(flan):
    found = flan.net.state_dict()
    for name, (shape, total, size, second, last) in WEIGHTS.items():
        array = found[name].cpu().double().flatten()
        assert tuple(found[name].shape) == shape
        assert array.sum().item() == pytest.approx(total, rel=1e-9, abs=1e-6)
        assert array.abs().sum().item() == pytest.approx(size, rel=1e-9)
        assert (array[1].item(), array[-1].item()) == (second, last)


@pytest.mark.parametrize("text", ANSWERS)
def test_the_answers_are_those_of_onnxruntime(flan, text):
    logits, answer = ANSWERS[text]
    found = first_logits(flan, text)[:3]
    torch.testing.assert_close(found, torch.tensor(logits), atol=1e-3, rtol=0)
    assert ft.generate(flan, text, max_new_tokens=30) == answer


def test_the_tokenizer_cuts_nothing(flan):
    """The archive's stops at 48 tokens."""
    assert len(flan.tokenizer("word " * 300)["input_ids"]) > 300


def test_embedding_and_head_stay_apart_through_copy_save_and_load(flan, tmp_path):
    """Built from its configuration and filled, a T5 has one tensor for both: nonsense."""
    net = flan.net
    assert not torch.equal(net.lm_head.weight, net.shared.weight)
    assert net.encoder.embed_tokens.weight is net.decoder.embed_tokens.weight is net.shared.weight
    for other in (flan.copy(), ft.load_model(flan.save(tmp_path / "model"))):
        assert other.hash() == flan.hash()
        torch.testing.assert_close(first_logits(other), first_logits(flan), rtol=0, atol=0)


def test_the_same_network_with_new_weights_has_its_head_apart_too(flan, tmp_path):
    """Tied, the opponent without pretraining would have 16 million weights less."""
    new = ft.load_model("flan-t5-small", pretrained=False, seed=1)
    shapes = [{name: tensor.shape for name, tensor in model.net.state_dict().items()}
              for model in (new, flan)]
    assert shapes[0] == shapes[1]
    assert new.net.lm_head.weight.data_ptr() != new.net.shared.weight.data_ptr()
    assert ft.load_model(new.save(tmp_path / "new")).hash() == new.hash()
    assert ft.load_model("flan-t5-small", pretrained=False, seed=1).hash() == new.hash()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
@pytest.mark.parametrize("method", [ft.Full(), ft.LoRA(rank=2)], ids=["full", "lora"])
def test_a_tuned_t5_is_the_same_after_saving_and_merging(tied, method, tmp_path):
    words = tiny.tokenizer()
    torch.manual_seed(0)
    net = head_apart(transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=len(words), d_model=32, d_ff=64, num_layers=2, num_heads=2, d_kv=16,
        dropout_rate=0, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
        tie_word_embeddings=tied,
    ))).eval()
    assert (net.lm_head.weight is net.shared.weight) == tied
    base = ft.load_model(Model(net, words, "seq2seq-lm", "t5").save(tmp_path / "base"))
    assert (base.net.lm_head.weight is base.net.shared.weight) == tied
    data = Dataset.from_dict({"source": ["the film was good"] * 8, "target": ["great"] * 8})
    tuned = ft.fit(base, data, method=method, epochs=2, learning_rate=1e-2, quiet=True).model
    expected = first_logits(tuned, "the film was good")
    assert not torch.equal(expected, first_logits(base, "the film was good"))
    again = ft.load_model(tuned.save(tmp_path / "tuned"))
    torch.testing.assert_close(first_logits(again, "the film was good"), expected)
    if isinstance(method, ft.LoRA):
        merged = ft.load_model(ft.merge(tuned).save(tmp_path / "merged"))
        torch.testing.assert_close(
            first_logits(merged, "the film was good"), expected, atol=1e-5, rtol=1e-4)


def test_it_is_tuned_measured_and_merged_by_the_kits_own_calls(flan, tmp_path):
    prompt = "translate English to French: "
    pairs = {"I love programming.": "J'adore la programmation.", "Open the window.":
             "Ouvrez la fenêtre."}
    data = Dataset.from_dict({"source": [prompt + text for text in pairs],
                              "target": list(pairs.values())})
    method = ft.LoRA(rank=4)
    run = ft.fit(flan, data, method=method, epochs=12, batch_size=2, learning_rate=5e-3, quiet=True)
    before, after = (ft.evaluate(m, data, generate=True, max_new_tokens=20)
                     for m in (flan, run.model))
    assert after["loss"].value < before["loss"].value / 2
    assert after["chrf"].value > before["chrf"].value
    expected = first_logits(run.model, data["source"][0])
    for other in (ft.load_model(run.model.save(tmp_path / "adapter")), ft.merge(run.model)):
        torch.testing.assert_close(
            first_logits(other, data["source"][0]), expected, atol=5e-3, rtol=1e-4)


# A graph written by hand, byte by byte: https://protobuf.dev/programming-guides/encoding


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number):
    number &= (1 << 64) - 1  # a negative number is written as one of 64 bits
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def tensor(name, kind, shape, **parts):
    data = b"".join(field(1, size) for size in shape) + field(2, kind) + field(8, name.encode())
    numbers = {"floats": 4, "ints": 5, "raw": 9}
    return field(5, data + b"".join(field(numbers[k], v) for k, v in parts.items()))


def graph(ints):
    weight = np.array([[1, -2, 3], [4, 5, -6]], "i1")
    return field(1, 8) + field(2, b"by hand") + field(7, b"".join([
        field(1, field(1, b"x") + field(1, b"anon_quantized") + field(2, b"y")
              + field(3, b"/m/block.0/q/MatMul_quant") + field(4, b"MatMulInteger")),
        tensor("anon_quantized", 3, (2, 3), raw=weight.tobytes()),
        tensor("anon_zero_point", 3, (), ints=ints),
        tensor("anon_scale", 1, (), floats=np.float32(0.5).tobytes()),
        tensor("m.table.weight_quantized", 2, (2,), raw=bytes([0, 255])),
        tensor("m.table.weight_zero_point", 2, (), ints=varint(128)),
        tensor("m.table.weight_scale", 1, (), raw=np.float32(2).tobytes()),
        tensor("m.norm.weight", 1, (2,), raw=np.array([1.5, -2.5], "<f4").tobytes()),
        tensor("shape", 7, (1,), raw=np.array([3], "<i8").tobytes()),
    ]))


def test_a_product_names_and_turns_its_weight():
    found = dict(onnx.named_weights(graph(ints=varint(-1))))
    assert list(found) == ["m.block.0.q.weight", "m.table.weight", "m.norm.weight"]
    np.testing.assert_array_equal(found["m.block.0.q.weight"], [[1, 2.5], [-0.5, 3], [2, -2.5]])
    np.testing.assert_array_equal(found["m.table.weight"], [-256, 254])
    np.testing.assert_array_equal(found["m.norm.weight"], [1.5, -2.5])


def test_a_graph_that_was_cut_is_refused():
    whole = graph(ints=varint(0))
    with pytest.raises(DataError, match="no ONNX graph, or it was cut"):
        list(onnx.named_weights(whole[:-9]))
    with pytest.raises(DataError, match="no ONNX graph"):
        list(onnx.named_weights(b"\x07not a graph"))


def test_an_encoder_of_another_model_is_refused():
    embedding = {"shape": (1,), "raw": np.float32(1).tobytes()}
    encoder = field(7, tensor("enc.embed_tokens.weight", 1, **embedding))
    decoder = field(7, tensor("m.shared.weight", 1, (1,), raw=np.float32(2).tobytes()))
    with pytest.raises(DataError, match="a T5 has one for both"):
        onnx.t5_weights(encoder, decoder)
