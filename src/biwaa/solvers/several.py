"""Several sources: which of them contradict the others, and what each says of the target (docs/sources.md).

J sources, Ns rows of all of them, Nt target rows, F features, D axes, K classes. A source may lack classes.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.solvers.metric import balanced_weights, principal_axes, whitening, within_class_covariance
from biwaa.solvers.prototypes import FIRST_RIDGE

REGRESSION = 0.5
"""Power of a logistic regression of all sources beside their class means. On one source alone it can go far wrong."""
HARDLY = 0.05
"""Agreement between sources, from chance to 1, up to which they contradict each other. Real places reach 0.38 and more,
a source whose classes were exchanged less than 0."""


class Standing(NamedTuple):
    """What each of several sources is worth."""

    relevance: Tensor
    """(J,) share of the target on which it says the same by itself as all sources and the target together."""
    agreement: Tensor
    """(J,) accuracy of it on the others and of the others on it; NaN where they share fewer than two classes."""
    chance: Tensor
    """(J,) what guessing would reach there."""

    @property
    def contradicts(self) -> Tensor:
        """(J,) whether its labels are not those of the others."""
        return self.agreement < self.chance + HARDLY * (1 - self.chance)


class Sources(NamedTuple):
    """Rows of several sources, and the mean of each class in each, where classes are round around these."""

    rows: Tensor
    """(Ns, D) of length 1."""
    labels: Tensor
    """(Ns,)."""
    origins: Tensor
    """(Ns,) number of each row's source, 0 to J - 1."""
    means: Tensor
    """(J, K, D) of length 1; zeros where a source lacks a class."""
    holds: Tensor
    """(J, K) which classes each source has."""
    metric: Tensor
    """(F, D)."""

    @classmethod
    def of(cls, source: Tensor, labels: Tensor, origins: Tensor, classes: int) -> Self:
        """Of (Ns, F) rows, each source standardised by its own statistics."""
        count = int(origins.max()) + 1
        places, weights = origins * classes + labels, balanced_weights(origins, count)  # a class of each source
        axes = principal_axes(source, source)
        within = within_class_covariance(source @ axes, places, weights, count * classes)
        metric = axes @ whitening(within, FIRST_RIDGE)
        rows = F.normalize(source @ metric, dim=1)
        sums = torch.zeros(count * classes, rows.shape[1]).to(rows).index_add(0, places, rows)
        holds = places.bincount(minlength=count * classes).view(count, classes) > 0
        return cls(rows, labels, origins, F.normalize(sums, dim=1).view(count, classes, -1), holds, metric)

    def standing(self) -> Standing:
        """How well each and the others predict each other's labels, over the classes that two share."""
        count = len(self.means)
        right, guessed = torch.full((2, count, count), torch.nan, device=self.rows.device)
        for one in range(count):
            for other in range(count):
                both = self.holds[one] & self.holds[other]
                if one == other or both.sum() < 2:
                    continue
                counted = (self.origins == other) & both[self.labels]
                truth, said = self.labels[counted], _nearest(self.rows[counted], self.means[one], both)
                right[one, other] = ((said == truth) * balanced_weights(truth, len(both))).mean()
                guessed[one, other] = 1 / both.sum()
        agreement, chance = (torch.cat([part, part.T], dim=1).nanmean(dim=1) for part in (right, guessed))
        return Standing(torch.full_like(agreement, torch.nan), agreement, chance)

    def heard(self, contradicts: Tensor) -> Tensor:
        """(Ns,) the rows to learn from: none of a source that contradicts the others, but of classes of it alone.

        Where all contradict each other nothing says which is right, and all are heard.
        """
        if contradicts.all():
            return torch.ones_like(self.origins, dtype=torch.bool)
        elsewhere = self.holds[~contradicts].any(dim=0)
        return ~(contradicts[self.origins] & elsewhere[self.labels])

    def relevance(self, target: Tensor, found: Tensor) -> Tensor:
        """(J,) share of (Nt, F) rows on which each source says by itself what was found, (Nt,), of its own classes."""
        units, known = F.normalize(target @ self.metric, dim=1), found < self.holds.shape[1]
        shares = []
        for means, holds in zip(self.means, self.holds, strict=True):
            judged = known & holds[found.clamp(max=len(holds) - 1)]
            same = (_nearest(units, means, holds) == found) & judged
            shares.append(same.sum() / judged.sum().clamp(min=1))
        return torch.stack(shares)


def _nearest(units: Tensor, means: Tensor, allowed: Tensor) -> Tensor:
    """(N,) which of the (K, D) means is nearest to each of (N, D) rows, among the (K,) allowed."""
    return (units @ means.T).masked_fill(~allowed, -torch.inf).argmax(dim=1)
