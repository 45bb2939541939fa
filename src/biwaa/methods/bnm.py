"""BNM: the nuclear norm of the target's predictions made large, for certainty and diversity at once.

Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label Insufficient
Situations", CVPR 2020, equation 9.
"""

from torch import nn

from biwaa.functional import nuclear_norm
from biwaa.methods.method import Batch, Loss, Method, classification


class Bnm(Method):
    """Source classification and nuclear norm; no discriminator."""

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and the negative nuclear norm."""
        return {
            "classification": classification(batch),
            "nuclear_norm": Loss(-nuclear_norm(batch.target.logits.softmax(dim=1))),
        }
