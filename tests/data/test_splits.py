"""Splits: near-duplicates are all found, and no group is ever in two splits, whatever the rows."""

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data import splits
from ftkit.data.own import main_texts, split_own
from ftkit.data.splits import (
    THRESHOLD,
    deduplicate,
    merge_groups,
    near_duplicates,
    normalized,
    split_of,
)

# Few words, so that many texts are alike.
texts = st.lists(
    st.lists(st.sampled_from("a b c d e".split()), min_size=1, max_size=9).map(" ".join),
    min_size=1, max_size=25,
)


def runs(text):
    words = text.split() + [""] * (3 - len(text.split()))
    return set(zip(words, words[1:], words[2:], strict=False))


def alike(one, two):
    a, b = runs(one), runs(two)
    return len(a & b) / len(a | b) >= THRESHOLD - 1e-9


def brute_force(many):
    return [
        (i, j) for i in range(len(many)) for j in range(i + 1, len(many))
        if alike(many[i], many[j])
    ]


@given(texts)
@settings(max_examples=200, deadline=None)
def test_near_pairs_are_those_that_comparing_all_finds(many):
    assert sorted(near_duplicates(many)) == brute_force(many)


@given(texts)
@settings(max_examples=200, deadline=None)
def test_kept_texts_are_unlike_each_other_and_each_other_text_is_like_one(many):
    kept = [many[i] for i in deduplicate(many)]
    assert not brute_force(kept)
    assert all(any(alike(text, other) for other in kept) for text in many)


@given(texts, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_near_duplicates_share_a_group(many, n_groups):
    groups = [f"g{i % n_groups}" for i in range(len(many))]
    tied = merge_groups(groups, many)
    assert all(tied[i] == tied[j] for i, j in brute_force(many))
    for i in range(len(many)):
        assert all(tied[i] == tied[j] for j in range(len(many)) if groups[i] == groups[j])


@given(texts, st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_no_group_and_no_near_duplicate_crosses_splits_of_own_rows(many, n_groups):
    rows = {"text": many, "group": [i % n_groups for i in range(len(many))]}
    splits = split_own(rows, (1.0, 0.0, 0.0), "rows")
    assert len(splits["train"]["text"]) == len(many)
    try:
        splits = split_own(rows, (0.6, 0.2, 0.2), "rows")
    except ValueError as error:  # too few groups for three splits
        assert "leave none for" in str(error)
        return
    where = [(split, *row) for split, members in splits.items()
             for row in zip(main_texts(members), members["group"], strict=True)]
    assert len(where) == len(many)
    for split, text, group in where:
        for other_split, other, other_group in where:
            if split != other_split:
                assert group != other_group
                assert not alike(text, other)


def test_case_and_punctuation_make_no_difference():
    assert normalized("A pretentious mess!") == normalized("a  pretentious, mess")
    assert deduplicate(["A pretentious mess.", "a pretentious mess"]) == [0]


def test_only_the_same_words_count_when_near_is_off():
    place = ["What's the capital of Guinea?", "What's the capital of Guinea-Bissau?"]
    assert deduplicate(place) == [0] and deduplicate(place, near=False) == [0, 1]


def test_split_depends_on_the_group_alone_on_any_machine():
    shares = [split_of(f"film {i}") for i in range(5000)]
    assert 0.08 < shares.count("test") / 5000 < 0.12
    assert 0.08 < shares.count("validation") / 5000 < 0.12
    script = ("from ftkit.data.splits import split_of; "
              "print([split_of(f'film {i}') for i in range(50)])")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                         env={"PYTHONHASHSEED": "1", "PATH": ""})
    assert ran.stdout.strip() == str(shares[:50])


def test_sets_that_stay_as_they_are_are_not_walked_through_for_each_text():
    """Texts of one template that differ by number share a run, and no two are near-duplicates."""
    class Sets(dict):
        walked = 0

        def __iter__(self):
            Sets.walked += 1
            return super().__iter__()

    by_set, parent = Sets({i: [i] for i in range(1000)}), {i: i for i in range(1000)}
    splits._merge(by_set, [], parent.get)
    parent[7] = parent[2000] = 3
    splits._merge(by_set, [2000, 7], parent.get)
    assert by_set[3] == [3, 7] and 7 not in by_set and len(by_set) == 999
    assert Sets.walked == 0
    parent |= {8: 5, 9: 3}
    splits._merge(by_set, [9, 8], parent.get)
    assert by_set[3] == [3, 7, 9] and by_set[5] == [5, 8]
