"""Scores of a candidate model by its target predictions alone: higher is better, no label is used.

Who chooses among candidates by a score says by which.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from biwaa.methods.mcc import entropy


def information_maximisation(probabilities: Tensor) -> float:
    """H(mean p) - mean H(p) in nats: sure of each image, and of all classes (Musgrave et al. 2022, "IM").

    Args:
        probabilities: (N, K).
    """
    return float(entropy(probabilities.mean(dim=0)) - entropy(probabilities).mean())


def nuclear_norm(probabilities: Tensor) -> float:
    """||P||_* / N: sure and diverse (Cui et al., "BNM", CVPR 2020, as a validator in Musgrave et al. 2022).

    Args:
        probabilities: (N, K).
    """
    return float(torch.linalg.svdvals(probabilities).sum()) / len(probabilities)


VALIDATORS: dict[str, Callable[[Tensor], float]] = {
    "information_maximisation": information_maximisation,
    "nuclear_norm": nuclear_norm,
}
"""By name; each from (N, K) probabilities to a score."""
