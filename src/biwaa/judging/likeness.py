"""Whether a target's images seem to be of the source's classes at all, without their labels.

Images of other classes lie in groups too, and each group is near some class, so distance says little: a sketch of a
known dog is farther from photos of dogs than a photo of an unknown fox is. Asked is how the groups differ.

Ns source rows, Nt target rows, D features, K classes, M neighbours.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import nearest_among, neighbours_of_a_class
from biwaa.judging.evidence import Evidence
from biwaa.solvers.metric import (
    NEIGHBOURS,
    mean_over_neighbours,
    one_hot,
    symmetric_eigen,
    whitening,
    within_class_covariance,
)
from biwaa.solvers.prototypes import FIRST_RIDGE

FEWEST, FEWEST_A_CLASS = 50, 25
FEWEST_CLASSES, FEWEST_IN_ALL = 4, 700
"""Target images; source images a class on average; source classes, and source images in all. With fewer of any, closed
tasks look as if they were of other classes, and nothing is said (docs/other_classes.md)."""
OTHERS = 10
"""Directions within classes that those between them are compared with."""
DRAWS = 4000
"""Rows of a Gaussian cloud."""
TINY = 1e-6
STRAY, BESIDE = 0.05, 0.05
"""Share of a target's own images that lie astray, and what more is let pass of new ones."""


class Unfamiliar(NamedTuple):
    """New images that look like none of a run's target."""

    share: float
    limit: float
    """What is let pass of it, for as many images."""

    @property
    def clear(self) -> bool:
        """Whether there are more than chance puts there."""
        return self.share > self.limit


def likeness_of(plain: Evidence, new: Tensor | None = None) -> float | None:
    """`likeness` of what a solved source-only kept, or of (Nt, D) new images; None where that is not enough."""
    source, labels, target = plain.trained_features, plain.trained_labels, plain.features if new is None else new
    if source is None or labels is None or target is None:
        return None
    return likeness(source.float(), labels, target.float())


def unfamiliar(plain: Evidence, new: Tensor) -> Unfamiliar | None:
    """How many new images look like none of the target's: they are farther from these than `STRAY` of them are.

    The distance is the mean cosine to the nearest target images, in the metric in which the source's classes are round.
    It asks more than `likeness` of images of the same place: among these, images of another class are far from all.

    Args:
        plain: what a solved source-only kept.
        new: (n, D) behind its bottleneck.

    Returns:
        None where that is not enough, or where either has fewer than `FEWEST` images.
    """
    source, labels, target = plain.trained_features, plain.trained_labels, plain.features
    if source is None or labels is None or target is None or min(len(target), len(new)) < FEWEST:
        return None
    metric = _metric(source.float(), labels)
    here, there = target.float() @ metric, new.float() @ metric
    own = nearest_among(here, here, NEIGHBOURS + 1)[0][:, 1:].mean(dim=1)  # the nearest is the image itself
    beside = nearest_among(there, here, NEIGHBOURS)[0].mean(dim=1)
    share = float((beside < own.quantile(STRAY)).double().mean())
    deviation = math.sqrt(STRAY * (1 - STRAY) * (1 / len(here) + 1 / len(there)))
    return Unfamiliar(share, STRAY + BESIDE + 3 * deviation)


def _metric(source: Tensor, labels: Tensor) -> Tensor:
    """(D, D) in which the source's classes are round."""
    present, labels = torch.unique(labels, return_inverse=True)
    ones = torch.ones_like(source[:, 0])
    return whitening(within_class_covariance(source, labels, ones, len(present)), FIRST_RIDGE)


def likeness(source: Tensor, labels: Tensor, target: Tensor) -> float | None:
    """How far groups of target images differ from each other as the source's classes do: the sum of two parts.

    - of what images have in common with their neighbours, how much is a difference between the source's classes, and
      how much one within them: the log of the ratio in the target, less that in the source. Another place shrinks both
    - how much images are of one class rather than of others: the mean cube of the best class's standard score, in
      shares of that of a Gaussian cloud with the same correlations

    Args:
        source: (Ns, D) behind source-only's bottleneck.
        labels: (Ns,).
        target: (Nt, D).

    Returns:
        None where there are too few images, classes or features.
    """
    present, labels = torch.unique(labels, return_inverse=True)
    classes = len(present)
    few = len(source) < max(FEWEST_A_CLASS * classes, FEWEST_IN_ALL) or len(target) < FEWEST
    if few or classes < FEWEST_CLASSES or source.shape[1] < classes - 1 + OTHERS:
        return None
    metric = _metric(source, labels)
    here, there = (F.normalize(rows @ metric, dim=1) for rows in (source, target))
    beside, near = (neighbours_of_a_class(rows, NEIGHBOURS, classes) for rows in (here, there))
    members = one_hot(labels, classes)
    means = members.T @ here / members.sum(dim=0)[:, None]
    centred = means - means.mean(dim=0)
    between = torch.linalg.svd(centred, full_matrices=False).Vh[: classes - 1].T
    others = _within(here - means[labels], between, beside)
    scores = mean_over_neighbours((there - there.mean(dim=0)) @ F.normalize(centred, dim=1).T, near)
    return _ratio(there, near, between, others) - _ratio(here, beside, between, others) + _decided(scores)


def _within(residual: Tensor, between: Tensor, neighbours: Tensor) -> Tensor:
    """(D, `OTHERS`) directions of most that (Ns, D) rows around their class means have in common with neighbours."""
    rows = residual - residual @ between @ between.T
    return symmetric_eigen(rows.T @ mean_over_neighbours(rows, neighbours) / len(rows))[1][:, -OTHERS:]


def _ratio(rows: Tensor, neighbours: Tensor, between: Tensor, others: Tensor) -> float:
    """Log of what (N, D) rows have in common with neighbours between the classes, in shares of that within them."""
    centred = rows - rows.mean(dim=0)
    classwise, other = (
        float((part * mean_over_neighbours(part, neighbours)).mean()) * part.shape[1]
        for part in (centred @ between, centred @ others)
    )
    return math.log(max(classwise, TINY) / max(other, TINY))


def _decided(scores: Tensor) -> float:
    """Mean cube of the best of (N, K) scores, standardised, in shares of that of a Gaussian cloud."""
    standard = scores - scores.mean(dim=0)
    standard = standard / standard.std(dim=0).clamp(min=TINY)
    values, vectors = symmetric_eigen(standard.T @ standard / len(standard))
    drawn = torch.randn(DRAWS, len(values), generator=torch.Generator().manual_seed(0)).to(standard)
    cloud = drawn * values.clamp(min=0).sqrt() @ vectors.T
    best, chance = (float(part.amax(dim=1).pow(3).mean()) for part in (standard, cloud))
    return best / max(chance, TINY)
