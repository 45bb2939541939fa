"""DAN: the maximum mean discrepancy of the features under several Gaussian kernels made small.

Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015, equations 1 to 4, with
evenly weighted kernels whose widths span 2^-3 to 2 times the mean squared distance.
"""

import torch
from torch import Tensor, nn

from biwaa.methods.method import Batch, Loss, Method, classification

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)


class Dan(Method):
    """Source classification and the discrepancy of the bottleneck features."""

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and discrepancy."""
        distance = mean_discrepancy(batch.source.features, batch.target.features)
        return {"classification": classification(batch), "discrepancy": Loss(distance)}


def mean_discrepancy(source: Tensor, target: Tensor) -> Tensor:
    """Squared MMD of (B, D) features, mean over the kernels; pairs of a sample with itself are left out.

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
