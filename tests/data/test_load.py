"""Catalog data: fixed splits that do not leak, draws by seed, and rows that are what they say."""

import json
import time

import datasets
import numpy as np
import pytest

from ftkit.assets import fetch
from ftkit.data import recipe
from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS, THRESHOLD, near_duplicates, normalized
from ftkit.errors import DataError, FetchError, SettingError
from ftkit.tasks.tagging import entities

EVERY = [(entry.name, options) for entry in recipe.entries() for options in entry.forms
         if not entry.needs]
IDS = [f"{name}-{'-'.join(options.values())}".strip("-") for name, options in EVERY]
ontology, made_tags = recipe.module("_ontology"), recipe.module("made_tags")
EXAMPLE = recipe.module("instructions").EXAMPLE


def texts(rows, columns):
    def words(value):
        return value if isinstance(value, str) else " ".join(value)

    return [" ".join(words(row[column]) for column in columns) for row in rows]


def runs(text):
    words = normalized(text).split()
    words += [""] * (3 - len(words))
    return set(zip(words, words[1:], words[2:], strict=False))


def alike(one, two):
    shared = len(one & two)
    return shared >= THRESHOLD * (len(one) + len(two) - shared) - 1e-9


@pytest.mark.parametrize(("name", "options"), EVERY, ids=IDS)
def test_no_group_and_no_duplicate_or_near_duplicate_crosses_splits(name, options):
    """A reader who saw a test row in training would believe a result that is not one."""
    data, source = load_data(name, **options), recipe.find(name).source(**options)
    groups = [set(data[split]["group"][:]) for split in SPLITS]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    for columns in filter(None, (source.unique, source.linked)):
        parts = {split: texts(data[split], columns) for split in SPLITS}
        same = [{normalized(text) for text in part} for part in parts.values()]
        assert not (same[0] & same[1] or same[0] & same[2] or same[1] & same[2])
        if not source.near and columns == source.unique:
            continue
        # every pair, by the search that test_splits.py holds against comparing all with all
        where = [(split, text) for split, part in parts.items() for text in set(part)]
        crossing = [
            (where[i], where[j]) for i, j in near_duplicates([text for _, text in where])
            if where[i][0] != where[j][0]
        ]
        assert not crossing
        # and some test rows against all others, in plain sets
        some = [runs(text) for text in parts["test"][:5]]
        for text in (*parts["train"][:3000], *parts["validation"]):
            other = runs(text)
            assert not any(alike(one, other) for one in some)


@pytest.mark.parametrize(("name", "options"), EVERY, ids=IDS)
def test_rows_have_the_columns_of_their_task_and_nothing_empty(name, options):
    data = load_data(name, **options)
    needed = {
        "classification": ("text", "label"), "regression": ("text", "label"),
        "tagging": ("tokens", "tags"), "choice": ("question", "choices", "answer"),
        "qa": ("question", "answers"), "text": ("text",), "pairs": ("source", "target"),
        "instruction": ("kind", "instruction", "input", "output"),
    }[data.task]
    assert list(data) == list(SPLITS)
    for split in SPLITS:
        assert len(data[split]) > 0
        for row in data[split].select(range(min(300, len(data[split])))):
            assert all(row[column] not in ("", [], None) for column in (*needed, "group"))
            if data.task == "choice":
                assert 0 <= row["answer"] < len(row["choices"]) == len(set(row["choices"]))
            if data.task == "tagging":
                assert len(row["tokens"]) == len(row["tags"])


def test_films_stay_together_and_plots_are_left_out():
    data = load_data("rotten-tomatoes")
    assert data.labels == ["rotten", "fresh"] and data.task == "classification"
    films = [set(data[split]["group"][:]) for split in SPLITS]
    assert sum(map(len, films)) == len(set.union(*films)) > 400


def test_boolq_keeps_an_articles_questions_together():
    data = load_data("boolq")
    titles = [{text.split(" -- ")[0] for text in data[split]["text_pair"][:]} for split in SPLITS]
    assert sum(map(len, titles)) == len(set.union(*titles))


def test_a_term_is_in_one_split_over_all_forms():
    """A definition that was trained on must not answer a lay question of the test."""
    where = {}
    for form in ("text", "choice", "lay", "system"):
        data = load_data("phenotype-definitions", form=form)
        for split in SPLITS:
            for term in data[split]["id"][:]:
                assert where.setdefault(term, split) == split
    names = {term.name: id for id, term in ontology.read_terms().items()}
    for data in (load_data("phenotype-definitions", form="instruction"), load_data("instructions")):
        for split in SPLITS:
            for row in data[split].filter(lambda row: row["kind"] == "name"):
                assert where.get(names[row["output"]], split) == split


