"""MCC with a teacher, the method of the recipe `robust`: it has none of BIWAA's losses.

- source cross-entropy and minimum class confusion of the target (Jin et al., "MCC", ECCV 2020)
- in rounds that a teacher precedes, cross-entropy on its pseudo-labels, each by its squared reliability; the teacher is
  what earlier rounds predicted, smoothed over neighbours (`training/rounds.py`; ours, docs/robust.md)
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from biwaa.checks import at_least
from biwaa.functional import class_confusion, teacher_cross_entropy
from biwaa.methods.mcc import MccSettings
from biwaa.methods.method import Batch, Loss, Method, Task, classification


@dataclass(frozen=True)
class MccTeacherSettings:
    """MCC with a teacher."""

    confusion: float = 1.0
    """Factor on the target's class confusion; 0 leaves it out."""
    pseudo_label: float = 1.0
    """Factor on the cross-entropy of the target on the teacher's labels, each by its squared reliability."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 0, "confusion", "pseudo_label")


class MccTeacher(Method):
    """Source classification, class confusion of the target, and the teacher's pseudo-labels."""

    groups: ClassVar[tuple[str, ...]] = ("mcc", "mcc_teacher")
    previous: Tensor | None

    def __init__(self, task: Task, mcc: MccSettings, settings: MccTeacherSettings) -> None:
        """Keep the teacher's predictions; see `Method`."""
        super().__init__(task)
        self.mcc, self.settings = mcc, settings
        self.register_buffer("previous", task.previous, persistent=False)

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification, confusion and pseudo-label."""
        losses = {"classification": classification(batch)}
        if self.settings.confusion:
            confusion = class_confusion(batch.target.logits, self.mcc.confusion_temperature)
            losses["confusion"] = Loss(confusion, self.settings.confusion)
        if self.settings.pseudo_label and self.previous is not None:
            value = teacher_cross_entropy(batch.target.logits, self.previous[batch.target_rows])
            losses["pseudo_label"] = Loss(value, self.settings.pseudo_label)
        return losses
