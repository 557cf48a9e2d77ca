"""Whoever trains on own data wants to ask the model about a new text: every task has an answer."""

import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit.errors import DataError, NotANumber, SettingError

TEXTS = ["the film was good", "a terrible plot, and so dull"]


def test_classes_come_with_their_names_and_probabilities():
    model, data = tiny.encoder(), tiny.reviews(8)["test"]
    found = ft.predict(model, data["text"][:])
    wanted = ft.evaluate(model, data)
    for one, chosen, shares in zip(found, wanted.predictions, wanted.probabilities, strict=True):
        assert one["label"] == model.labels[chosen]
        assert list(one["probabilities"]) == ["bad", "good"]
        assert list(one["probabilities"].values()) == pytest.approx(shares.tolist(), abs=5e-3)
        assert one["probability"] == max(one["probabilities"].values())
    assert ft.predict(model, TEXTS[0]) == ft.predict(model, TEXTS)[0]
    assert [one["label"] for one in ft.predict(model, data)] == [one["label"] for one in found]
    pair = ft.predict(model, ("the film", "was good"))
    assert pair == ft.predict(model, {"text": "the film", "text_pair": "was good"})
    assert pair != ft.predict(model, "the film")


def test_a_model_that_learned_says_what_it_learned():
    data = tiny.reviews(64)
    run = ft.fit(tiny.encoder(), data, epochs=6, learning_rate=3e-3, quiet=True)
    assert ft.predict(run.model, "the film was great")["label"] == "good"
    assert ft.predict(run.model, "the plot was dull")["label"] == "bad"


def test_values_of_a_regression():
    found = ft.predict(tiny.encoder("regression"), TEXTS)
    assert all(isinstance(one["value"], float) for one in found)


def test_words_get_tags_and_entities_their_text():
    model = tiny.encoder("tagging", ("O", "B-X", "I-X"))
    found = ft.predict(model, "the cat's film, so good")
    assert found["words"] == ["the", "cat's", "film", ",", "so", "good"]
    assert len(found["tags"]) == 6 and set(found["tags"]) <= set(model.labels)
    for kind, text in found["entities"]:
        assert kind == "X" and text in "the cat's film , so good"
    words = ["the", "cat", "was"]
    rows = Dataset.from_list([{"tokens": words, "tags": ["O"] * 3}])
    wanted = ft.evaluate(model, rows).predictions[0]
    assert ft.predict(model, [words])[0]["tags"] == wanted


def test_a_choice_among_several():
    model = tiny.encoder("choice")
    rows = [{"question": "the film", "choices": ["cat", "dog", "plot"]},
            {"question": "the dog", "choices": ["good", "bad"]}]
    found = ft.predict(model, rows)
    assert list(found[0]["probabilities"]) == ["cat", "dog", "plot"]
    assert sum(found[1]["probabilities"].values()) == pytest.approx(1)
    data = Dataset.from_list([{**row, "answer": 0} for row in rows])
    wanted = ft.evaluate(model, data).predictions
    assert [one["choice"] for one in found] == [
        row["choices"][i] for row, i in zip(rows, wanted, strict=True)]


def test_a_decoder_continues_a_prompt_and_answers_a_record():
    model = tiny.decoder()
    text = "the film was"
    assert ft.predict(model, text, max_new_tokens=4) == {
        "text": ft.generate(model, text, max_new_tokens=4).strip()}
    prompt, _ = ft.apply_template({"instruction": text}, model.tokenizer)
    wanted = ft.generate(model, prompt, max_new_tokens=4).strip()
    asked = [{"role": "user", "content": text}]
    for row in ({"instruction": text}, {"messages": asked},
                {"messages": [*asked, {"role": "assistant", "content": "not looked at"}]}):
        assert ft.predict(model, row, max_new_tokens=4)["text"] == wanted
    rows = Dataset.from_list([{"prompt": text, "response": "not looked at"}] * 2)
    found = ft.predict(model, rows, max_new_tokens=4)
    assert found == [ft.predict(model, text, max_new_tokens=4)] * 2


def test_an_encoder_decoder_writes():
    assert len(ft.predict(tiny.seq2seq(), TEXTS, max_new_tokens=3)) == 2


def test_masks_are_filled():
    found = ft.predict(tiny.encoder("masked-lm"), "the <mask> was <mask>", top=3)
    assert [len(words) for words in found["words"]] == [3, 3]
    shares = [share for _, share in found["words"][0]]
    assert shares == sorted(shares, reverse=True) and 0 < shares[0] < 1


@pytest.mark.parametrize(("make", "texts", "says"), [
    (tiny.encoder, ["x", " "], "text 1 is empty"),
    (tiny.encoder, ["x", 5], "text 1 is 5; for classification expected"),
    (tiny.encoder, [], "there are no texts"),
    (tiny.encoder, ["x", ("a", "b")], "different columns"),
    (lambda: tiny.encoder("choice"), ["x"], "'choices' is missing"),
    (lambda: tiny.encoder("masked-lm"), ["x"], "text 0 has no <mask>"),
])
def test_what_cannot_be_answered_is_named(make, texts, says):
    with pytest.raises(DataError, match=says):
        ft.predict(make(), texts)


def test_a_model_without_a_head_cannot_answer():
    with pytest.raises(SettingError, match="no head to answer with"):
        ft.predict(tiny.encoder("encoder"), "x")


@pytest.mark.parametrize(("task", "text"), [
    ("classification", "a film"), ("regression", "a film"), ("tagging", "a film"),
    ("masked-lm", "a <mask>"), ("choice", {"question": "a", "choices": ["good", "bad"]}),
])
def test_a_model_with_nan_weights_has_no_answer(task, text):
    """Its likeliest class, tag or choice would be the first one."""
    model = tiny.encoder(task, ["O", "B-X"] if task == "tagging" else ["bad", "good"])
    with torch.no_grad():
        next(model.net.parameters())[:] = float("nan")
    with pytest.raises(NotANumber, match="the output for text 0 of tiny-bert is NaN.*hold NaN"):
        ft.predict(model, text)
