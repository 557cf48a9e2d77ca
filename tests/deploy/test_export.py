"""Without these, a file could go to others that answers differently from the model it came from."""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys

import pytest
import tiny
import torch
import transformers
from chats import SIMPLE, chat_model
from datasets import Dataset
from safetensors.torch import load_file, save_file

import ftkit as ft
from ftkit.assets import catalog
from ftkit.deploy import export, export_gguf, export_onnx
from ftkit.models import load
from ftkit.models.model import Model

FORMATS = dict(export._FORMATS)


def needs(format):
    """Skips where the extra is not installed."""
    for name in export._FORMATS[format][2]:
        pytest.importorskip(name, reason="needs the extra: pip install 'ftkit[export]'")


def lora(base, folder):
    """A model with LoRA weights that matter, on a base that lies in a folder."""
    base.save(folder)
    return tiny.with_lora(ft.load_model(folder, seed=5))


def one_layer(model):
    """The exporter takes seconds, and more for each layer."""
    model.net.bert.encoder.layer = model.net.bert.encoder.layer[:1]
    model.net.config.num_hidden_layers = 1
    return model


def mean_pooled(folder):
    """A classifier whose head reads the mean, with logits of the size that training gives."""
    model = one_layer(tiny.encoder())
    with torch.no_grad():
        model.net.classifier.weight.mul_(50)
    model.save(folder)
    return ft.load_model(folder, pooling="mean")


def spoils(monkeypatch, format, spoil):
    """Let `spoil(folder)` change what is written, before it is read back."""
    write, read, packages = FORMATS[format]

    def writes(model, target):
        write(model, target)
        spoil(target)

    monkeypatch.setitem(export._FORMATS, format, (writes, read, packages))


def edited(name, **changes):
    """A spoil that sets values of a JSON file."""

    def spoil(target):
        values = json.loads((target / name).read_text())
        (target / name).write_text(json.dumps(values | changes))

    return spoil


