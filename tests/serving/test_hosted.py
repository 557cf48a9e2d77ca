"""Without these, somebody pays for a training that is refused, or uploads what is private."""

import json

import pytest
import tiny
from datasets import Dataset

import ftkit as ft
from ftkit.errors import DataError, SettingError


def chat(question="where is my parcel", answer="on its way", **more):
    return [{"role": "user", "content": question},
            {"role": "assistant", "content": answer, **more}]


def file_of(tmp_path, *odd, good=10):
    lines = [{"messages": chat(f"where is parcel {i}")} for i in range(good)]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n"
                            for line in [*lines, *odd]))
    return path


def test_a_good_file_is_accepted(tmp_path):
    found = ft.check_chats(file_of(tmp_path))
    assert found.accepted and found.chats == 10 and not found.warnings
    assert found.roles == {"user": 10, "assistant": 10} and found.tokens is found.cost is None
    assert "nothing found" in repr(found)


@pytest.mark.parametrize("line, said", [
    ("{", "no JSON"),
    ("", "an empty line"),
    ({"chat": []}, "no list"),
    ({"messages": []}, "no list"),
    ({"messages": ["hello"]}, "no list"),
    ({"messages": [{"role": "human", "content": "a"}, *chat()]}, "role 'human'"),
    ({"messages": chat(answer=" ")}, "assistant is empty"),
    ({"messages": [{"role": "user"}, *chat()]}, "user has no content"),
    ({"messages": chat()[:1]}, "the last turn"),
    ({"messages": chat()[1:]}, "no user speaks first"),
    ({"messages": [*chat(), {"role": "system", "content": "x"}, *chat()]}, "not the first"),
    ({"messages": chat(weight=0.5)}, "weight 0.5"),
    ({"messages": chat(weight=0)}, "nothing is trained on"),
])
def test_what_a_service_refuses_is_found_with_its_line(tmp_path, line, said):
    found = ft.check_chats(file_of(tmp_path, line))
    assert not found.accepted
    assert [rows for what, rows in found.problems.items() if said in what] == [[11]], found
    assert said in repr(found) and said in found._repr_markdown_()


def test_a_call_of_a_tool_needs_no_content(tmp_path):
    called = [chat()[0], {"role": "assistant", "tool_calls": [{"id": "1"}]},
              {"role": "tool", "content": "sent on Monday"}, chat()[1]]
    assert ft.check_chats(file_of(tmp_path, {"messages": called})).accepted


def test_too_few_chats_are_refused(tmp_path):
    found = ft.check_chats(file_of(tmp_path, good=3))
    assert "fewer than 10 chats that can be read: 3" in repr(found)


@pytest.mark.parametrize("text, said", [
    ("write to maya.k+1@example.org", "e-mail address"),
    ("the key is sk-proj-abcdefghij0123456789", "API key"),
    ("AKIAABCDEFGHIJKLMNOP", "API key"),
    ("hf_" + "a" * 34, "access token"),
    ("-----BEGIN RSA PRIVATE KEY-----", "private key"),
    ("password: hunter2", "password"),
])
def test_what_is_private_is_pointed_at_and_not_shown(tmp_path, text, said):
    found = ft.check_chats(file_of(tmp_path, {"messages": chat(text)}))
    assert found.accepted and found.warnings == {f"{said} in it": [11]}
    assert text not in repr(found)


def test_plain_words_are_not_called_private(tmp_path):
    for text in ("the sk-learn passport @home", "a password is needed", "size 12 @ 3 pounds"):
        assert not ft.check_chats(file_of(tmp_path, {"messages": chat(text)})).warnings


def test_repeated_chats_and_contradictions_are_pointed_at(tmp_path):
    again, other = {"messages": chat("where is parcel  0")}, {
        "messages": chat("where is parcel 1", "lost")}
    found = ft.check_chats(file_of(tmp_path, again, other))
    assert found.warnings == {"the same chat as one before": [11],
                              "the same question with another answer": [12]}


def test_tokens_and_cost_are_those_of_the_texts(tmp_path):
    model, path = tiny.decoder(), file_of(tmp_path, {"messages": chat(weight=0) + chat()})
    found = ft.check_chats(path, model, price=8.0, epochs=2, longest=40)

    def count(text):
        return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    answer = count("on its way")
    asked = sum(count(f"where is parcel {i}") for i in range(10)) + 2 * count("where is my parcel")
    assert found.trained == 11 * answer
    assert found.tokens == asked + 12 * answer + 3 * 24
    assert found.cost == pytest.approx(found.tokens * 2 * 8 / 1e6)
    assert [11] in found.warnings.values() and "longer than 40 tokens" in repr(found)
    with pytest.raises(SettingError, match="needs a tokenizer"):
        ft.check_chats(path, price=8.0)
    with pytest.raises(SettingError, match="epochs=0"):
        ft.check_chats(path, epochs=0)
    with pytest.raises(DataError, match="no file"):
        ft.check_chats(tmp_path / "none.jsonl")


@pytest.mark.parametrize("rows", [
    {"messages": [chat("a", "b")]},
    {"prompt": ["a"], "response": ["b"]},
    {"instruction": ["a"], "output": ["b"]},
    {"instruction": ["a"], "input": [""], "output": ["b"]},
])
def test_examples_are_written_as_chats(tmp_path, rows):
    path = tmp_path / "new" / "out.jsonl"
    assert ft.export_chats(Dataset.from_dict(rows), path, system="Be kind.") == path
    wanted = [{"role": "system", "content": "Be kind."}, *chat("a", "b")]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"messages": wanted}]


def test_what_was_written_is_read_again(tmp_path):
    rows = Dataset.from_dict({"prompt": [f"question {i}" for i in range(40)],
                              "response": [f"answer {i}" for i in range(40)]})
    read = ft.load_data(ft.export_chats(rows, tmp_path / "out.jsonl"))
    turns = [chat for split in read for chat in read[split]["messages"]]
    assert sorted(turn[1]["content"] for turn in turns) == sorted(rows["response"])
    assert ft.check_chats(tmp_path / "out.jsonl").accepted


def test_an_input_follows_its_instruction(tmp_path):
    rows = Dataset.from_dict({"instruction": ["Reply."], "input": ["Where?"], "output": ["Here."]})
    (line,) = ft.export_chats(rows, tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["messages"][0]["content"] == "Reply.\nWhere?"
    with pytest.raises(DataError, match="the columns are text"):
        ft.export_chats(Dataset.from_dict({"text": ["a"]}), tmp_path / "other.jsonl")
    assert not (tmp_path / "other.jsonl").exists()
