"""CDAN and CDAN+E: a discriminator that sees features crossed with predictions.

Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018: multilinear map (equation 3), its randomised
form for wide products (equations 5 and 6), entropy conditioning (equation 8).
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.functional import adversarial_ramp, entropy
from biwaa.methods.dann import DannSettings
from biwaa.methods.method import Batch, Loss, Method, Task, classification
from biwaa.models.network import Discriminator, Output, reverse_gradient

WIDEST = 4096
"""Products wider than this are randomised (section 3.2)."""
RANDOM = 1024
"""Width of the randomised product, as in the paper's experiments."""


class Cdan(Method):
    """Adversarial alignment of the joint of features and predictions."""

    groups: ClassVar[tuple[str, ...]] = ("dann",)
    entropy_conditioning: ClassVar[bool] = False
    random_features: Tensor
    random_predictions: Tensor

    def __init__(self, task: Task, settings: DannSettings) -> None:
        """Add a discriminator and, where the product is too wide, two fixed random projections; see `Method`."""
        super().__init__(task)
        self.settings = settings
        classes = task.classes
        wide = task.width * classes > WIDEST
        self.register_buffer("random_features", torch.randn(task.width, RANDOM if wide else 0))
        self.register_buffer("random_predictions", torch.randn(classes, RANDOM if wide else 0))
        width = RANDOM if wide else task.width * classes
        self.discriminator = Discriminator(width, settings.discriminator, settings.dropout)

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and domain."""
        coefficient = adversarial_ramp(step + 1, self.settings.adversarial_horizon)
        joint = torch.cat([self.joint(batch.source), self.joint(batch.target)])
        logits = self.discriminator(reverse_gradient(joint, coefficient))
        sources = len(batch.source.logits)
        is_source = torch.zeros_like(logits)
        is_source[:sources] = 1.0
        weights = torch.ones_like(logits)
        if self.entropy_conditioning:
            predictions = torch.cat([batch.source.logits, batch.target.logits]).detach().softmax(dim=1)
            weights = 1 + torch.exp(-entropy(predictions))
            weights = torch.cat([part / part.mean() for part in (weights[:sources], weights[sources:])])
        domain = F.binary_cross_entropy_with_logits(logits, is_source, weight=weights)
        return {"classification": classification(batch), "domain": Loss(domain)}

    def joint(self, output: Output) -> Tensor:
        """F x g, flat (B, D K), or its randomised form (B, RANDOM); no gradient through the predictions g."""
        predictions = output.logits.detach().softmax(dim=1)
        if self.random_features.shape[1]:
            crossed: Tensor = (output.features @ self.random_features) * (predictions @ self.random_predictions)
            return crossed.div(RANDOM**0.5)
        return torch.einsum("bd,bk->bdk", output.features, predictions).flatten(1)


class CdanE(Cdan):
    """CDAN with certain samples weighing more: 1 + exp(-entropy), each domain's mean 1."""

    entropy_conditioning: ClassVar[bool] = True
