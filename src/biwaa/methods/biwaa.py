"""BIWAA: a discriminator that sees features weighted by the classifier's gradient, and class centroids aligned.

Westfechtel et al., WACV 2023: feature weighting (section 3.1), semantic alignment (3.2), pseudo-labels between
the label memory and earlier rounds (3.3). The formulas are in `biwaa.functional`; this file says in which order.

Beyond the paper, for the recipe `robust`: minimum class confusion of the target, and earlier rounds' predictions as
labels that count by their reliability. Every part can be switched off in the recipe.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.functional import adversarial_ramp, feature_weights, reliability, semantic_losses, update_centroids
from biwaa.methods.dann import Dann
from biwaa.methods.mcc import class_confusion
from biwaa.methods.method import Batch, Loss, classification
from biwaa.recipe import Recipe

UNVISITED = -1.0
"""What stands in the label memory of an image not seen yet; no probability is negative."""


class Biwaa(Dann):
    """All parts of the method; each can be switched off in the recipe."""

    source_centroids: Tensor
    target_centroids: Tensor
    memory: Tensor
    previous: Tensor | None

    def __init__(self, recipe: Recipe, classes: int, targets: int, previous: Tensor | None) -> None:
        """Start with zero centroids and an empty label memory, where a loss reads them; see `Method`."""
        super().__init__(recipe, classes, targets, previous)
        self.weighting = bool(recipe.adversarial) and recipe.weighting
        self.semantic = bool(recipe.alignment or recipe.separation)
        self.labels_target = self.weighting or self.semantic
        if not recipe.adversarial:
            del self.discriminator
        if self.semantic:
            self.register_buffer("source_centroids", torch.zeros(classes, recipe.bottleneck))
            self.register_buffer("target_centroids", torch.zeros(classes, recipe.bottleneck))
        if self.labels_target:
            self.register_buffer("memory", torch.full((targets, classes), UNVISITED))
        self.register_buffer("previous", previous, persistent=False)

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification, domain, alignment, separation, confusion and pseudo-label."""
        recipe = self.recipe
        source, target = batch.source.features, batch.target.features
        losses = {"classification": classification(batch)}
        if self.labels_target:
            pseudo_labels = self.pseudo_labels(batch.target.logits, batch.target_rows, step)

        if recipe.adversarial:
            seen = source, target
            if self.weighting:
                seen = (
                    source * feature_weights(source, batch.source_labels, classifier, recipe.weight_scale),
                    target * feature_weights(target, pseudo_labels, classifier, recipe.weight_scale),
                )
            losses |= self.domain_losses(*seen, step, recipe.adversarial)

        if self.semantic:
            if recipe.unit_centroids:
                source, target = F.normalize(source, dim=1), F.normalize(target, dim=1)
            new_source = update_centroids(self.source_centroids, source, batch.source_labels, recipe.centroid_rate)
            new_target = update_centroids(self.target_centroids, target, pseudo_labels, recipe.centroid_rate)
            alignment, separation = semantic_losses(new_source, new_target)
            ramp = adversarial_ramp(step, recipe.adversarial_horizon)
            losses["alignment"] = Loss(alignment, recipe.alignment * ramp)
            losses["separation"] = Loss(separation, recipe.separation)
            self.source_centroids.copy_(new_source.detach())
            self.target_centroids.copy_(new_target.detach())

        if recipe.confusion:
            confusion = class_confusion(batch.target.logits, recipe.confusion_temperature)
            losses["confusion"] = Loss(confusion, recipe.confusion)
        if recipe.pseudo_label and self.previous is not None:
            taught = taught_cross_entropy(batch.target.logits, self.previous[batch.target_rows])
            losses["pseudo_label"] = Loss(taught, recipe.pseudo_label)
        return losses

    @torch.no_grad()
    def pseudo_labels(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """Renew the label memory of `rows` and take the classes it, and earlier rounds, speak for.

        c <- p at the first visit, later memory_rate p + (1 - memory_rate) c; q = c in the first round, later
        (1 - pi) P + pi c with pi ramping up over bootstrap_horizon steps; the pseudo-label is argmax q.

        Args:
            logits: (B, K) of the target batch.
            rows: (B,) which target images these are.
            step: from 0.

        Returns:
            (B,) class indices.
        """
        rate = self.recipe.memory_rate
        predicted = logits.detach().float().softmax(dim=1)
        remembered = self.memory[rows].float()
        blended = rate * predicted + (1 - rate) * remembered
        current = torch.where(remembered == UNVISITED, predicted, blended)
        self.memory[rows] = current.to(self.memory.dtype)
        if self.previous is None:
            return current.argmax(dim=1)
        trust = adversarial_ramp(step, self.recipe.bootstrap_horizon)
        earlier = self.recipe.previous_rounds_scale * self.previous[rows]
        return ((1 - trust) * earlier + trust * current).argmax(dim=1)


def taught_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean of -r^2 log p(argmax teacher) with r the teacher's `reliability`; (B, K) logits and teacher -> scalar."""
    losses = F.cross_entropy(logits, teacher.argmax(dim=1), reduction="none")
    return (losses * reliability(teacher) ** 2).mean()