@pytest.mark.parametrize("form", ["choice", "lay"])
def test_choices_are_ten_near_relatives_and_the_question_gives_nothing_away(form):
    terms = ontology.read_terms()
    names = {term.name: term for term in terms.values()}
    data = load_data("phenotype-definitions", form=form)
    for row in data["test"].select(range(200)):
        right = terms[row["id"]]
        assert len(row["choices"]) == 10 and row["choices"][row["answer"]] == right.name
        assert f" {normalized(right.name)} " not in f" {normalized(row['question'])} "
        for choice in row["choices"]:
            assert names[choice].id not in right.parents + right.children
    answers = np.bincount(data["test"]["answer"][:], minlength=10)
    assert answers.min() > 0.5 * answers.mean()  # the right one is not always in one place


def test_a_definition_belongs_to_one_organ_system_which_its_ancestors_name():
    """Lesson 13 sorts by them: a text that is of two would have a wrong label."""
    terms = ontology.read_terms()
    data = load_data("phenotype-definitions", form="system")
    names = list(ontology.SYSTEMS)
    assert data.labels == list(ontology.SYSTEMS.values())
    for split in SPLITS:
        assert set(data[split]["label"]) == set(range(len(names)))
        for row in data[split].select(range(100)):
            seen, waiting = set(), [row["id"]]
            while waiting:
                id = waiting.pop()
                waiting += terms[id].parents
                seen |= {terms[id].name} if ontology.ABNORMALITY in terms[id].parents else set()
            assert seen == {names[row["label"]]}


def test_fewer_choices():
    data = load_data("phenotype-definitions", form="choice", n_choices=4)
    assert {len(choices) for choices in data["test"]["choices"][:50]} == {4}


def test_instructions_are_of_three_kinds_and_the_course_example_is_held_out():
    data = load_data("instructions", n_train=30, n_validation=30, n_test=30)
    for split in SPLITS:
        kinds = data[split]["kind"][:]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {
            "translate": 10, "name": 10, "extract": 10,
        }
    first = data["test"][0]
    assert {key: first[key] for key in EXAMPLE} == EXAMPLE
    everything = load_data("instructions")
    assert EXAMPLE["input"] not in everything["train"]["input"][:]
    for row in everything["test"].filter(lambda row: row["kind"] == "extract"):
        assert set(json.loads(row["output"])) == {"age", "unit", "sex"}


def test_the_prompt_of_the_course_comes_first():
    data = load_data("capitals", n_train=2, n_test=200)
    assert {answers[0] for answers in data["train"]["answers"][:]} == {"Paris", "Berlin"}
    assert data["test"][0]["question"] == "What's the capital of Portugal?"
    assert len(data["test"]) == 200


def test_draws_are_nested_and_follow_the_seed():
    small = load_data("rotten-tomatoes", n_train=50, n_test=40, seed=3)
    large = load_data("rotten-tomatoes", n_train=200, n_test=80, seed=3)
    other = load_data("rotten-tomatoes", n_train=50, seed=4)
    assert large["train"]["text"][:50] == small["train"]["text"][:]
    assert large["test"]["text"][:40] == small["test"]["text"][:]
    assert other["train"]["text"][:] != small["train"]["text"][:]
    everything = load_data("rotten-tomatoes", seed=3)
    assert everything["train"]["text"][:50] == small["train"]["text"][:]
    assert sorted(other["validation"]["text"][:]) == sorted(everything["validation"]["text"][:])


def test_the_hash_is_of_the_content():
    one, two = (load_data("openbook-qa", n_train=20, seed=seed) for seed in (1, 1))
    three = load_data("openbook-qa", n_train=20, seed=2)
    assert one.hash == two.hash != three.hash and len(one.hash) == 64
    one["train"] = three["train"]  # a record would name the rows from before
    assert one.hash != two.hash


def test_too_many_rows_says_how_many_there_are():
    with pytest.raises(DataError, match=r"n_test=9999: 'openbook-qa' has \d+ rows in its test"):
        load_data("openbook-qa", n_test=9999)


@pytest.mark.parametrize(("source", "options", "words"), [
    ("rotten-tomatos", {}, "Did you mean 'rotten-tomatoes'"),
    ("minilm-l6", {}, "is a model. Load it with load_model"),
    ("pubmedqa", {"prt": "expert"}, "'prt' is not an option of pubmedqa. Did you mean 'part'"),
    ("rotten-tomatoes", {"form": "text"}, "It has none"),
    ("pubmedqa", {"part": "all"}, "part='all': expected one of 'expert', 'artificial', 'both'"),
    ("phenotype-definitions", {"form": "x"}, "form='x': expected one of 'text', 'choice'"),
    ("phenotype-definitions", {"form": "choice", "n_choices": 99}, "n_choices=99"),
    ("xsum-text", {"words": 1}, "words=1: expected a number from 10"),
])
def test_wrong_settings_say_what_there_is(source, options, words):
    with pytest.raises(SettingError, match=words):
        load_data(source, **options)


