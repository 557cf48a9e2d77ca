"""Checks that a user's own columns fit a task, and puts their rows into three splits."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter

from ftkit.data.conll import as_bio, in_order
from ftkit.data.files import Columns, Splits, count
from ftkit.data.splits import SPLITS, merge_groups, normalized, stable_hash
from ftkit.data.values import MORE, is_empty, listed, say
from ftkit.errors import DataError

# What the rows of a task must have; the first task whose columns are all there is the task.
COLUMNS = {"tagging": ("tokens", "tags"), "choice": ("question", "choices", "answer"),
           "chat": ("messages",), "preference": ("prompt", "chosen", "rejected"),
           "instruction": ("instruction", "output"), "qa": ("question", "answers"),
           "pairs": ("source", "target"), "response": ("prompt", "response"),
           "classification": ("text", "label"), "regression": ("text", "label"), "text": ("text",)}
NAMES = tuple(dict.fromkeys([c for columns in COLUMNS.values() for c in columns] + [*MORE]))
CLASSES = 20  # so many different whole numbers with a decimal point are classes; more are scores
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# What people call the columns of the commonest tasks, the task's own name first.
_GUESSES = (
    {"tokens": ("tokens", "words"), "tags": ("tags", "ner_tags", "pos_tags")},
    {"text": ("text", "message", "review", "sentence", "comment", "body", "content", "title"),
     "label": ("label", "labels", "class", "category", "sentiment", "intent", "queue", "score",
               "rating", "stars", "target")},
    {"prompt": ("prompt", "question", "query", "context"),
     "response": ("response", "answer", "reply")},
)


def trimmed(columns: Columns, source: str, notes: list[str]) -> Columns:
    """Return the columns without blanks around their names."""
    found: Columns = {}
    for name, values in columns.items():
        if name.strip() in found:
            raise DataError(f"{source} has two columns {name.strip()!r}. Rename one of them.")
        found[name.strip()] = values
    if changed := [name for name in columns if name != name.strip()]:
        say(f"{source}: blanks around the column names {listed(changed)} were taken off.", notes)
    return found


def named_columns(columns: Columns, names: dict[str, str | None], source: str) -> Columns:
    """Return the columns that the user named under the kit's names for them."""
    chosen = {theirs.strip(): ours for ours, theirs in names.items() if theirs is not None}
    for theirs, ours in chosen.items():
        if theirs not in columns:
            raise missing(theirs, list(columns), source, f"{ours}={theirs!r}")
    # a column already called "text" gives way to the one named as text
    return {chosen.get(column, column): values for column, values in columns.items()
            if column in chosen or column not in chosen.values()}


def missing(column: str, present: list[str], source: str, asked: str) -> DataError:
    """Return the error that a column is not there, with the one that was probably meant."""
    lower = {name.lower(): name for name in present}
    close = difflib.get_close_matches(column.lower(), lower, n=1, cutoff=0.6)
    hint = f"Did you mean {lower[close[0]]!r}? " if close else ""
    return DataError(f"{source} has no column {column!r} ({asked}). It has: "
                     f"{', '.join(map(repr, present))}. {hint}Name yours with text=, label=, "
                     "group= and the like.")


def find_task(columns: Columns, task: str | None, source: str, notes: list[str]) -> str:
    """Return the task that the columns fit, or check the one asked for."""
    present = list(columns)
    if task is None:
        fits = [name for name, wanted in COLUMNS.items() if set(wanted) <= set(present)]
        if not fits:
            needs = "; ".join(f"{name}: {', '.join(wanted)}" for name, wanted in COLUMNS.items())
            raise DataError(f"{source} fits no task. It has the columns "
                            f"{', '.join(map(repr, present))}. Name yours with text=, label=, "
                            f"messages= and the like{_guessed(present)}. Expected are the columns "
                            f"of one task ({needs}).")
        task = fits[0]
        if task == "classification" and _are_scores(columns["label"]):
            task = "regression"
            notes.append(f"{source}: the labels are numbers with fractions, so the task is "
                         'regression; task="classification" makes classes of them.')
    if task not in COLUMNS:
        raise DataError(f"task={task!r}: expected one of {', '.join(COLUMNS)}.")
    for column in COLUMNS[task]:
        if column not in present:
            raise missing(column, present, source, f"needed for {task}")
    return task


