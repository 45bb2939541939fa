"""What is known of a target before anything is adapted to it: what confidence leaves, and what other solvers say.

It stands on the features of a frozen backbone or of source-only, and knows nothing of the candidates that it judges.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from biwaa.functional import with_temperature
from biwaa.judging import calibration
from biwaa.judging.evidence import Evidence
from biwaa.solvers.logistic import fit_confusion
from biwaa.solvers.metric import balanced_weights, place_in_class, principal_axes
from biwaa.solvers.prototypes import follow_prototypes

ROWS = 2500
"""Target rows at most on which two halves are compared: one standard error is at most a point."""


class SecondOpinion(NamedTuple):
    """Of M target images."""

    predicted: Tensor
    """(M,) classes by minimum class confusion, which follows neither neighbours nor prototypes."""
    of_halves: float
    """See `agreement_of_halves`."""
    by_backbone: Tensor | None
    """(B, M) classes that each of several backbones finds by itself; None of one."""


def second_opinion(
    source: Tensor, labels: Tensor, target: Tensor, classes: int, widths: Sequence[int] = ()
) -> SecondOpinion:
    """Ask all of them.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,), of two classes or more.
        target: (M, F) standardised, two rows or more.
        classes: K.
        widths: features of each of several backbones, in their order.
    """
    axes = principal_axes(source, target) * source.shape[1] ** -0.5
    here, there = source @ axes, target @ axes
    confusion = fit_confusion(here, labels, balanced_weights(labels, classes), there, classes)
    return SecondOpinion(
        F.linear(there, *confusion).argmax(dim=1).cpu(),
        agreement_of_halves(source, labels, target, classes),
        found_apart(source, labels, target, classes, widths) if len(widths) > 1 else None,
    )


def classes_by_confusion(evidence: Evidence, new: Tensor | None = None) -> Tensor | None:
    """Classes by minimum class confusion on source-only's features of the target, or of new images beside it.

    New images may be few, or of few classes: the target's are their middle. None where no source images with their
    labels were kept, or only one class of them.

    Args:
        evidence: of source-only, whose network may have been trained whole.
        new: (n, D) its features of new images.

    Returns:
        (n,) of the new images; without them (M,) of those that the evidence has features of.
    """
    source, labels, target = evidence.trained_features, evidence.trained_labels, evidence.features
    if source is None or labels is None or target is None or int(labels.min()) == int(labels.max()) or len(target) < 2:
        return None
    classes = evidence.probabilities.shape[1]
    every = target.float() if new is None else torch.cat([target.float(), new.float()])
    here, there = _centred(source, len(source)), _centred(every, len(target))
    head = fit_confusion(here, labels, balanced_weights(labels, classes), there, classes)
    return F.linear(there if new is None else there[-len(new) :], *head).argmax(dim=1)


def _centred(features: Tensor, of: int) -> Tensor:
    """(N, D) rows around the mean of the first `of`, of mean squared length 1."""
    found = features.float() - features[:of].float().mean(dim=0)
    return found / found.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)


def found_apart(source: Tensor, labels: Tensor, target: Tensor, classes: int, widths: Sequence[int]) -> Tensor:
    """(B, M) classes by prototypes, each row from the features of one backbone alone.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (M, F) standardised.
        classes: K.
        widths: (B,) whose sum is F.
    """
    parts = zip(*(rows.split_with_sizes(list(widths), dim=1) for rows in (source, target)), strict=True)
    found = [follow_prototypes(here, labels, there, classes).argmax(dim=1) for here, there in parts]
    return torch.stack(found).cpu()


def agreement_of_backbones(found: Tensor) -> float:
    """Share of images on which two backbones find the same, averaged over all pairs; of (B, M) classes."""
    pairs = [(one == other).double().mean() for one, other in itertools.combinations(found, 2)]
    return float(torch.stack(pairs).mean())


def expected_accuracy(left_out: Tensor, labels: NDArray[np.int64], target: Tensor) -> float:
    """Accuracy of source-only: that on left-out rows of the source less what its confidence falls by.

    Args:
        left_out: (Ns, K) probabilities of source rows, each by a model that it had no part in.
        labels: (Ns,) of these rows.
        target: (Nt, K) source-only's probabilities.
    """
    temperature = calibration.fit_temperature(left_out, labels)
    of_source, of_target = (with_temperature(part, temperature) for part in (left_out, target))
    return calibration.difference_of_confidences(of_source, labels, of_target)


def halves(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(Ns,) whether a source row is in the first half of its class, and in the second; a class of one is in both."""
    odd = place_in_class(labels, classes) % 2 == 1
    single = torch.bincount(labels, minlength=classes)[labels] == 1
    return ~odd | single, odd | single


def agreement_of_halves(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> float:
    """Agreement of two solutions by prototypes that share no source row.

    In a random order of the features, one has the first three quarters, the other the last three. Where two
    classifiers are trained apart, the rate at which they disagree is near the rate at which each of them errs (Jiang et
    al., ICLR 2022). A class of one row is in both halves.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (M, F) standardised.
        classes: K.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(target), generator=generator)[:ROWS].to(target.device)
    features = torch.randperm(source.shape[1], generator=generator).to(target.device)
    quarter = len(features) // 4
    found = []
    columns_of = features[: len(features) - quarter], features[quarter:]
    for of_half, columns in zip(halves(labels, classes), columns_of, strict=True):
        part = source[of_half][:, columns], labels[of_half], target[rows][:, columns]
        found.append(follow_prototypes(*part, classes).argmax(dim=1))
    return float((found[0] == found[1]).double().mean())
