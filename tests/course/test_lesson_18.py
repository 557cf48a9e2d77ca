"""Without these, lesson 18 could teach a hash, a gate or a check that the package does not keep."""

import numpy as np
import pytest
from datasets import Dataset
from lessons import from_lesson
from test_checks_04_05 import checked

import ftkit as ft
from ftkit.data.fingerprint import row_hashes

HOUSE = ft.load_data("customer-service")


def entries_to_learn_from(entries):
    accepted = [one for one in entries if one["review"] == "accepted"]
    return [one["correction"] or one["answer"] for one in accepted
            if one["correction"] or one["thumb"] == "up"]


def for_groups(new, old, groups, bound, z=1.96):
    rise, names = np.asarray(new) - np.asarray(old), np.asarray(groups)
    means = np.array([rise[names == name].mean() for name in sorted(set(groups))])
    return bool(means.mean() + z * means.std(ddof=1) / np.sqrt(len(means)) <= bound)


@pytest.mark.parametrize(("number", "right", "wrong"), [
    (1, 139, (36, 138)),
    (2, entries_to_learn_from, (
        lambda entries: [one["correction"] or one["answer"] for one in entries],
        lambda entries: [one["answer"] for one in entries
                         if one["review"] == "accepted" and one["thumb"] == "up"])),
    (3, for_groups, (
        lambda new, old, groups, bound: for_groups(new, old, range(len(new)), bound),
        lambda new, old, groups, bound: for_groups(new, old, groups, bound, z=0))),
])
def test_the_check_takes_the_right_answer_and_explains_wrong_ones(number, right, wrong):
    assert checked("18", number, right)
    for answer in wrong:
        found = checked("18", number, answer)
        assert not found and len(repr(found)) > len(f"{number}: not yet. ")


def test_the_lessons_rules_are_kept_by_the_house_and_not_by_its_opposite():
    rules_kept, _, _ = from_lesson("18", "rules_kept", "ARTICLES", "APOLOGIES")
    for split in HOUSE.values():
        for row in split:
            assert all(rules_kept(row["input"], row["output"]).values()), row
    row = HOUSE["test"][0]
    broken = row["output"].replace("Hello ", "Dear ").replace("FW-", "").replace(
        "Next step:", "Now:").replace("Warmly", "Sorry!") + " word" * 60
    assert not any(rules_kept(row["input"], broken).values())


def test_the_lessons_hash_of_a_row_is_the_registrys():
    hash_of = from_lesson("18", "hash_of")
    rows = HOUSE["validation"].to_list()
    assert [hash_of(row) for row in rows] == row_hashes(rows)["train"]


def test_the_lessons_gate_judges_as_ship_does():
    """Its interval is the normal one and the package's is resampled; they agree off the bound."""
    no_worse, rng = from_lesson("18", "no_worse"), np.random.default_rng(0)
    old = rng.normal(3, 1, 200)
    rows = Dataset.from_dict({"text": [str(number) for number in range(200)]})
    for shift, bound in ((0.0, 0.05), (0.02, 0.05), (0.08, 0.05), (0.2, 0.1), (-0.3, 0.0)):
        new = old + shift + rng.normal(0, 0.1, 200)
        change = ft.compare(*(ft.from_scores("loss", losses, dataset=rows)
                              for losses in (new, old)), "loss").difference
        assert no_worse(new, old, bound) == (change.high <= bound)


def test_no_later_request_is_among_those_that_are_trained_on():
    size = type("Size", (), dict(pairs=9, told=6, later=3, issues=20, requests=1))
    names = ("of_issues", "order", "told_of", "new", "later", "unseen", "old_issues")
    train_rows, test_rows = HOUSE["train"], HOUSE["test"]
    _, order, told_of, new, later, unseen, old_issues = from_lesson(
        "18", *names, size=size, seed=0, train_rows=train_rows, test_rows=test_rows,
        known=sorted(set(train_rows["kind"])))
    assert set(new["kind"]) == set(later["kind"]) == set(told_of) and len(told_of) == 9
    assert not set(later["input"]) & set(new["input"])
    said, right = ({(kind, line) for kind, text in zip(rows["kind"], rows["output"], strict=True)
                    for line in text.split("\n") if line.startswith("Next step: ")}
                   for rows in (new, later))
    assert right <= said, "a correction has shown each form that a later reply has"
    for sample in range(3):
        old = set(old_issues(sample)["kind"])
        assert len(old) == 3 and not old & {*told_of, *unseen["kind"]}


def test_the_nearest_corrections_are_those_of_the_same_issue():
    rows = HOUSE["train"]
    chat, as_turns, _, _, nearest = from_lesson(
        "18", "chat", "as_turns", "words", "told_words", "nearest", new=rows, SYSTEM=None,
        RULES={"role": "system", "content": "rules"})
    turns = nearest(rows[0]["input"])
    assert turns[0]["content"] == "rules" and len(turns) == 7
    assert turns[-1]["content"] == rows[0]["output"], "the request itself is nearest"
