"""Without these, a tag could slide to the wrong piece, or an entity be counted by another rule."""

import random

import pytest
import tiny
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import ftkit as ft
from ftkit.data.conll import in_order
from ftkit.errors import DataError
from ftkit.models.structure import IGNORED
from ftkit.tasks.batching import encode

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SENTENCES = st.lists(
    st.tuples(st.text("abcdefgXYZ'-é1", min_size=1, max_size=12), st.sampled_from(BIO)),
    min_size=1, max_size=10,
)


def tagger(labels=BIO):
    return tiny.encoder("tagging", tuple(labels))


@settings(max_examples=60, deadline=None)
@given(SENTENCES)
def test_a_words_first_piece_carries_its_tag_and_the_others_none(sentence):
    model = tagger()
    words, tags = ([pair[i] for pair in sentence] for i in (0, 1))
    row = encode(Dataset.from_dict({"tokens": [words], "tags": [tags]}), model).rows[0]
    assert len(row["labels"]) == len(row["input_ids"])
    assert [model.labels[x] for x in row["labels"] if x != IGNORED] == tags
    assert [word for _, word in row["words"]] == list(range(len(words)))


@pytest.mark.parametrize(("tags", "found"), [
    ("O O", []),
    ("B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
    ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
    ("I-PER I-PER O", [("PER", 0, 2)]),  # an I without a B begins an entity
    ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
    ("O I-LOC B-LOC I-LOC", [("LOC", 1, 2), ("LOC", 2, 4)]),
    ("B-X-Y I-X-Y", [("X-Y", 0, 2)]),
])
def test_entities_by_hand(tags, found):
    assert ft.entities(tags.split()) == found


def conlleval(tags):
    """The rules of the Perl script conlleval, word for word: the reference for random tags."""
    def parts(tag):
        return ("O", "") if tag == "O" else tuple(tag.split("-", 1))

    found, start = [], None
    before, kind_before = "O", ""
    for i, tag in enumerate([*tags, "O"]):
        here, kind = parts(tag)
        ends = (before, here) in {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O")} or (
            before != "O" and kind_before != kind)
        starts = (before, here) in {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I")} or (
            here != "O" and kind_before != kind)
        if ends:
            found.append((kind_before, start, i))
        if starts:
            start = i
        before, kind_before = here, kind
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(BIO), max_size=12))
def test_entities_are_those_of_conlleval(tags):
    assert ft.entities(tags) == conlleval(tags)


def test_entity_scores_are_those_of_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not a dependency")
    rng = random.Random(3)
    for _ in range(50):
        lengths = [rng.randint(1, 9) for _ in range(6)]
        said, right = ([[rng.choice(BIO) for _ in range(n)] for n in lengths] for _ in range(2))
        ev = ft.from_tags(said, right)
        for name, reference in (("precision", seqeval.precision_score), ("f1", seqeval.f1_score),
                                ("recall", seqeval.recall_score)):
            assert ev[name].value == pytest.approx(reference(right, said, zero_division=0))


def test_entity_scores_by_hand():
    right = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "B-PER"], ["O"]]
    said = [["B-PER", "I-PER", "O"], ["B-LOC", "I-LOC", "O"], ["B-LOC"]]
    ev = ft.from_tags(said, right)  # three right entities, three said, one of them found
    assert ev["precision"].value == ev["recall"].value == pytest.approx(1 / 3)
    assert ev["f1"].value == pytest.approx(1 / 3)
    assert ev["f1_PER"].value == pytest.approx(2 / 3) and ev["f1_LOC"].value == 0
    assert ev["accuracy"].value == pytest.approx(4 / 7)
    assert ev["f1"].low <= 1 / 3 <= ev["f1"].high
    nothing = ft.from_tags([["O", "O"]], [["O", "O"]])
    assert nothing["f1"].value == 0 and nothing["accuracy"].value == 1


def test_tags_that_are_not_bio_have_an_accuracy_and_no_entities():
    assert set(ft.from_tags([["NN", "VB"]], [["NN", "NN"]]).metrics) == {"accuracy"}


SCHEMES = {
    "IOBES": (["S-LOC", "O", "B-PER", "I-PER", "E-PER"], ["S-LOC", "O", "B-PER", "E-PER", "O"]),
    "BILOU": (["U-LOC", "O", "B-PER", "I-PER", "L-PER"], ["U-LOC", "O", "B-PER", "L-PER", "O"]),
}


