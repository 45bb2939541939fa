"""Accuracy over images and over classes: two different figures, always named.

Labels below 0 are missing; images without a label are passed over.
"""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biwaa.functional import entropy, nearest_among, nearest_neighbours
from biwaa.result import Accuracy

NEIGHBOURS = 5
Z_90 = 1.6449  # Of the normal distribution, 90 % lie within so many standard deviations


def accuracy_by_class(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """(K,) share of each class's images that are right; NaN for a class without images."""
    right = np.bincount(labels[predicted == labels], minlength=classes)
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def accuracies(probabilities: Tensor, labels: NDArray[np.int64]) -> Accuracy:
    """Of (N, K) probabilities against (N,) labels: the share that is right, and the mean of the classes' shares."""
    predicted = probabilities.argmax(dim=1).numpy()
    by_class = accuracy_by_class(predicted, labels, probabilities.shape[1])  # NaN where a class has no image
    return Accuracy(
        over_images=round(float((predicted == labels)[labels >= 0].mean()), 6),
        over_classes=round(float(np.nanmean(by_class)), 6),
    )


def share_interval(share: float, images: int) -> tuple[float, float]:
    """The 90 % interval of a share that was counted on so many images, drawn at random; both in [0, 1].

    The score interval of Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    square = Z_90**2 / images
    middle = (share + square / 2) / (1 + square)
    half = Z_90 / (1 + square) * math.sqrt(share * (1 - share) / images + square / (4 * images))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of images on which two (N, K) predictions agree, in [0, 1]."""
    return float((a.argmax(dim=1) == b.argmax(dim=1)).double().mean())


def mean_confidence(probabilities: Tensor) -> float:
    """Mean probability of the predicted class of (N, K) predictions."""
    return float(probabilities.amax(dim=1).mean())


def mean_entropy(probabilities: Tensor) -> float:
    """Mean entropy of (N, K) predictions, in nats."""
    return float(entropy(probabilities).mean())


def neighbour_agreement(features: Tensor, predictions: Tensor, k: int = NEIGHBOURS) -> float:
    """Share of each image's k nearest neighbours (by cosine, itself left out) with its predicted class, averaged.

    Args:
        features: (M, D).
        predictions: (M,) predicted classes.
        k: neighbours; all others where there are fewer.

    Raises:
        ValueError: fewer than two images.
    """
    if len(features) < 2:
        raise ValueError("neighbours take at least two images")
    same: Tensor = predictions[nearest_neighbours(features, k)] == predictions[:, None]
    return float(same.double().mean())


def agreement_with_neighbours(
    features: Tensor, predictions: Tensor, others: Tensor, their_predictions: Tensor
) -> float:
    """The same with `NEIGHBOURS` among other images: share of those nearest of `others` with the image's class.

    Args:
        features: (M, D), at least one.
        predictions: (M,) predicted classes.
        others: (O, D), at least one.
        their_predictions: (O,) predicted classes.
    """
    _, nearest = nearest_among(features, others, NEIGHBOURS)
    return float((their_predictions[nearest] == predictions[:, None]).double().mean())
