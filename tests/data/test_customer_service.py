"""Without this, a lesson would teach a style by examples that break it."""

import re

import pytest

from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS

APOLOGIES = ("sorry", "apolog", "unfortunately", "inconvenience")


@pytest.fixture(scope="module")
def splits():
    return load_data("customer-service")


def test_an_issue_is_in_one_split_only(splits):
    issues = [set(splits[split]["kind"]) for split in SPLITS]
    assert sum(map(len, issues)) == len(set.union(*issues))
    assert sum(len(splits[split]) for split in SPLITS) >= 200


@pytest.mark.parametrize("split", SPLITS)
def test_every_reply_keeps_the_rules_of_the_house(splits, split):
    for row in splits[split]:
        request, reply = row["input"], row["output"]
        lines = reply.split("\n")
        name = re.fullmatch(r"Hello ([A-Z][a-z]+),", lines[0])
        assert name and name[1] in request, row
        assert set(re.findall(r"FW-\d{5}", reply)) == set(re.findall(r"FW-\d{5}", request)), row
        assert sum(line.startswith("Next step: ") for line in lines) == 1, row
        assert lines[-1] == "Warmly, the Fernway team" and len(reply.split()) <= 60, row
        assert "!" not in reply and not any(word in reply.lower() for word in APOLOGIES), row
