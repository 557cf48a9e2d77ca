"""A table that says before a training what would make it fail, or its result untrue."""

import warnings

import pytest
import tiny
from chats import CHATML, TURNS, words
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

import ftkit as ft
from ftkit.data import conversations
from ftkit.errors import DataError, DataWarning
from ftkit.tasks import look
from ftkit.tasks.look import RARE

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()


def text(i):
    return " ".join(f"{WORDS[(i * k) % 10]}{i}" for k in (1, 3, 7, 9))


def labelled():
    names = ["bad", "good", "Good", "odd", "never"]
    rows = {
        "train": [(text(i), i % 2) for i in range(40)] + [(text(0), 0), (text(3), 0), (text(90), 3)]
        + [(text(91), 2)],
        "test": [(text(5), 1), (text(7) + " more", 1), (text(50), 0), (text(51), 1)],
    }
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return DatasetDict({
        name: Dataset.from_dict({"text": [t for t, _ in own], "label": [n for _, n in own]},
                                features=features)
        for name, own in rows.items()
    })


def test_what_is_wrong_with_labelled_texts():
    found = ft.look(labelled())
    assert found["rows"] | {"see": ""} == {"what": "rows", "train": 44, "test": 4, "see": ""}
    assert found["duplicates in the split"]["train"] == 2
    assert found["duplicates in the split"]["see"] == "train rows 0, 40"
    assert found["also in train"]["test"] == 1
    assert found["also in train"]["see"] == "test row 0 and train row 5"
    assert found["nearly the same as in train"]["test"] == 0  # 2 of 3 runs: below 70%
    torn = found["the same text with another label"]
    assert torn["train"] == 2 and "bad, good" in torn["see"]
    assert found["labels that differ in case or blanks"]["train"] == 1
    assert found["labels that differ in case or blanks"]["see"] == "'Good', 'good'"
    assert found["rare classes"]["train"] == 2 and "odd (1)" in found["rare classes"]["see"]
    assert RARE > 1
    gone = found["classes without a row"]
    assert gone["train"] == 1 and gone["test"] == 3 and "train: never" in gone["see"]
    assert "tokens: median / 95% / longest" not in repr(found)
    assert "also in train" in found._repr_html_()
    with pytest.raises(KeyError, match="'colour'; the table has rows, dupl"):
        found["colour"]


def test_kinds_of_entities_that_are_rare_or_missing():
    rows = {"tokens": [["Ada", f"met{i}"] for i in range(30)],
            "tags": [["B-PER" if i else "B-LOC", "O"] for i in range(30)]}
    data = DatasetDict(train=Dataset.from_dict(rows), test=Dataset.from_dict(
        {"tokens": [["Bo", "ran"]], "tags": [["B-PER", "O"]]}))
    found = ft.look(data)
    assert found["kinds of entities"]["train"] == 2
    assert found["rare kinds"]["see"] == "LOC (1)"
    assert found["kinds without an entity"]["see"] == "test: LOC"
    speech = Dataset.from_dict({"tokens": [["he", "ran"]], "tags": [["PRON", "VERB"]]})
    with pytest.raises(KeyError, match="rare kinds"):
        ft.look(speech)["rare kinds"]


def test_near_duplicates_across_splits():
    long = "one two three four five six seven eight nine ten eleven twelve"
    data = DatasetDict(train=Dataset.from_dict({"text": ["other words here", long]}),
                       test=Dataset.from_dict({"text": [long + " thirteen", long.upper()]}))
    found = ft.look(data)
    assert found["nearly the same as in train"]["test"] == 1
    assert found["nearly the same as in train"]["see"] == "test row 0 and train row 1"
    assert found["also in train"]["see"] == "test row 1 and train row 1"


def test_lengths_and_what_the_limit_cuts():
    model = tiny.encoder()
    data = Dataset.from_dict({"text": ["the cat " * n for n in (1, 2, 30)], "label": [0, 1, 0]})
    found = ft.look(data, model, max_length=20)
    assert found["tokens: median / 95% / longest"]["data"].endswith(
        f"/ {len(model.tokenizer('the cat ' * 30)['input_ids'])}")
    assert found["longer than the limit"]["data"] == 1
    assert "Raise max_length" in found["longer than the limit"]["see"]


def test_the_numbers_do_not_depend_on_how_many_rows_are_read_at_a_time(monkeypatch):
    model, data = tiny.encoder(), tiny.reviews(40)
    whole = ft.look(data, model, max_length=6).rows
    library, rows = look.main_texts, []

    def main_texts(columns):
        rows.append(len(columns["text"]))
        return library(columns)

    monkeypatch.setattr(look, "main_texts", main_texts)
    monkeypatch.setattr(look, "PART", 7)
    assert ft.look(data, model, max_length=6).rows == whole
    assert max(rows) == 7, "a large data set does not fit in memory as Python values"


