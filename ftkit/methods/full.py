"""Full fine-tuning: every weight is trained.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 4.
"""

from dataclasses import dataclass

from ftkit.models.structure import check_layerwise_lr_decay, free


@dataclass(frozen=True)
class Full:
    """Train every weight: the most able method, and the dearest to train and to store.

    layerwise_lr_decay: each block learns at this share of the rate of the block above it
    (discriminative learning rates, Howard and Ruder 2018); 1 gives all the same rate.
    """

    layerwise_lr_decay: float = 1.0

    lesson = "01_supervised"
    when = "labels enough, one task, a model that fits the machine"
    example = {}  # settings in the table of methods

    def apply(self, model):
        """Make every weight of `model` trainable. Returns the same model."""
        check_layerwise_lr_decay(self)
        free(model.net)
        return model
