"""What the tasks share on the way from rows to token ids: columns, texts, and what was cut."""

from ftkit.errors import DataError
from ftkit.models.structure import IGNORED


def columns_of(dataset):
    """The column names of a datasets.Dataset; raises DataError for anything else."""
    names = getattr(dataset, "column_names", None)
    if not isinstance(names, list):
        raise DataError(f"one split was expected (a datasets.Dataset), got "
                        f'{type(dataset).__name__}; for example data["test"]. ft.load_data makes '
                        "splits of a file or a DataFrame.")
    return names


def need(dataset, *wanted):
    """Raise DataError unless the data set has the wanted columns and at least one row."""
    names = columns_of(dataset)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"column {missing[0]!r} is missing; the data has {', '.join(names)}. "
                        "Rename a column, or say which it is when loading (text=, label=).")
    if not len(dataset):
        raise DataError("the data set has no rows; load some, or ask for a larger n_train or "
                        "n_test.")


def supervised(labels):
    """How many labels carry loss."""
    return len(labels) - labels.count(IGNORED)


def strings(dataset, column, *, filled=False):
    """The texts of a column; raises DataError, naming the row, for what is none.

    filled: whether a text must hold more than blanks.
    """
    values = dataset[column][:]
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"row {i} has {value!r:.60} in {column!r}, a {type(value).__name__}; a "
                            "text was expected. Fill it in or take the row out.")
        if filled and not value.strip():
            raise DataError(f"row {i} has an empty {column!r}. Fill it in or take the row out.")
    return values


def tokenized(model, texts, limit, pairs=None, **options):
    """The tokens of texts, cut at the limit, and how many each has before that."""
    tokens = model.tokenizer(texts, pairs, truncation=True, max_length=limit, **options)
    whole = list(map(len, tokens["input_ids"]))
    if full := [i for i, n in enumerate(whole) if n == limit]:
        again = model.tokenizer([texts[i] for i in full], pairs and [pairs[i] for i in full],
                                verbose=False, **options)
        for i, ids in zip(full, again["input_ids"], strict=True):
            whole[i] = len(ids)
    return tokens, whole


def texts(dataset, model, limit):
    """The tokens of the column `text`, with `text_pair` where there is one, as in tokenized."""
    need(dataset, "text")
    pairs = strings(dataset, "text_pair") if "text_pair" in columns_of(dataset) else None
    return tokenized(model, strings(dataset, "text"), limit, pairs)
