"""Without these, pyproject.toml could allow versions that nobody has tried."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = {
    canonicalize_name(requirement.name): requirement.specifier
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    for requirement in [Requirement(line)]
}


def pins(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", text, re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in found}


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_oldest_that_is_tried_is_the_lower_bound(name):
    lower = [Version(s.version) for s in REQUIREMENTS[name] if s.operator == ">="]
    assert len(lower) == 1, f"{name}: give one lower bound, >="
    oldest = pins("constraints-oldest.txt").get(name)
    # >=2.11 and 2.11.0 are the same bound
    assert oldest == lower[0], (
        f"{name}: pyproject.toml allows {lower[0]}, constraints-oldest.txt has {oldest}")


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_version_that_is_pinned_is_within_the_bounds(name):
    assert pins("constraints.txt")[name] in REQUIREMENTS[name]


def test_nothing_else_is_pinned_to_its_oldest():
    """A line for a package that pyproject.toml does not bound would promise what nothing keeps."""
    assert set(pins("constraints-oldest.txt")) == set(REQUIREMENTS)


def test_an_update_of_several_batches_is_not_divided_again():
    """transformers before 5.19 divides by their number what the kit has divided already.

    Adam would hide it, since its first step has the same length for any scale of the gradient.
    """
    import tiny
    from datasets import Dataset

    import ftkit as ft

    data = Dataset.from_dict({"text": ["the film was good", "a cat and a dog"] * 4})

    def weights(**sizes):
        run = ft.fit(tiny.decoder(), data, epochs=1, optim="sgd", learning_rate=0.5, quiet=True,
                     **sizes)
        return dict(run.model.net.named_parameters())

    one, four = weights(batch_size=8), weights(batch_size=2, gradient_accumulation_steps=4)
    before = dict(tiny.decoder().net.named_parameters())
    moved = max((one[name] - before[name]).abs().max().item() for name in one)
    apart = max((one[name] - four[name]).abs().max().item() for name in one)
    # a quarter of the step would be three quarters of `moved` apart; 16 bits round by 1 in 256
    assert apart < moved / 20
