"""ft.sanity_checks: goes through a pipeline, from the data to the saved model, in a few seconds."""

import os
import tempfile
from collections.abc import Callable, Sequence
from unittest.mock import patch

from ftkit.assets.catalog import nearest
from ftkit.course.sanity import of_data, of_evaluation, of_texts, of_training
from ftkit.course.sanity.observed import Observed
from ftkit.course.sanity.registry import CHECKS
from ftkit.display import Table
from ftkit.errors import DataError, SettingError
from ftkit.models.model import quiet
from ftkit.training.measure import only_new_garbage

# Importing them has filled CHECKS. They are asked from the data to the saved model.
ROOMS = (of_data, of_texts, of_training, of_evaluation)
ORDER = [name for room in ROOMS for name, check in CHECKS.items()
         if check.test.__module__ == room.__name__]


class SanityChecks(Table):
    """The table of ft.sanity_checks.

    failed: the names of the checks that failed, a list. checks["name"]: that row, a dict.
    """

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed, in their order."""
        return [row["check"] for row in self.rows if row["result"] == "FAILS"]

    def __getitem__(self, name: str) -> dict:
        for row in self.rows:
            if row["check"] == name:
                return row
        names = [row["check"] for row in self.rows]
        raise KeyError(f"{name!r} was not checked. {nearest(name, names)}")


def sanity_checks(model, data, *, method=None, max_length: int | None = None,
                  reward: Callable | None = None, only: str | Sequence[str] | None = None,
                  seed: int = 0) -> SanityChecks:
    """Check a pipeline from its data to the saved model for faults that raise no error.

    model: of load_model, for classification or causal-lm; it stays as it is. data: of load_data,
    with train, validation and test. method and max_length: as you will give them to fit. reward: a
    function of (texts, references) that returns a number each, as in reinforcement learning; by
    default ft.rouge_l. only: a name of a check, or several, in place of all. The training checks
    train on the first 24 rows for a few updates, in float32, and are not recorded.
    Returns a SanityChecks, a table with a row for each check: its result ("ok", "FAILS", or "-"
    where it cannot be asked), what was found and expected, and what to do; `failed` has the names
    of those that failed. A check that fails points to a place to look at, and is no proof of a
    mistake: labels that are hard to predict from their words look like shuffled ones.
    Raises SettingError for another task or a check that does not exist, DataError for a split that
    is missing or has no rows.
    """
    wanted = [only] if isinstance(only, str) else list(ORDER if only is None else only)
    for name in wanted:
        if name not in CHECKS:
            raise SettingError(f"check {name!r} does not exist. {nearest(name, list(CHECKS))}")
    if model.task not in ("classification", "causal-lm"):
        raise SettingError(f"{model.name} is loaded for {model.task}; sanity_checks knows "
                           "classification and causal-lm.")
    for split in ("train", "validation", "test"):
        if split not in data or not len(data[split]):
            raise DataError(f"the data has no rows in a split {split!r}; give train, validation "
                            "and test, as load_data does.")
    observed, rows = Observed(model, data, method, max_length, reward, seed), []
    with (
        tempfile.TemporaryDirectory() as folder,
        # Its trainings are nobody's runs, and show no bars.
        patch.dict(os.environ, FTKIT_RUNS=folder, FTKIT_PLAIN="1"),
        quiet(),
        only_new_garbage(),
    ):
        for name in wanted:
            check = CHECKS[name]
            found = check.test(observed)
            result = {True: "ok", False: "FAILS", None: "-"}[found.good]
            rows.append({"check": name, "result": result, "found": found.found,
                         "expected": found.expected,
                         "what to do": check.mend if found.good is False else ""})
    return SanityChecks(rows)
