"""MCC: minimum class confusion on the target.

Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020, equations 3 to 7.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from biwaa.checks import at_least
from biwaa.functional import class_confusion
from biwaa.methods.method import Batch, Loss, Method, Task, classification


@dataclass(frozen=True)
class MccSettings:
    """MCC, alone and with a teacher."""

    confusion_temperature: float = 2.5
    """Rescales the logits before their confusion is measured."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 0, "confusion_temperature", above=True)


class Mcc(Method):
    """Source classification and the confusion of the target's classes; no discriminator."""

    groups: ClassVar[tuple[str, ...]] = ("mcc",)

    def __init__(self, task: Task, settings: MccSettings) -> None:
        """Keep the settings; see `Method`."""
        super().__init__(task)
        self.settings = settings

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and confusion."""
        confusion = class_confusion(batch.target.logits, self.settings.confusion_temperature)
        return {"classification": classification(batch), "confusion": Loss(confusion)}
