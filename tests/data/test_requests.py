"""Without these, a lesson could call a request new that training has shown, or a reply in style
that is not."""

import json

from lessons import from_lesson

from ftkit.data import recipe
from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS

requests = recipe.module("requests")


def test_new_wordings_and_kinds_are_in_no_training_request():
    data = load_data("requests")
    known = {(row["kind"], row["instruction"]) for row in data["train"]}
    kinds = {kind for kind, _ in known}
    assert set(data["train"]["novel"]) == {"nothing"} and len(kinds) == 23
    held = {split: set() for split in SPLITS[1:]}
    for split in held:
        for row in data[split]:
            new_kind = row["kind"] not in kinds
            new_wording = not new_kind and (row["kind"], row["instruction"]) not in known
            said = "kind" if new_kind else "wording" if new_wording else "nothing"
            assert row["novel"] == said
            if said != "nothing":
                held[split].add((row["kind"], row["instruction"]))
    assert not held["validation"] & held["test"], "a setting would be chosen for the test"


def test_answers_are_right():
    rows = {row["kind"]: row for row in load_data("requests")["test"]}
    for kind, answer in (
        ("brackets", lambda text: f"({text})"), ("italics", lambda text: f"<i>{text}</i>"),
        ("first two words", lambda text: " ".join(text.split()[:2])),
        ("initials", lambda text: " ".join(f"{word[0]}." for word in text.split())),
        ("index", lambda text: ", ".join(text.split()[::-1])),
    ):
        assert rows[kind]["output"] == answer(rows[kind]["input"])
    assert list(json.loads(rows["age as JSON"]["output"])) == ["age", "unit"]


def test_every_wording_is_that_of_one_kind():
    kinds = {}
    for name, kind in requests.KINDS.items():
        assert len(set(kind.wordings)) == len(kind.wordings)
        for wording in kind.wordings:
            assert kinds.setdefault(wording, name) == name


def test_every_reply_keeps_the_rules_of_the_house():
    """Else the lesson would teach a style by examples that break it."""
    _, kept = from_lesson("04", "APOLOGIES", "style_rules")
    data = load_data("customer-service")
    assert sum(len(data[split]) for split in SPLITS) >= 200
    for split in SPLITS:
        for row in data[split]:
            assert all(kept(row["input"], row["output"]).values()), row
