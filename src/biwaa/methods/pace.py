"""PACE-like: CORAL, one linear head on frozen features, and a share of confident pseudo-labels that grows in stages.

After what is told of PACE (2022), not after its code: features of the source are re-coloured to the target's covariance
(CORAL: Sun et al., "Return of Frustratingly Easy Domain Adaptation", AAAI 2016, algorithm 1), and thirty rounds of
thresholded pseudo-labels train a linear classifier. Here a round is a stage of one training.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.methods.method import Batch, Loss, Method, Task, classification

STAGES = 30
"""Rounds of pseudo-labels."""


class Pace(Method):
    """Source classification and the most confident share of each predicted class of the target."""

    frozen: ClassVar[bool] = True
    bottleneck: ClassVar[bool] = False
    statistics: ClassVar[str | None] = "coral"
    confidence: Tensor
    predicted: Tensor
    admitted: Tensor

    def __init__(self, task: Task) -> None:
        """Start with no pseudo-label; see `Method`."""
        super().__init__(task)
        targets = task.targets
        self.register_buffer("confidence", torch.zeros(targets))
        self.register_buffer("predicted", torch.zeros(targets, dtype=torch.int64))
        self.register_buffer("admitted", torch.zeros(targets))

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and pseudo-label."""
        rows, steps = batch.target_rows, self.task.steps
        stage = step * STAGES // steps
        if step and stage > (step - 1) * STAGES // steps:
            self.admitted.copy_(most_confident(self.confidence, self.predicted, stage / STAGES))
        labels = self.predicted[rows]
        losses = F.cross_entropy(batch.target.logits, labels, reduction="none") * self.admitted[rows]
        confidence, predicted = batch.target.logits.detach().float().softmax(dim=1).max(dim=1)
        self.confidence[rows], self.predicted[rows] = confidence, predicted
        return {"classification": classification(batch), "pseudo_label": Loss(losses.mean())}


def most_confident(confidence: Tensor, predicted: Tensor, share: float) -> Tensor:
    """1 for the most confident `share` of the images of each predicted class, else 0.

    Args:
        confidence: (N,) of the prediction; 0 of images not seen yet, which are never admitted.
        predicted: (N,) predicted classes.
        share: in [0, 1], of the images seen.
    """
    admitted = torch.zeros_like(confidence)
    seen = confidence > 0
    for label in torch.unique(predicted[seen]):
        rows = torch.nonzero(seen & (predicted == label))[:, 0]
        count = round(share * len(rows))
        admitted[rows[confidence[rows].argsort(descending=True)[:count]]] = 1.0
    return admitted