def _guessed(present: list[str]) -> str:
    """Return what the columns probably are, as words for an error; "" where that is not clear."""
    for names in _GUESSES:
        found = {ours: next((c for c in present if c.lower() in theirs), None)
                 for ours, theirs in names.items()}
        if all(found.values()):
            return f" (perhaps {', '.join(f'{ours}={c!r}' for ours, c in found.items())})"
    return ""


def _are_scores(labels: list) -> bool:
    """Tell whether labels are all numbers, and not the names of a few classes."""
    given = [label for label in labels if not is_empty(label)]
    if not given or not all(
        isinstance(label, float) or isinstance(label, int) and not isinstance(label, bool)
        or isinstance(label, str) and _NUMBER.fullmatch(label.strip()) for label in given
    ):
        return False
    if any(not float(label).is_integer() for label in given):
        return True
    points = all(isinstance(label, float) or "." in str(label) for label in given)
    return points and len(set(given)) > CLASSES


def filled(columns: Columns, task: str, source: str, drop_empty: bool, notes: list[str]) -> Columns:
    """Return the rows whose fields are there; raise DataError for others unless they may go."""
    bad: dict[int, str] = {}
    for column in COLUMNS[task]:
        empty = [i for i, value in enumerate(columns[column]) if is_empty(value)]
        if empty and not drop_empty:
            raise DataError(f"{source}: {len(empty)} of {count(columns)} rows have an empty "
                            f"{column!r} (first: row {empty[0] + 1}). Fill them in, or leave such "
                            "rows out with drop_empty=True.")
        bad |= {i: column for i in empty if i not in bad}
    if not bad:
        return columns
    if len(bad) == count(columns):
        raise DataError(f"{source}: every row has an empty field; with drop_empty=True none is "
                        f"left.")
    counts = ", ".join(f"{n} without {c}" for c, n in Counter(bad.values()).items())
    say(f"{source}: {len(bad)} of {count(columns)} rows were left out ({counts}).", notes)
    return select(columns, [i for i in range(count(columns)) if i not in bad])


def select(columns: Columns, index: list[int]) -> Columns:
    """Return the rows with these numbers."""
    return {name: [values[i] for i in index] for name, values in columns.items()}


def read_tags(splits: Splits, source: str, notes: list[str]) -> Splits:
    """Return tagged rows with their tags as B, I and O, whatever the scheme they came in."""
    tags = {tag for columns in splits.values() for own in columns["tags"] for tag in own}
    known, scheme = as_bio(tags)
    if known is None:
        say(f"{source}: the scheme of the tags is not known ({listed(sorted(tags))}). Expected "
            "BIO, IOBES or BILOU, such as B-PER, I-PER and O; as they are, accuracy over words is "
            "measured and no entities.", notes)
        return splits
    if scheme == "BIO":
        return splits
    say(f"{source}: the tags ({scheme}) were converted to BIO.", notes)
    return {split: columns | {"tags": [[known[tag] for tag in own] for own in columns["tags"]]}
            for split, columns in splits.items()}


