"""A class is a name and no number: classes of other names must not be taken for each other."""

import pandas as pd
import pytest
import tiny
from datasets import ClassLabel, Dataset, Features, Value

import ftkit as ft
from ftkit.errors import DataError, SettingError

TABLE = pd.DataFrame({"text": [f"film {i} was {word}" for i, word in enumerate(tiny.WORDS * 4)],
                      "label": ["bad", "good"] * (2 * len(tiny.WORDS))})


def rows(*names):
    return Dataset.from_dict({"text": ["a film", "the film"], "label": [0, 1]}, features=Features({
        "text": Value("string"), "label": ClassLabel(names=list(names))}))


@pytest.mark.parametrize("names", [("neg", "pos"), ("good", "bad"), ("bad", "good", "neutral")])
def test_data_with_other_classes_or_another_order_is_refused(names):
    with pytest.raises(DataError, match=f"classes are {names[0]}, .* answers bad, good"):
        ft.evaluate(tiny.encoder(), rows(*names))
    with pytest.raises(DataError, match="labels=model.labels"):
        ft.fit(tiny.encoder(), rows(*names), epochs=1, quiet=True)


@pytest.mark.parametrize("names", [("bad", "good"), ("Bad", " GOOD"), ("0", "1"),
                                   ("LABEL_0", "LABEL_1")])
def test_the_same_classes_however_written_or_only_numbered_are_read(names):
    ft.evaluate(tiny.encoder(), rows(*names))


def test_a_model_of_more_classes_reads_data_that_names_its_first_or_that_it_loads_by_name():
    model = tiny.encoder(labels=("good", "neutral", "bad"))
    ft.evaluate(model, rows("good", "neutral"))
    data = ft.load_data(TABLE, labels=model.labels)
    assert data.labels == ["good", "neutral", "bad"] and set(data["test"]["label"]) == {0, 2}
    ft.evaluate(model, data["test"])


def test_classes_that_are_named_for_a_file_must_be_its_own():
    with pytest.raises(DataError, match=r"labels=\['good'\]: 'bad'. Add them"):
        ft.load_data(TABLE, labels=["good"])
    with pytest.raises(DataError, match="a list of classes"):
        ft.load_data(TABLE, labels="good")
    with pytest.raises(DataError, match="read as regression"):
        ft.load_data(TABLE.assign(label=[i + 0.5 for i in range(len(TABLE))]), labels=["good"])


def published(folder, names):
    """A classifier as another program saves one."""
    model = tiny.encoder(labels=names)
    model.net.config.id2label = dict(enumerate(names))
    model.net.config.label2id = {name: i for i, name in enumerate(names)}
    model.net.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def test_a_published_classifier_keeps_its_classes_and_says_when_they_are_called_otherwise(tmp_path):
    folder = published(tmp_path, ("NEGATIVE", "POSITIVE"))
    assert ft.load_model(folder, "classification").labels == ["NEGATIVE", "POSITIVE"]
    with pytest.warns(UserWarning, match="answers NEGATIVE, POSITIVE, and you call these pos, neg"):
        ft.load_model(folder, "classification", labels=["pos", "neg"])
    with pytest.raises(DataError, match="needs labels"):
        ft.load_model(folder, "tagging")


def test_a_classifier_writes_no_text():
    with pytest.raises(SettingError, match="writes no text"):
        ft.generate(tiny.encoder(), "a film")
    with pytest.raises(SettingError, match="max_new_tokens=0"):
        ft.generate(tiny.decoder(), "a film", max_new_tokens=0)
