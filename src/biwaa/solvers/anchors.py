"""Target rows whose labels were handed over: they stay at their labels, and correct the source's prediction of others.

Nt target rows, M of them with a label, D features, K classes.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.solvers.logistic import fit_logistic
from biwaa.solvers.metric import one_hot

WEIGHT = 10.0
"""Of such a row in the prior's logistic regression, where a row of the source has 1. A larger weight in prototypes,
metric and student as well gained nothing beside it."""


class Anchors(NamedTuple):
    """The rows with a label."""

    rows: Tensor
    """(M,) which target rows."""
    labels: Tensor
    """(M,)."""
    truth: Tensor
    """(M, K) one-hot."""

    @classmethod
    def of(cls, given: Tensor | None, classes: int, device: torch.device) -> Self | None:
        """Of (Nt,) labels, below 0 where none was handed over."""
        if given is None:
            return None
        rows = (given >= 0).nonzero()[:, 0]
        labels = given[rows].to(device)
        return cls(rows.to(device), labels, one_hot(labels, classes))

    def fixed(self, found: Tensor) -> Tensor:
        """(Nt, K) probabilities, these rows' at their labels."""
        return found.index_copy(0, self.rows, self.truth)


def anchored_prior(source: Tensor, truth: Tensor, weights: Tensor, target: Tensor, anchors: Anchors) -> Tensor:
    """(Nt, K) what logistic regression of the source and of the target's labels predicts.

    Args:
        source: (Ns, D) rows of mean squared length near 1.
        truth: (Ns, K).
        weights: (Ns,) of the source's rows.
        target: (Nt, D), as the source.
        anchors: the labels.
    """
    rows, labels = torch.cat([source, target[anchors.rows]]), torch.cat([truth, anchors.truth])
    own = torch.full((len(anchors.rows),), WEIGHT).to(weights)
    return F.linear(target, *fit_logistic(rows, labels, torch.cat([weights, own]))).softmax(dim=1)
