"""The teacher: earlier rounds' predictions, smoothed over neighbours and with evened shares of classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional.probabilities import reliability


def smooth_over_neighbours(
    probabilities: Tensor, neighbours: Tensor, pull: float = 0.95, iterations: int = 10
) -> Tensor:
    """Move each uncertain prediction towards the mean of its neighbours'; certain ones stay and pull the others.

    G <- (1 - a) P + a mean of G over the neighbours, a = pull (1 - r(P)^4) an image, r as of `reliability`: label
    spreading (Zhou et al., NeurIPS 2003) whose clamping grows with confidence.

    Args:
        probabilities: (N, K).
        neighbours: (N, M) rows of each image's neighbours.
        pull: weight of the neighbours where the prediction is no better than chance.
        iterations: steps; information travels one edge a step.

    Returns:
        (N, K), rows sum to 1.
    """
    share = pull * (1 - reliability(probabilities)[:, None] ** 4)
    smooth = probabilities
    for _ in range(iterations):
        smooth = (1 - share) * probabilities + share * smooth[neighbours].mean(dim=1)
    return smooth


def align_distribution(probabilities: Tensor, damping: float = 0.75, iterations: int = 50) -> Tensor:
    """Rescale the classes until their shares are the predicted ones moved towards an even distribution.

    The new shares are mean(P)^damping, normalised; columns and rows are normalised in turn (Sinkhorn and Knopp,
    Pacific Journal of Mathematics 1967).

    Args:
        probabilities: (N, K).
        damping: 1 keeps the predicted distribution, 0 makes it even.
        iterations: of the two normalisations.

    Returns:
        (N, K), rows sum to 1. A class that is never predicted stays without images.
    """
    tiny = torch.finfo(probabilities.dtype).tiny
    shares = probabilities.mean(dim=0) ** damping
    shares = shares / shares.sum()
    aligned = probabilities
    for _ in range(iterations):
        aligned = aligned * (shares / aligned.mean(dim=0).clamp(min=tiny))
        aligned = aligned / aligned.sum(dim=1, keepdim=True).clamp(min=tiny)
    return aligned


def teacher_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean of -r^2 log p(argmax teacher) with r the teacher's `reliability`; (B, K) logits and teacher -> scalar."""
    losses = F.cross_entropy(logits, teacher.argmax(dim=1), reduction="none")
    return (losses * reliability(teacher) ** 2).mean()
