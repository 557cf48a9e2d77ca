"""Checks of the data: splits apart, labels that mean something and the same everywhere."""

from collections import defaultdict

import numpy as np

from ftkit.course.sanity.registry import Found, checks, not_asked

SURE = 0.01  # of a finding that could be luck
# Stricter, for word counts say the same of all texts of a kind: they are right or wrong together,
# so that chance reaches further than its formula says.
LEARNED = 0.001


def _both(observed, one, others):
    """How many rows of other splits have a text that stands in the split `one`, and the first."""
    known = set(observed.texts[one])
    hits = [(name, i) for name in others for i, text in enumerate(observed.texts[name])
            if text in known]
    where = f", first {hits[0][0]} row {hits[0][1]}" if hits else ""
    return Found(not hits, f"{len(hits)} rows{where}", "0 rows")


@checks("no test row in train", "no text of validation or test stands in train",
        "remove them from train; ft.look(data) shows the first")
def no_test_row_in_train(observed):
    return _both(observed, "train", ("validation", "test"))


@checks("no test row in validation", "what chooses the model is not what judges it",
        "draw a validation split from train")
def no_test_row_in_validation(observed):
    return _both(observed, "validation", ("test",))


@checks("groups on one side", "no group has rows on both sides of a split",
        'load the data with group="column", or split by group')
def groups_on_one_side(observed):
    if any("group" not in rows.column_names for rows in observed.data.values()):
        return not_asked("the data has no column group")
    held = [name for name in ("validation", "test") if name in observed.data]
    known = {text for name in held for text in observed.texts[name]}
    rows = zip(observed.data["train"]["group"], observed.texts["train"], strict=True)
    groups = {group for group, text in rows if text not in known}  # the others are another check's
    crossing = groups & {group for name in held for group in observed.data[name]["group"]}
    return Found(not crossing, f"{len(crossing)} groups on both sides", "0 groups")


@checks("one label for a text", "the same text has the same label in train",
        "settle which is right; ft.look(data) shows the first")
def one_label_for_a_text(observed):
    if not observed.classes:
        return not_asked("rows have no classes")
    torn = len(_torn(observed))
    return Found(not torn, f"{torn} texts with several labels", "0 texts")


def _torn(observed):
    """The texts of train that have several labels, as a set."""
    labels = defaultdict(set)
    for text, label in zip(observed.texts["train"], observed.data["train"]["label"], strict=True):
        labels[text].add(label)
    return {text for text, found in labels.items() if len(found) > 1}


@checks("every class in train", "each class of the data has rows in train",
        "draw the splits anew, or leave the class out of the task")
def every_class_in_train(observed):
    if not observed.classes:
        return not_asked("rows have no classes")
    present = set(observed.data["train"]["label"])
    absent = [str(name) for i, name in enumerate(observed.model.labels) if i not in present]
    return Found(not absent, f"no row of {', '.join(absent)}" if absent else "all",
                 "all")


def _word_counts():
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = CountVectorizer(token_pattern=r"[^\W_]+", binary=True, ngram_range=(1, 2))
    return make_pipeline(words, LogisticRegression(max_iter=1000))


def _learned(observed):
    """Whether word counts say right what they have not seen of train, or by luck.

    By cross-validation in five parts, within train: whether labels can be learned is a question
    about them alone. Returns the probability of as many by chance, how many in words, and the
    share of the commonest class; None where a class has too few rows.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    # Texts with several labels are another check's.
    torn = _torn(observed)
    rows = zip(observed.texts["train"], observed.data["train"]["label"], strict=True)
    kept = [(text, label) for text, label in rows if text not in torn]
    texts, labels = [text for text, _ in kept], np.array([label for _, label in kept], dtype=int)
    counts = np.bincount(labels, minlength=1)
    if (counts > 0).sum() < 2 or counts[counts > 0].min() < 2:
        return None
    parts = StratifiedKFold(min(5, counts[counts > 0].min()), shuffle=True, random_state=0)
    said = cross_val_predict(_word_counts(), texts, labels, cv=parts)
    right, share = int((said == labels).sum()), counts.max() / len(labels)
    return _luck(right, len(labels), share), f"{right} of {len(labels)}", share


def _by_words(observed, split):
    """Classes of a split as word counts and a linear model say, and the true ones, two arrays."""
    model = _word_counts().fit(observed.texts["train"], np.array(observed.data["train"]["label"]))
    return model.predict(observed.texts[split]), np.array(observed.data[split]["label"])


def _renamed(said, true):
    """Said classes under the names that fit the true ones best, each name used once."""
    from scipy.optimize import linear_sum_assignment

    classes = sorted({*said.tolist(), *true.tolist()})
    counts = np.array([[((said == a) & (true == b)).sum() for b in classes] for a in classes])
    rows, columns = linear_sum_assignment(-counts)
    names = {classes[a]: classes[b] for a, b in zip(rows, columns, strict=True)}
    return np.array([names[label] for label in said.tolist()])


def _luck(hits, n, share):
    """The probability of so many hits or more among n by chance alone."""
    from scipy.stats import binomtest

    return binomtest(int(hits), int(n), min(share, 1.0), alternative="greater").pvalue


@checks("labels can be learned", "a linear model over words beats the commonest class",
        "read twenty training rows with their labels; a hard task fails here too, with few rows")
def labels_can_be_learned(observed):
    if not observed.classes:
        return not_asked("rows have no classes")
    found = _learned(observed)
    if found is None:
        return not_asked("a class has fewer than two rows in train")
    luck, right, share = found
    return Found(bool(luck < LEARNED), f"{right} right in cross-validation",
                 f"clearly more than {share:.0%}")


@checks("labels mean the same", "classes have the same names in all splits",
        "compare the lists of class names of the files; store labels as words")
def labels_mean_the_same(observed):
    if not observed.classes:
        return not_asked("rows have no classes")
    found = _learned(observed)
    if found is None or found[0] >= LEARNED:
        return not_asked("word counts do not learn the labels, so there is nothing to compare")
    for split in ("validation", "test"):
        said, true = _by_words(observed, split)
        as_it_is, renamed = said == true, _renamed(said, true) == true
        better, worse = (renamed & ~as_it_is).sum(), (as_it_is & ~renamed).sum()
        share = np.bincount(true).max() / len(true)
        learned = _luck(renamed.sum(), len(true), share) < LEARNED
        if learned and _luck(better, better + worse or 1, 0.5) < SURE:
            return Found(False, f"{split}: {as_it_is.sum()} of {len(true)} right, "
                         f"{renamed.sum()} under other names", "the names as they are fit best")
    return Found(True, "the names as they are fit best", "the names as they are fit best")
