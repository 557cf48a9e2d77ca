"""Without these, a public name could lack its explanation, or `import ftkit` become slow."""

import inspect
import subprocess
import sys

import pytest

import ftkit as ft

NAMES = [name for name in ft.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_explains_itself(name):
    thing = getattr(ft, name)
    text = inspect.getdoc(thing)
    assert text and text != inspect.getdoc(Exception), f"ft.{name} has no docstring"
    if inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters.values():
            assert (
                parameter.name in text
                or parameter.kind is parameter.VAR_POSITIONAL
                or parameter.name in _OBVIOUS
            ), f"ft.{name} does not explain {parameter.name}"


_OBVIOUS = {
    "model",
    "data",
    "dataset",
    "seed",
    "name",
    "title",
    "xlabel",
    "ylabel",
    "text",
    "question",
    "trainer_arguments",
    "message",
    "max_new_tokens",
    "batch_size",
    "epochs",
    "learning_rate",
    "schedule",
    "quiet",
    "relative",
    "metric",
    "run",
    "prompts",
    "system",
    "n",
    "logx",
    "evaluation",
    "rows",
    "caption",
    "folder",
    "groups",
    "template",
    "instruction",
    "references",
    "profile",
    "sizes",
    "machine",
    "shape",
    "length",
    "labelled",
    "trainable",
    "dtype",
    "revision",
    "bins",
    "loss_on",
    "max_length",
    "texts",
    "stop",
    "options",
    "task",
    "after",
    "before",
    "tolerance",
    "metrics",
    "generate",
    "prefix",
    "record",
    "method",
    "pretrained",
    "hints",
}


def test_import_loads_no_heavy_library():
    code = (
        "import sys, ftkit; heavy = {'torch', 'transformers', 'datasets', 'pandas', 'matplotlib',"
        "'sklearn', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="finetune"):
        _ = ft.finetune


def test_no_module_imports_a_later_one_at_its_top():
    """The order of DESIGN: data flows one way, and so do imports."""
    import ast
    from pathlib import Path

    order = (
        "errors atomic switches losses chunked_loss tagging updates conversations catalog "
        "fetch hardware records kept layers precision measuring padding_free weights shelf "
        "abilities label_logits models methods splits reading files values formats own "
        "newswire sources data prompting encoding batching cache branches answering "
        "predicting graphs batch_size compiling dropout tricks checks callbacks checkpoints "
        "trainer training search resampling power_analysis comparing evidence metrics "
        "evaluation show looking"
    ).split()
    rank = {name: i for i, name in enumerate(order)}
    for path in Path(ft.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ftkit"):
                parts = node.module.split(".")
                found = [parts[1]] if len(parts) > 1 else [a.name for a in node.names]
                for other in found:
                    if path.stem in rank and other in rank:
                        assert rank[other] < rank[path.stem], f"{path.stem} imports {other}"
