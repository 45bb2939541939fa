"""Linear heads that have converged: logistic regression, the same with minimum class confusion, cross-validation.

N rows (Ns of the source, Nt of the target), F features, K classes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import class_confusion
from biwaa.solvers.metric import balanced_weights, one_hot, place_in_class, principal_axes

STRENGTHS = (1.0, 10.0, 100.0)
"""C of the source's logistic regression, as scikit-learn's, on rows of mean squared length 1; by cross-validation."""
STRENGTH = 10.0
"""C of the student, whose labels are soft."""
CONFUSION = 3.0
"""Weight of the class confusion in `fit_confusion`."""
FOLDS = 3


class Head(NamedTuple):
    """A linear classifier on features."""

    projection: Tensor | None
    """(D, F) to apply first; None for none."""
    weight: Tensor
    """(K, D)."""
    bias: Tensor
    """(K,)."""
    left_out: Tensor | None = None
    """(Ns, K) probabilities of the source's rows by regressions that they had no part in; of `source_head` alone."""
    absent: Tensor | None = None
    """(K,) whether the target seems to have no image of a class; None where nothing was left out."""

    def scores(self, rows: Tensor) -> Tensor:
        """(N, K) logits of (N, F) rows."""
        projected = rows if self.projection is None else F.linear(rows, self.projection)
        return F.linear(projected, self.weight, self.bias)


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


def cross_validate(
    features: Tensor, labels: Tensor, classes: int, strengths: Sequence[float] = STRENGTHS
) -> CrossValidated:
    """Choose the C of logistic regression by its accuracy on left-out rows.

    Args:
        features: (N, F) rows of mean squared length near 1.
        labels: (N,).
        classes: K.
        strengths: values of C to try, from strong to weak.
    """
    weights = balanced_weights(labels, classes)
    fold = (place_in_class(labels, classes) + labels) % FOLDS
    heads: list[tuple[Tensor, Tensor] | None] = [None] * FOLDS
    best: CrossValidated | None = None
    for strength in strengths:
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
    found = cross_validate(rows, labels, classes)
    fitted = fit_logistic(rows, one_hot(labels, classes), balanced_weights(labels, classes), found.strength)
    return Head(projection.T.contiguous(), *fitted, found.left_out)


def plain_head(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> Head:
    """Class-balanced logistic regression of the source on the axes of both domains, with the usual C.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,).
        target: (Nt, F) standardised.
        classes: K.
    """
    axes = principal_axes(source, target) * source.shape[1] ** -0.5
    fitted = fit_logistic(source @ axes, one_hot(labels, classes), balanced_weights(labels, classes))
    return Head(axes.T.contiguous(), *fitted)
