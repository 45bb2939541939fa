"""MSTN: DANN and class centroids of both domains drawn together.

Xie et al., "Learning Semantic Representations for Unsupervised Domain Adaptation", ICML 2018, equations 3 and 4
and algorithm 1. Pseudo-labels are the current predictions; centroids move by 0.3 of each batch's means.
"""

import torch
from torch import Tensor, nn

from biwaa.functional import adversarial_ramp, update_centroids
from biwaa.methods.dann import Dann, DannSettings
from biwaa.methods.method import Batch, Loss, Task

RATE = 0.3
"""Share of a batch's mean in its class centroid, the paper's value."""


class Mstn(Dann):
    """Adversarial alignment of the features, semantic alignment of the centroids."""

    source_centroids: Tensor
    target_centroids: Tensor

    def __init__(self, task: Task, settings: DannSettings) -> None:
        """Start with zero centroids; see `Method`."""
        super().__init__(task, settings)
        self.register_buffer("source_centroids", torch.zeros(task.classes, task.width))
        self.register_buffer("target_centroids", torch.zeros(task.classes, task.width))

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification, domain and semantic."""
        losses = super().losses(classifier, batch, step)
        pseudo_labels = batch.target.logits.argmax(dim=1)
        source = update_centroids(self.source_centroids, batch.source.features, batch.source_labels, RATE)
        target = update_centroids(self.target_centroids, batch.target.features, pseudo_labels, RATE)
        self.source_centroids.copy_(source.detach())
        self.target_centroids.copy_(target.detach())
        ramp = adversarial_ramp(step, self.settings.adversarial_horizon)
        # The mean over the classes, not equation 3's sum, which on real features runs off to infinity.
        losses["semantic"] = Loss((source - target).square().sum(dim=1).mean(), ramp)
        return losses
