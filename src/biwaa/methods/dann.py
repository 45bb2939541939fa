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
        # The reference raises its counter before it reads it: the reversal runs one step ahead.
        coefficient = adversarial_ramp(step + 1, self.recipe.adversarial_horizon)
        domain, accuracy = discriminate(self.discriminator, batch.source.features, batch.target.features, coefficient)
        losses = {"classification": classification(batch), "domain": Loss(domain)}
        return losses | {"domain_accuracy": Loss(accuracy, 0.0)}  # logged, not trained on


def domain_loss(discriminator: nn.Module, source: Tensor, target: Tensor, coefficient: float) -> Tensor:
    """Binary cross-entropy of the discriminator, source 1 and target 0, behind the gradient reversal.

    Args:
        discriminator: (2B, D) -> (2B,) logits.
        source: (B, D) features, weighted or not.
        target: (B, D).
        coefficient: of the reversal.
    """
    return discriminate(discriminator, source, target, coefficient)[0]


def discriminate(discriminator: nn.Module, source: Tensor, target: Tensor, coefficient: float) -> tuple[Tensor, Tensor]:
    """`domain_loss`, and the share of images whose domain is told right, which has no gradient."""
    logits = discriminator(reverse_gradient(torch.cat([source, target]), coefficient))
    is_source = torch.zeros_like(logits)
    is_source[: len(source)] = 1.0
    accuracy = ((logits.detach() > 0) == (is_source > 0)).to(logits.dtype).mean()
    return F.binary_cross_entropy_with_logits(logits, is_source), accuracy
