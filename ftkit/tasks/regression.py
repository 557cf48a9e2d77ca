"""Regression: a number for a text."""

import math

from ftkit.errors import DataError
from ftkit.tasks.classification import Classification


class Regression(Classification):
    """Columns text, text_pair where there is one, and label, a finite number."""

    name = "regression"

    def check_label(self, label, i, model):
        if not isinstance(label, int | float) or not math.isfinite(label):
            raise DataError(f"row {i} has label {label!r}; regression needs a finite number in "
                            "every row.")

    def predictions(self, model, rows, encoded, logits, top):
        return [{"value": float(row[0])} for row in logits]
