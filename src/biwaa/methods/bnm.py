"""BNM: the nuclear norm of the target's predictions made large, for certainty and diversity at once.

Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label Insufficient
Situations", CVPR 2020, equation 9.
"""

import torch
from torch import Tensor, nn

from biwaa.methods.method import Batch, Loss, Method, classification


class Bnm(Method):
    """Source classification and nuclear norm; no discriminator."""

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and the negative nuclear norm."""
        return {"classification": classification(batch), "nuclear_norm": Loss(-nuclear_norm(batch.target.logits))}


def nuclear_norm(logits: Tensor) -> Tensor:
    """Sum of the singular values of the (B, K) softmax, over B."""
    return mean_nuclear_norm(logits.softmax(dim=1))


def mean_nuclear_norm(probabilities: Tensor) -> Tensor:
    """Sum of the singular values of (N, K) probabilities, over N."""
    norm: Tensor = torch.linalg.matrix_norm(probabilities, ord="nuc")
    return norm / len(probabilities)
