"""Without these, two sentences could differ in more than in whom they are about."""

import pytest

import ftkit as ft


def differing(one, two):
    one, two = one.split(), two.split()
    return sum(a != b for a, b in zip(one, two, strict=True))


def test_winobias_changes_the_pronoun_alone():
    for row in ft.load_data("winobias", n_test=200)["test"]:
        assert differing(row["source"], row["target"]) == 1
        assert row["pronoun"] in row["source"].lower().replace(".", "").split()
        assert row["about"] in row["source"].lower()
        assert not set("[]{}") & set(row["source"] + row["target"])


def test_stereoset_has_three_versions_of_one_beginning():
    rows = ft.load_data("stereoset", n_test=200)["test"]
    assert set(rows["form"]) == {"intrasentence", "intersentence"}
    for row in rows:
        assert len({row["source"], row["target"], row["unrelated"]}) == 3
        if row["form"] == "intersentence":
            first = row["source"].split()[0]
            assert row["target"].split()[0] == row["unrelated"].split()[0] == first


@pytest.mark.parametrize("name", ["crows-pairs", "stereoset", "winobias"])
def test_no_group_is_in_two_splits(name):
    data = ft.load_data(name)
    groups = [set(data[split]["group"]) for split in ("train", "validation", "test")]
    assert not groups[0] & groups[2] and not groups[1] & groups[2]
