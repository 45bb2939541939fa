"""DANN: a discriminator behind a gradient reversal.

Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016, equation 9 and section 5.2.2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.checks import at_least, between
from biwaa.functional import adversarial_ramp
from biwaa.methods.method import Batch, Loss, Method, Task, classification
from biwaa.models.network import Discriminator, reverse_gradient


@dataclass(frozen=True)
class DannSettings:
    """Discriminators and gradient reversal, of DANN, CDAN, MDD, MSTN and BIWAA."""

    discriminator: int = 1024
    """Width of the discriminator's two hidden layers."""
    dropout: float = 0.5
    """Dropout in the discriminator's hidden layers."""
    adversarial_horizon: float = 20000.0
    """Steps over which gradient reversal and alignment ramp up; with 5004 steps both end near 0.85."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 1, "discriminator")
        between(self, 0, 1, "dropout")
        at_least(self, 0, "adversarial_horizon", above=True)


class Dann(Method):
    """Adversarial alignment of the plain features."""

    groups: ClassVar[tuple[str, ...]] = ("dann",)

    def __init__(self, task: Task, settings: DannSettings) -> None:
        """Add a discriminator; see `Method`."""
        super().__init__(task)
        self.settings = settings
        self.discriminator = Discriminator(task.width, settings.discriminator, settings.dropout)

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and domain."""
        source, target = batch.source.features, batch.target.features
        domain = domain_losses(self.discriminator, source, target, step, self.settings.adversarial_horizon)
        return {"classification": classification(batch)} | domain


def domain_losses(
    discriminator: nn.Module, source: Tensor, target: Tensor, step: int, horizon: float, weight: float = 1.0
) -> dict[str, Loss]:
    """The discriminator's loss on what it is shown of (B, D) features, and its accuracy, logged alone."""
    # The reference raises its counter before it reads it: the reversal runs one step ahead.
    domain, accuracy = discriminate(discriminator, source, target, adversarial_ramp(step + 1, horizon))
    return {"domain": Loss(domain, weight), "domain_accuracy": Loss(accuracy, 0.0)}


def discriminate(discriminator: nn.Module, source: Tensor, target: Tensor, coefficient: float) -> tuple[Tensor, Tensor]:
    """How well the discriminator tells the domains apart, source 1 and target 0, behind the gradient reversal.

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
