"""Layer freezing: keep the early layers as pretraining left them and train the last.

Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification".
"""

from dataclasses import dataclass

from ftkit.errors import SettingError
from ftkit.models import blocks


@dataclass(frozen=True)
class Freeze:
    """Train the top `top` blocks, the norm above them and the task's head; keep the rest.

    top=0 trains the head alone. A head that shares its weights with the input embedding (most
    decoders) stays frozen: training it would change the bottom of the model as well.
    """

    top: int = 0

    def apply(self, model):
        """Freeze all but the top. Returns the model; SettingError when it has too few blocks."""
        layers = blocks(model.net)
        if not 0 <= self.top <= len(layers):
            raise SettingError(
                f"Freeze(top={self.top}) asks for more blocks than {model.name} has: "
                f"choose 0 to {len(layers)}."
            )
        model.net.requires_grad_(False)
        for block in list(layers)[len(layers) - self.top :]:
            block.requires_grad_(True)
        bottom = {id(p) for p in model.net.get_input_embeddings().parameters()}
        above = _after(model.net, layers)
        for module in above:
            for parameter in module.parameters():
                parameter.requires_grad_(id(parameter) not in bottom)
        if not any(p.requires_grad for p in model.net.parameters()):
            raise SettingError(
                f"Freeze(top={self.top}) leaves nothing to train in {model.name}: "
                "it has no head of its own; choose top=1 or more."
            )
        return model


def _after(net, layers):
    """The modules that come after the block list on the way to it: final norm, pooler, head."""
    inside = {id(m) for m in layers.modules()} | {id(layers)}
    path = [m for m in net.modules() if any(child is layers for child in m.modules())]
    after = []
    for parent in path:
        seen = False
        for child in parent.children():
            if id(child) in inside or any(m is layers for m in child.modules()):
                seen = True
            elif seen:
                after.append(child)
    return after
