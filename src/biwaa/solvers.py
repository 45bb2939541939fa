"""Heads on frozen features by deterministic solvers: no steps, no draws.

- multinomial logistic regression by L-BFGS, on hard or soft labels
- a metric in which classes are round: the within-class covariance is whitened
- the same with minimum class confusion on the target, as a second opinion
- class prototypes in that metric, refined on the target with its neighbours and the source's prediction as prior
- a teacher's voice joins that prior, or stands in its place where there is no source

Ns source rows, Nt target rows, F features, K classes, M neighbours; features are standardised, a domain at a time.
Everything is float32 and runs where the features are.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import class_confusion, nearest_neighbours, reliability
from biwaa.teachers.voice import Teacher, fused, own_probabilities

STRENGTHS = (1.0, 10.0, 100.0)
"""C of the source's logistic regression, as scikit-learn's, on rows of mean squared length 1; by cross-validation."""
STRENGTH = 10.0
"""C of the student, whose labels are soft."""
CONFUSION = 3.0
"""Weight of the class confusion in `fit_confusion`."""
FOLDS = 3
WIDEST = 256
"""Principal axes that are kept."""
NEIGHBOURS = 10
PULL = 5.0
"""Logits that neighbours of one class add."""
FIRST_RIDGE, LATER_RIDGE = 0.5, 0.1
"""Share of the mean eigenvalue in a within-class covariance: of the source alone, and of both domains."""
METRICS, STEPS = 6, 2
"""Metrics that are fitted, one after the other, and updates of the labels in each."""
PURE = 0.8
"""Least purity of the source's own neighbours, in shares of its cross-validated accuracy. Where neighbours are of other
classes, as among packages that differ in their print alone, following them does harm."""
SCALES = (5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0, 56.0)
"""Factors on cosines that are tried; the source's labels decide."""


class Head(NamedTuple):
    """A linear classifier on features."""

    projection: Tensor | None
    """(D, F) to apply first; None for none."""
    weight: Tensor
    """(K, D)."""
    bias: Tensor
    """(K,)."""


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """(N,) labels to (N,) weights of mean 1 that give every class the same total."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).float()
    weights = 1 / counts[labels]
    return weights * len(labels) / weights.sum()


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    strength: float = STRENGTH,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression until it has converged (L-BFGS).

    Minimises mean_i w_i CE(p_i, softmax(W x_i + b)) + |W|^2 / (2 C N).

    Args:
        features: (N, F).
        labels: (N, K) distributions, one-hot or soft.
        weights: (N,) of the rows.
        strength: C; the larger, the weaker the penalty.
        start: weight and bias to begin from; None for zeros.

    Returns:
        Weight (K, F) and bias (K,).
    """
    classes = labels.shape[1]
    share = (weights / weights.sum())[:, None]
    penalty = 1 / (strength * len(features))
    columns = features.T.contiguous()
    theta = torch.zeros(features.shape[1] + 1, classes).to(features)  # the bias last
    if start:
        theta = torch.cat([start[0].T, start[1][None]])

    def objective() -> float:  # the gradient by hand: half the cost of autograd's
        logits = torch.addmm(theta[-1], features, theta[:-1])
        total = logits.logsumexp(dim=1, keepdim=True)
        loss = (share * (total - (labels * logits).sum(dim=1, keepdim=True))).sum()
        loss = loss + penalty / 2 * theta[:-1].square().sum()
        residual = (logits - total).exp_().sub_(labels).mul_(share)
        theta.grad = torch.cat([columns @ residual + penalty * theta[:-1], residual.sum(dim=0, keepdim=True)])
        return float(loss)

    minimise(theta, objective, 1e-5 / classes)
    return theta[:-1].T.contiguous(), theta[-1].contiguous()


