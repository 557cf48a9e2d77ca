"""ft.fault("leaked rows"): a fault that is there inside of a block and gone behind it."""

from contextlib import ExitStack

import numpy as np

from ftkit.assets.catalog import nearest
from ftkit.course.faults import in_data, in_evaluation, in_texts, in_training
from ftkit.course.faults.registry import FAULTS
from ftkit.display import Table
from ftkit.errors import SettingError

ROOMS = (in_data, in_texts, in_training, in_evaluation)  # importing them has filled FAULTS


class fault:
    """Plant a fault into the kit for the duration of a block: with ft.fault("leaked rows"): ...

    Inside of the block `load_data`, `fit`, `evaluate` and the rest do what a pipeline with this
    fault would do: they run to their end, and no error is raised. Behind it they are what they
    were, also after an exception. What was made inside (data, a model, an evaluation) keeps the
    fault. Several can be planted, one inside of the other.
    name: one of `ft.fault.table()`.
    `ft.fault.mystery(seed)` plants one without saying which.
    Raises SettingError for a name that does not exist.
    """

    def __init__(self, name: str) -> None:
        if name not in FAULTS:
            raise SettingError(f"fault {name!r} does not exist. {nearest(name, list(FAULTS))}")
        self.name = name
        self._stack = ExitStack()

    def __enter__(self) -> "fault":
        self._stack.enter_context(FAULTS[self.name].plant())
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def __repr__(self) -> str:
        return f"fault({self.name!r}): {FAULTS[self.name].symptom}"

    @staticmethod
    def table(task: str | None = None) -> Table:
        """All faults, or those of a task: a Table of name, symptom, the check that finds it, mend.

        task: "classification" or "causal-lm".
        """
        return Table(
            [{"fault": one.name, "symptom": one.symptom, "check": one.check, "mend": one.mend}
             for one in FAULTS.values() if task is None or task in one.tasks]
        )

    @classmethod
    def mystery(cls, seed: int, task: str = "classification") -> "fault":
        """One of the faults of a task, drawn by `seed`, that does not say which it is.

        Returns a fault to be used in the same way, with `is_it(name)`, which says True or why not
        (as `ft.check` wants it), and `reveal()`, its name. Raises SettingError for a task that has
        no faults.
        """
        names = [one.name for one in FAULTS.values() if task in one.tasks]
        if not names:
            raise SettingError(f"task={task!r} has no faults; choose classification or causal-lm.")
        return _Mystery(names[np.random.default_rng(seed).integers(len(names))], len(names))


class _Mystery(fault):
    """A fault that keeps its name to itself."""

    def __init__(self, name: str, among: int) -> None:
        super().__init__(name)
        self._hidden, self._among = name, among
        del self.name

    def __enter__(self) -> "fault":
        self._stack.enter_context(FAULTS[self._hidden].plant())
        return self

    def __repr__(self) -> str:
        return f"a fault, one of {self._among}"

    def is_it(self, answer: str) -> bool | str:
        """Whether the answer is its name: True, or a sentence that says why it cannot be."""
        answer = str(answer).strip()
        if answer not in FAULTS:
            return f"There is no fault of that name. {nearest(answer, list(FAULTS))}"
        if answer == self._hidden:
            return True
        return (f"With {answer!r} the check {FAULTS[answer].check!r} would fail, and here it does "
                "not.")

    def reveal(self) -> str:
        """The name of the fault."""
        return self._hidden
