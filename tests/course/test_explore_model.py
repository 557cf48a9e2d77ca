"""Without these, a view might show weights that are not those of the network."""

import numpy as np
import pytest
import tiny
import torch

import ftkit as ft
from ftkit import compat
from ftkit.course.explore_model import MEAN
from ftkit.errors import DataError, SettingError

TEXT = "the film was good and the plot was bad"


@pytest.fixture(scope="module")
def tuned():
    data = tiny.reviews()
    return ft.fit(tiny.encoder(), data, epochs=8, learning_rate=5e-3, quiet=True).model


def test_a_word_left_out_changes_what_predict_says(tuned):
    view = ft.inspect_occlusion(tuned, TEXT)
    words = TEXT.split()
    assert [row["word"] for row in view.data] == words
    whole = ft.predict(tuned, TEXT)
    assert view.settings["label"] == whole["label"]
    shorter = ft.predict(tuned, " ".join(words[:3] + words[4:]))["probabilities"]
    row = view.data[3]
    np.testing.assert_allclose(row["without it"], shorter[whole["label"]], atol=1e-5)
    np.testing.assert_allclose(row["change"], whole["probability"] - row["without it"], atol=1e-5)
    other = next(label for label in tuned.labels if label != whole["label"])
    changed = [row["change"] for row in view.choose(label=other).data]
    np.testing.assert_allclose(changed[3], -row["change"], atol=1e-5)  # two classes
    assert "the words that move it most" in repr(view) and "rgba(" in view.html()


def test_the_word_that_the_label_hangs_on_moves_it_most(tuned, monkeypatch):
    def says(model, texts):
        return [{"probabilities": {"bad": 1 - p, "good": p}}
                for p in (0.9 if "great" in text else 0.2 for text in texts)]

    monkeypatch.setattr("ftkit.evaluation.predict.predict", says)
    view = ft.inspect_occlusion(tuned, "the film  was great")
    changes = {row["word"]: round(row["change"], 6) for row in view.data}
    assert changes == {"the": 0, "film": 0, "was": 0, "great": 0.7}
    assert repr(view).splitlines()[1] == "the film was +[great]"


@pytest.mark.parametrize("make", [tiny.encoder, tiny.decoder])
def test_attention_is_the_networks_own_and_leaves_no_trace(make):
    model = make()
    before = compat.attention_kernel(model.net.config)
    view = ft.inspect_attention(model, TEXT)
    assert compat.attention_kernel(model.net.config) == before
    weights = [row["weight"] for row in view.data]
    np.testing.assert_allclose(sum(weights), 1, atol=1e-5)
    inputs = model.tokenizer(TEXT, return_tensors="pt")
    model.net.set_attn_implementation("eager")
    with torch.no_grad():
        own = model.net.eval()(**inputs, output_attentions=True).attentions
    at = view.settings["at"]
    assert at == (len(weights) - 1 if model.spec.next_token else 0)
    np.testing.assert_allclose(weights, own[-1][0].mean(0)[at], atol=1e-6)
    one = [row["weight"] for row in view.choose(layer=1, head="2", at=1).data]
    np.testing.assert_allclose(one, own[0][0, 1, 1], atol=1e-6)
    if model.spec.next_token:
        assert one[2:] == [0] * (len(one) - 2)  # what comes later is not seen
    assert MEAN in view.controls["head"].options and "most attended" in repr(view)


def test_what_cannot_be_shown_is_said(tuned):
    with pytest.raises(SettingError, match="leaving words out is for a classifier"):
        ft.inspect_occlusion(tiny.decoder(), TEXT)
    with pytest.raises(SettingError, match="label='fine' does not exist; choose one of"):
        ft.inspect_occlusion(tuned, TEXT, label="fine")
    with pytest.raises(DataError, match="has 1 words; give a text of two"):
        ft.inspect_occlusion(tuned, "good")
    with pytest.raises(DataError, match="at=99: the text has the tokens 0 to"):
        ft.inspect_attention(tuned, TEXT, at=99)
    with pytest.raises(SettingError, match="layer=9, head=.*there are the layers 1 to"):
        ft.inspect_attention(tuned, TEXT, layer=9)
    with pytest.raises(DataError, match="the text is empty"):
        ft.inspect_attention(tuned, " ")
