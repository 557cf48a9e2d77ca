"""What a task is: the columns that it reads, how rows become tensors, and what a model answers."""

import numpy as np
import torch
from scipy.special import softmax

from ftkit.models.specs import SPECS
from ftkit.models.structure import IGNORED


class Task:
    """One task, as encoding, batching, training and prediction know it.

    name: of models.specs.SPECS. column: the one that a plain text stands for. form: what one text
    may look like, for errors. A task with another way overrides the methods.
    """

    name = ""
    column = "text"
    form = '"a text", or ("a text", "its pair")'

    @property
    def spec(self):
        """What the task asks of a network, a TaskSpec."""
        return SPECS[self.name]

    def encode(self, dataset, model, limit, loss_on):
        """Tokenize a data set, no text longer than `limit` tokens.

        Returns a dict of lists for each row, how many tokens each had before, and how many of those
        carried loss (None where a row has one label). Raises DataError for a column or value that
        cannot be.
        """
        raise NotImplementedError

    def records(self, wanted, whole):
        """Whether rows are a prompt and an answer, whose end is what a limit cuts."""
        return False

    def choice_sets(self, rows):
        """A number for each row, the same where the choices are the same; None without choices."""
        return None

    def collate(self, rows, collator):
        """A batch of tensors from encoded rows: ids, mask, and labels where the rows have them."""
        batch = collator.ids([row["input_ids"] for row in rows])
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = collator.pad([row["token_type_ids"] for row in rows], 0)
        if "labels" in rows[0]:
            labels = [row["labels"] for row in rows]
            if isinstance(labels[0], list):
                batch["labels"] = collator.pad(labels, IGNORED)
            else:
                kind = torch.float if self.spec.answer == "number" else torch.long
                batch["labels"] = torch.tensor(labels, dtype=kind)
        return batch

    def unlabelled(self, rows, collator):
        """A batch for prediction, without labels. Returns a dict of tensors."""
        batch = self.collate(rows, collator)
        batch.pop("labels", None)
        return batch

    def logits(self, net, batch):
        """What a network answers to a batch without labels, before any softmax."""
        return net(**batch).logits

    def loss(self, net, batch):
        """The loss of the task's own, an output with loss and logits; None: the network's."""
        return None

    def predictions(self, model, rows, encoded, logits, top):
        """A dict for each row: what the model says, from its logits. top: words for each mask."""
        raise NotImplementedError


def chosen(names, logits, key):
    """The likeliest of several names, with the probability of each, as a dict."""
    found = softmax(logits[: len(names)]).tolist()
    best = int(np.argmax(found))
    return {key: names[best], "probability": found[best],
            "probabilities": dict(zip(names, found, strict=True))}
