"""Private interfaces of libraries: used in one place alone, and there as they are today.

A failure here says which release changed what, before a user meets it as a riddle.
"""

import ast
from pathlib import Path

import datasets
import pytest
import torch
import transformers

import ftkit
from ftkit import compat

PACKAGE = Path(ftkit.__file__).parent
# Private names that are no library's interface: a process's exit, a structure of ctypes, and what
# Jupyter documents as the way to show an object.
ALLOWED = {"_exit", "_fields_", "_repr_html_"}


def changed(library, name, place):
    version = __import__(library).__version__
    return f"{library} {version} has no {name} any more: find another way in {place}, compat.py"


def test_the_kernel_of_attention_can_be_read():
    config = transformers.BertConfig(attn_implementation="eager")
    said = changed("transformers", "config._attn_implementation", "attention_kernel")
    assert compat.attention_kernel(config) == "eager", said


def test_rows_have_a_fingerprint_that_their_order_changes():
    rows = datasets.Dataset.from_dict({"a": [1, 2, 3]})
    same, other = compat.fingerprint(rows), compat.fingerprint(rows.select([2, 0]))
    said = changed("datasets", "Dataset._fingerprint", "fingerprint")
    assert isinstance(same, str) and same != other, said
    assert compat.fingerprint([1, 2, 3]) is None


@pytest.mark.parametrize("report", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_torch_says_what_the_processor_multiplies(report):
    said = changed("torch", f"torch.cpu.{report}", "multiplies_bf16")
    assert hasattr(torch.cpu, report), said
    assert isinstance(compat.multiplies_bf16(), bool)


@pytest.mark.parametrize(("bad", "card", "used"), [
    (True, True, True), (True, False, False), (False, True, False)])
def test_cuda_before_a_fork_is_noticed(monkeypatch, bad, card, used):
    """Else the first cell of a forked kernel that uses the card would fail."""
    said = changed("torch", "torch.cuda._is_in_bad_fork", "cuda_before_fork")
    assert torch.cuda._is_in_bad_fork() is False, said
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: bad)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card)
    assert compat.cuda_before_fork() is used


def test_a_compiled_module_is_as_before():
    layer = torch.nn.Linear(2, 2)
    layer.compile(backend="eager")
    said = changed("torch", "Module._compiled_call_impl", "uncompile")
    assert layer._compiled_call_impl is not None, said
    compat.uncompile(layer)
    assert layer._compiled_call_impl is None
    assert layer(torch.ones(1, 2)).shape == (1, 2)


def test_many_tensors_become_zero():
    tensors = [torch.ones(2), torch.ones(3, 1)]
    compat.zero_all(tensors)
    said = changed("torch", "torch._foreach_zero_", "zero_all")
    assert not any(tensor.any() for tensor in tensors), said


def test_a_trainer_uses_one_card(tmp_path):
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    compat.use_one_device(arguments)
    said = changed("transformers", "TrainingArguments._n_gpu", "use_one_device")
    assert arguments.n_gpu == 1, said


def test_a_trainer_prepares_a_batch(tmp_path):
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    trainer = transformers.Trainer(torch.nn.Linear(2, 2), arguments)
    said = changed("transformers", "Trainer._prepare_inputs", "prepared")
    assert set(compat.prepared(trainer, {"x": torch.ones(1)})) == {"x"}, said


def test_a_trainer_still_asks_for_its_sampler_and_its_batches():
    """KitTrainer overrides them; a release that renames one would silently go without."""
    for name in ("_get_train_sampler", "get_batch_samples", "prediction_step", "evaluation_loop",
                 "training_step", "compute_loss", "create_optimizer"):
        assert hasattr(transformers.Trainer, name), changed(
            "transformers", f"Trainer.{name}", "training/trainer.py")
    assert hasattr(transformers.Trainer, "loss_is_scaled_for_ga"), changed(
        "transformers", "Trainer.loss_is_scaled_for_ga", "training/trainer.py")


def _private_uses(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = set(ALLOWED)
    for node in ast.walk(tree):  # names that this file gives itself
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.add(node.target.id)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.id if isinstance(node, ast.Name) else node.attr)
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [part for a in node.names for part in (*(node.module or "").split("."), a.name)]
        for name in names:
            if name.startswith("_") and not name.startswith("__") and name not in own:
                yield f"{path.relative_to(PACKAGE)}, line {node.lineno}: {name}"


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_private_interfaces_stand_in_compat_alone(path):
    # A fault is planted into what is private; tests/course/test_faults.py fails when it is gone.
    planted = path.parent.name == "faults"
    if path.name != "compat.py" and not planted:
        assert not list(_private_uses(path))


def test_the_server_of_transformers_answers_for_a_network_in_memory():
    pytest.importorskip("fastapi", reason="needs the extra: pip install 'ftkit[serve]'")
    pytest.importorskip("openai", reason="needs the extra: pip install 'ftkit[serve]'")
    import tiny

    model = tiny.decoder()
    said = changed("transformers", "cli.serving as it was", "chat_app")
    try:
        app = compat.chat_app(model.net, model.tokenizer, "tiny")
    except (ImportError, TypeError, AttributeError) as error:
        pytest.fail(f"{said}: {error}")
    assert any(route.path == "/v1/chat/completions" for route in app.routes), said