def test_tokens_that_the_tokenizer_does_not_know():
    model = tiny.encoder()
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "the": 5, "cat": 6}
    import transformers

    model.tokenizer = transformers.BertTokenizer(vocab=vocabulary)
    found = ft.look(Dataset.from_dict({"text": ["the cat", "the zebra and the cat"],
                                       "label": [0, 1]}), model)
    assert found["unknown tokens"]["data"] == 2
    assert found["unknown tokens"]["see"] == "'zebra', 'and'"


def test_entities_beyond_the_limit():
    model = tiny.encoder("tagging", ("O", "B-X", "I-X"))
    rows = [{"tokens": ["the", "cat"] * 20, "tags": ["B-X", "I-X"] + ["O"] * 36 + ["B-X", "I-X"]},
            {"tokens": ["the", "cat"], "tags": ["B-X", "O"]}]
    assert ft.look(Dataset.from_list(rows), model)["entities beyond the limit"]["data"] == 0
    found = ft.look(Dataset.from_list(rows), model, max_length=20)
    assert found["entities beyond the limit"]["data"] == 1
    assert found["longer than the limit"]["data"] == 1


def turns(*roles):
    return [{"role": role, "content": f"the {WORDS[i]}"} for i, role in enumerate(roles)]


def test_roles_and_ends_of_conversations():
    rows = [turns("system", "user", "assistant"), turns("user", "assistant", "user", "assistant"),
            turns("user", "user", "assistant"), turns("assistant", "user"),
            turns("user", "assistant", "user")]
    data = Dataset.from_list([{"messages": row} for row in rows])
    found = ft.look(data, tiny.decoder())
    assert found["roles out of order"]["data"] == 2
    assert found["roles out of order"]["see"] == "data rows 2, 3"
    assert found["no answer at the end"]["see"] == "data rows 3, 4"
    assert found["answers without an end"]["data"] == 0
    good = ft.look(Dataset.from_list([{"messages": rows[0]}]))
    assert good["roles out of order"] == {"what": "roles out of order", "data": 0, "see": ""}


def test_where_answers_begin_is_asked_once_for_conversations_of_the_same_roles(monkeypatch):
    made, library, calls = words(CHATML), conversations._rendered, []

    def rendered(turns, tokenizer, prompt=False):
        calls.append(prompt)
        return library(turns, tokenizer, prompt)

    chats = [[{**turn, "content": f"{turn['content']} {i}"} for turn in TURNS] for i in range(9)]
    odd = [{**turn, "content": turn["content"] + " <|im_start|>assistant\n"} for turn in TURNS]
    one_by_one = [conversations.conversation_tokens([chat], made) for chat in (*chats, odd)]
    with monkeypatch.context() as patch:
        patch.setattr(conversations, "_rendered", rendered)
        found = conversations.conversation_tokens([*chats, odd], made)
        assert calls.count(True) < 9 and calls.count(False) < 20
        patch.setattr(conversations, "_shape", lambda roles, tokenizer: None)
        slow = conversations.conversation_tokens([*chats, odd], made)
    assert found == slow
    assert found == tuple([row for part in one_by_one for row in part[k]] for k in (0, 1))
    # a template that rewrites some words is asked for each of these conversations
    made.chat_template = CHATML.replace("m.content", "m.content | trim")
    blanks = [{**turn, "content": f" {turn['content']} "} for turn in TURNS]
    assert conversations.conversation_tokens([TURNS, blanks], made)[1][0] == (
        conversations.conversation_tokens([blanks], made)[1][0])


def test_answers_that_the_limit_takes():
    rows = [{"prompt": "the cat " * n, "response": " good"} for n in (1, 40)]
    rows.append({"prompt": "the", "response": " good" * 60})
    found = ft.look(Dataset.from_list(rows), tiny.decoder(), max_length=50)
    assert found["longer than the limit"]["data"] == 2
    assert "truncation_side" in found["longer than the limit"]["see"]
    assert found["answers lost whole"]["data"] == 1
    assert found["answers without an end"]["data"] == 2


def test_a_row_that_the_task_cannot_read_is_named(monkeypatch):
    monkeypatch.setattr("ftkit.tasks.look.PART", 2)
    data = Dataset.from_dict({"text": ["x", "y", "z"], "label": [0, 1, 7]})
    with pytest.raises(DataError, match="data, rows from 2 on: row 0 has label 7"):
        ft.look(data, tiny.encoder())
    with pytest.raises(DataError, match="has no rows"):
        ft.look(DatasetDict(train=Dataset.from_dict({"text": []})))


def test_what_was_changed_on_reading_stands_in_the_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{text(i)},{'ab'[i % 2]} \n" for i in range(60)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        data = ft.load_data(path)
    found = ft.look(data, tiny.encoder(labels=data.labels))
    assert "blanks around 60 labels" in found["note"]["see"]
    assert repr(found).startswith("a.csv\n")


def test_values_have_no_classes():
    data = Dataset.from_dict({"text": ["x", "y"], "label": [0.5, 0.75]})
    assert "classes" not in repr(ft.look(data, tiny.encoder("regression")))
