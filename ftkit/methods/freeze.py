"""Layer freezing: keep the early layers as pretraining left them and train the last.

Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification".
"""

from dataclasses import dataclass

from ftkit.errors import SettingError
from ftkit.models import structure


@dataclass(frozen=True)
class Freeze:
    """Train the last `unfreeze_last` blocks, the norm above and the task's head; keep the rest.

    unfreeze_last=0 trains the head alone. A head that shares its weights with the input embedding
    (most decoders) stays frozen: training it would change the bottom of the model as well. What is
    frozen runs without dropout too, as a fixed function of the text. In an encoder-decoder (T5,
    BART) the decoder's blocks count, and the encoder stays frozen. layerwise_lr_decay: each trained
    block learns at this share of the rate of the block above it. `fit` takes a higher learning
    rate by itself than for all weights, and the highest for the head alone.
    """

    unfreeze_last: int = 0
    layerwise_lr_decay: float = 1.0

    lesson = "07_freezing"
    when = "a small machine, many runs over one backbone; which depth is for validation to say"
    example = {"unfreeze_last": 1}  # settings in the table of methods

    @property
    def learning_rate(self):
        """fit's default: the fewer weights are trained, the larger the steps that they bear."""
        return 5e-4 if self.unfreeze_last else 3e-3

    def apply(self, model):
        """Freeze all but the top. Returns the model; SettingError when it has too few blocks."""
        structure.check_layerwise_lr_decay(self)
        layers = structure.blocks(model.net)
        if not 0 <= self.unfreeze_last <= len(layers):
            raise SettingError(f"Freeze(unfreeze_last={self.unfreeze_last}) asks for more blocks "
                               f"than {model.name} has: choose 0 to {len(layers)}.")
        model.net.requires_grad_(False)
        below, above = structure.around(model.net)
        for block in list(layers)[len(layers) - self.unfreeze_last :]:
            block.requires_grad_(True)
        for module in (*below, *list(layers)[: len(layers) - self.unfreeze_last]):
            structure.without_dropout(module)
        structure.without_dropout_around(model.net)
        bottom = {id(p) for p in model.net.get_input_embeddings().parameters()}
        for module in above:
            for parameter in module.parameters():
                parameter.requires_grad_(id(parameter) not in bottom)
        if not any(p.requires_grad for p in model.net.parameters()):
            raise SettingError(f"Freeze(unfreeze_last={self.unfreeze_last}) leaves nothing to "
                               f"train in {model.name}: it has no head of its own; choose "
                               "unfreeze_last=1 or more.")
        return model