def test_words_that_a_tokenizer_drops_or_joins_keep_their_place():
    """Of a zero-width character nothing is left, of a joined emoji one unknown token."""
    tokens = ["the", "\u200b", "\U0001f469\u200d\U0001f52c", "film"]
    model = tiny.encoder("tagging", ("O", "B-X", "I-X"))
    data = Dataset.from_list([{"tokens": tokens, "tags": ["O", "O", "O", "B-X"]}] * 4)
    run = ft.fit(model, data, epochs=40, batch_size=4, learning_rate=1e-2, quiet=True)
    assert ft.predict(run.model, [tokens])[0]["tags"][-1] == "B-X"
    assert ft.evaluate(run.model, data)["f1"].value == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_entities_of_other_schemes_are_scored_in_a_plain_dataset_too(scheme):
    right, said = SCHEMES[scheme]
    ev = ft.from_tags([said], [right])
    assert ev["precision"].value == ev["recall"].value == ev["f1"].value == 1 / 2
    assert ev["f1_LOC"].value == 1 and ev["f1_PER"].value == 0
    assert ev["accuracy"].value == 3 / 5, "words are compared with the tags as they stand"
    data = Dataset.from_dict({"tokens": [["x"] * 5], "tags": [right]})
    model = tagger(sorted({"O", *right, *said}))
    assert {"f1", "f1_LOC", "f1_PER"} <= set(ft.evaluate(model, data).metrics)
    looked = {row["what"]: row for row in ft.look(data, model, max_length=4).rows}
    assert looked["entities beyond the limit"]["data"] == 1


def test_bare_letters_are_entities_of_one_type():
    assert ft.from_tags([["B", "I", "O"]], [["B", "I", "O"]])["f1_entity"].value == 1


def test_predict_names_the_entities_of_a_model_in_another_scheme():
    model = tagger(("O", "B-PER", "E-PER", "S-PER"))
    with torch.no_grad():
        model.net.classifier.weight.zero_()
        model.net.classifier.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    said = ft.predict(model, ["the cat"])[0]
    assert said["tags"] == ["S-PER"] * 2
    assert said["entities"] == [("PER", "the"), ("PER", "cat")]


@pytest.mark.usefixtures("each_precision")
def test_a_tagger_learns_and_words_cut_off_count_as_missed():
    words = ["cat", "dog", "film", "music"]
    rng = random.Random(1)
    rows = [[rng.choice(words) for _ in range(6)] for _ in range(40)]
    data = Dataset.from_dict({
        "tokens": rows,
        "tags": [["B-PER" if w in ("cat", "dog") else "O" for w in row] for row in rows],
    })
    base = tagger(("O", "B-PER", "I-PER"))
    run = ft.fit(base, data, epochs=6, learning_rate=5e-3, quiet=True)
    assert ft.evaluate(run.model, data)["f1"].value > 0.95
    cut = ft.evaluate(run.model, data, max_length=3)
    assert cut["recall"].value < 0.8 and len(cut.predictions[0]) == 6


@pytest.mark.parametrize(("tokens", "tags", "says"), [
    (["a", "b"], ["O"], "row 1: 2 tokens but 1 tags"),
    (["a"], ["O", "O"], "row 1: 1 tokens but 2 tags"),
    ([], [], "row 1 has no tokens"),
    (["a", " "], ["O", "O"], "row 1: token 2 is ' '"),
    (["a"], ["B-ORG"], "row 1 has the tag 'B-ORG'; the model knows O, B-PER"),
])
def test_sentences_that_do_not_fit_are_named(tokens, tags, says):
    data = Dataset.from_dict({"tokens": [["x"], tokens], "tags": [["O"], tags]})
    with pytest.raises(DataError, match=says):
        encode(data, tagger())


def test_pieces_of_a_word_without_a_tag_are_named():
    with pytest.raises(DataError, match="word 2 of the tokens has no tag, there are 1 tags"):
        ft.align_tags(["O"], [None, 0, 1, None], BIO)


def test_answers_of_unequal_length_are_named():
    with pytest.raises(DataError, match="sentence 1: 1 tags for 2 words"):
        ft.from_tags([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(DataError, match="1 tagged sentences for 2 references"):
        ft.from_tags([["O"]], [["O"], ["O"]])


def test_tags_come_in_one_order():
    assert in_order(["I-PER", "O", "B-PER", "B-LOC"]) == ["O", "B-LOC", "B-PER", "I-PER"]
    assert in_order(["VB", "NN"]) == ["NN", "VB"]
