"""MDD: an adversarial classifier measures how far the domains' margins lie apart.

Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019, equations 29 and 30; the margin
factor gamma = 4 and the reversal's ceiling of 0.1 are the paper's settings for Office.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.functional import adversarial_ramp
from biwaa.methods.dann import DannSettings
from biwaa.methods.method import Batch, Loss, Method, Task, classification
from biwaa.models.network import reverse_gradient, start_new_layers

GAMMA = 4.0
CEILING = 0.1


class Mdd(Method):
    """A second classifier agrees with the first on the source and disagrees on the target; the features prevent it."""

    groups: ClassVar[tuple[str, ...]] = ("dann",)

    def __init__(self, task: Task, settings: DannSettings) -> None:
        """Add the adversarial classifier; see `Method`."""
        super().__init__(task)
        self.settings = settings
        self.adversary = nn.Linear(task.width, task.classes)
        start_new_layers(self.adversary)

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and disparity."""
        coefficient = CEILING * adversarial_ramp(step + 1, self.settings.adversarial_horizon)
        source = self.adversary(reverse_gradient(batch.source.features, coefficient))
        target = self.adversary(reverse_gradient(batch.target.features, coefficient))
        disparity = margin_disparity(source, batch.source.logits.argmax(1), target, batch.target.logits.argmax(1))
        return {"classification": classification(batch), "disparity": Loss(disparity)}


def margin_disparity(source: Tensor, source_predicted: Tensor, target: Tensor, target_predicted: Tensor) -> Tensor:
    """What the adversary minimises: gamma CE on the source, -log(1 - p) of the first classifier's class on the target.

    Args:
        source: (B, K) the adversary's logits on the source.
        source_predicted: (B,) the classifier's predictions there.
        target: (B, K) the adversary's logits on the target.
        target_predicted: (B,) the classifier's predictions there.
    """
    # log(1 - p_y) = logsumexp over the other classes - logsumexp over all, which keeps its digits near p = 1.
    others = target.scatter(1, target_predicted[:, None], float("-inf"))
    log_rest = torch.logsumexp(others, dim=1) - torch.logsumexp(target, dim=1)
    return GAMMA * F.cross_entropy(source, source_predicted) - log_rest.mean()
