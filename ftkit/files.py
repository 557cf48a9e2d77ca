"""Reads a user's own file or folder into rows, and checks that they fit a task."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from ftkit.errors import DataError
from ftkit.splits import SPLITS, linked, order
from ftkit.tagging import check_tagged, in_order, parse_conll

Rows = list[dict]
Splits = dict[str, Rows]

DOCUMENTS = 10  # of a CoNLL file; fewer cannot be three splits
# What the rows of a task must have; the first task whose columns are all there is the task.
COLUMNS = {
    "tagging": ("tokens", "tags"),
    "choice": ("question", "choices", "answer"),
    "instruction": ("instruction", "output"),
    "qa": ("question", "answers"),
    "pairs": ("source", "target"),
    "response": ("prompt", "response"),
    "classification": ("text", "label"),
    "regression": ("text", "label"),
    "text": ("text",),
}


def read_own(path: Path, *, paragraphs: bool = False) -> Rows | Splits:
    """Return the rows of a file, or of each split of a folder.

    A folder holds a saved `datasets` data set, or files named train, validation and test.
    paragraphs: a text file holds paragraphs with empty lines between them, not a text a line.
    """
    if path.is_dir():
        return _read_folder(path, paragraphs)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path.name} is of no kind that can be read. Expected a file ending in "
            f"{', '.join(READERS)}, or a folder."
        )
    try:
        rows = _read_text(path, paragraphs) if path.suffix.lower() == ".txt" else reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text ({error}). Save it as UTF-8.") from None
    if not rows:
        raise DataError(f"{path.name} has no rows.")
    return rows


def _read_folder(folder: Path, paragraphs: bool) -> Rows | Splits:
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        import datasets

        saved = datasets.load_from_disk(str(folder))
        return from_datasets(saved)
    splits: Splits = {}
    for file in sorted(folder.iterdir()):
        name = "validation" if file.stem in ("dev", "valid", "val") else file.stem
        if name in SPLITS and file.suffix.lower() in READERS:
            splits[name] = read_own(file, paragraphs=paragraphs)
    if "train" not in splits:
        found = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise DataError(
            f"{folder} holds no data set: expected one saved with `datasets`, or files named "
            f"train, validation and test ({', '.join(READERS)}). It holds {found}."
        )
    return splits


def from_datasets(data) -> Rows | Splits:
    """Return the rows of a Dataset, or of each split of a DatasetDict; labels by their names."""
    if hasattr(data, "keys"):
        known = {"dev": "validation", "valid": "validation", "val": "validation"}
        splits = {known.get(name, name): from_datasets(part) for name, part in data.items()}
        return {name: rows for name, rows in splits.items() if name in SPLITS}
    names = {
        column: getattr(feature, "feature", feature).names
        for column, feature in data.features.items()
        if hasattr(getattr(feature, "feature", feature), "names")
    }

    def named(column, value):
        if isinstance(value, list):
            return [named(column, part) for part in value]
        return names[column][value] if value is not None and value >= 0 else value

    return [
        {
            column: named(column, value) if column in names else value
            for column, value in row.items()
        }
        for row in data
    ]


def _read_table(path: Path) -> Rows:
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        table = pd.read_csv(path, sep=separator)
    except pd.errors.EmptyDataError:
        return []
    except pd.errors.ParserError as error:
        raise DataError(f"{path.name} cannot be read as a table: {error}") from None
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _read_parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path.name} is not a Parquet file: {error}") from None


def _read_jsonl(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(f"{path.name}, line {number} is not JSON: {error}") from None
            if not isinstance(rows[-1], dict):
                raise DataError(f"{path.name}, line {number}: expected an object, got {line[:40]}")
    return rows


def _read_json(path: Path) -> Rows:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name} is not JSON: {error}") from None
    if isinstance(content, dict) and isinstance(content.get("questions"), list):
        return _read_bioasq(content["questions"], path.name)
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return content
    raise DataError(
        f"{path.name}: expected a list of objects, or BioASQ's {{\"questions\": […]}}."
    )


def _read_bioasq(questions: Rows, name: str) -> Rows:
    """Return the yes/no questions of a BioASQ file, with their snippets joined as `text_pair`.

    Format: http://participants-area.bioasq.org/general_information/Task10b (registration needed).
    """
    rows = []
    for question in questions:
        answer = question.get("exact_answer")
        answer = answer[0] if isinstance(answer, list) and answer else answer
        if question.get("type") == "yesno" and str(answer).strip().lower() in ("yes", "no"):
            snippets = [snippet["text"].strip() for snippet in question.get("snippets", [])]
            rows.append({
                "text": question["body"].strip(),
                "text_pair": " ".join(dict.fromkeys(snippets)),
                "label": str(answer).strip().lower(),
                "group": question.get("id") or question["body"],
            })
    if not rows:
        raise DataError(
            f"{name} has {len(questions)} BioASQ questions but no yes/no question with an answer."
        )
    return rows


def _read_text(path: Path, paragraphs: bool) -> Rows:
    text = path.read_text(encoding="utf-8")
    parts = text.split("\n\n") if paragraphs else text.split("\n")
    return [{"text": " ".join(part.split())} for part in parts if part.strip()]


def read_conll(path: Path | str) -> Rows:
    """Return the sentences of a CoNLL file: a token a line, its tag last, empty lines between.

    path: of a UTF-8 file; columns between a token and its tag are left out. Rows have `tokens`,
    `tags` and, where -DOCSTART- lines mark ten documents or more, the document as `group`.
    Raises DataError, naming the line, for a token without a tag and for a line with more or fewer
    columns than the others.
    Format: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task".
    """
    rows = parse_conll(_text_of(path), Path(path).name)
    several = len({row["document"] for row in rows}) >= DOCUMENTS
    return [
        {"tokens": row["tokens"], "tags": row["tags"]}
        | ({"group": f"document {row['document']}"} if several else {})
        for row in rows
    ]


def read_pairs(source: Path | str, target: Path | str) -> Rows:
    """Return the rows of two text files that belong together line by line.

    source, target: paths of UTF-8 files; line 7 of the second is the translation, summary or answer
    of line 7 of the first. Rows have `source` and `target`; lines empty in both are left out.
    Raises DataError when one file has more lines, or a line is empty in one of them.
    """
    names = [Path(source).name, Path(target).name]
    texts = [_text_of(path).rstrip("\n").split("\n") for path in (source, target)]
    if len(texts[0]) != len(texts[1]):
        raise DataError(
            f"{names[0]} has {len(texts[0])} lines and {names[1]} has {len(texts[1])}. "
            "Expected two files that belong together line by line."
        )
    rows = []
    for number, pair in enumerate(zip(*texts, strict=True), 1):
        one, two = (text.strip() for text in pair)
        if bool(one) != bool(two):
            raise DataError(
                f"line {number} is empty in {names[bool(one)]} and not in {names[not one]}. "
                "Fill it in, or take it out of both."
            )
        if one:
            rows.append({"source": one, "target": two})
    if not rows:
        raise DataError(f"{names[0]} and {names[1]} have no lines with text.")
    return rows


def _text_of(path: Path | str) -> str:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r} (looked in {Path.cwd()}).")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text ({error}). Save it as UTF-8.") from None


READERS: dict[str, Callable[[Path], Rows]] = {
    ".csv": _read_table, ".tsv": _read_table, ".jsonl": _read_jsonl, ".json": _read_json,
    ".parquet": _read_parquet, ".txt": _read_text, ".conll": read_conll,
}


def named_columns(rows: Rows, names: dict[str, str | None], source: str) -> Rows:
    """Return the rows with the columns that the user named under the kit's names for them."""
    chosen = {theirs: ours for ours, theirs in names.items() if theirs is not None}
    present = list(dict.fromkeys(column for row in rows for column in row))
    for theirs, ours in chosen.items():
        if theirs not in present:
            raise missing(theirs, present, source, f"{ours}={theirs!r}")
    # a column already called "text" gives way to the one named as text
    return [
        {
            chosen.get(column, column): value for column, value in row.items()
            if column in chosen or column not in chosen.values()
        }
        for row in rows
    ]


