"""Without these, a public name could lack its explanation."""

import inspect

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


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="finetune"):
        _ = ft.finetune
