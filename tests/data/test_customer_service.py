"""Without this, a lesson would teach a style by examples that break it."""

import re

import pytest
from lessons import from_lesson

from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS


@pytest.fixture(scope="module")
def splits():
    return load_data("customer-service")


def test_an_issue_is_in_one_split_only(splits):
    issues = [set(splits[split]["kind"]) for split in SPLITS]
    assert sum(map(len, issues)) == len(set.union(*issues))
    assert sum(len(splits[split]) for split in SPLITS) >= 200


@pytest.mark.parametrize("split", SPLITS)
def test_every_reply_keeps_the_rules_of_the_house(splits, split):
    _, style_rules = from_lesson("04", "APOLOGIES", "style_rules")
    for row in splits[split]:
        assert all(style_rules(row["input"], row["output"]).values()), row
        orders = [re.findall(r"FW-\d{5}", row[part]) for part in ("input", "output")]
        assert set(orders[0]) == set(orders[1]), row  # exercise 2 adds this rule