def minimise(theta: Tensor, objective: Callable[[], float], slope: float) -> None:
    """Minimise in place by L-BFGS, until the largest slope is below `slope` or a step gains less than 1e-7.

    torch's, because scipy's takes ten times as long as the products that it waits for.
    """
    solver = torch.optim.LBFGS(
        [theta], max_iter=500, tolerance_grad=slope, tolerance_change=1e-7, history_size=10,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    solver.step(objective)  # type: ignore[no-untyped-call]


def fit_confusion(
    source: Tensor, labels: Tensor, weights: Tensor, target: Tensor, classes: int, factor: float = CONFUSION
) -> tuple[Tensor, Tensor]:
    """Logistic regression of the source that confuses the target's classes little (MCC) until it has converged.

    Minimises the objective of `fit_logistic` + factor * `functional.class_confusion` of all target rows at once, from
    logistic regression. It uses no neighbours and no prototypes, so it errs in other places than they do.

    Args:
        source: (Ns, F) rows of mean squared length near 1.
        labels: (Ns,).
        weights: (Ns,) of the rows.
        target: (Nt, F), as the source.
        classes: K.
        factor: weight of the confusion.

    Returns:
        Weight (K, F) and bias (K,).
    """
    truth, share = one_hot(labels, classes), weights / weights.sum()
    start = fit_logistic(source, truth, weights)
    theta = torch.cat([start[0].T, start[1][None]])  # (F + 1, K), the bias last

    def objective() -> float:
        with torch.enable_grad():
            head = theta.detach().requires_grad_()
            loss = (share * F.cross_entropy(torch.addmm(head[-1], source, head[:-1]), labels, reduction="none")).sum()
            loss = loss + head[:-1].square().sum() / (2 * STRENGTH * len(source))
            loss = loss + factor * class_confusion(torch.addmm(head[-1], target, head[:-1]))
            (theta.grad,) = torch.autograd.grad(loss, head)
        return float(loss.detach())

    minimise(theta, objective, 1e-5 / classes)
    return theta[:-1].T.contiguous(), theta[-1].contiguous()


class CrossValidated(NamedTuple):
    """What left-out rows of the source say."""

    strength: float
    """The C with the best accuracy."""
    accuracy: float
    """Over classes."""
    left_out: Tensor
    """(N, K) probabilities of each row by a regression that it had no part in."""


def cross_validate(features: Tensor, labels: Tensor, classes: int) -> CrossValidated:
    """Choose the C of `STRENGTHS` for logistic regression by its accuracy on left-out rows.

    Args:
        features: (N, F) rows of mean squared length near 1.
        labels: (N,).
        classes: K.
    """
    fold, weights = torch.zeros_like(labels), balanced_weights(labels, classes)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(labels.device)
    for k in range(classes):  # rows of a class go round the folds
        rows = shuffled[labels[shuffled] == k]
        fold[rows] = (torch.arange(len(rows), device=rows.device) + k) % FOLDS
    heads: list[tuple[Tensor, Tensor] | None] = [None] * FOLDS
    best: CrossValidated | None = None
    for strength in STRENGTHS:
        left_out = torch.zeros(len(labels), classes).to(features)
        for number in range(FOLDS):
            kept, left = fold != number, fold == number
            truth, balance = one_hot(labels[kept], classes), balanced_weights(labels[kept], classes)
            heads[number] = head = fit_logistic(features[kept], truth, balance, strength, heads[number])
            left_out[left] = F.linear(features[left], *head)
        accuracy = float(((left_out.argmax(dim=1) == labels) * weights).mean())
        if best is None or accuracy > best.accuracy:
            best = CrossValidated(strength, accuracy, left_out.softmax(dim=1))
    assert best  # there are strengths
    return best


def source_head(source: Tensor, labels: Tensor, classes: int) -> Head:
    """Class-balanced logistic regression of the source, its C by cross-validation: accuracy without adaptation.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        classes: K.
    """
    projection = principal_axes(source, source) * source.shape[1] ** -0.5
    rows = source @ projection
    strength = cross_validate(rows, labels, classes).strength
    fitted = fit_logistic(rows, one_hot(labels, classes), balanced_weights(labels, classes), strength)
    return Head(projection.T.contiguous(), *fitted)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N,) to (N, K) in float32."""
    return F.one_hot(labels, classes).float()


def principal_axes(source: Tensor, target: Tensor, most: int = WIDEST) -> Tensor:
    """(F, D) axes of the mean of both covariances with the largest variance, D = min(F, most).

    By block subspace iteration (Halko et al., SIAM Review 2011), where F is larger than `most`.
    """
    width = source.shape[1]
    if width <= most:
        return torch.eye(width).to(source)
    covariance = (source.T @ source / len(source) + target.T @ target / len(target)) / 2
    block = min(most + 32, width)
    start = torch.randn(width, block, generator=torch.Generator().manual_seed(0)).to(source)
    basis = torch.linalg.qr(covariance @ start).Q
    for _ in range(4):
        basis = torch.linalg.qr(covariance @ basis).Q
    _, vectors = symmetric_eigen(basis.T @ covariance @ basis)
    axes: Tensor = (basis @ vectors)[:, -most:]
    return axes


def symmetric_eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,) of a symmetric (D, D) matrix, from low to high, and its eigenvectors as columns; in float64."""
    precise = ((matrix + matrix.T) / 2).double()
    try:
        values, vectors = torch.linalg.eigh(precise)
    except RuntimeError:  # many equal eigenvalues can defeat it
        vectors, values, _ = torch.linalg.svd(precise)
        values, vectors = values.flip(0), vectors.flip(1)
    return values.to(matrix), vectors.to(matrix)


