"""FixMatch: the target's confident predictions on a weak view are the labels of its strong view.

Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS 2020,
equations 3 and 4. The source is the labelled set.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.methods.method import Batch, Loss, Method, classification
from biwaa.methods.self_training import THRESHOLD


class FixMatch(Method):
    """Source classification and consistency of the target's views; lambda_u is 1, as in the paper."""

    strong_view: ClassVar[bool] = True

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and consistency."""
        assert batch.strong is not None  # strong_view asks for it
        return {
            "classification": classification(batch),
            "consistency": Loss(consistency(batch.target.logits, batch.strong.logits)),
        }


def consistency(weak: Tensor, strong: Tensor) -> Tensor:
    """Cross-entropy of the strong view where the weak one is confident, divided by the whole batch (equation 4).

    Args:
        weak: (B, K) logits of the weak views; no gradient flows into them.
        strong: (B, K) logits of the strong views.
    """
    confidence, labels = weak.detach().softmax(dim=1).max(dim=1)
    return (F.cross_entropy(strong, labels, reduction="none") * (confidence >= THRESHOLD)).mean()
