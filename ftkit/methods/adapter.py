"""Bottleneck adapters: small trained modules in a frozen network, one set for each task.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP"; Pfeiffer et al. 2021,
"AdapterFusion: Non-Destructive Task Composition for Transfer Learning".
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

from ftkit.errors import SettingError
from ftkit.models import adapters, bottleneck


@dataclass(frozen=True)
class Adapter:
    """Train bottlenecks between frozen layers and the task's head: many tasks on one base.

    Houlsby et al. 2019 and Pfeiffer et al. 2021. bottleneck_size: numbers in the bottleneck.
    placement: "houlsby" puts one at the end of each sub-layer, before its result is added to the
    stream; "pfeiffer" one after each whole block, half as many or fewer. init_std: of the first
    weights; at 0.01 or less the network begins as it was, at 1 it is destroyed. name: for
    `set_adapter`. A model that has an adapter of this name already goes on training it.
    """

    bottleneck_size: int = 16
    placement: str = "houlsby"
    init_std: float = 0.01
    name: str = "adapter"
    learning_rate: ClassVar[float] = 1e-3  # fit's default: few weights, far from their goal

    lesson = "08_adapters"
    when = "many tasks on one base, swapped while it runs"
    example = {}  # settings in the table of methods

    def apply(self, model):
        """Freeze `model`, put this adapter in place and make it trainable. Returns the model.

        Raises SettingError for bad settings, or a network whose sub-layers are not known.
        """
        present = getattr(model.net, "adapter_registry", None)
        if present is None or self.name not in present.parts or self.name == adapters.BASE:
            self._check()
            parts = bottleneck.parts(model, self.bottleneck_size, self.placement, self.init_std)
            adapters.add(model, self.name, parts, asdict(self), model.task, model.labels)
        elif present.about[self.name]["settings"] != asdict(self):
            had = Adapter(**present.about[self.name]["settings"])
            raise SettingError(f"{model.name} has an adapter {self.name!r} already, {had}; go on "
                               "with these settings, or give the new one another name=.")
        adapters.set_adapter(model, self.name)
        model.net.requires_grad_(False)
        for parameter in adapters.own(model, self.name).values():
            parameter.requires_grad_(True)
        return model

    def _check(self):
        if self.placement not in bottleneck.PLACEMENTS:
            raise SettingError(f"Adapter(placement={self.placement!r}) does not exist; choose one "
                               f"of {', '.join(bottleneck.PLACEMENTS)}.")
        if not isinstance(self.bottleneck_size, int) or self.bottleneck_size < 1:
            raise SettingError(f"Adapter(bottleneck_size={self.bottleneck_size!r}) is no size; "
                               "choose 1 or more, often 8 to 64.")
