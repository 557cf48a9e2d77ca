"""Without these, a check would cry wolf, or be silent about the fault that it is there for."""

import gc

import ftkit as ft
import pytest
import worlds

from ftkit.course.faults.registry import FAULTS
from ftkit.course.sanity.run import ORDER

TASKS = {"classification": "classification", "causal-lm": "response"}


@pytest.fixture(scope="module", autouse=True)
def _nothing_old_is_looked_through():
    """Each training collects garbage twice, which takes longer than a tiny training itself."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def pipeline(task):
    """What a learner has in hand: a model, and data that was loaded now."""
    return worlds.model(task), ft.load_data(worlds.tables(task), task=TASKS[task])


@pytest.mark.parametrize("task", TASKS)
def test_a_sound_pipeline_passes_every_check(task):
    found = ft.sanity_checks(*pipeline(task))
    assert found.failed == [], found
    asked = {row["check"] for row in found.rows if row["result"] == "ok"}
    faults = {fault.check for fault in FAULTS.values() if task in fault.tasks}
    assert faults <= asked, f"these were not asked: {faults - asked}"


@pytest.mark.parametrize("task, name", [(task, name) for name, fault in FAULTS.items()
                                        for task in fault.tasks])
def test_each_fault_fails_its_own_check_and_no_other(task, name):
    """The full matrix: all checks are run under each fault."""
    with ft.fault(name):
        found = ft.sanity_checks(*pipeline(task))
    assert found.failed == [FAULTS[name].check], found


def test_each_check_is_there_for_one_fault():
    wanted = [fault.check for fault in FAULTS.values()]
    assert sorted(wanted) == sorted(ORDER)
    assert len(FAULTS) >= 20
