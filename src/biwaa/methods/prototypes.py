"""Class prototypes of the target, for frozen features: what the recipe `robust` does with a frozen backbone.

Classes are made round by whitening their covariance; prototypes and the target's classes are found in turn, with the
source's classifier as prior and each image's neighbours as company (`solvers.prototypes`; ours, docs/robust.md).
Several sources are weighed (`solvers.several`). A teacher's voice joins the prior; without a source it is the prior
(docs/zero_shot.md). Target images whose labels were handed over stay at them (docs/labels.md). Nothing is drawn at
random and nothing is trained by steps.
"""

from typing import ClassVar

import torch
from torch import Tensor

from biwaa.methods.method import Method, Task
from biwaa.settings import ScheduleSettings
from biwaa.solvers.anchors import Anchors
from biwaa.solvers.logistic import Head, confusion_head
from biwaa.solvers.prototypes import adapt_prototypes, teach_head, teach_prototypes
from biwaa.solvers.remembered import solve_remembered
from biwaa.solvers.several import adapt_several


class Prototypes(Method):
    """A linear head that follows the target's prototypes."""

    groups: ClassVar[tuple[str, ...]] = ("schedule",)
    frozen: ClassVar[bool] = True
    solves: ClassVar[bool] = True
    taught: ClassVar[bool] = True
    labelled: ClassVar[bool] = True

    def __init__(self, task: Task, settings: ScheduleSettings) -> None:
        """Keep the number of neighbours; see `Method`."""
        super().__init__(task)
        self.neighbours = settings.neighbours

    def solve(self, source: Tensor, labels: Tensor, target: Tensor) -> Head:
        """Adapt; where neighbours are no guide, listen to the teacher, or without one confuse classes little."""
        classes = self.task.classes
        anchors = Anchors.of(self.task.given, classes, target.device)
        teacher = self.task.teacher.to(target.device) if self.task.teacher else None
        if self.task.memory:
            return solve_remembered(self.task.memory.to(target), target, self.neighbours, teacher, anchors)
        if not len(source):
            assert teacher is not None  # without either there is nothing to learn from
            return teach_prototypes(target, classes, teacher, self.neighbours, anchors)[1]
        if self.task.origins is not None:
            origins = self.task.origins.to(source.device)
            if several := adapt_several(source, labels, target, classes, origins, self.neighbours, teacher, anchors):
                self.standing = several[2]
                return several[1]
        elif found := adapt_prototypes(source, labels, target, classes, self.neighbours, teacher, anchors):
            return found[1]
        if teacher:
            return teach_head(source, labels, target, classes, teacher, anchors)[1]
        if anchors:  # they are rows like the source's
            source, labels = torch.cat([source, target[anchors.rows]]), torch.cat([labels, anchors.labels])
        return confusion_head(source, labels, target, classes)