def test_second_load_is_quick_and_writes_nothing_into_the_cache():
    data = load_data("boolq")
    before = sorted(fetch.cache_home().joinpath("data").rglob("*"))
    start = time.perf_counter()
    data = load_data("boolq")
    assert time.perf_counter() - start < 1
    data["test"].map(lambda row: {"words": len(row["text"].split())})
    assert sorted(fetch.cache_home().joinpath("data").rglob("*")) == before


# What the hub's own repositories hold, one row each.
HUB = {
    "google/boolq": {"question": "is it", "passage": "It is.", "answer": True},
    "qiaojin/PubMedQA": {
        "question": "does it", "context": {"contexts": ["It was tried.", "It helped."]},
        "final_decision": "yes",
    },
    "google-research-datasets/nq_open": {"question": "who was it", "answer": ["Someone"]},
    "tau/commonsense_qa": {
        "question": "Where?", "choices": {"label": ["A", "B"], "text": ["here", "there"]},
        "answerKey": "B",
    },
    "allenai/openbookqa": {
        "question_stem": "Where?", "choices": {"label": ["A", "B"], "text": ["here", "there"]},
        "answerKey": "B",
    },
}


@pytest.mark.parametrize("name", ["boolq", "pubmedqa", "nq-open", "commonsense-qa", "openbook-qa"])
def test_hub_rows_become_the_same_columns_at_the_pinned_revision(name, monkeypatch):
    asked = []

    def load_dataset(repository, config, revision):
        asked.append((repository, revision))
        return {"train": [HUB[repository]]}

    monkeypatch.delenv("FTKIT_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = recipe.find(name).source(hub=True)
    row = source.read()[0]
    entry = recipe.find(name).entry
    assert asked == [(entry.hub, entry.revision)]
    assert set(load_data(name)["train"].column_names) == set(row)
    assert row.get("label", 1) == 1 and row.get("answer", 1) == 1


def test_hub_is_refused_offline_and_its_errors_are_explained(monkeypatch):
    monkeypatch.setenv("FTKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="'someone/data' is on the hub and FTKIT_OFFLINE forbids"):
        load_data("someone/data")
    monkeypatch.delenv("FTKIT_OFFLINE")

    def fails(*_, **__):
        raise ConnectionError("no route to the hub.")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(FetchError, match="hub did not give 'someone/data'.* no route to the hub"):
        load_data("someone/data")


def test_any_hub_data_set_by_its_columns(monkeypatch):
    labels = datasets.ClassLabel(names=["bad", "good"])
    rows = datasets.Dataset.from_dict(
        {"review": [f"text number {i} is {i}" for i in range(40)], "stars": [0, 1] * 20},
        features=datasets.Features({"review": datasets.Value("string"), "stars": labels}),
    )
    monkeypatch.delenv("FTKIT_OFFLINE", raising=False)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict({"train": rows})
    )
    data = load_data("someone/data", text="review", label="stars")
    assert data.labels == ["bad", "good"] and sum(len(data[split]) for split in SPLITS) == 40


def test_made_sentences_of_the_test_have_layouts_and_names_of_their_own():
    """A tagger that knows the made names by heart would look better than it is."""
    data = load_data("made-tags")

    def names(split, kind):
        return {
            tuple(word.upper() for word in row["tokens"][a:b])
            for row in data[split] for found, a, b in entities(row["tags"]) if found == kind
        }

    for kind in ("LOC", "PER"):
        full = [{name for name in names(split, kind) if kind == "LOC" or len(name) == 2
                 and len(name[0]) > 2} for split in SPLITS]
        assert len(full[0]) > 100
        assert sum(map(len, full)) == len(set.union(*full)), kind
    assert data.labels == load_data("news-tags").labels == list(made_tags.TAGS)


def test_a_made_sentence_says_where_its_names_are():
    pools = {kind: ["Ann Lee"] for kind in ("first", "last", "country", "city", "people")}
    layout = "{city!} : {person} met {body} ."
    tokens, tags = made_tags._fill(layout, pools, lambda slot, choices: choices[0])
    assert " ".join(tokens) == "ANN LEE : Ann Lee Ann Lee met Bank of Ann Lee ."
    assert " ".join(tags) == (
        "B-LOC I-LOC O B-PER I-PER I-PER I-PER O B-ORG I-ORG I-ORG I-ORG O"
    )


def test_made_sentences_know_every_day_and_month():
    import calendar

    assert made_tags._DAYS == list(calendar.day_name)
    assert made_tags._MONTHS == list(calendar.month_name)[1:]
    written = {token for row in made_tags.sentences() for token in row["tokens"]}
    assert {*calendar.day_name, *made_tags._MONTHS} <= written
