"""A teacher in the place of the source, beside a source whose neighbours are no guide, or by itself.

Ns source rows, Nt target rows, F features, K classes; features are standardised, a domain at a time.
"""

import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import nearest_neighbours, reliability
from biwaa.solvers.anchors import Anchors
from biwaa.solvers.logistic import Head, source_head
from biwaa.solvers.metric import (
    NEIGHBOURS,
    WIDEST,
    balanced_weights,
    fit_scale,
    one_hot,
    principal_axes,
    whitening,
    within_class_covariance,
)
from biwaa.solvers.prototypes import FIRST_RIDGE, Start, head_like, refined, student
from biwaa.teachers.fusion import Teacher, fused, own_probabilities

ROWS_AN_AXIS, AXES_A_CLASS = 10, 3
"""Rows for each principal axis, and the least number of axes for each class. In a metric that is fitted to few rows
alone each row is far from all others."""


def teach_prototypes(
    target: Tensor, classes: int, teacher: Teacher, count: int = NEIGHBOURS, anchors: Anchors | None = None
) -> tuple[Tensor, Head]:
    """Adapt to unlabelled target features with a teacher's word alone: there is no source.

    As `adapt_prototypes`; the first metric is of the classes that the teacher names, as far as it is sure of them.

    Args:
        target: (Nt, F) standardised.
        classes: K.
        teacher: of these rows.
        count: neighbours of a row.
        anchors: the target's rows with a label.

    Returns:
        (Nt, K) probabilities, and the student.
    """
    start, _ = begin_taught(target, classes, teacher, count, anchors)
    found, metric = refined(start, classes, count)
    return found, head_like(target, found, start.axes @ metric)


def begin_taught(
    target: Tensor, classes: int, teacher: Teacher, count: int = NEIGHBOURS, anchors: Anchors | None = None
) -> tuple[Start, Tensor]:
    """The start, and (K, D) means of what the teacher names, in its metric at length 1; as of `teach_prototypes`."""
    axes = principal_axes(target, target, min(max(len(target) // ROWS_AN_AXIS, AXES_A_CLASS * classes), WIDEST))
    there = target @ axes
    prior = own_probabilities(teacher, None, None, nearest_neighbours(there, count))
    prior = anchors.fixed(prior) if anchors else prior
    said, weights = prior.argmax(dim=1), reliability(prior) ** 2
    metric = whitening(within_class_covariance(there, said, weights, classes), FIRST_RIDGE)
    units = F.normalize(there @ metric, dim=1)
    means = F.normalize((prior * weights[:, None]).T @ units, dim=1)
    scale = fit_scale(units @ means.T, said, weights)
    return Start(axes, there, None, units, prior, scale, nearest_neighbours(units, count), anchors), means


def teach_head(
    source: Tensor, labels: Tensor, target: Tensor, classes: int, teacher: Teacher, anchors: Anchors | None = None
) -> tuple[Tensor, Head]:
    """Source-only's head, taught: where neighbours are no guide, the teacher still is one.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (Nt, F) standardised.
        classes: K.
        teacher: of these rows.
        anchors: the target's rows with a label.

    Returns:
        (Nt, K) probabilities, and the student.
    """
    head = source_head(source, labels, classes)
    prior = head.scores(target).softmax(dim=1)
    truth, weights = one_hot(labels, classes), balanced_weights(labels, classes)
    axes = principal_axes(source, target)
    found = fused(prior, teacher, truth, weights, prior, nearest_neighbours(target @ axes, NEIGHBOURS))
    found, metric = anchors.fixed(found) if anchors else found, axes * source.shape[1] ** -0.5 * len(axes.T) ** 0.5
    return found, student(metric, source, truth, weights, target, found)


def distilled(
    labels: Tensor, target: Tensor, classes: int, teacher: Teacher, count: int = NEIGHBOURS
) -> tuple[Tensor, Head]:
    """What the teacher says by itself, and a head that says the same of new rows.

    Args:
        labels: (Ns,) of the source's rows; none where there is no source.
        target: (Nt, F) standardised.
        classes: K.
        teacher: of the rows of both.
        count: neighbours of a row.

    Returns:
        (Nt, K) the teacher's own probabilities, and the head.
    """
    axes = principal_axes(target, target)
    near = nearest_neighbours(target @ axes, count)
    found = own_probabilities(teacher, one_hot(labels, classes), balanced_weights(labels, classes), near)
    return found, head_like(target, found, axes)
