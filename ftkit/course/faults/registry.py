"""The list of all faults: what each looks like, which check finds it, and how it is mended."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

CLASSES, TEXTS = "classification", "causal-lm"
FAULTS: dict[str, "Fault"] = {}


@dataclass(frozen=True)
class Fault:
    """One fault.

    symptom: what somebody sees who does not know of it. check: the name of the sanity check that
    finds it. mend: what to do. tasks: in whose pipelines it does something. plant: a function
    without arguments that returns a context manager.
    """

    name: str
    symptom: str
    check: str
    mend: str
    tasks: tuple[str, ...]
    plant: Callable[[], AbstractContextManager]


def plants(name: str, *, symptom: str, check: str, mend: str,
           tasks: tuple[str, ...] = (CLASSES, TEXTS)) -> Callable:
    """Decorate a function that returns the context manager of a fault: it joins the list."""

    def add(plant: Callable) -> Callable:
        FAULTS[name] = Fault(name, symptom, check, mend, tasks, plant)
        return plant

    return add


@contextmanager
def together(*parts: AbstractContextManager) -> Iterator[None]:
    """Several context managers as one."""
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(part)
        yield
