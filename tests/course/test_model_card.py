"""Without these, a card could lose its tables, or the hub refuse its head."""

import pytest
import tiny
import yaml
from huggingface_hub import ModelCard

import ftkit as ft
from ftkit.course import model_card
from ftkit.models.specs import TASKS


@pytest.fixture(scope="module")
def run():
    return ft.fit(tiny.encoder(), tiny.reviews(8)["train"], epochs=1, quiet=True)


ASKED = {"title": "A tiny judge", "data": "Eight reviews.", "uses": "Tests.",
         "limits": ["Not for people.", "Never for films."],
         "tables": {"Accuracy": [{"part": "men | women", "accuracy": 0.51234}, {"part": "all"}]}}


def test_a_card_carries_its_tables_its_limits_and_how_it_was_trained(run):
    text = ft.model_card(run, **ASKED, licence="mit")
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {"license": "mit", "language": "en", "base_model": "tiny-bert",
                                    "pipeline_tag": "text-classification", "tags": ["ftkit"]}
    assert "| men \\| women | 0.512 |" in body and "- Never for films." in body
    assert "Full(" in body and "labels: bad, good" in body and "seed 0" in body


@pytest.mark.parametrize("missing", [{"limits": []}, {"tables": {}}, {"tables": {"Bias": []}}])
def test_a_card_that_hides_is_refused(run, missing):
    with pytest.raises(ft.SettingError, match="limits and tables"):
        ft.model_card(run, **{**ASKED, **missing})


def test_the_head_names_the_base_as_the_hub_does_and_no_folder(run):
    def base(name):
        run.model.name = name
        return ModelCard(ft.model_card(run, **ASKED)).data.base_model

    before = run.model.name
    try:
        assert base("minilm-l6") == "sentence-transformers/all-MiniLM-L6-v2"
        assert base("owner/name") == "owner/name"
        assert base("/home/me/base") is None and base("flan-t5-small") is None
        assert "in 8 bits" in ft.model_card(run, **ASKED)
    finally:
        run.model.name = before


def test_every_task_has_a_name_on_the_hub():
    assert set(model_card._PIPELINES) == set(TASKS)


@pytest.mark.parametrize("part", ["title", "data", "uses", "licence"])
def test_a_card_with_an_empty_part_is_refused(run, part):
    with pytest.raises(ft.SettingError, match=f"{part} of the model card is empty"):
        ft.model_card(run, **ASKED | {part: " "})
