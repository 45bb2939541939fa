"""Accuracy over images and over classes: two different figures, always named."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biwaa.methods.mcc import entropy


def accuracy_over_images(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of images whose predicted class is right, in [0, 1]."""
    return float((predicted == labels).mean())


def accuracy_by_class(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """(K,) share of each class's images that are right; NaN for a class without images."""
    right = np.bincount(labels[predicted == labels], minlength=classes)
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def accuracy_over_classes(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """Mean over the classes that have images of their shares, in [0, 1]."""
    return float(np.nanmean(accuracy_by_class(predicted, labels, classes)))


def accuracies(probabilities: Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
    """Both means of (N, K) probabilities against (N,) labels."""
    predicted = probabilities.argmax(dim=1).numpy()
    return {
        "over_images": round(accuracy_over_images(predicted, labels), 6),
        "over_classes": round(accuracy_over_classes(predicted, labels, probabilities.shape[1]), 6),
    }


def label_free(probabilities: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """What can be said of (N, K) predictions without labels.

    Returns:
        mean_confidence; mean_entropy in nats; predicted_share of each class.
    """
    shares = probabilities.argmax(dim=1).bincount(minlength=len(classes)) / len(probabilities)
    return {
        "mean_confidence": round(float(probabilities.amax(dim=1).mean()), 6),
        "mean_entropy": round(float(entropy(probabilities).mean()), 6),
        "predicted_share": {name: round(share, 6) for name, share in zip(classes, shares.tolist(), strict=True)},
    }


def total_variation(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Half the sum of |p - q| over two (K,) distributions: the share that would have to change class, in [0, 1]."""
    return round(float(np.abs(p - q).sum() / 2), 6)


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of images of which two (N, K) predictions say the same class, in [0, 1]."""
    return float((a.argmax(dim=1) == b.argmax(dim=1)).double().mean())