def within_class_covariance(features: Tensor, labels: Tensor, weights: Tensor, classes: int) -> Tensor:
    """(D, D) weighted covariance of (N, D) rows around the means of their classes."""
    members = one_hot(labels, classes) * weights[:, None]
    means = members.T @ features / members.sum(dim=0).clamp(min=1e-6)[:, None]
    residual = (features - means[labels]) * weights.sqrt()[:, None]
    return residual.T @ residual / weights.sum().clamp(min=1e-6)


def whitening(covariance: Tensor, shrinkage: float) -> Tensor:
    """(D, D) map W with W' C W = I, for a covariance shrunk towards a multiple of the identity.

    C <- (1 - shrinkage) C + shrinkage tr(C) / D I; within-class covariance normalisation (Hatch and Stolcke, ICASSP
    2006).
    """
    values, vectors = symmetric_eigen(covariance)
    values = values.clamp(min=0)
    values = (1 - shrinkage) * values + shrinkage * values.mean()
    return vectors / values.clamp(min=1e-12).sqrt()


def fit_scale(cosines: Tensor, labels: Tensor, weights: Tensor) -> float:
    """The factor of `SCALES` on (N, K) cosines with the least weighted cross-entropy."""

    def loss(scale: float) -> float:
        return float((weights * F.cross_entropy(scale * cosines, labels, reduction="none")).mean())

    return min(SCALES, key=loss)


def mean_over_neighbours(rows: Tensor, neighbours: Tensor) -> Tensor:
    """(N, K) and (N, M) to the (N, K) mean over each row's neighbours, in O(N K) memory."""
    total = torch.zeros_like(rows)
    for column in neighbours.T:
        total += rows[column]
    return total / neighbours.shape[1]


