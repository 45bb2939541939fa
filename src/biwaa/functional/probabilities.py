"""What one prediction says of itself: entropy, reliability, and the same prediction at another temperature."""

import torch
from torch import Tensor

LEAST = torch.finfo(torch.float32).tiny
"""A softmax in float32 can round a probability to 0; below this it could not have told it from 0 either."""


def entropy(probabilities: Tensor) -> Tensor:
    """(.., K) -> (..) in nats."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=-1)


def reliability(probabilities: Tensor) -> Tensor:
    """How far the largest probability lies above chance: (max p - 1/K) / (1 - 1/K), (N, K) -> (N,) in [0, 1]."""
    chance = 1 / probabilities.shape[1]
    return ((probabilities.amax(dim=1) - chance) / (1 - chance)).clamp(0, 1)


def with_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """softmax(log p / T): softer for T above 1, sharper below, the same predicted class (Guo et al., ICML 2017).

    Args:
        probabilities: (N, K).
        temperature: above 0.

    Returns:
        (N, K) in the dtype of `probabilities`, on the CPU.
    """
    return (log_probabilities(probabilities) / temperature).softmax(dim=1).to(probabilities.dtype)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Log p in float64 on the CPU; what float32 rounded to 0 counts as the smallest number that it can hold."""
    return probabilities.detach().cpu().double().clamp(min=LEAST).log()
