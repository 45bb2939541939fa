"""The target's label distribution, estimated without its labels.

The estimate assumes a label shift: the classes' shares differ between the domains, what each class looks like does
not (to the features in use). Calibrated probabilities make it better.

K classes, S held-out source images, M target images. Distributions are float64 and sum to 1.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Shares = NDArray[np.float64]

RIDGE = 1e-4
"""Strength of the pull of `bbse` towards the source's shares. It only matters along directions that the confusion
matrix shrinks below its square root, 0.01: a few hundred images cannot resolve those."""

SUM_TO_ONE = 1e3
"""Weight of the equation that shares sum to 1 among those of the confusion matrix, whose entries are at most 1."""


def label_shares(labels: NDArray[np.int64], classes: int) -> Shares:
    """(K,) share of each class among (N,) labels; those below 0 are missing and are passed over."""
    known = labels[labels >= 0]
    return np.asarray(np.bincount(known, minlength=classes) / len(known), dtype=np.float64)


def predicted_shares(probabilities: Tensor, soft: bool = False) -> Shares:
    """(K,) share of each predicted class among (N, K) predictions; soft: the mean probabilities."""
    return _votes(probabilities, soft).mean(dim=0).numpy()


def total_variation(p: Shares, q: Shares) -> float:
    """Half the sum of |p - q| over two (K,) distributions: the share that would have to change class, in [0, 1]."""
    return round(float(np.abs(p - q).sum() / 2), 6)


def effective_classes(shares: Shares) -> float:
    """exp(H) of (K,) shares: how many classes of equal size are as diverse, from 1 to K."""
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def chance_agreement(p: Shares, q: Shares) -> float:
    """Expected agreement of two independent predictions with (K,) shares p and q (Cohen 1960), in [0, 1]."""
    return float(p @ q)


def sampling_scatter(shares: Shares, count: int) -> float:
    """Expected total variation between (K,) shares and those of `count` images drawn by them (normal approximation)."""
    return float(np.sqrt(2 * shares * (1 - shares) / (np.pi * max(count, 1))).sum()) / 2


def joint_confusion(probabilities: Tensor, labels: NDArray[np.int64], soft: bool = False) -> Shares:
    """Share of images predicted i whose true class is j, at [i, j].

    Args:
        probabilities: (S, K) of held-out source images.
        labels: (S,) their true classes.
        soft: count each image by its probabilities, not by its predicted class alone.

    Returns:
        (K, K) summing to 1; its columns sum to the source's own shares.
    """
    votes = _votes(probabilities, soft)
    truth = F.one_hot(torch.from_numpy(labels), votes.shape[1]).to(votes)
    return (votes.T @ truth / len(votes)).numpy()


def bbse(confusion: Shares, predicted: Shares) -> Shares:
    """The target's label distribution q for which the source's confusions explain what is predicted of the target.

    Lipton et al., "Detecting and Correcting for Label Shift with Black Box Predictors", ICML 2018: A q = predicted with
    A[i, j] = P(predicted i | class j). Solved as least squares over distributions, where inverting A would give
    negative shares, or none at all; where A is no guide, the source's shares are kept.

    Args:
        confusion: (K, K) as of `joint_confusion`, hard or soft.
        predicted: (K,) as of `predicted_shares` of the target; both hard or both soft.

    Returns:
        (K,). A class without held-out source images counts as never mistaken for another.
    """
    from scipy.optimize import nnls  # takes long to import

    classes = len(predicted)
    source = confusion.sum(axis=0)
    seen = source > 0
    given_class = np.where(seen, confusion / np.where(seen, source, 1.0), np.eye(classes))
    pull = np.sqrt(RIDGE)
    matrix = np.concatenate([given_class, pull * np.eye(classes), np.full((1, classes), SUM_TO_ONE)])
    wanted = np.concatenate([predicted, pull * source, [SUM_TO_ONE]])
    shares, _ = nnls(matrix, wanted, maxiter=30 * classes)
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _votes(probabilities: Tensor, soft: bool) -> Tensor:
    """(N, K) float64 rows that sum to 1."""
    precise = probabilities.detach().cpu().double()
    if soft:
        return precise / precise.sum(dim=1, keepdim=True)  # float32 rows sum to 1 only nearly
    return F.one_hot(precise.argmax(dim=1), precise.shape[1]).to(precise)