def missing(column: str, present: list[str], source: str, asked: str) -> DataError:
    return DataError(
        f"{source} has no column {column!r} ({asked}). It has: {', '.join(map(repr, present))}. "
        f"Name yours with text=, label=, group= and the like."
    )


def find_task(rows: Rows, task: str | None, source: str) -> str:
    """Return the task that the columns fit, or check the one asked for."""
    present = set(rows[0])
    if task is None:
        fits = [name for name, columns in COLUMNS.items() if present.issuperset(columns)]
        if not fits:
            raise DataError(
                f"{source} fits no task. It has the columns {', '.join(map(repr, rows[0]))}. "
                f"Name yours with text=, label=, group=, or give task= (one of "
                f"{', '.join(COLUMNS)})."
            )
        task = fits[0]
        if task == "classification" and all(_is_fraction(row["label"]) for row in rows):
            task = "regression"
    if task not in COLUMNS:
        raise DataError(f"task={task!r}: expected one of {', '.join(COLUMNS)}.")
    for column in COLUMNS[task]:
        if column not in present:
            raise missing(column, list(rows[0]), source, f"needed for {task}")
    return task


def _is_fraction(value) -> bool:
    return isinstance(value, float)


def check_rows(rows: Rows, task: str, source: str) -> None:
    """Raise DataError for empty fields and for tags that do not match their tokens."""
    for column in COLUMNS[task]:
        empty = [
            number for number, row in enumerate(rows, 1)
            if row.get(column) is None or str(row[column]).strip() == "" or row[column] == []
        ]
        if empty:
            raise DataError(
                f"{source}: {len(empty)} of {len(rows)} rows have an empty {column!r} (first: row "
                f"{empty[0]}). Fill them in or take them out."
            )
    if task == "tagging":
        for number, row in enumerate(rows, 1):
            check_tagged(row["tokens"], row["tags"], f"{source}, row {number}")


