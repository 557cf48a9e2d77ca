"""Classification: one of several labels for a text, or for a pair of texts."""

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
