"""Self-training: cross-entropy of the target on its own confident predictions.

Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks", ICML workshops
2013, equations 14 to 16, with a threshold on the confidence as in Sohn et al., "FixMatch", NeurIPS 2020, equation 3.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.functional import adversarial_ramp
from biwaa.methods.method import Batch, Loss, Method, classification

THRESHOLD = 0.95
"""Least confidence of a pseudo-label (FixMatch, section 4)."""
RAMP = 500.0
"""Steps over which the pseudo-labels' loss ramps up; the papers raise it with the epochs."""


class SelfTraining(Method):
    """Source classification and, ramping up, the target's own confident labels."""

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and pseudo-label."""
        ramp = adversarial_ramp(step, RAMP)
        return {
            "classification": classification(batch),
            "pseudo_label": Loss(confident_cross_entropy(batch.target.logits), ramp),
        }


def confident_cross_entropy(logits: Tensor) -> Tensor:
    """Sum over confident samples of -log p(argmax p), divided by the whole batch; (B, K) -> scalar."""
    confidence, labels = logits.detach().softmax(dim=1).max(dim=1)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses * (confidence >= THRESHOLD)).mean()
