"""Without these, a template could ask in another form than it shows, or lose a column."""

import pytest
import tiny
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import ftkit as ft
from ftkit.data.templates import as_prompt_and_response
from ftkit.errors import DataError, SettingError


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.text("abc ", min_size=1), st.text("xyz", min_size=1)), max_size=4),
    st.text("abc", min_size=1),
)
def test_a_few_shot_prompt_ends_where_the_answer_begins(examples, question):
    prompt = ft.few_shot(examples, question)
    assert prompt.endswith(f"Q: {question}\nA:")
    assert prompt.count("\nA:") == len(examples) + 1
    for asked, answer in examples:
        assert f"Q: {asked}\nA: {answer}\n\n" in prompt


def test_templates_and_their_errors():
    assert ft.few_shot([], "x", instruction="Do it.") == "Do it.\n\nQ: x\nA:"
    with pytest.raises(SettingError, match="no {answer}"):
        ft.few_shot([], "x", template="Q: {question}")
    with pytest.raises(DataError, match="'answer'"):
        ft.few_shot([{"question": "x"}], "y")
    record = {"instruction": "Translate.", "input": "cat", "output": "chat"}
    prompt, response = ft.apply_template(record)
    assert "Translate.\ncat" in prompt and response == "chat" and prompt.endswith("\n")


def test_records_of_any_shape_become_prompt_and_response():
    words = tiny.tokenizer()
    shapes = [
        {"prompt": ["p"], "response": ["r"]},
        {"instruction": ["p"], "output": ["r"]},
        {"source": ["p"], "target": ["r"]},
        {"question": ["p"], "answers": [["r", "s"]]},
    ]
    for columns in shapes:
        prompts, responses = as_prompt_and_response(Dataset.from_dict(columns), words)
        assert "p" in prompts[0] and responses[0].strip() == "r"
    with pytest.raises(DataError, match="the data has x"):
        as_prompt_and_response(Dataset.from_dict({"x": [1]}), words)
