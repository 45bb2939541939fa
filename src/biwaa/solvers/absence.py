"""Which of the source's classes the target has no image of, estimated without its labels.

A class seems absent where two readings agree: few images are predicted as it once the target was adapted, and fewer are
expected of it by likelihood. In the second the source stands under the estimated shares: a target of some of the
classes has another mean and another spread than a source of all.

Ns source rows, Nt target rows, F features, K classes; features are standardised, a domain at a time.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.solvers.logistic import Head
from biwaa.solvers.metric import (
    balanced_weights,
    fit_scale,
    one_hot,
    principal_axes,
    whitening,
    within_class_covariance,
)
from biwaa.solvers.prototypes import FIRST_RIDGE

PREDICTED, EXPECTED = 0.5, 0.2
"""Most images of an absent class, in shares of an even part: as predicted, and as expected by likelihood."""
LEAST, FEWEST = 0.2, 2
"""Share and number of the classes that must seem absent at first. One class alone may be rare, or taken for another."""
PASSES, MIXTURE, EVEN = 5, 50, 0.1
"""Fits of the metric under new shares, steps of the shares in each, and the even part of the shares it is fitted to."""

Adapted = tuple[Tensor, Callable[[], Head]]
"""(Nt, K) probabilities of the target, and what fits a head for new rows, which takes as long."""
Adapt = Callable[[Tensor, Tensor, int], Adapted]
"""From which rows of the source count, (Ns,), their labels and the number of classes to what is found in the target."""
Find = Callable[[Tensor, Tensor, int], Tensor]
"""From source rows, their labels and the number of classes to the target's probabilities."""


class Present(NamedTuple):
    """What is found where classes are absent."""

    found: Tensor
    """(Nt, K) probabilities; those of absent classes are 0. One column more where there are unknown images."""
    absent: Tensor
    """(K,) whether a class seems absent; one more, False, where there are unknown images."""


def without_absent(first: Adapted, source: Tensor, labels: Tensor, target: Tensor, adapt: Adapt) -> Present | None:
    """Leave out classes that seem absent and adapt again, until no more do.

    Args:
        first: what `adapt` found with all classes.
        source: (Ns, F).
        labels: (Ns,).
        target: (Nt, F).
        adapt: to the target.

    Returns:
        None where all classes seem to be there.
    """
    classes = first[0].shape[1]
    found, present = first[0], torch.arange(classes, device=labels.device)
    while True:
        rows = torch.isin(labels, present)
        here, renumbered = source[rows], torch.searchsorted(present, labels[rows])
        gone = seem_absent(found, here, renumbered, target, LEAST if len(present) == classes else 0.0)
        if not gone.any() or len(present) - int(gone.sum()) < FEWEST:
            break
        present = present[~gone]
        rows = torch.isin(labels, present)
        found, _ = adapt(rows, torch.searchsorted(present, labels[rows]), len(present))
    if len(present) == classes:
        return None
    every = torch.zeros(len(target), classes).to(found)
    every[:, present] = found
    absent = torch.ones(classes, dtype=torch.bool, device=labels.device)
    absent[present] = False
    return Present(every, absent)


def without_absent_beside_unknown(
    found: Tensor, known: Tensor, source: Tensor, labels: Tensor, target: Tensor, find: Find
) -> Present | None:
    """Leave out classes that seem absent where there are unknown images, and adapt once more.

    Args:
        found: (Nt, K + 1) probabilities, what `find` found with all classes.
        known: (Nt,) whether an image counts as known.
        source: (Ns, F).
        labels: (Ns,).
        target: (Nt, F).
        find: from source rows, their labels and the number of classes to (Nt, classes + 1) probabilities.

    Returns:
        None where all classes seem to be there.
    """
    classes = found.shape[1] - 1
    if int(known.sum()) < FEWEST * classes:
        return None
    absent = seem_absent(found[known, :-1], source, labels, standardised(target[known]), LEAST)
    present = torch.nonzero(~absent)[:, 0]
    if len(present) == classes or len(present) < FEWEST:
        return None
    rows = torch.isin(labels, present)
    again = find(standardised(source[rows]), torch.searchsorted(present, labels[rows]), len(present))
    every = torch.zeros_like(found)
    every[:, present], every[:, -1] = again[:, :-1], again[:, -1]
    return Present(every, torch.cat([absent, torch.zeros_like(absent[:1])]))


def seem_absent(found: Tensor, source: Tensor, labels: Tensor, target: Tensor, least: float) -> Tensor:
    """(K,) the classes of which both readings find few images; none where they are no more than `least` of all.

    Args:
        found: (Nt, K) probabilities after adaptation.
        source: (Ns, F).
        labels: (Ns,).
        target: (Nt, F).
        least: share of the classes.
    """
    classes = found.shape[1]
    wanted = max(least * classes, FEWEST) if least else 1
    few = one_hot(found.argmax(dim=1), classes).mean(dim=0) * classes < PREDICTED
    if int(few.sum()) >= wanted:  # the second reading costs as much as adaptation does
        few = few & (expected_shares(source, labels, target, classes) * classes < EXPECTED)
    return few if int(few.sum()) >= wanted else torch.zeros_like(few)


def expected_shares(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> Tensor:
    """(K,) class shares of the target by maximum likelihood (Saerens et al., Neural Computation 2002).

    The likelihood is that of the nearest class mean in a metric in which classes are round. Source rows count by the
    shares that were found before.

    Args:
        source: (Ns, F).
        labels: (Ns,).
        target: (Nt, F).
        classes: K.
    """
    counts, weights = torch.bincount(labels, minlength=classes).clamp(min=1), balanced_weights(labels, classes)
    shares = torch.full((classes,), 1 / classes).to(source)
    for _ in range(PASSES):
        mass = ((1 - EVEN) * shares + EVEN / classes) / counts
        here = standardised(source, mass[labels])
        axes = principal_axes(here, target)
        on_axes = here @ axes
        metric = whitening(within_class_covariance(on_axes, labels, torch.ones_like(weights), classes), FIRST_RIDGE)
        known, units = F.normalize(on_axes @ metric, dim=1), F.normalize(target @ axes @ metric, dim=1)
        means = F.normalize(one_hot(labels, classes).T @ known, dim=1)
        likelihood = (fit_scale(known @ means.T, labels, weights) * units @ means.T).softmax(dim=1)
        shares = torch.full_like(shares, 1 / classes)
        for _ in range(MIXTURE):
            posterior = likelihood * shares
            shares = (posterior / posterior.sum(dim=1, keepdim=True).clamp(min=1e-12)).mean(dim=0)
    return shares


def standardised(rows: Tensor, mass: Tensor | None = None) -> Tensor:
    """(N, F) rows with mean 0 and deviation 1 where row i counts `mass[i]`, or as much as any other."""
    mass = torch.ones_like(rows[:, 0]) if mass is None else mass
    share = mass / mass.sum()
    mean = share @ rows
    deviation = (share @ (rows - mean).square()).sqrt()
    return (rows - mean) / torch.where(deviation > 1e-6, deviation, torch.inf)
