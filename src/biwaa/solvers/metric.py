"""Where rows stand to each other: weights of rows, principal axes, a metric in which classes are round, neighbours.

Ns source rows, Nt target rows, F features, K classes, M neighbours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import nearest_neighbours

WIDEST = 256
"""Principal axes that are kept."""
NEIGHBOURS = 10
SCALES = (5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0, 56.0)
"""Factors on cosines that are tried; the source's labels decide."""


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """(N,) labels to (N,) weights of mean 1 that give every class the same total."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).float()
    weights = 1 / counts[labels]
    return weights * len(labels) / weights.sum()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N,) to (N, K) in float32."""
    return F.one_hot(labels, classes).float()


def place_in_class(labels: Tensor, classes: int) -> Tensor:
    """(N,) each row's place in its class, 0, 1, 2, .., in a random order that is the same every time."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(labels.device)
    places = torch.zeros_like(labels)
    for k in range(classes):
        rows = shuffled[labels[shuffled] == k]
        places[rows] = torch.arange(len(rows), device=rows.device)
    return places


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
