"""Faults of the data: planted into what load_data returns."""

from unittest.mock import patch

import datasets
import numpy as np

from ftkit.course.faults.registry import CLASSES, plants
from ftkit.data import load

SHARE = 0.5  # of the test rows that leak


def _loading(change):
    """A context manager in which all data that is loaded has been changed. change: of a Data."""
    drawn = load._drawn

    def changed(*args, **kwargs):
        data = drawn(*args, **kwargs)
        change(data)
        return data

    return patch.object(load, "_drawn", changed)


def _joined(*parts):
    return datasets.concatenate_datasets([part for part in parts if len(part)])


def _relabelled(rows, labels):
    with load._no_progress_bars():
        rest = rows.remove_columns("label")
        return rest.add_column("label", list(map(int, labels))).cast(rows.features)


@plants("leaked rows", check="no test row in train",
        symptom="an accuracy on test that no new text ever reaches",
        mend="remove from train whatever stands in validation or test, before any training")
def leaked_rows():
    def change(data):
        leaked = data["test"].select(range(0, len(data["test"]), round(1 / SHARE)))
        data["train"] = _joined(data["train"], leaked).shuffle(seed=0)

    return _loading(change)


@plants("leaked groups", check="groups on one side",
        symptom="good on the test set, worse on the next film, patient or customer",
        mend="split by group: load_data(..., group=...)")
def leaked_groups():
    """Rows are split one by one: of a group with several, some stand in train and some in test."""

    def change(data):
        if "group" not in data["test"].column_names:
            return
        seen, moved = set(), []
        for i, group in enumerate(data["test"]["group"]):
            if group in seen:
                moved.append(i)
            seen.add(group)
        moved = moved[: len(data["test"]) // 3]
        stay = sorted(set(range(len(data["test"]))) - set(moved))
        data["train"] = _joined(data["train"], data["test"].select(moved)).shuffle(seed=0)
        data["test"] = data["test"].select(stay)

    return _loading(change)


@plants("chosen on the test set", check="no test row in validation",
        symptom="the number that chose the model is the number that is reported",
        mend="choose on a validation split; look at test once, at the end")
def chosen_on_the_test_set():
    def change(data):
        data["validation"] = data["test"].select(range(len(data["test"])))

    return _loading(change)


@plants("shuffled labels", check="labels can be learned", tasks=(CLASSES,),
        symptom="the training loss falls, the validation loss does not: it looks like overfitting",
        mend="join texts and labels by an id and never by their order; read twenty rows")
def shuffled_labels():
    def change(data):
        labels = np.array(data["train"]["label"])
        data["train"] = _relabelled(data["train"], np.random.default_rng(0).permutation(labels))

    return _loading(change)


@plants("other label order", check="labels mean the same", tasks=(CLASSES,),
        symptom="validation improves, and on test the model is worse than guessing",
        mend="store labels as words, or keep one list of names for all files")
def other_label_order():
    """The test file numbers its classes in another order."""

    def change(data):
        count = len(data["train"].features["label"].names)
        data["test"] = _relabelled(
            data["test"], [(label + 1) % count for label in data["test"]["label"]]
        )

    return _loading(change)


@plants("contradictory labels", check="one label for a text", tasks=(CLASSES,),
        symptom="the training loss stops well above zero, however long one trains",
        mend="settle which label is right (a vote, a guideline), and keep one")
def contradictory_labels():
    """A second annotator's file was put behind the first one's."""

    def change(data):
        rows = data["train"]
        count = len(rows.features["label"].names)
        again = rows.select(range(0, len(rows), 3))
        again = _relabelled(again, [(label + 1) % count for label in again["label"]])
        data["train"] = _joined(rows, again).shuffle(seed=0)

    return _loading(change)


@plants("lost class", check="every class in train", tasks=(CLASSES,),
        symptom="a good accuracy, and one class that is never predicted",
        mend="look at the counts by class after each filter; draw the splits by class")
def lost_class():
    """A filter, such as one of lengths, took every row of the last class out of train."""

    def change(data):
        labels = np.array(data["train"]["label"])
        kept = np.flatnonzero(labels != len(data["train"].features["label"].names) - 1)
        data["train"] = data["train"].select(kept)

    return _loading(change)