def as_number(value, source: str) -> float:
    """Return a regression's label as a number; raise DataError where it is none, or not finite."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{source}: the label {value!r} is no finite number, as regression needs.")
    return found


def label_names(splits: Splits, source: str) -> tuple[str, ...]:
    """Return the labels of the training rows in order, checking that the others have no more.

    The tags of tagged rows are labels too, O first.
    """
    names = {
        split: {str(label) for row in rows for label in row.get("tags", [row.get("label")])}
        for split, rows in splits.items()
    }
    for split in ("validation", "test"):
        unseen = sorted(names[split] - names["train"])
        if unseen:
            raise DataError(
                f"{source}: the {split} split has labels that train has not: {', '.join(unseen)}. "
                f"Train has {', '.join(sorted(names['train']))}. Bring more rows of each label, "
                f"or put your own train, validation and test files in a folder."
            )
    if "tags" in splits["train"][0]:
        return tuple(in_order(names["train"]))
    labels = names["train"]
    if all(label.lstrip("-").isdigit() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def split_own(rows: Rows, fractions: tuple[float, ...], source: str) -> Splits:
    """Return the rows in three splits of about these fractions; groups and near-duplicates stay
    together, and the same rows are split the same way every time.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"split={fractions}: expected three fractions that add up to 1.")
    texts = [main_text(row) for row in rows]
    groups = linked([str(row.get("group", text)) for row, text in zip(rows, texts, strict=True)],
                    texts)
    bounds = (fractions[0] * len(rows), (fractions[0] + fractions[1]) * len(rows))
    members: dict[str, Rows] = {}
    for row, group in zip(rows, groups, strict=True):
        members.setdefault(group, []).append(row)
    splits: Splits = {split: [] for split in SPLITS}
    done = 0
    for group in sorted(members, key=order):
        middle = done + len(members[group]) / 2
        split = "train" if middle < bounds[0] else "validation" if middle < bounds[1] else "test"
        splits[split] += members[group]
        done += len(members[group])
    for split, fraction in zip(SPLITS, fractions, strict=True):
        if fraction and not splits[split]:
            raise DataError(
                f"{source}: {len(rows)} rows in {len(members)} groups (texts that are alike count "
                f"as one) leave none for {split}. Bring more rows, or change split={fractions}."
            )
    return splits


def main_text(row: dict) -> str:
    """Return the text of a row that tells whether two rows are alike."""
    for column in ("text", "tokens", "question", "source", "prompt", "input", "instruction"):
        if row.get(column):
            value = row[column]
            pair = row.get("text_pair") or ""
            return f"{' '.join(value) if isinstance(value, list) else value} {pair}".strip()
    return json.dumps(row, default=str)
