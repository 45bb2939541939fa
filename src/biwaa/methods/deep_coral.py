"""DeepCORAL: second-order statistics of the two domains' features drawn together.

Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV workshops 2016, equations 1 to 3.
"""

from torch import nn

from biwaa.functional import covariance_distance
from biwaa.methods.method import Batch, Loss, Method, classification


class DeepCoral(Method):
    """Source classification and the distance of covariances."""

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and covariance."""
        distance = covariance_distance(batch.source.features, batch.target.features)
        return {"classification": classification(batch), "covariance": Loss(distance)}
