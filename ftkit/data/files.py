"""Reads a user's own file, folder or table into columns: every value as it is written there."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import cast

from ftkit.data.conll import parse_conll
from ftkit.data.splits import SPLITS
from ftkit.errors import DataError

Rows = list[dict]
Columns = dict[str, list]  # one list a column, all of one length
Splits = dict[str, Columns]

DOCUMENTS = 10  # of a CoNLL file; fewer cannot be three splits
SEPARATORS = (",", ";", "\t", "|")
_TRIED = 100  # lines of a table that a separator must fit
_LONGEST = 2**31 - 1  # characters of a field of a table; the csv module stops at 131,072 by itself
_WORKBOOK = ("save the sheet as CSV (UTF-8), or give the table itself: "
             "load_data(pandas.read_excel(path))")
_PACKED = "unpack it and give what is inside"
_INSTEAD = {  # kinds of file that people have, and what to do with one
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), _WORKBOOK),
    **dict.fromkeys((".zip", ".gz", ".bz2", ".xz", ".zst"), _PACKED),
    **dict.fromkeys((".feather", ".arrow"), "load_data(pandas.read_feather(path)) reads it"),
    **dict.fromkeys((".pkl", ".pickle"), "a pickle runs code when it is read; save a Parquet file"),
}
_BEGINNINGS = {  # of files that are no text, whatever their names say
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "it is UTF-16. Save it as UTF-8"),
    b"PK\3\4": f"it is an Excel workbook or a zip archive: {_WORKBOOK}",
    b"\xd0\xcf\x11\xe0": f"it is an old Excel workbook: {_WORKBOOK}",
    b"PAR1\x15": "it is a Parquet file: name it .parquet", b"\x1f\x8b": f"it is gzipped: {_PACKED}",
}


def read_own(path: Path, *, paragraphs: bool = False, sep: str | None = None) -> Columns | Splits:
    """Return the columns of a file, or of each split of a folder.

    A folder holds a saved `datasets` data set, or files named train, validation and test.
    paragraphs: a text file holds paragraphs with empty lines between them, not a text a line.
    sep: what stands between the fields of a table; by default it is found.
    """
    if path.is_dir():
        return _read_folder(path, paragraphs, sep)
    kind = path.suffix.lower()
    if kind not in READERS:
        remedy = f"For {kind}, {_INSTEAD[kind]}. " if kind in _INSTEAD else ""
        raise DataError(f"{path.name} is of no kind that can be read. {remedy}Expected a file "
                        f"ending in {', '.join(READERS)}, or a folder.")
    if kind == ".txt":
        columns = _read_text(path, paragraphs)
    elif kind in (".csv", ".tsv"):
        columns = read_table(path, sep)
    else:
        columns = READERS[kind](path)
    if not count(columns):
        raise DataError(f"{path.name} has no rows.")
    return columns


def count(columns: Columns) -> int:
    """Return the number of rows."""
    return len(next(iter(columns.values()), ()))


def as_columns(rows: Iterable[dict]) -> Columns:
    """Return rows as columns; what a row lacks is None."""
    columns: Columns = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            if name not in columns:
                columns[name] = [None] * number
            columns[name].append(value)
        for values in columns.values():
            if len(values) == number:
                values.append(None)
    return columns


def _read_folder(folder: Path, paragraphs: bool, sep: str | None) -> Columns | Splits:
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        import datasets

        return from_datasets(datasets.load_from_disk(str(folder)))
    splits: Splits = {}
    for file in sorted(folder.iterdir()):
        name = _split_name(file.stem)
        if name in SPLITS and file.suffix.lower() in {*READERS, *_INSTEAD}:
            if name in splits:
                raise DataError(f"{folder} holds two files for the {name} split, one of them "
                                f"{file.name}. Take one out.")
            splits[name] = cast(Columns, read_own(file, paragraphs=paragraphs, sep=sep))
    if "train" not in splits:
        found = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise DataError(f"{folder} holds no data set: expected one saved with `datasets`, or files "
                        f"named train, validation and test ({', '.join(READERS)}). It holds "
                        f"{found}.")
    return splits


def _split_name(name: str) -> str:
    return "validation" if name in ("dev", "valid", "val", "eval") else name


def is_table(source) -> bool:
    """Tell whether `source` is in memory: a DataFrame, a Dataset, or a dict of them by split."""
    if isinstance(source, dict) and source:
        return all(is_table(part) for part in source.values())
    return hasattr(source, "features") or hasattr(source, "columns") and hasattr(source, "to_dict")


def from_memory(source) -> Columns | Splits:
    """Return the columns of a pandas DataFrame or a `datasets.Dataset`, or of a dict of them."""
    if isinstance(source, dict):
        parts = {_split_name(name): from_memory(part) for name, part in source.items()}
        splits = {name: cast(Columns, part) for name, part in parts.items() if name in SPLITS}
        for name, columns in splits.items():
            if not count(columns):
                raise DataError(f"the {name} split has no rows.")
        return splits
    if hasattr(source, "features"):
        if not hasattr(source, "__len__"):
            raise DataError("the data set is streamed, and splits need all rows. Give those you "
                            "want: datasets.Dataset.from_list(list(stream.take(10_000))).")
        return from_datasets(source)
    if doubled := sorted(map(str, source.columns[source.columns.duplicated()])):
        raise DataError(f"the table has the column {doubled[0]!r} twice. Rename or drop one.")
    return {str(name): source[name].astype(object).where(source[name].notna(), None).tolist()
            for name in source.columns}


def from_datasets(data) -> Columns | Splits:
    """Return the columns of a Dataset, or of each split of a DatasetDict; labels by their names."""
    if hasattr(data, "keys"):
        parts = {_split_name(name): from_datasets(part) for name, part in data.items()}
        return {name: cast(Columns, part) for name, part in parts.items() if name in SPLITS}
    data = data.with_format(None)
    names = {column: getattr(feature, "feature", feature).names
             for column, feature in data.features.items()
             if hasattr(getattr(feature, "feature", feature), "names")}

    def named(column, value):
        if isinstance(value, list):
            return [named(column, part) for part in value]
        return names[column][value] if value is not None and value >= 0 else value

    return {column: [named(column, value) for value in data[column][:]] if column in names
            else data[column][:] for column in data.column_names}


def read_table(path: Path, sep: str | None = None) -> Columns:
    """Return the columns of a CSV or TSV file; every field is text, as it is written.

    sep: what stands between fields, by default a tab in a .tsv file, and in a .csv file whichever
    of SEPARATORS gives the header and the lines below it the same number of fields, two at least.
    Raises DataError, naming the line, for one of more or fewer fields than the header has.
    """
    first = list(islice(_lines_of(path), _TRIED))
    named = re.fullmatch(r"sep=(.)\n", first[0], re.IGNORECASE) if first else None  # as Excel does
    if sep is None:
        sep = named[1] if named else "\t" if path.suffix.lower() == ".tsv" else _separator(first)
    if len(sep) != 1:
        raise DataError(f"sep={sep!r}: expected one character, such as ',' or ';'.")
    before = csv.field_size_limit(_LONGEST)
    try:
        try:
            return _parsed(islice(_lines_of(path), bool(named), None), sep, path.name, bool(named))
        except DataError:
            if sep != "\t":
                raise
            # Between tabs a quote is mostly a sign like any other.
            return _parsed(_lines_of(path), sep, path.name, 0, quoting=csv.QUOTE_NONE)
    finally:
        csv.field_size_limit(before)


def _separator(first: list[str]) -> str:
    """Return the separator that fits the first lines of a table; a comma where none does."""
    several = []
    for sep in SEPARATORS:
        try:
            widths = [len(row) for row in csv.reader(first, delimiter=sep) if row]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            several.append((widths.count(widths[0]) / len(widths), sep))
    # The most even one; of several the earliest.
    return max(several, key=lambda found: found[0])[1] if several else ","


def _parsed(lines: Iterable[str], sep: str, name: str, skipped: int, **options) -> Columns:
    reader = csv.reader(lines, delimiter=sep, strict=True, **options)
    columns: list[list[str]] = []
    header, line = None, 1 + skipped
    try:
        for row in reader:
            if not row or (header and len(header) > 1 and not any(field.strip() for field in row)):
                pass  # an empty line
            elif header is None:
                header = [field if field.strip() else f"column {i}"
                          for i, field in enumerate(row, 1)]
                columns = [[] for _ in header]
            elif len(row) != len(header):
                raise DataError(f"{name}, line {line} has {len(row)} fields and the header has "
                                f"{len(header)} ({', '.join(map(repr, header))}; separator "
                                f"{sep!r}). A text that holds the separator must stand in double "
                                "quotes; or name another separator with sep=.")
            else:
                for column, field in zip(columns, row, strict=True):
                    column.append(field)
            line = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise DataError(f"{name} cannot be read as a table: the row that begins in line {line} is "
                        f"not quoted as a CSV file is ({error}). Expected a quote inside of quotes "
                        "to be doubled, and every quote to be closed.") from None
    if header is None:
        return {}
    if doubled := [field for i, field in enumerate(header) if field in header[:i]]:
        raise DataError(f"{name} has the column {doubled[0]!r} twice. Rename one of them.")
    return dict(zip(header, columns, strict=True))


def _read_parquet(path: Path) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        # an index that pandas has stored beside the columns is none of them
        return {name: table[name].to_pylist() for name in table.column_names
                if not name.startswith("__index_level_")}
    except (pa.ArrowException, OSError, ValueError) as error:  # as many kinds as there are damages
        raise DataError(f"{path.name} is not a Parquet file, or was cut or changed ({error}). "
                        "Write it again.") from None


def _read_jsonl(path: Path) -> Columns:
    def rows():
        # Line ends alone part the rows: a string may hold U+2028 and the like as they are.
        for number, line in enumerate(_lines_of(path), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{path.name}, line {number} is not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise DataError(f"{path.name}, line {number}: expected an object, got "
                                    f"{line[:40]}")
                yield row

    return as_columns(rows())


def _read_json(path: Path) -> Columns:
    text = _text_of(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _read_jsonl(path)  # an object a line, under the other name
        raise DataError(f"{path.name} is not JSON: {error}") from None
    if isinstance(content, dict) and isinstance(content.get("questions"), list):
        return as_columns(_read_bioasq(content["questions"], path.name))
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return as_columns(content)
    raise DataError(f"{path.name}: expected a list of objects, or BioASQ's {{\"questions\": […]}}.")


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
            rows.append({"text": question["body"].strip(),
                         "text_pair": " ".join(dict.fromkeys(snippets)),
                         "label": str(answer).strip().lower(),
                         "group": question.get("id") or question["body"]})
    if not rows:
        raise DataError(f"{name} has {len(questions)} BioASQ questions but no yes/no question with "
                        "an answer.")
    return rows


def _read_text(path: Path, paragraphs: bool = False) -> Columns:
    text = _text_of(path)
    parts = text.split("\n\n") if paragraphs else text.split("\n")
    return {"text": [" ".join(part.split()) for part in parts if part.strip()]}


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
    return [{"tokens": row["tokens"], "tags": row["tags"]}
            | ({"group": f"document {row['document']}"} if several else {}) for row in rows]


def read_pairs(source: Path | str, target: Path | str) -> Rows:
    """Return the rows of two text files that belong together line by line.

    source, target: paths of UTF-8 files; line 7 of the second is the translation, summary or answer
    of line 7 of the first. Rows have `source` and `target`; lines empty in both are left out.
    Raises DataError when one file has more lines, or a line is empty in one of them.
    """
    names = [Path(source).name, Path(target).name]
    texts = [_text_of(path).rstrip("\n").split("\n") for path in (source, target)]
    if len(texts[0]) != len(texts[1]):
        raise DataError(f"{names[0]} has {len(texts[0])} lines and {names[1]} has {len(texts[1])}. "
                        "Expected two files that belong together line by line.")
    rows = []
    for number, pair in enumerate(zip(*texts, strict=True), 1):
        one, two = (text.strip() for text in pair)
        if bool(one) != bool(two):
            raise DataError(f"line {number} is empty in {names[bool(one)]} and not in "
                            f"{names[not one]}. Fill it in, or take it out of both.")
        if one:
            rows.append({"source": one, "target": two})
    if not rows:
        raise DataError(f"{names[0]} and {names[1]} have no lines with text.")
    return rows


def _lines_of(path: Path | str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, each ending in \\n, one at a time.

    Without the mark (BOM) at its beginning. U+2028 and the like, line ends for Unicode, are none
    here.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r} (looked in {Path.cwd()}).")
    with path.open("rb") as file:
        first = file.read(5)
    for beginning, why in _BEGINNINGS.items():
        if first.startswith(beginning):
            raise DataError(f"{path.name} is not UTF-8 text: {why}.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text ({error}). Save it as UTF-8.") from None


def _text_of(path: Path | str) -> str:
    return "".join(_lines_of(path))


READERS: dict[str, Callable[[Path], Columns]] = {
    ".csv": read_table, ".tsv": read_table, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl,
    ".json": _read_json, ".parquet": _read_parquet, ".txt": _read_text,
    ".conll": lambda path: as_columns(read_conll(path)),
}
