"""Without these, a metric could be wrong and every lesson's claim with it."""

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

import ftkit as ft
from ftkit.course import claims
from ftkit.errors import DataError, SettingError


def test_batching_does_not_change_an_evaluation():
    data, model = tiny.reviews(30)["test"], tiny.encoder()
    one, many = (ft.evaluate(model, data, batch_size=b) for b in (1, 16))
    np.testing.assert_allclose(one.probabilities, many.probabilities, atol=1e-5)
    assert one.predictions.tolist() == many.predictions.tolist()
    as_given = ft.evaluate(model, data, disable="group_by_length")
    np.testing.assert_allclose(as_given.probabilities, many.probabilities, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_perplexity_is_that_of_the_library_over_all_tokens(batch_size):
    model = tiny.decoder()
    texts = ["the film was good", "a cat", "so very dull a plot and music"]
    total = count = 0.0
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([model.tokenizer(text)["input_ids"]])
            n = ids.shape[1] - 1
            total += model.net(input_ids=ids, labels=ids).loss.item() * n
            count += n
    ev = ft.evaluate(model, Dataset.from_dict({"text": texts}), batch_size=batch_size)
    assert ev["loss"].value == pytest.approx(total / count, rel=1e-5)
    assert ev["perplexity"].value == pytest.approx(np.exp(total / count), rel=1e-5)
    assert ev["perplexity"].low < ev["perplexity"].value < ev["perplexity"].high


def test_calibration_error_by_hand():
    probabilities = np.array([[0.1, 0.9]] * 10 + [[0.35, 0.65]] * 10)
    truth = np.array([1] * 5 + [0] * 5 + [1] * 10)
    ev = ft.from_predictions(probabilities.argmax(1), truth, probabilities=probabilities)
    assert ev["calibration_error"].value == pytest.approx((abs(0.9 - 0.5) + abs(0.65 - 1)) / 2)
    assert ev["loss"].value == pytest.approx(-np.log(probabilities[range(20), truth]).mean())


def test_generated_answers_are_compared_with_the_right_ones():
    model = tiny.decoder()
    data = Dataset.from_dict(
        {"prompt": ["the film was", "a cat is"], "response": [" good", " warm"]}
    )
    ev = ft.evaluate(model, data, generate=True, max_new_tokens=3)
    assert len(ev.texts) == 2
    assert {"exact_match", "chrf", "rouge_l", "perplexity"} <= set(ev.metrics)
    same = data.map(lambda row, i: {"response": ev.texts[i]}, with_indices=True)
    assert ft.evaluate(model, same, generate=True, max_new_tokens=3)["exact_match"].value == 1


@pytest.mark.usefixtures("each_precision")
def test_an_encoder_decoder_learns_and_answers_through_the_same_calls(tmp_path):
    model = tiny.seq2seq()
    pairs = [("the film was good", "great"), ("the film was bad", "dull")] * 12
    data = Dataset.from_dict({"source": [a for a, _ in pairs], "target": [b for _, b in pairs]})
    run = ft.fit(model, data, epochs=12, learning_rate=1e-2, batch_size=8, quiet=True)
    before, after = (ft.evaluate(m, data, generate=True, max_new_tokens=4)
                     for m in (model, run.model))
    assert after["loss"].value < before["loss"].value / 2
    assert after["exact_match"].value == after["rouge_l"].value == 1
    assert ft.generate(run.model, "the film was bad", max_new_tokens=9) == "dull", "it must stop"
    run.model.save(tmp_path / "t5")
    again = ft.load_model(tmp_path / "t5")
    assert again.task == "seq2seq-lm"
    assert ft.generate(again, "the film was good", max_new_tokens=9) == "great"


@pytest.mark.usefixtures("each_precision")
def test_a_regressor_learns_a_score():
    texts = ["a good film", "a dull film", "a bad film"] * 12
    data = Dataset.from_dict({"text": texts, "label": [0.9, 0.5, 0.1] * 12})
    run = ft.fit(tiny.encoder("regression"), data, epochs=12, learning_rate=5e-3, quiet=True)
    ev = ft.evaluate(run.model, data)
    assert ev["pearson"].value > 0.95 and ev["rmse"].value < 0.15


def test_the_choice_is_the_nearest_by_cosine():
    model = tiny.encoder("choice")
    data = Dataset.from_dict(
        {
            "question": ["the cat", "good", "film"],
            "answer": [0, 1, 0],
            "choices": [["the cat", "dog"], ["a", "good"], ["film", "cat", "dog"]],
        }
    )
    assert ft.evaluate(model, data)["accuracy"].value == 1


@pytest.mark.parametrize("task", ["classification", "regression", "tagging", "causal-lm"])
def test_of_a_model_with_nan_weights_every_metric_is_nan_and_no_claim_holds(task):
    """Its answers are those of a rule (the first class), which may well be right enough."""
    data = {
        "classification": lambda: tiny.reviews(6)["test"],
        "regression": lambda: Dataset.from_dict({"text": ["a cat", "a plot"], "label": [0.0, 1.0]}),
        "tagging": lambda: Dataset.from_dict({"tokens": [["a", "cat"]], "tags": [["O", "O"]]}),
        "causal-lm": lambda: Dataset.from_dict({"text": ["the film was good", "a cat is warm"]}),
    }[task]()
    labels = ["O", "B-X"] if task == "tagging" else ["bad", "good"]
    model = tiny.decoder() if task == "causal-lm" else tiny.encoder(task, labels)
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.fill_(float("nan"))
    broken = ft.evaluate(model, data)
    assert broken.undefined.all() and "NaN for" in repr(broken)
    for name, found in broken.metrics.items():
        assert np.isnan([found.value, found.low, found.high]).all(), name
        for bound in ({"at_least": -1e9}, {"at_most": 1e9}):
            assert not ft.claim("anything", broken, metric=name, **bound).held
            assert not ft.claim("no worse", broken, broken, metric=name, **bound).held
        single = broken.per_example(name)
        assert single is None or np.isnan(single).all()
    claims._claims.clear()


def test_a_model_with_nan_weights_that_is_to_write_ends_no_evaluation():
    model = tiny.decoder()
    with torch.no_grad():
        next(model.net.parameters())[:] = float("nan")
    data = Dataset.from_dict({"prompt": ["the film was"] * 2, "response": ["", " good"]})
    broken = ft.evaluate(model, data, generate=True, max_new_tokens=3)
    assert np.isnan(broken["exact_match"].value) and broken.undefined.all()


def test_predictions_that_are_nan_are_no_wrong_answers():
    ev = ft.from_predictions([1.0, float("nan"), 0.0], [1, 0, 0])
    assert np.isnan(ev["accuracy"].value) and ev.undefined.tolist() == [False, True, False]
    assert not ft.claim("better than nothing", ev, metric="accuracy", at_least=0.0).held
    assert not ft.claim("few", ft.from_scores("x", [1.0, float("nan")]), metric="x", at_most=9).held
    claims._claims.clear()


def test_own_scores_become_an_evaluation():
    ev = ft.from_scores("loss", [2.0, 6.0], [1, 3])
    assert ev["loss"].value == 2
    assert ev.per_example("loss").tolist() == [2, 2]


def test_the_confusion_matrix_counts_references_by_row():
    ev = ft.from_predictions([0, 1, 1], [0, 0, 1], labels=["a", "b"])
    assert ev.confusion().tolist() == [[1, 1], [0, 1]]


def test_wrong_requests_are_explained():
    data = tiny.reviews(4)["test"]
    with pytest.raises(DataError, match="'label' is missing"):
        ft.evaluate(tiny.encoder(), data.remove_columns("label"))
    with pytest.raises(SettingError, match="encoder without a head"):
        ft.evaluate(tiny.encoder("encoder"), data)
    with pytest.raises(DataError, match="2 predictions for 1"):
        ft.from_predictions([1, 2], [1])
    for values, weights in (([], None), ([1.0, 2.0], [1])):
        with pytest.raises(DataError, match="at least one"):
            ft.from_scores("x", values, weights)
    with pytest.raises(SettingError, match="confusion"):
        ft.from_scores("x", [1.0]).confusion()
    short = Dataset.from_dict({"text": ["a", "a"]})
    with pytest.raises(DataError, match="no token carries a loss"):
        ft.evaluate(tiny.decoder(), short)
