"""Without these, a card could lose its tables, or the hub refuse its head."""

import pytest
import tiny
import yaml

import ftkit as ft


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
