"""Class prototypes of the target, refined with its neighbours and the prediction of the source.

Ns source rows, Nt target rows, F features, K classes, M neighbours; features are standardised, a domain at a time.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import nearest_neighbours, reliability
from biwaa.solvers.anchors import Anchors, anchored_prior
from biwaa.solvers.logistic import STRENGTH, Head, cross_validate, fit_logistic
from biwaa.solvers.metric import (
    NEIGHBOURS,
    balanced_weights,
    fit_scale,
    mean_over_neighbours,
    neighbour_purity,
    one_hot,
    principal_axes,
    whitening,
    within_class_covariance,
)
from biwaa.teachers.fusion import Teacher, fused

PULL = 5.0
"""Logits that neighbours of one class add."""
FIRST_RIDGE, LATER_RIDGE = 0.5, 0.1
"""Share of the mean eigenvalue in a within-class covariance: of the source alone, and of both domains."""
METRICS, STEPS = 6, 2
"""Metrics that are fitted, one after the other, and updates of the labels in each."""
PURE = 0.8
"""Least purity of the source's own neighbours, in shares of its cross-validated accuracy. Where neighbours are of other
classes, as among packages that differ in their print alone, following them does harm."""


def refine_prototypes(
    units: Tensor,
    start: Tensor,
    prior: Tensor,
    neighbours: Tensor,
    scale: float,
    steps: int = STEPS,
    anchors: Anchors | None = None,
) -> Tensor:
    """Class prototypes of the target and its rows' classes, in turn.

    c_k = unit(sum_i z_ik u_i); z_i = softmax(scale u_i . c + log prior_i + PULL mean of z over i's neighbours): EM of a
    mixture of von Mises-Fisher distributions (Banerjee et al., JMLR 2005) with a prior for each row and a term for its
    neighbours.

    Args:
        units: (Nt, D) rows of length 1.
        start: (Nt, K) probabilities to start from.
        prior: (Nt, K) what the source predicts.
        neighbours: (Nt, M).
        scale: of the cosines.
        steps: of the two.
        anchors: rows that stay at their labels.

    Returns:
        (Nt, K) probabilities.
    """
    logs, found = prior.clamp(min=1e-6).log(), start
    for _ in range(steps):
        prototypes = F.normalize(found.T @ units, dim=1)
        logits = scale * (units @ prototypes.T) + logs + PULL * mean_over_neighbours(found, neighbours)
        found = anchors.fixed(logits.softmax(dim=1)) if anchors else logits.softmax(dim=1)
    return found


class Start(NamedTuple):
    """Where the refinement of prototypes begins."""

    axes: Tensor
    """(F, D)."""
    target: Tensor
    """(Nt, D) features on the axes."""
    within: Tensor | None
    """(D, D) within-class covariance of the source; None without a source."""
    units: Tensor
    """(Nt, D) in the first metric, at length 1."""
    prior: Tensor
    """(Nt, K) probabilities."""
    scale: float
    """Of the cosines."""
    neighbours: Tensor
    """(Nt, M) in the first metric."""
    anchors: Anchors | None = None


class Followed(NamedTuple):
    """What was found in a target."""

    found: Tensor
    """(Nt, K) probabilities."""
    metric: Tensor
    """(F, D) in which it was found."""

    def student(self, source: Tensor, labels: Tensor, target: Tensor) -> Head:
        """A head for both places; arguments as of `adapt_prototypes`."""
        classes = self.found.shape[1]
        truth, weights = one_hot(labels, classes), balanced_weights(labels, classes)
        return student(self.metric, source, truth, weights, target, self.found)


def adapt_prototypes(
    source: Tensor,
    labels: Tensor,
    target: Tensor,
    classes: int,
    count: int = NEIGHBOURS,
    teacher: Teacher | None = None,
    anchors: Anchors | None = None,
    regression: float = 0.0,
) -> Followed | None:
    """Adapt from labelled source features to unlabelled target features.

    1. within-class whitening by the source's labels, on at most `WIDEST` principal axes
    2. the source's prediction: nearest class mean in that metric; times the teacher's voice, where there is a teacher.
       Where the target has a few labels, logistic regression of the source and of them
    3. prototypes refined on the target; the metric is fitted again to both domains' classes, and they are refined again

    The student of what is found is a logistic regression on the source's labels and the target's probabilities. It
    serves both places, and takes as long to fit, so it is fitted when it is asked for.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (Nt, F) standardised.
        classes: K.
        count: neighbours of a row.
        teacher: of these rows.
        anchors: the target's rows with a label.
        regression: power of what logistic regression predicts, as a factor of the source's prediction.

    Returns:
        None where the source's own neighbours are of other classes, so that neighbours are no guide.
    """
    start, here, known = begin(source, labels, target, classes, count, anchors, regression)
    if not neighbours_guide(here * source.shape[1] ** -0.5, known, labels, classes):
        return None
    if teacher:
        start = hear(start, teacher, count, one_hot(labels, classes), balanced_weights(labels, classes))
    found, metric = refined(start, classes, count)
    return Followed(found, start.axes @ metric)


def neighbours_guide(rows: Tensor, units: Tensor, labels: Tensor, classes: int) -> bool:
    """Whether the source's own neighbours are of one class often enough to be followed (`PURE`).

    Args:
        rows: (Ns, D) of mean squared length near 1.
        units: (Ns, D) in the first metric, at length 1.
        labels: (Ns,).
        classes: K.
    """
    accuracy = cross_validate(rows, labels, classes, (STRENGTH,)).accuracy
    return neighbour_purity(units, labels, classes) >= PURE * accuracy


def follow_prototypes(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> Tensor:
    """(Nt, K) probabilities as `adapt_prototypes` finds them by itself: no gate, no teacher, no student.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (Nt, F) standardised.
        classes: K.
    """
    return refined(begin(source, labels, target, classes, NEIGHBOURS)[0], classes, NEIGHBOURS)[0]


def begin(
    source: Tensor, labels: Tensor, target: Tensor, classes: int, count: int, anchors: Anchors | None = None,
    regression: float = 0.0,
) -> tuple[Start, Tensor, Tensor]:  # fmt: skip
    """The start, the source on its (F, D) axes, and the source in the first metric at length 1, both (Ns, D)."""
    weights = balanced_weights(labels, classes)
    axes = principal_axes(source, target)
    here, there = source @ axes, target @ axes
    within = within_class_covariance(here, labels, torch.ones_like(weights), classes)
    metric = whitening(within, FIRST_RIDGE)
    known, units = F.normalize(here @ metric, dim=1), F.normalize(there @ metric, dim=1)
    truth = one_hot(labels, classes)
    means = F.normalize(truth.T @ known, dim=1)
    scale = fit_scale(known @ means.T, labels, weights)
    if anchors:
        scaled = metric * metric.shape[1] ** -0.5
        prior = anchored_prior(here @ scaled, truth, weights, there @ scaled, anchors)
    else:
        logits = scale * units @ means.T
        if regression:
            narrow = source.shape[1] ** -0.5
            logits = logits + regression * F.linear(there * narrow, *fit_logistic(here * narrow, truth, weights))
        prior = logits.softmax(dim=1)
    return Start(axes, there, within, units, prior, scale, nearest_neighbours(units, count), anchors), here, known


def hear(
    start: Start, teacher: Teacher, count: int, truth: Tensor | None = None, weights: Tensor | None = None
) -> Start:
    """The start with a teacher's voice in its prior, fused with what is found without it.

    Args:
        start: without a teacher.
        teacher: of the target's rows, and of the source's where these are given.
        count: neighbours of a row.
        truth: (Ns, K) of the source, where there is one.
        weights: (Ns,).
    """
    found, _ = refined(start, start.prior.shape[1], count)
    return start._replace(prior=fused(start.prior, teacher, truth, weights, found, start.neighbours))


def head_of_both(source: Tensor, labels: Tensor, target: Tensor, found: Tensor) -> Head:
    """A head for both places, of the source's labels and of what was found in the target.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (Nt, F) standardised.
        found: (Nt, K) probabilities.
    """
    classes = found.shape[1]
    axes, weights = principal_axes(source, target), balanced_weights(labels, classes)
    of_source = within_class_covariance(source @ axes, labels, torch.ones_like(weights), classes)
    return head_from(axes, of_source, source, one_hot(labels, classes), weights, target, found)


def head_from(
    axes: Tensor, within: Tensor | None, source: Tensor, truth: Tensor, weights: Tensor, target: Tensor, found: Tensor
) -> Head:
    """As `head_of_both`, where the source's (D, D) covariance within classes is known on (F, D) axes.

    Args:
        axes: of both places.
        within: of the source; None where nothing is known of it.
        source: (Ns, F); no rows where its images are not there.
        truth: (Ns, K).
        weights: (Ns,).
        target: (Nt, F).
        found: (Nt, K) probabilities.
    """
    named, sure = found.argmax(dim=1), reliability(found) ** 2
    of_target = within_class_covariance(target @ axes, named, sure, found.shape[1])
    of_both = of_target if within is None else (within + of_target) / 2
    return student(axes @ whitening(of_both, LATER_RIDGE), source, truth, weights, target, found)


def head_like(target: Tensor, found: Tensor, axes: Tensor | None = None) -> Head:
    """A head that says of (Nt, F) rows what was found, (Nt, K); on (F, D) axes, or the rows' own."""
    axes, nothing = principal_axes(target, target) if axes is None else axes, target[:0]
    return student(axes, nothing, found[:0], nothing[:, 0], target, found)


def refined(start: Start, classes: int, count: int) -> tuple[Tensor, Tensor]:
    """Refine prototypes and metric in turn.

    Args:
        start: see `Start`.
        classes: K.
        count: neighbours of a row.

    Returns:
        (Nt, K) probabilities and the last (D, D) metric.
    """
    there, units, neighbours, anchors = start.target, start.units, start.neighbours, start.anchors
    prior = anchors.fixed(start.prior) if anchors else start.prior
    found = refine_prototypes(units, prior, prior, neighbours, start.scale, anchors=anchors)
    for number in range(1, METRICS):
        of_target = within_class_covariance(there, found.argmax(dim=1), reliability(found) ** 2, classes)
        within = of_target if start.within is None else (start.within + of_target) / 2
        metric = whitening(within, LATER_RIDGE)
        units = F.normalize(there @ metric, dim=1)
        if number in (1, METRICS - 1):  # between these they change little
            neighbours = nearest_neighbours(units, count)
        found = refine_prototypes(units, found, prior, neighbours, start.scale, anchors=anchors)
    return found, metric


def student(metric: Tensor, source: Tensor, truth: Tensor, weights: Tensor, target: Tensor, found: Tensor) -> Head:
    """Logistic regression in an (F, D) metric on both domains' rows, with labels (Ns, K) and (Nt, K)."""
    projection = (metric * metric.shape[1] ** -0.5).T.contiguous()
    rows = torch.cat([F.linear(part, projection) for part in (source, target)])
    every = torch.cat([weights, torch.ones(len(target)).to(weights)])
    return Head(projection, *fit_logistic(rows, torch.cat([truth, found]), every))
