"""Other methods' losses, and CORAL's alignment of frozen features; B images, D features, K classes."""

import torch
from torch import Tensor

from biwaa.functional.probabilities import entropy

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Of the Gaussian kernels of `mean_discrepancy`, in mean squared distances."""


def class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """How much the classes of a batch are confused with each other (Jin et al., "MCC", ECCV 2020, equations 3 to 7).

    Args:
        logits: (B, K) of the target.
        temperature: T of equation 3, which rescales the logits; 2.5 is the paper's for all tasks.

    Returns:
        A scalar in [0, 1 - 1/K].
    """
    probabilities = (logits / temperature).softmax(dim=1)  # (B, K)
    certainty = 1 + torch.exp(-entropy(probabilities).detach())
    weights = len(logits) * certainty / certainty.sum()  # (B,), mean 1 (equation 5)
    confusion = (probabilities * weights[:, None]).T @ probabilities  # (K, K), equation 4
    confusion = confusion / confusion.sum(dim=1, keepdim=True)  # equation 6
    return (confusion.sum() - confusion.trace()) / len(confusion)


def nuclear_norm(probabilities: Tensor) -> Tensor:
    """Sum of the singular values of (N, K) probabilities, over N (Cui et al., "BNM", CVPR 2020, equation 9)."""
    norm: Tensor = torch.linalg.matrix_norm(probabilities, ord="nuc")
    return norm / len(probabilities)


def mean_discrepancy(source: Tensor, target: Tensor) -> Tensor:
    """Squared MMD of (B, D) features (Long et al., "DAN", ICML 2015, equations 1 to 4), mean over the kernels.

    Pairs of a sample with itself are left out.

    k(x, y) = exp(-||x - y||^2 / (2 w m)) with m the mean squared distance of all pairs, w in `WIDTHS`.
    """
    both = torch.cat([source, target])
    distances = (both[:, None] - both[None]).square().sum(dim=2)  # (2B, 2B)
    count = len(both)
    scale = distances.detach().sum() / max(count * count - count, 1)
    kernel = torch.stack([torch.exp(-distances / (2 * width * scale.clamp(min=1e-12))) for width in WIDTHS]).mean(0)
    half = len(source)
    within_source, within_target = _off_diagonal(kernel[:half, :half]), _off_diagonal(kernel[half:, half:])
    return within_source + within_target - 2 * kernel[:half, half:].mean()


def _off_diagonal(square: Tensor) -> Tensor:
    count = len(square)
    return (square.sum() - square.trace()) / max(count * count - count, 1)


def covariance_distance(source: Tensor, target: Tensor) -> Tensor:
    """||Cov(source) - Cov(target)||_F^2 / (4 D^2) of (B, D) features; covariances divide by B - 1.

    Sun and Saenko, "Deep CORAL", ECCV workshops 2016, equations 1 to 3.
    """
    width = source.shape[1]
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * width**2)


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(dim=0)
    return centred.T @ centred / max(len(features) - 1, 1)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """CORAL: source (Cs + I)^-1/2 (Ct + I)^1/2 with C the covariances of centred (N, F) features.

    Sun et al., "Return of Frustratingly Easy Domain Adaptation", AAAI 2016, algorithm 1.
    """

    def root(features: Tensor, power: float) -> Tensor:
        wide = features.double()
        covariance = wide.T @ wide / max(len(wide) - 1, 1)
        covariance.diagonal().add_(1.0)
        values, vectors = torch.linalg.eigh(covariance)
        return torch.mm(vectors * values**power, vectors.T)

    return torch.mm(source.double(), root(source, -0.5) @ root(target, 0.5)).to(source.dtype)
