"""What those methods share that change the loss, and leave to another which weights learn."""

from ftkit.errors import SettingError
from ftkit.models.structure import free


class WrappedMethod:
    """Base of a method with a field `trainable`: a method such as Freeze(unfreeze_last=2), None for
    all weights.

    fit takes the learning rate of the method within, and the decay of its rates, block by block.
    """

    trainable = None

    @property
    def learning_rate(self):
        """That of the method within."""
        return getattr(self.trainable, "learning_rate", 1e-4)

    @property
    def layerwise_lr_decay(self):
        """That of the method within."""
        return getattr(self.trainable, "layerwise_lr_decay", 1.0)

    def free(self, model):
        """Make trainable what `trainable` says; SettingError if it has a loss."""
        if self.trainable is None:
            free(model.net)
            return model
        if hasattr(self.trainable, "loss"):
            raise SettingError(
                f"{type(self).__name__}(trainable={type(self.trainable).__name__}(...)): both "
                "change the loss, and only one of them would; inside goes a method that only "
                "says which weights learn, such as Freeze or LoRA."
            )
        return self.trainable.apply(model)