def refused(model, folder, said, format="safetensors"):
    """Export fails with these words and leaves nothing, and no hidden folder beside it."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(ft.FetchError, match=said) as error:
        ft.export(model, folder, format=format)
    assert "Nothing was written" in str(error.value) and f"as {format}" in str(error.value)
    assert sorted(folder.parent.iterdir()) == before


OTHERS = """
import json, sys
import torch, transformers, peft
from huggingface_hub import ModelCard
whole, base, adapter, texts = json.loads(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(whole)
merged = transformers.AutoModelForCausalLM.from_pretrained(whole)
tuned = peft.PeftModel.from_pretrained(
    transformers.AutoModelForCausalLM.from_pretrained(base), adapter)
card = ModelCard.load(whole + "/README.md")
logits = [[net(**tokenizer(text, return_tensors="pt")).logits[0, -1].tolist() for text in texts]
          for net in (merged.eval(), tuned.eval())]
print(json.dumps([logits, card.data.to_dict(), "ftkit" in sys.modules]))
"""


def test_other_programs_read_the_folders_without_the_kit_and_without_the_hub(tmp_path):
    tuned = lora(chat_model(), tmp_path / "base")
    run = ft.fit(chat_model(), Dataset.from_dict({"text": ["the film was good"] * 8}), epochs=1,
                 quiet=True)
    card = ft.model_card(run, title="A voice", data="Eight rows.", uses="Tests.",
                         limits=["Not for people."], tables={"Loss": [{"loss": 1.0}]},
                         licence="mit")
    whole, adapter = tmp_path / "whole", tmp_path / "adapter"
    found = ft.export(tuned, whole, card=card, prompts=["a warm film"])
    assert found.same and len(found.answers) == len(export.PROMPTS) + 1
    assert ft.export(tuned, adapter, format="adapter").logits < 1e-5
    texts = ["the film was good", "a cat and a dog"]
    done = subprocess.run(
        [sys.executable, "-c", OTHERS, json.dumps([str(whole), str(tmp_path / "base"),
                                                   str(adapter), texts])],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    both, head, kit = json.loads(done.stdout.splitlines()[-1])
    with torch.inference_mode():
        own = torch.stack([tuned.net(**tuned.tokenizer(
            text, return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
            for text in texts])
    for logits in both:
        assert torch.allclose(torch.tensor(logits), own, atol=1e-4)
    assert not kit and head["license"] == "mit" and all(head.values())
    sections = re.split(r"^## .*$", (whole / "README.md").read_text(), flags=re.MULTILINE)
    assert len(sections) > 4 and all(map(str.strip, sections))
    assert not (adapter / "README.md").exists(), "peft's form with empty fields"
    assert str(tmp_path) not in (whole / "config.json").read_text()
    assert ft.parity(tuned, ft.load_model(whole), texts).same, "the kit reads it, too"


def test_a_merge_with_a_wrong_scale_is_found(tmp_path, monkeypatch):
    tuned = tiny.with_lora(chat_model())

    def twice(model):
        wrong = model.copy()
        for module in wrong.net.modules():
            if hasattr(module, "lora_A"):
                module.scaling = {name: 2 * value for name, value in module.scaling.items()}
        return ft.merge(wrong)

    monkeypatch.setattr(export, "merge", twice)
    refused(tuned, tmp_path / "out", "the logits differ")


@pytest.mark.parametrize("said, spoil", [
    ("the chat templates differ",
     lambda target: (target / "chat_template.jinja").write_text(SIMPLE.replace(": ", " - "))),
    ("answers end with other tokens", edited("generation_config.json", eos_token_id=4)),
    ("answers end with other tokens", edited("tokenizer_config.json", eos_token="<mask>")),
])
def test_a_wrong_template_or_end_is_found(tmp_path, monkeypatch, said, spoil):
    spoils(monkeypatch, "safetensors", spoil)
    refused(chat_model(), tmp_path / "out", said)


def test_labels_in_another_order_are_found(tmp_path, monkeypatch):
    wrong = {"0": "good", "1": "bad"}
    spoils(monkeypatch, "safetensors", edited("config.json", id2label=wrong))
    refused(tiny.encoder(), tmp_path / "out", r"the labels differ \(bad, good; good, bad\)")


def test_a_head_that_an_adapter_lacks_is_found(tmp_path, monkeypatch):
    """Drawn from the same seed as in training it would look right here, and on no other machine."""
    tiny.encoder("encoder").save(tmp_path / "base")
    base = ft.load_model(tmp_path / "base", "classification", labels=["bad", "good"], seed=5)
    tuned = tiny.with_lora(base)
    assert ft.export(tuned, tmp_path / "right", format="adapter").same

    def headless(target):
        path = target / "adapter_model.safetensors"
        save_file({k: v for k, v in load_file(path).items() if "classifier" not in k}, path)

    spoils(monkeypatch, "adapter", headless)
    refused(tuned, tmp_path / "out", "cannot be read back", "adapter")

    def unasked(target):
        headless(target)
        edited("adapter_config.json", modules_to_save=None, task_type=None)(target)

    spoils(monkeypatch, "adapter", unasked)
    refused(tuned, tmp_path / "out", "the logits differ", "adapter")


@pytest.mark.parametrize("method", [ft.PromptTuning(tokens=3), ft.PrefixTuning(tokens=3)])
def test_a_learned_prompt_is_an_adapter_too(tmp_path, method):
    chat_model().save(tmp_path / "base")
    found = ft.export(method.apply(ft.load_model(tmp_path / "base")), tmp_path / "out",
                      format="adapter")
    assert found.same and (tmp_path / "out" / "adapter_model.safetensors").is_file()
    tuned = ft.load_model(tmp_path / "out")
    assert ft.export(tuned, tmp_path / "again", format="adapter").same, "the kit reads it, too"


def test_a_head_that_reads_the_mean_would_be_found_in_transformers(tmp_path, monkeypatch):
    model = mean_pooled(tmp_path / "kept")
    for format in ("safetensors", "adapter"):
        with pytest.raises(ft.SettingError, match='format="onnx"'):
            ft.export(model, tmp_path / "out", format=format)
    monkeypatch.setattr(export, "pooling_of", lambda net: None)  # as if nobody had thought of it
    refused(model, tmp_path / "out", "the logits differ")


def test_an_export_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    ft.export(chat_model(), folder)
    (folder / "notes.txt").write_text("mine")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    spoils(monkeypatch, "safetensors", edited("generation_config.json", eos_token_id=4))
    refused(chat_model(), folder, "answers end with other tokens")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_sixteen_bits_stay_sixteen_bits(tmp_path):
    model = chat_model()
    model.net.to(torch.bfloat16)
    found = ft.export(model, tmp_path / "half")
    assert found.same and found.precision == ("bfloat16", "bfloat16")
    assert load_file(tmp_path / "half" / "model.safetensors")["lm_head.weight"].dtype == (
        torch.bfloat16)


@pytest.mark.parametrize("format, said, make", [
    ("torch", "choose safetensors, adapter, onnx, gguf", chat_model),
    ("adapter", "carries no adapter of peft", chat_model),
    ("adapter", "no folder or name", lambda: tiny.with_lora(chat_model())),
    ("safetensors", "cannot be merged into the weights",
     lambda: ft.PromptTuning(tokens=2).apply(chat_model())),
    ("safetensors", "bottleneck adapter",
     lambda: ft.Adapter(bottleneck_size=4).apply(chat_model())),
    ("safetensors", "gives no logits", lambda: tiny.encoder("encoder")),
    ("onnx", "loaded for 'causal-lm'", chat_model),
    ("onnx", "weights of tiny-bert are bf16",
     lambda: Model(tiny.encoder().net.bfloat16(), tiny.tokenizer(), "classification", "tiny-bert",
                   ["bad", "good"])),
    ("gguf", "is for a decoder", tiny.encoder),
])
def test_what_a_format_has_no_place_for_is_refused(tmp_path, format, said, make):
    if format in export._FORMATS:
        needs(format)
    with pytest.raises(ft.SettingError, match=said):
        ft.export(make(), tmp_path / "out", format=format)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_and_a_lone_prompt_are_said(tmp_path, monkeypatch):
    for wrong in ("hello", [["hello"]]):
        with pytest.raises(ft.SettingError, match=r"hello.* is no list of texts"):
            ft.export(chat_model(), tmp_path / "out", prompts=wrong)
    found = importlib.util.find_spec
    monkeypatch.setattr(export, "find_spec", lambda n: None if n == "onnxruntime" else found(n))
    with pytest.raises(ft.SettingError, match=r"\(onnxruntime\).*pip install 'ftkit\[export\]'"):
        ft.export(tiny.encoder(), tmp_path / "out", format="onnx")


def test_a_graph_holds_the_mean_and_no_path_of_this_machine(tmp_path):
    needs("onnx")
    model = mean_pooled(tmp_path / "kept")
    found = ft.export(model, tmp_path / "out", format="onnx")
    assert found.same and found.precision == ("float32", "float32")
    written = (tmp_path / "out" / export_onnx.FILE).read_bytes()
    assert b"site-packages" not in written and str(tmp_path).encode() not in written
    assert os.path.dirname(ft.__file__).encode() not in written
    again = Model(export_onnx.Graph(tmp_path / "out"), model.tokenizer, model.task, "again")
    for texts in (["the"], ["the film was good"] * 7, ["a", "the cat and the dog " * 5]):
        export_onnx.padded(model, again, texts, found)
    assert found.same and [row["aspect"] for row in found.rows].count("padded batches") == 4


@pytest.mark.parametrize("said, pools", [
    ("padded batches differ", lambda hidden: hidden.mean(1, keepdim=True)),  # over padding, too
    pytest.param("the logits differ", lambda hidden: hidden, marks=pytest.mark.slow),  # the first
])
def test_a_graph_with_another_pooling_is_found(tmp_path, monkeypatch, said, pools):
    needs("onnx")
    model = mean_pooled(tmp_path / "kept")
    exports = torch.onnx.export

    def wrong(net, **options):
        net.bert._forward_hooks.clear()
        net.bert._forward_hooks_with_kwargs.clear()
        net.bert.register_forward_hook(lambda module, args, output: type(output)(
            last_hidden_state=output.last_hidden_state,
            pooler_output=pools(output.last_hidden_state)[:, 0]))
        return exports(net, **options)

    monkeypatch.setattr(torch.onnx, "export", wrong)
    refused(model, tmp_path / "out", said, "onnx")


def test_a_tagger_with_lora_becomes_a_graph(tmp_path):
    needs("onnx")
    tuned = tiny.with_lora(one_layer(tiny.encoder("tagging", ["O", "B-film", "I-film"])))
    assert ft.export(tuned, tmp_path / "out", format="onnx").same
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]["1"] == "B-film"


@pytest.mark.slow
def test_a_bottleneck_adapter_and_a_decoder_with_a_head_become_graphs(tmp_path):
    needs("onnx")
    adapted = ft.Adapter(bottleneck_size=4).apply(one_layer(tiny.encoder()))
    with torch.no_grad():
        for name, weight in adapted.net.named_parameters():
            if ".bottleneck." in name:
                weight.normal_(std=0.5)
    assert ft.export(adapted, tmp_path / "bottleneck", format="onnx").same
    assert ft.export(tiny.family("llama", "classification"), tmp_path / "decoder",
                     format="onnx").same


@pytest.fixture(scope="module")
def gguf_model():
    """A small random Llama with the tokenizer of SmolLM2, which llama.cpp knows."""
    needs("gguf")
    try:
        export_gguf.converter()
        folder = load._catalog_folder(catalog.find("smollm2-135m-instruct"))
    except ft.FetchError as error:
        pytest.skip(f"needs llama.cpp's converter and SmolLM2's tokenizer: {error}")
    real = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **tiny.SIZES, num_key_value_heads=1, vocab_size=len(real), pad_token_id=real.pad_token_id,
        bos_token_id=real.bos_token_id, eos_token_id=real.eos_token_id)
    net = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        net.lm_head.weight.mul_(20)  # no ties
    return Model(net, real, "causal-lm", "tiny-smol")


def test_a_gguf_file_is_the_model(tmp_path, gguf_model):
    found = ft.export(gguf_model, tmp_path / "out", format="gguf")
    assert found.same and found.precision == ("float32", "float32")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "ftkit.json", export_gguf.FILE]
    assert str(tmp_path).encode() not in (tmp_path / "out" / export_gguf.FILE).read_bytes()


@pytest.mark.slow
def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(tmp_path, gguf_model):
    with pytest.raises(ft.SettingError, match="converter does not take tiny-llama.*pre-tokenizer"):
        ft.export(chat_model(), tmp_path / "out", format="gguf")
    assert not list(tmp_path.iterdir())


def test_the_converter_is_said_to_need_the_network_once(monkeypatch, tmp_path):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path))
    monkeypatch.setenv("FTKIT_OFFLINE", "1")
    with pytest.raises(ft.FetchError, match=r"converter is not in the cache.*\(77 MB\)"):
        export_gguf.converter()


@pytest.mark.slow
def test_a_converter_that_gets_one_matrix_wrong_is_found(tmp_path, monkeypatch, gguf_model):
    import gguf

    def spoil(target):
        reader = gguf.GGUFReader(target / export_gguf.FILE, "r+")
        (query,) = [t for t in reader.tensors if t.name == "blk.1.attn_q.weight"]
        query.data[:] = query.data[::-1].copy()  # as where the halves of a head are not reordered
        reader.data.flush()

    spoils(monkeypatch, "gguf", spoil)
    refused(gguf_model, tmp_path / "out", "the logits differ", "gguf")


LLAMA_CPP = """
import {getLlama} from "node-llama-cpp";
const [file, texts] = JSON.parse(process.argv[2]);
const llama = await getLlama({gpu: false, build: "never", skipDownload: true, logLevel: "error"});
const model = await llama.loadModel({modelPath: file});
const found = [];
for (const text of texts) {
  const ids = model.tokenize(text), written = [];
  const context = await model.createContext({contextSize: 128, threads: 1});
  for await (const token of context.getSequence().evaluate(ids, {temperature: 0})) {
    if (written.push(token) === 12) break;
  }
  found.push([ids, written]);
  await context.dispose();
}
console.log(JSON.stringify(found));
process.exit(0);
"""


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory):
    """A function from a file and texts to the tokens that llama.cpp reads and writes."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or not shutil.which("npm"):
        pytest.skip("needs npm on Linux x86-64, which has llama.cpp built")
    folder = tmp_path_factory.mktemp("llama")
    (folder / "ask.mjs").write_text(LLAMA_CPP)
    got = subprocess.run(
        ["npm", "install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund",
         "node-llama-cpp@3.22.1", "@node-llama-cpp/linux-x64@3.22.1"],
        cwd=folder, capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"npm does not give node-llama-cpp: {got.stderr.strip()[-300:]}")

    def ask(file, texts):
        done = subprocess.run(["node", "ask.mjs", json.dumps([str(file), texts])], cwd=folder,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return ask


@pytest.mark.slow
def test_llama_cpp_itself_reads_and_writes_the_same_tokens(tmp_path, gguf_model, llama_cpp):
    ft.export(gguf_model, tmp_path / "out", format="gguf")
    texts = list(export.PROMPTS)
    told = llama_cpp(tmp_path / "out" / export_gguf.FILE, texts)
    for text, (ids, written) in zip(texts, told, strict=True):
        own = gguf_model.tokenizer(text)["input_ids"]
        assert ids == own
        made = gguf_model.net.generate(torch.tensor([own]), max_new_tokens=12, do_sample=False)
        assert written == made[0, len(own):].tolist() and len(set(written)) > 3
