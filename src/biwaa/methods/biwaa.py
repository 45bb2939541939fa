"""BIWAA: a discriminator that sees features weighted by the classifier's gradient, and class centroids aligned.

Westfechtel et al., WACV 2023: feature weighting (section 3.1), semantic alignment (3.2), pseudo-labels between
the label memory and earlier rounds (3.3). The formulas are in `biwaa.functional`; this file says in which order.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from biwaa.checks import at_least, between
from biwaa.functional import (
    adversarial_ramp,
    feature_weights,
    semantic_losses,
    teacher_cross_entropy,
    update_centroids,
)
from biwaa.methods.dann import DannSettings, domain_losses
from biwaa.methods.method import Batch, Loss, Method, Task, classification
from biwaa.models.network import Discriminator

UNVISITED = -1.0
"""Entry of the label memory for an image not seen yet; no probability is negative."""


@dataclass(frozen=True)
class BiwaaSettings:
    """BIWAA."""

    adversarial: float = 1.0
    """Factor on the discriminator's loss; 0 leaves the discriminator out."""
    weighting: bool = True
    """Show the discriminator features weighted by the classifier's gradient (section 3.1)."""
    weight_scale: float = 10.0
    """Length of each feature weight vector."""
    alignment: float = 1.0
    """Factor on the semantic alignment loss (section 3.2); 0 leaves it out."""
    separation: float = 1.0
    """Factor on the source separation loss (section 3.2); 0 leaves it out."""
    cosine_pull: bool = False
    """Alignment draws the two centroids of a class together by their cosine; off: by their distance, unbounded."""
    centroid_rate: float = 0.3
    """Share of a batch's mean in its class centroid."""
    memory_rate: float = 0.9
    """Share of the newest prediction in the label memory."""
    bootstrap_horizon: float = 500.0
    """Steps over which later rounds pass from earlier rounds' predictions to the label memory."""
    previous_rounds_scale: float = 1.0
    """Factor on earlier rounds' predictions in pseudo-labels; 10 restores the reference's sum over ten crops."""
    earlier_rounds: float = 0.0
    """Factor on the cross-entropy of the target on earlier rounds' labels, each by its squared reliability."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 0, "adversarial", "earlier_rounds")
        at_least(self, 0, "bootstrap_horizon", above=True)
        between(self, 0, 1, "centroid_rate", "memory_rate")


class Biwaa(Method):
    """All parts of the method; each can be switched off in the recipe."""

    groups: ClassVar[tuple[str, ...]] = ("dann", "biwaa")
    source_centroids: Tensor
    target_centroids: Tensor
    memory: Tensor
    previous: Tensor | None

    def __init__(self, task: Task, dann: DannSettings, settings: BiwaaSettings) -> None:
        """Start with zero centroids and an empty label memory, where a loss reads them; see `Method`."""
        super().__init__(task)
        self.dann, self.settings = dann, settings
        self.weighting = bool(settings.adversarial) and settings.weighting
        self.semantic = bool(settings.alignment or settings.separation)
        self.labels_target = self.weighting or self.semantic
        if settings.adversarial:
            self.discriminator = Discriminator(task.width, dann.discriminator, dann.dropout)
        if self.semantic:
            self.register_buffer("source_centroids", torch.zeros(task.classes, task.width))
            self.register_buffer("target_centroids", torch.zeros(task.classes, task.width))
        if self.labels_target:
            self.register_buffer("memory", torch.full((task.targets, task.classes), UNVISITED))
        self.register_buffer("previous", task.previous, persistent=False)

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification, domain, alignment and separation."""
        settings = self.settings
        source, target = batch.source.features, batch.target.features
        losses = {"classification": classification(batch)}
        if self.labels_target:
            pseudo_labels = self.pseudo_labels(batch.target.logits, batch.target_rows, step)

        if settings.adversarial:
            seen = source, target
            if self.weighting:
                seen = (
                    source * feature_weights(source, batch.source_labels, classifier, settings.weight_scale),
                    target * feature_weights(target, pseudo_labels, classifier, settings.weight_scale),
                )
            losses |= domain_losses(
                self.discriminator, *seen, step, self.dann.adversarial_horizon, settings.adversarial
            )

        if self.semantic:
            rate = settings.centroid_rate
            new_source = update_centroids(self.source_centroids, source, batch.source_labels, rate)
            new_target = update_centroids(self.target_centroids, target, pseudo_labels, rate)
            alignment, separation = semantic_losses(new_source, new_target, settings.cosine_pull)
            ramp = adversarial_ramp(step, self.dann.adversarial_horizon)
            losses["alignment"] = Loss(alignment, settings.alignment * ramp)
            losses["separation"] = Loss(separation, settings.separation)
            self.source_centroids.copy_(new_source.detach())
            self.target_centroids.copy_(new_target.detach())

        if settings.earlier_rounds and self.previous is not None:
            value = teacher_cross_entropy(batch.target.logits, self.previous[batch.target_rows])
            losses["pseudo_label"] = Loss(value, settings.earlier_rounds)
        return losses

    @torch.no_grad()
    def pseudo_labels(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """Update the label memory of `rows`; the classes that it and earlier rounds predict.

        c <- p at the first visit, later memory_rate p + (1 - memory_rate) c; q = c in the first round, later
        (1 - pi) P + pi c with pi ramping up over bootstrap_horizon steps; the pseudo-label is argmax q.

        Args:
            logits: (B, K) of the target batch.
            rows: (B,) which target images these are.
            step: from 0.

        Returns:
            (B,) class indices.
        """
        rate = self.settings.memory_rate
        predicted = logits.detach().float().softmax(dim=1)
        remembered = self.memory[rows].float()
        blended = rate * predicted + (1 - rate) * remembered
        current = torch.where(remembered == UNVISITED, predicted, blended)
        self.memory[rows] = current.to(self.memory.dtype)
        if self.previous is None:
            return current.argmax(dim=1)
        earlier = self.previous[rows]
        trust = adversarial_ramp(step, self.settings.bootstrap_horizon)
        scale = self.settings.previous_rounds_scale
        return ((1 - trust) * scale * earlier + trust * current).argmax(dim=1)
