"""DeepCORAL: second-order statistics of the two domains' features drawn together.

Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV workshops 2016, equations 1 to 3.
"""

from torch import Tensor, nn

from biwaa.methods.method import Batch, Loss, Method, classification


class DeepCoral(Method):
    """Source classification and the distance of covariances."""

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and covariance."""
        distance = covariance_distance(batch.source.features, batch.target.features)
        return {"classification": classification(batch), "covariance": Loss(distance)}


def covariance_distance(source: Tensor, target: Tensor) -> Tensor:
    """||Cov(source) - Cov(target)||_F^2 / (4 D^2) of (B, D) features; covariances divide by B - 1."""
    width = source.shape[1]
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * width**2)


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(dim=0)
    return centred.T @ centred / max(len(features) - 1, 1)
