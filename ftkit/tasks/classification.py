"""Classification: one of several labels for a text, or for a pair of texts."""

import re

from ftkit.errors import DataError
from ftkit.tasks.base import Task, chosen
from ftkit.tasks.tokens import columns_of, texts


class Classification(Task):
    """Columns text, text_pair where there is one, and label, the number of a class."""

    name = "classification"

    def encode(self, dataset, model, limit, loss_on):
        (tokens, whole), rows = texts(dataset, model, limit), []
        labelled = "label" in columns_of(dataset)
        labels = dataset["label"][:] if labelled else [None] * len(dataset)
        if labelled:
            check_names(getattr(dataset.features["label"], "names", None), model)
        for i, label in enumerate(labels):
            row = {k: tokens[k][i] for k in ("input_ids", "token_type_ids") if k in tokens}
            if labelled:
                self.check_label(label, i, model)
                row["labels"] = label
            rows.append(row)
        return rows, whole, None

    def check_label(self, label, i, model):
        """Raise DataError, naming row i, for a label that cannot be."""
        if label not in range(len(model.labels or ())):
            raise DataError(f"row {i} has label {label!r}; the model knows 0 to "
                            f"{len(model.labels) - 1} ({', '.join(map(str, model.labels))}).")

    def predictions(self, model, rows, encoded, logits, top):
        return [chosen(list(map(str, model.labels)), row, "label") for row in logits]


def check_names(names, model):
    """Raise DataError where a data set calls its classes otherwise than the model does.

    names: of the classes 0, 1, and so on in the data; None where it has numbers alone. Case and
    blanks do not count, nor names that only number the classes.
    """
    def plain(labels):
        return [str(label).strip().casefold() for label in labels]

    def numbered(labels):
        return all(re.fullmatch(rf"(label_)?{i}", label) for i, label in enumerate(labels))

    data, own = plain(names or ()), plain(model.labels or ())
    if data == own[: len(data)] or numbered(data) or numbered(own):
        return
    raise DataError(f"the data's classes are {', '.join(map(str, names))}, and {model.name} "
                    f"answers {', '.join(map(str, model.labels))}: class 0 of the one is not class "
                    "0 of the other. Load the model with labels=data.labels, or your file with "
                    "labels=model.labels; if they mean the same, say so: model.labels = "
                    "data.labels.")
