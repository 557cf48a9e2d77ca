"""Trainings of a moment, one after the other."""

import gc

import pytest


@pytest.fixture(scope="module", autouse=True)
def _no_search_through_the_libraries():
    """Each training collects garbage twice, which mostly looks at what the libraries made."""
    import ftkit.training.fit  # noqa: F401 - before the freeze

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
