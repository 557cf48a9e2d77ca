"""Full fine-tuning: every weight is trained.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 4.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Full:
    """Train every weight: the most able method, and the dearest to train and to store."""

    def apply(self, model):
        """Make every weight of `model` trainable. Returns the same model."""
        model.net.requires_grad_(True)
        return model
