"""Without these, what users took the trouble to say could be lost, or teach the wrong thing."""

import json
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny

import ftkit as ft

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"}]


@pytest.fixture
def feedback(tmp_path):
    return ft.Feedback(tmp_path / "said.db")


def test_what_was_said_is_there_when_the_file_is_opened_again(feedback):
    one = feedback.add("How are you?", "Fine.", thumb="up", model="voice/1")
    two = feedback.add(CHAT, "No idea.", thumb="down", correction=" It comes on Monday. ")
    rows = ft.Feedback(feedback.path).entries()
    assert [row["id"] for row in rows] == [one, two]
    assert rows[0]["messages"] == [{"role": "user", "content": "How are you?"}]
    assert rows[1]["messages"] == CHAT and rows[1]["correction"] == "It comes on Monday."
    assert (rows[0]["thumb"], rows[0]["model"], rows[0]["review"]) == ("up", "voice/1", "waiting")


def test_nothing_is_learned_before_somebody_accepted_it(feedback):
    first = feedback.add("How are you?", "Fine.", thumb="up")
    second = feedback.add(CHAT, "No idea.", correction="On Monday.")
    third = feedback.add("Rude?", "Yes.", thumb="down")
    assert feedback.supervised() == feedback.preferences() == []
    feedback.review(first, False)
    feedback.review(second, True)
    feedback.review(third, True)  # a thumb down alone says what is wrong, and not what is right
    assert feedback.supervised() == [
        {"messages": [*CHAT, {"role": "assistant", "content": "On Monday."}]}]
    assert feedback.preferences() == [
        {"prompt": CHAT, "chosen": "On Monday.", "rejected": "No idea."}]
    assert [row["id"] for row in feedback.entries("rejected")] == [first]


def test_of_two_opinions_on_one_question_the_last_counts(feedback):
    for said in ("On Monday.", "On Tuesday."):
        feedback.review(feedback.add(CHAT, "No idea.", correction=said), True)
    assert [row["messages"][-1]["content"] for row in feedback.supervised()] == ["On Tuesday."]
    assert [row["chosen"] for row in feedback.preferences()] == ["On Tuesday."]


def test_a_reviewer_may_word_it_better(feedback):
    number = feedback.add(CHAT, "No idea.", correction="monday")
    feedback.review(number, True, correction="It comes on Monday.")
    assert feedback.preferences()[0]["chosen"] == "It comes on Monday."


def test_examples_are_read_by_load_data_and_trained_on(feedback, tmp_path):
    for number in range(12):
        asked = f"Where is my {tiny.WORDS[number]} of number {number * 37}?"
        entry = feedback.add(asked, "No idea.", correction=f"The {tiny.WORDS[number]} comes.")
        feedback.review(entry, True)
    told = ft.load_data(feedback.export(tmp_path / "told.jsonl", "supervised"))
    assert told.task == "chat" and sum(map(len, told.values())) == 12
    run = ft.fit(tiny.decoder(), told, epochs=1, quiet=True, dtype="float32")
    assert run.trainable["trained"] > 0
    pairs = ft.load_data(feedback.export(tmp_path / "pairs.jsonl", "preferences"))
    assert pairs.task == "preference"
    assert set(pairs["train"].column_names) >= {"prompt", "chosen", "rejected"}


def test_the_export_is_json_lines_with_every_letter(feedback, tmp_path):
    feedback.add("Grüße?", "Zoë sagt\n„ja“ 👍", thumb="up")
    path = feedback.export(tmp_path / "all.jsonl")
    text = path.read_text(encoding="utf-8")
    assert "Zoë" in text and text.count("\n") == 1
    assert json.loads(text)["answer"] == "Zoë sagt\n„ja“ 👍"


def test_what_was_confirmed_survives_a_kill_and_the_file_is_whole(feedback):
    code = ("import sys, ftkit as ft\nstore = ft.Feedback(sys.argv[1])\nwhile True:\n"
            "    print(store.add('Hello?', 'Hi ' * 200, thumb='up'), flush=True)")
    with subprocess.Popen([sys.executable, "-c", code, feedback.path], stdout=subprocess.PIPE,
                          text=True) as writer:
        confirmed = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        confirmed += [int(line) for line in writer.stdout if line.endswith("\n")]
    assert set(confirmed) <= {row["id"] for row in feedback.entries()}
    with sqlite3.connect(feedback.path) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_several_may_write_at_a_time(feedback):
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda i: feedback.add(f"Question {i}?", "Yes.", thumb="up"),
                                range(40)))
    assert len(set(numbers)) == 40 == len(feedback.entries())


@pytest.mark.parametrize("given, said", [
    (dict(prompt="Hi", answer="Yes."), "thumb or a correction"),
    (dict(prompt="Hi", answer="Yes.", thumb="sideways"), "'sideways'"),
    (dict(prompt="Hi", answer="Yes.", correction="  "), "correction is empty"),
    (dict(prompt="Hi", answer="Yes.", correction="Yes. "), "has to differ"),
    (dict(prompt="Hi", answer="Yes.", thumb="up", correction="No."), "not right"),
    (dict(prompt="", answer="Yes.", thumb="up"), "what the user asked"),
    (dict(prompt=[], answer="Yes.", thumb="up"), "what the user asked"),
    (dict(prompt=[{"role": "root", "content": "x"}], answer="", thumb="up"), "is no turn"),
    (dict(prompt=CHAT + [{"role": "assistant", "content": "x"}], answer="", thumb="up"),
     "last turn"),
    (dict(prompt="Hi", answer="x" * 20_001, thumb="up"), "20,001 characters"),
])
def test_an_entry_that_says_nothing_is_refused_and_not_kept(feedback, given, said):
    with pytest.raises(ft.DataError, match=said):
        feedback.add(**given)
    assert feedback.entries() == []


def test_what_is_not_there_is_said_to_be(feedback, tmp_path):
    with pytest.raises(ft.SettingError, match="no entry 7"):
        feedback.review(7, True)
    with pytest.raises(ft.SettingError, match="no supervised"):
        feedback.export(tmp_path / "none.jsonl", "supervised")
    assert not (tmp_path / "none.jsonl").exists()
    with pytest.raises(ft.SettingError, match="review is 'new'"):
        feedback.entries("new")


def test_a_file_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("my notes " * 100)
    with pytest.raises(ft.DataError, match="cannot be used"):
        ft.Feedback(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "my notes " * 100
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE orders (id)")
    with pytest.raises(ft.DataError, match="something else"):
        ft.Feedback(tmp_path / "other.db")
