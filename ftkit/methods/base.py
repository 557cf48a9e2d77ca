"""What those methods share that change the loss, and leave to another which weights learn."""

from ftkit.errors import SettingError
from ftkit.models.structure import free


class Within:
    """Base of a method with a field `within`: a method such as Freeze(top=2), None for all weights.

    fit takes the learning rate of the method within, and the decay of its rates, block by block.
    """

    within = None

    @property
    def learning_rate(self):
        """That of the method within."""
        return getattr(self.within, "learning_rate", 1e-4)

    @property
    def decay(self):
        """That of the method within."""
        return getattr(self.within, "decay", 1.0)

    def free(self, model):
        """Make the weights trainable that `within` says. Returns the model.

        Raises SettingError for a method within that has a loss of its own.
        """
        if self.within is None:
            free(model.net)
            return model
        if hasattr(self.within, "loss"):
            raise SettingError(
                f"{type(self).__name__}(within={type(self.within).__name__}(...)): both change the "
                "loss, and only one of them would; inside goes a method that only says which "
                "weights learn, such as Freeze or LoRA."
            )
        return self.within.apply(model)
