"""Without these, lesson 17 could measure bias wrongly, or accept a wrong measure of fairness."""

import re

import datasets
import numpy as np
import pytest
import tiny
import torch
from lessons import from_lesson
from test_checks_04_05 import checked

import ftkit as ft

AFTER_HIM = "a about and as at by for from in into is of on or that the to when who with".split()
SIMPLE = {"he": "she", "she": "he", "him": "her", "his": "her", "her": "his", "HIM": "him",
          "himself": "herself", "herself": "himself"}


def exchange(text, words=SIMPLE):
    return re.sub(rf"\b({'|'.join(words)})\b", lambda match: words[match.group()], text)


def trusted(text, before=AFTER_HIM):
    him = rf"\bher\b(?=\s*(?:[^\w\s]|$)|\s+(?:{'|'.join(before)})\b)"
    return exchange(re.sub(him, "HIM", text))


def distance(says, truth, group, labels=(0, 1), join=max):
    rates = [[np.mean(says[(truth == label) & (group == each)]) for each in np.unique(group)]
             for label in labels]
    return join(max(each) - min(each) for each in rates)


@pytest.mark.parametrize(("number", "right", "wrong"), [
    (1, 0.3, (42 / 100 - 12 / 50, 0.1, 21, "0.3")),
    (2, distance, (
        lambda *given: distance(*given, labels=(1,)),
        lambda *given: distance(*given, join=sum),
        lambda says, truth, group: float(says[group == "men"].mean()),
        lambda *_: None, 0.3)),
    (3, trusted, (
        exchange,
        lambda text: trusted(text, before=["and"]),
        lambda text: trusted(text, before=["to", "and", "in", "with"]),
        lambda text: text.replace("he", "she"),
        lambda text: trusted(text).replace("herself", "himself"), "his")),
])
def test_the_check_takes_the_right_answer_and_explains_wrong_ones(number, right, wrong):
    from fairlearn.metrics import equal_opportunity_difference, equalized_odds_difference

    space = dict(equal_opportunity_difference=equal_opportunity_difference,
                 equalized_odds_difference=equalized_odds_difference)
    assert checked("17", number, right, **space)
    for answer in wrong:
        found = checked("17", number, answer, **space)
        assert not found and len(repr(found)) > len(f"{number}: not yet. "), answer


@pytest.fixture(scope="module")
def lesson():
    names = ("word_pairs", "KNOWN", "HELD_OUT", "about", "swapped", "with_texts", "augmented",
             "rate", "icat", "pseudo_log_likelihood")
    return dict(zip(names, from_lesson("17", *names), strict=True))


def test_words_of_the_remedy_and_the_words_held_out_from_it_share_none(lesson):
    known, held_out = ({*words, *words.values()} for words in (lesson["KNOWN"], lesson["HELD_OUT"]))
    assert not known & held_out


@pytest.mark.parametrize(("text", "whom", "other"), [
    ("He knows the actor.", "men", "She knows the actor."),
    ("Her mother, a HERO of hers", "women", "His father, a HERO of hers"),
    ("The theme, history and women", "women", "The theme, history and men"),
    ("nobody", "neither", "nobody"),
    ("he and she", "both", "she and he"),
])
def test_a_swap_changes_whole_words_of_its_list_and_no_others(lesson, text, whom, other):
    assert lesson["about"](text, lesson["KNOWN"]) == whom
    assert lesson["swapped"](text, lesson["KNOWN"]) == other


SAMPLE = datasets.Dataset.from_dict({
    "text": ["she sings", "she acts", "her film", "he sings", "a film", "he runs", "the actress"],
    "label": [0, 0, 1, 1, 1, 1, 0], "group": list("abcdefg")})


def test_augmentation_adds_the_other_gender_with_the_same_label(lesson):
    found = lesson["augmented"](SAMPLE)
    added = {(row["text"], row["label"]) for row in found.select(range(len(SAMPLE), len(found)))}
    assert added == {("he sings", 0), ("he acts", 0), ("his film", 1), ("she sings", 1),
                     ("she runs", 1)}
    assert found.select(range(len(SAMPLE))).to_list() == SAMPLE.to_list()


def test_the_differences_between_groups_are_fairlearns(lesson):
    from fairlearn import metrics

    chance = np.random.default_rng(0)
    says, truth = chance.integers(0, 2, (2, 200))
    group = chance.choice(["men", "women"], 200)
    ours = [abs(lesson["rate"](among)(says, truth, group)) for among in ([0, 1], [1], [0])]
    known = dict(y_true=truth, y_pred=says, sensitive_features=group)
    assert ours[0] == pytest.approx(metrics.demographic_parity_difference(**known))
    assert ours[1] == pytest.approx(metrics.equal_opportunity_difference(**known))
    assert max(ours[1:]) == pytest.approx(metrics.equalized_odds_difference(**known))


def test_icat_is_100_for_the_ideal_and_0_for_whom_always_prefers_the_stereotype(lesson):
    ideal = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0]])
    assert lesson["icat"](ideal) == (100, 50, 100)
    assert lesson["icat"](ideal[:1]) == (100, 100, 0)
    lms, ss, both = lesson["icat"](np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 3.0]]))
    assert (lms, ss, both) == (50, 50, 50)


def test_the_pseudo_log_likelihood_masks_each_shared_token_in_turn(lesson):
    model = tiny.encoder("masked-lm")
    words = model.tokenizer
    said = lesson["pseudo_log_likelihood"](model.net, words, "the good film", "the bad film")
    ids, total = words("the good film")["input_ids"], 0.0
    changed = set(ids) - set(words("the bad film")["input_ids"])
    assert changed, "the sentences differ in a token"
    for place, token in enumerate(ids):
        if token not in changed and token not in words.all_special_ids:
            masked = torch.tensor([ids])
            masked[0, place] = words.mask_token_id
            with torch.no_grad():
                logits = model.net(input_ids=masked).logits
            total += logits[0, place].log_softmax(-1)[token].item()
    assert said == pytest.approx(total, abs=1e-4)


def test_the_three_kinds_of_change_leave_everything_else_alone(lesson):
    rows = ft.load_data("rotten-tomatoes", n_test=300)["test"]
    for text in rows["text"]:
        other = lesson["swapped"](text, lesson["KNOWN"])
        assert len(other.split()) == len(text.split())
        if lesson["about"](text, lesson["KNOWN"]) == "neither":
            assert other == text
