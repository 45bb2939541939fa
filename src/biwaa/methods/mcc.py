"""MCC: minimum class confusion on the target.

Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020, equations 3 to 7.
"""

import torch
from torch import Tensor, nn

from biwaa.methods.method import Batch, Loss, Method, classification


class Mcc(Method):
    """Source classification and the confusion of the target's classes; no discriminator."""

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and confusion."""
        confusion = class_confusion(batch.target.logits, self.recipe.confusion_temperature)
        return {"classification": classification(batch), "confusion": Loss(confusion)}


def class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """How much the classes of a batch are confused with each other (equation 7).

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


def entropy(probabilities: Tensor) -> Tensor:
    """(.., K) -> (..) in nats."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=-1)