def label_names(splits: Splits, task: str, source: str, notes: list[str]) -> tuple[str, ...]:
    """Return the labels, or tags, of the training rows in order; the others may have no more."""
    names = {split: {tag for own in columns["tags"] for tag in own} if task == "tagging"
             else set(columns["label"]) for split, columns in splits.items()}
    for split in ("validation", "test"):
        unseen = sorted(names[split] - names["train"])
        if unseen:
            raise DataError(f"{source}: the {split} split has labels that train has not: "
                            f"{listed(unseen)}. Train has {listed(sorted(names['train']))}. Bring "
                            "more rows of each label, or put your own train, validation and test "
                            "files in a folder.")
    labels = names["train"]
    if task == "tagging":
        return tuple(in_order(labels))
    if len(labels) == 1:
        raise DataError(f"{source}: all {count(splits['train'])} training rows have the label "
                        f"{next(iter(labels))!r}; a classifier needs two classes or more. Bring "
                        "rows of another class, or read the texts alone with task=\"text\".")
    for same in alike_names(labels):
        say(f"{source}: the labels {listed(same)} differ only in case or blanks and are classes "
            "of their own. Write them alike if they are one.", notes)
    if all(re.fullmatch(r"-?[0-9]+", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def check_labels(splits: Splits, labels, source: str, notes: list[str]) -> tuple[str, ...]:
    """Return the classes that the user named, checking that the rows have no others."""
    if isinstance(labels, str):
        raise DataError(f"labels={labels!r}: a list of classes was expected.")
    names = tuple(str(label) for label in labels)
    for split, columns in splits.items():
        if unknown := sorted(set(columns["label"]) - set(names)):
            raise DataError(f"{source}: the {split} split has labels that are not in labels="
                            f"{list(names)}: {listed(unknown)}. Add them, or rename them.")
    if len(given := set(splits["train"]["label"])) == 1:
        say(f"{source}: all {count(splits['train'])} training rows have the label "
            f"{next(iter(given))!r}, so that nothing can be learned of the other classes.", notes)
    return names


def alike_names(labels) -> list[list[str]]:
    """Return the sets of labels that differ only in case, blanks, hyphens or underscores."""
    found: dict[str, list[str]] = {}
    for label in sorted(labels):
        found.setdefault(re.sub(r"[\s_-]+", "", label.casefold()), []).append(label)
    return [same for same in found.values() if len(same) > 1]


def check_shared(splits: Splits, source: str, notes: list[str]) -> None:
    """Warn of texts that stand in the training rows and in others that were given apart."""
    texts = {split: [normalized(text) for text in main_texts(columns)]
             for split, columns in splits.items()}
    train = set(texts["train"])
    for split in [split for split in texts if split != "train"]:
        if shared := sum(text in train for text in texts[split]):
            say(f"{source}: {shared} of {len(texts[split])} texts of {split} stand in train, too; "
                "what is measured on them is not what the model does with new texts. Take them "
                "out of one of the two.", notes)


def split_own(columns: Columns, fractions: tuple[float, ...], source: str) -> Splits:
    """Return the rows in three splits of about these fractions; groups and near-duplicates stay
    together, and the same rows are split the same way every time.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"split={fractions}: expected three fractions that add up to 1.")
    texts, rows = main_texts(columns), count(columns)
    own = [str(group) for group in columns.get("group", texts)]
    members: dict[str, list[int]] = {}
    for row, group in enumerate(merge_groups(own, texts)):
        members.setdefault(group, []).append(row)
    bounds = (fractions[0] * rows, (fractions[0] + fractions[1]) * rows)
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    done = 0
    for group in sorted(members, key=stable_hash):
        middle = done + len(members[group]) / 2
        split = "train" if middle < bounds[0] else "validation" if middle < bounds[1] else "test"
        splits[split] += members[group]
        done += len(members[group])
    for split, fraction in zip(SPLITS, fractions, strict=True):
        if fraction and not splits[split]:
            largest = max(members.values(), key=len)
            alike = "; ".join(repr(texts[row][:60]) for row in largest[:2])
            raise DataError(f"{source}: {rows} rows in {len(members)} groups (texts that are alike "
                            f"count as one{f', such as {alike}' if len(largest) > 1 else ''}) "
                            f"leave none for {split}. Bring more rows, change split={fractions}, "
                            "or put your own train, validation and test files in a folder.")
    return {split: select(columns, index) for split, index in splits.items()}


def main_texts(columns: Columns) -> list[str]:
    """Return the text of each row that tells whether two rows are alike."""
    names = ("text", "tokens", "messages", "question", "source", "prompt", "input", "instruction")
    order = [name for name in names if name in columns]
    pairs = columns.get("text_pair")
    found = []
    for row in range(count(columns)):
        value = next((columns[name][row] for name in order if columns[name][row]), None)
        if value is None:
            value = json.dumps({name: columns[name][row] for name in columns}, default=str)
        elif isinstance(value, list):
            # of a conversation, what was asked
            asked = [part for part in value if isinstance(part, str) or part["role"] == "user"]
            value = " ".join(part if isinstance(part, str) else part["content"]
                             for part in asked or value)
        found.append(f"{value} {pairs[row] or ''}".strip() if pairs else value.strip())
    return found