def neighbour_purity(units: Tensor, labels: Tensor, classes: int) -> float:
    """Mean over classes of the share of a row's nearest neighbours that are of its class.

    Args:
        units: (N, D).
        labels: (N,).
        classes: K.
    """
    counts = torch.bincount(labels, minlength=classes)
    near = nearest_neighbours(units, NEIGHBOURS)
    # No more neighbours than half of the class has, so that all of them can be of it.
    allowed = (counts[labels] // 2).clamp(1, near.shape[1])[:, None]
    counted = torch.arange(near.shape[1], device=near.device) < allowed
    same = ((labels[near] == labels[:, None]) * counted).sum(dim=1) / allowed[:, 0]
    return float((same * balanced_weights(labels, classes)).mean())


def refine_prototypes(
    units: Tensor, start: Tensor, prior: Tensor, neighbours: Tensor, scale: float, steps: int = STEPS
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

    Returns:
        (Nt, K) probabilities.
    """
    logs, found = prior.clamp(min=1e-6).log(), start
    for _ in range(steps):
        prototypes = F.normalize(found.T @ units, dim=1)
        logits = scale * (units @ prototypes.T) + logs + PULL * mean_over_neighbours(found, neighbours)
        found = logits.softmax(dim=1)
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


def adapt_prototypes(
    source: Tensor,
    labels: Tensor,
    target: Tensor,
    classes: int,
    count: int = NEIGHBOURS,
    teacher: Teacher | None = None,
) -> tuple[Tensor, Head] | None:
    """Adapt from labelled source features to unlabelled target features.

    1. within-class whitening by the source's labels, on at most `WIDEST` principal axes
    2. the source's prediction: nearest class mean in that metric; times the teacher's voice, where there is a teacher
    3. prototypes refined on the target; the metric is fitted again to both domains' classes, and they are refined again
    4. a student: logistic regression on the source's labels and the target's probabilities, which serves both places

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (Nt, F) standardised.
        classes: K.
        count: neighbours of a row.
        teacher: of these rows.

    Returns:
        (Nt, K) probabilities, and the student, for new rows; None where the source's own neighbours are of other
        classes, so that neighbours are no guide.
    """
    weights = balanced_weights(labels, classes)
    axes = principal_axes(source, target)
    here, there = source @ axes, target @ axes
    within = within_class_covariance(here, labels, torch.ones_like(weights), classes)
    metric = whitening(within, FIRST_RIDGE)
    known, units = F.normalize(here @ metric, dim=1), F.normalize(there @ metric, dim=1)
    accuracy = cross_validate(here * source.shape[1] ** -0.5, labels, classes).accuracy
    if neighbour_purity(known, labels, classes) < PURE * accuracy:
        return None
    truth = one_hot(labels, classes)
    means = F.normalize(truth.T @ known, dim=1)
    scale = fit_scale(known @ means.T, labels, weights)
    start = Start(axes, there, within, units, (scale * units @ means.T).softmax(dim=1), scale)
    found, metric = refined(start, classes, count)
    if teacher:
        near = nearest_neighbours(start.units, count)
        start = start._replace(prior=fused(start.prior, teacher, truth, weights, found, near))
        found, metric = refined(start, classes, count)
    return found, _student(axes @ metric, source, truth, weights, target, found)


def teach_prototypes(target: Tensor, classes: int, teacher: Teacher, count: int = NEIGHBOURS) -> tuple[Tensor, Head]:
    """Adapt to unlabelled target features with a teacher's word alone: there is no source.

    As `adapt_prototypes`; the first metric is of the classes that the teacher names, as far as it is sure of them.

    Args:
        target: (Nt, F) standardised.
        classes: K.
        teacher: of these rows.
        count: neighbours of a row.

    Returns:
        (Nt, K) probabilities, and the student.
    """
    axes = principal_axes(target, target)
    there = target @ axes
    prior = own_probabilities(teacher, None, None, nearest_neighbours(there, count))
    said, weights = prior.argmax(dim=1), reliability(prior) ** 2
    metric = whitening(within_class_covariance(there, said, weights, classes), FIRST_RIDGE)
    units = F.normalize(there @ metric, dim=1)
    means = F.normalize((prior * weights[:, None]).T @ units, dim=1)
    start = Start(axes, there, None, units, prior, fit_scale(units @ means.T, said, weights))
    found, metric = refined(start, classes, count)
    nothing = target[:0]
    return found, _student(axes @ metric, nothing, found[:0], nothing[:, 0], target, found)


def teach_head(source: Tensor, labels: Tensor, target: Tensor, classes: int, teacher: Teacher) -> tuple[Tensor, Head]:
    """Source-only's head, taught: where neighbours are no guide, the teacher still is one.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (Nt, F) standardised.
        classes: K.
        teacher: of these rows.

    Returns:
        (Nt, K) probabilities, and the student.
    """
    head = source_head(source, labels, classes)
    assert head.projection is not None  # of `source_head`
    prior = F.linear(F.linear(target, head.projection), head.weight, head.bias).softmax(dim=1)
    truth, weights = one_hot(labels, classes), balanced_weights(labels, classes)
    axes = principal_axes(source, target)
    found = fused(prior, teacher, truth, weights, prior, nearest_neighbours(target @ axes, NEIGHBOURS))
    return found, _student(axes * source.shape[1] ** -0.5 * len(axes.T) ** 0.5, source, truth, weights, target, found)


def distilled(
    source: Tensor, labels: Tensor, target: Tensor, classes: int, teacher: Teacher, count: int = NEIGHBOURS
) -> tuple[Tensor, Head]:
    """What the teacher says by itself, and a head that says the same of new rows.

    Args:
        source: (Ns, F) standardised; no rows where there is no source.
        labels: (Ns,).
        target: (Nt, F) standardised.
        classes: K.
        teacher: of these rows.
        count: neighbours of a row.

    Returns:
        (Nt, K) the teacher's own probabilities, and the head.
    """
    axes = principal_axes(target, target)
    near = nearest_neighbours(target @ axes, count)
    found = own_probabilities(teacher, one_hot(labels, classes), balanced_weights(labels, classes), near)
    nothing = target[:0]
    return found, _student(axes, nothing, found[:0], nothing[:, 0], target, found)


def refined(start: Start, classes: int, count: int) -> tuple[Tensor, Tensor]:
    """Refine prototypes and metric in turn.

    Args:
        start: see `Start`.
        classes: K.
        count: neighbours of a row.

    Returns:
        (Nt, K) probabilities and the last (D, D) metric.
    """
    there, prior, units = start.target, start.prior, start.units
    neighbours = nearest_neighbours(units, count)
    found = refine_prototypes(units, prior, prior, neighbours, start.scale)
    for number in range(1, METRICS):
        of_target = within_class_covariance(there, found.argmax(dim=1), reliability(found) ** 2, classes)
        within = of_target if start.within is None else (start.within + of_target) / 2
        metric = whitening(within, LATER_RIDGE)
        units = F.normalize(there @ metric, dim=1)
        if number in (1, METRICS - 1):  # between these they change little
            neighbours = nearest_neighbours(units, count)
        found = refine_prototypes(units, found, prior, neighbours, start.scale)
    return found, metric


def _student(metric: Tensor, source: Tensor, truth: Tensor, weights: Tensor, target: Tensor, found: Tensor) -> Head:
    """Logistic regression in an (F, D) metric on both domains' rows, with labels (Ns, K) and (Nt, K)."""
    projection = (metric * metric.shape[1] ** -0.5).T.contiguous()
    rows = torch.cat([F.linear(part, projection) for part in (source, target)])
    every = torch.cat([weights, torch.ones(len(target)).to(weights)])
    return Head(projection, *fit_logistic(rows, torch.cat([truth, found]), every))
