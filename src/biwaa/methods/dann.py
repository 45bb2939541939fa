"""DANN: a discriminator behind a gradient reversal.

Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016, equation 9 and section 5.2.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.functional import adversarial_ramp
from biwaa.methods.method import Batch, Loss, Method, classification
from biwaa.models.network import Discriminator, reverse_gradient
from biwaa.recipe import Recipe


class Dann(Method):
    """Adversarial alignment of the plain features."""

    def __init__(self, recipe: Recipe, classes: int, targets: int, previous: Tensor | None) -> None:
        """Add a discriminator; see `Method`."""
        super().__init__(recipe, classes, targets, previous)
        self.discriminator = Discriminator(recipe.bottleneck, recipe.discriminator, recipe.dropout)

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and domain."""
        domain = self.domain_losses(batch.source.features, batch.target.features, step)
        return {"classification": classification(batch)} | domain

    def domain_losses(self, source: Tensor, target: Tensor, step: int, weight: float = 1.0) -> dict[str, Loss]:
        """The discriminator's loss on what it is shown of (B, D) features, and its accuracy, logged alone."""
        # The reference raises its counter before it reads it: the reversal runs one step ahead.
        coefficient = adversarial_ramp(step + 1, self.recipe.adversarial_horizon)
        domain, accuracy = discriminate(self.discriminator, source, target, coefficient)
        return {"domain": Loss(domain, weight), "domain_accuracy": Loss(accuracy, 0.0)}


def discriminate(discriminator: nn.Module, source: Tensor, target: Tensor, coefficient: float) -> tuple[Tensor, Tensor]:
    """How well the discriminator tells the domains, source 1 and target 0, behind the gradient reversal.

    Args:
        discriminator: (2B, D) -> (2B,) logits.
        source: (B, D) features, weighted or not.
        target: (B, D).
        coefficient: of the reversal.

    Returns:
        Binary cross-entropy, and accuracy, which has no gradient.
    """
    logits = discriminator(reverse_gradient(torch.cat([source, target]), coefficient))
    is_source = torch.zeros_like(logits)
    is_source[: len(source)] = 1.0
    accuracy = domain_accuracy(*logits.detach().split([len(source), len(target)]))
    return F.binary_cross_entropy_with_logits(logits, is_source), accuracy.to(logits.dtype)


def domain_accuracy(source_logits: Tensor, target_logits: Tensor) -> Tensor:
    """Balanced accuracy of a discriminator whose (B,) logits are positive where it takes an image for a source one."""
    return ((source_logits > 0).double().mean() + (target_logits <= 0).double().mean()) / 2
