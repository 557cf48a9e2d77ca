"""An encoder without a head: texts become vectors, and nothing is learned or measured."""

from ftkit.tasks.base import Task
from ftkit.tasks.tokens import texts


class Encoder(Task):
    """Columns text, and text_pair where there is one."""

    name = "encoder"

    def encode(self, dataset, model, limit, loss_on):
        tokens, whole = texts(dataset, model, limit)
        return [{"input_ids": i} for i in tokens["input_ids"]], whole, None
