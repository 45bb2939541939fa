"""Source-only: cross-entropy on the source, the target unseen. The figure every other has to beat.

On a frozen backbone it is a logistic regression that has converged, and not a number of steps.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.methods.method import Batch, Loss, Method, classification
from biwaa.solvers.logistic import Head, source_head
from biwaa.solvers.prototypes import head_like
from biwaa.solvers.unknown import never


class SourceOnly(Method):
    """No adaptation."""

    sees_target: ClassVar[bool] = False
    solves: ClassVar[bool] = True

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification alone."""
        return {"classification": classification(batch)}

    def solve(self, source: Tensor, labels: Tensor, target: Tensor) -> Head:
        """Class-balanced logistic regression; of a source whose images are not there, the head that is known."""
        if self.task.memory:
            memory = self.task.memory.to(target)
            assert memory.head is not None  # without one this stage is not planned
            if memory.outputs is None:
                known = len(memory.head.weight)  # it knows no class `unknown`
                return never(memory.head) if known < self.task.classes else memory.head
            found = memory.said(target).softmax(dim=1)
            self.said = F.pad(found, (0, self.task.classes - found.shape[1]))
            return head_like(target, found) if found.shape[1] == self.task.classes else never(head_like(target, found))
        return source_head(source, labels, self.task.classes)
